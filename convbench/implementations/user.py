"""The user's own code, in its simplest form: a function `f(x, kernel)` that is the forward pass.

`x` is (batch, channels, height, width), `kernel` (filters, channels, height, width), the result
(batch, filters, out height, out width). The file is imported in the worker, never in the parent,
and each function is a runtime, and so a process, of its own.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.errors import ImplementationError
from convbench.implementations.contract import Ledger
from convbench.layer import Layer, Pass
from convbench.operands import Operands

Array = NDArray[np.floating[Any]]


class UserFunction:
    """`FILE.py:NAME`. Raises ImplementationError when there is no such file."""

    def __init__(self, name: str) -> None:
        file, _, self._function = name.rpartition(":")
        self.name = name
        self.runtime = name
        self._file = Path(file)
        if not self._function.isidentifier():
            raise ImplementationError(
                f"{name}: {self._function!r} is not the name of a function",
                hint="write FILE.py:NAME, where NAME is a function f(x, kernel) in that file",
            )
        if not self._file.is_file():
            raise ImplementationError(
                f"{name}: there is no file {file}", hint="write FILE.py:NAME, from this folder"
            )

    def unsupported(self, layer: Layer, pass_: Pass) -> str | None:
        if pass_ is not Pass.FORWARD:
            return "a function f(x, kernel) gives the forward pass only"
        needs = {
            "strides": layer.strides != (1, 1),
            "padding": layer.pads != ((0, 0), (0, 0)),
            "dilation_rate": layer.dilation_rate != (1, 1),
            "groups": layer.groups != 1,
            "bias": layer.use_bias,
        }
        missing = [name for name, needed in needs.items() if needed]
        return f"f(x, kernel) takes no {', '.join(missing)}" if missing else None

    def exact(self, layer: Layer, pass_: Pass) -> bool:
        """Not known: the checker compares integers and then asks whether they only rounded."""
        return False

    def workspace_bytes(self, layer: Layer, pass_: Pass, threads: int) -> int:
        """Not known of the user's code: 0."""
        return 0

    def prepare(self, layer: Layer, pass_: Pass, threads: int) -> PreparedFunction:
        return PreparedFunction(self._load_function())

    def _load_function(self) -> Callable[[Array, Array], object]:
        module = _import_file(self._file)
        function = getattr(module, self._function, None)
        if not callable(function):
            raise ImplementationError(f"{self._file} has no function {self._function!r}")
        found: Callable[[Array, Array], object] = function
        return found


class PreparedFunction:
    buffers: tuple[Array, ...] = ()

    def __init__(self, function: Callable[[Array, Array], object]) -> None:
        self._function = function
        self.ledger = Ledger(
            ("all that the function does",),
            ("copy of the operands into NCHW", "import of the file"),
        )

    def load(self, operands: Operands) -> None:
        assert operands.input is not None
        assert operands.kernel is not None
        self._x = np.ascontiguousarray(operands.input.transpose(0, 3, 1, 2))
        self._kernel = np.ascontiguousarray(operands.kernel.transpose(3, 2, 0, 1))

    def run(self) -> object:
        return self._function(self._x, self._kernel)

    def to_numpy(self, result: object) -> Array:
        """NHWC of the function's NCHW; another number of axes is left for the checker to name."""
        array = np.asarray(result)
        return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


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


def _import_file(file: Path) -> Any:
    """The module of a file, imported once a process."""
    path = file.resolve()
    key = f"convbench_user_{path.stem}"
    known = sys.modules.get(key)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    sys.path[:0] = import_path(path)
    spec = importlib.util.spec_from_file_location(key, path)
    if spec is None or spec.loader is None:
        raise ImplementationError(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[key] = module
    spec.loader.exec_module(module)
    return module


def describe_exception(error: BaseException) -> str:
    """`ValueError: message (my_conv.py:12, in conv)`, the place in the user's own code if any."""
    frames = traceback.extract_tb(error.__traceback__)
    package = str(Path(__file__).parents[1])
    theirs = [f for f in frames if not f.filename.startswith((package, "<frozen"))]
    text = "".join(traceback.format_exception_only(error)).strip()
    if not theirs:
        return text
    outside = [f for f in theirs if "site-packages" not in f.filename]
    frame = (outside or theirs)[-1]
    return f"{text} ({Path(frame.filename).name}:{frame.lineno}, in {frame.name})"
