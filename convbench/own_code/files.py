"""Import the module that own code lives in. Only a worker does this."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from itertools import count
from pathlib import Path
from types import CodeType, ModuleType

from convbench.errors import ImplementationError
from convbench.own_code import description
from convbench.own_code.description import OwnCode

_copies = count(1)


def import_path(file: Path) -> list[str]:
    """Return the folders in which a file's own imports are looked for first.

    They are its own folder, the folder of the package that it belongs to, and the top of its
    repository and `src` there. Thus each of two checkouts imports its own modules, whichever of
    them is installed.
    """
    folders = [file.parent]
    while (folders[-1] / "__init__.py").is_file():
        folders.append(folders[-1].parent)
    top = next((folder for folder in file.parents if (folder / ".git").exists()), None)
    tops = [] if top is None else [folder for folder in (top / "src", top) if folder.is_dir()]
    return list(dict.fromkeys(str(folder) for folder in (folders[0], folders[-1], *tops)))


def import_code(own: OwnCode, afresh: bool = False) -> ModuleType:
    """Return the module of own code, which is imported once in a process.

    `afresh` executes one more copy of the module, which has its own state; modules that it imports
    are shared. Raises ImplementationError if there is no such module, and whatever it raises.
    """
    if not own.is_file:
        _put_first([str(description.STARTED_IN)])
        known = importlib.import_module(own.where)
        return _copy_of(known.__name__, Path(str(known.__file__))) if afresh else known
    path = _path(own)
    if not path.is_file():
        raise ImplementationError(f"{own.code}: there is no file {own.where}")
    _put_first(import_path(path))
    dotted = _dotted_name(path)
    if afresh:
        return _copy_of(dotted, path)
    if (module := imported(own)) is not None:
        return module
    if "." in dotted:  # so that `from . import` works
        module = importlib.import_module(dotted)
        if getattr(module, "__file__", None) == str(path):
            return module
    return _executed(dotted, path)


def imported(own: OwnCode) -> ModuleType | None:
    """Return the module of own code if it was imported without raising. Nothing is run."""
    if not own.is_file:
        return sys.modules.get(own.where)
    module = sys.modules.get(_dotted_name(_path(own)))
    return module if getattr(module, "__file__", None) == str(_path(own)) else None


def _path(own: OwnCode) -> Path:
    return (description.STARTED_IN / own.where).resolve()


def _dotted_name(path: Path) -> str:
    """Return `package.module` for a file in a package, else a name that hides no other module."""
    parts = [path.stem]
    folder = path.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    return ".".join(parts) if len(parts) > 1 else f"convbench_user_{path.stem}"


def _copy_of(dotted: str, path: Path) -> ModuleType:
    return _executed(f"{dotted}__copy{next(_copies)}", path)


def _executed(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None:
        raise ImplementationError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        exec(_compiled(path), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@functools.cache
def _compiled(path: Path) -> CodeType:
    """Compile a file once in a process, since many copies of it are executed."""
    loader = SourceFileLoader("own_code", str(path))
    return loader.source_to_code(loader.get_data(str(path)), str(path))


def _put_first(folders: list[str]) -> None:
    if sys.path[: len(folders)] != folders:
        sys.path[:0] = folders
