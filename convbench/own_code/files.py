"""Find the module that own code lives in without running it, and import it in the worker."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from importlib.machinery import PathFinder, SourceFileLoader
from itertools import count
from pathlib import Path
from types import CodeType, ModuleType

from convbench.errors import ImplementationError
from convbench.own_code.description import is_file, split

STARTED_IN = Path.cwd()
"""The folder that names of files and modules are seen from, wherever the user's code goes then."""

_copies = count(1)


def source_of(code: str) -> Path | None:
    """The file of FILE.py:NAME or package.module:NAME, as it stands; None where there is none.

    Nothing is run, not even a package's `__init__.py`.
    """
    where, _ = split(code)
    if is_file(where):
        return Path(where) if (STARTED_IN / where).is_file() else None
    folders = [str(STARTED_IN), *sys.path]
    spec = None
    parts = where.split(".")
    for length in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:length]), folders)
        if spec is None:
            return None
        folders = list(spec.submodule_search_locations or ())
    origin = spec.origin if spec is not None else None
    return Path(origin) if origin is not None and origin.endswith(".py") else None


def import_path(file: Path) -> list[str]:
    """Where a file's own imports are looked for first: its folder, the folder of the package that
    it belongs to, and the top of its repository (and `src` there).

    So each of two checkouts imports what is its own, whichever of them is installed.
    """
    folders = [file.parent]
    while (folders[-1] / "__init__.py").is_file():
        folders.append(folders[-1].parent)
    top = next((folder for folder in file.parents if (folder / ".git").exists()), None)
    tops = [] if top is None else [folder for folder in (top / "src", top) if folder.is_dir()]
    return list(dict.fromkeys(str(folder) for folder in (folders[0], folders[-1], *tops)))


def import_code(code: str, afresh: bool = False) -> ModuleType:
    """The module of own code, imported once a process.

    `afresh` gives one more copy of the module, with state of its own; what it imports is shared.
    Raises ImplementationError where there is none, and whatever the module raises.
    """
    where, _ = split(code)
    if not is_file(where):
        _put_first([str(STARTED_IN)])
        known = importlib.import_module(where)
        return _copy_of(known.__name__, Path(str(known.__file__))) if afresh else known
    path = _path(where)
    if not path.is_file():
        raise ImplementationError(f"{code}: there is no file {where}")
    _put_first(import_path(path))
    dotted = _dotted_name(path)
    if afresh:
        return _copy_of(dotted, path)
    if (module := imported(code)) is not None:
        return module
    if "." in dotted:  # so that `from . import` works
        module = importlib.import_module(dotted)
        if getattr(module, "__file__", None) == str(path):
            return module
    return _executed(dotted, path)


def imported(code: str) -> ModuleType | None:
    """The module of own code if it was imported and did not raise; nothing is run."""
    where, _ = split(code)
    if not is_file(where):
        return sys.modules.get(where)
    module = sys.modules.get(_dotted_name(_path(where)))
    return module if getattr(module, "__file__", None) == str(_path(where)) else None


def _path(where: str) -> Path:
    return (STARTED_IN / where).resolve()


def _dotted_name(path: Path) -> str:
    """`package.module` of a file in a package, else a name that cannot hide another module."""
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
    """Once a process, for copies are many."""
    loader = SourceFileLoader("own_code", str(path))
    return loader.source_to_code(loader.get_data(str(path)), str(path))


def _put_first(folders: list[str]) -> None:
    if sys.path[: len(folders)] != folders:
        sys.path[:0] = folders
