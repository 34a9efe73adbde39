"""Describe people's own code as a suite or a command line does: where it is, how it is called.

Nothing is imported here: that happens in the worker (own_code/files.py).
"""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from pathlib import Path

from convbench.problem.layer import Layer, Pass

ACTIVATION_AXES = "NCHW"
"""Batch, channels (of the output: filters), height, width; the default layout."""

KERNEL_AXES = "OIHW"
"""Filters, channels of a group, height, width; the default layout of kernels."""

OPERANDS: dict[Pass, tuple[str, ...]] = {
    Pass.FORWARD: ("x", "kernel"),
    Pass.INPUT_GRADIENT: ("output_gradient", "kernel", "input_shape"),
    Pass.KERNEL_GRADIENT: ("x", "output_gradient", "kernel_size"),
}
"""Operands of each pass, in the order in which code is given them."""

KEYWORDS = ("bias", "strides", "padding", "dilation_rate", "groups", "threads")
"""Keywords that code is given where it takes them. A layer that needs one which the code lacks is
unsupported."""

STARTED_IN = Path.cwd()
"""The folder that names of files and modules are seen from, wherever the user's code goes then."""


@dataclass(frozen=True)
class OwnCode:
    """`code` is FILE.py, FILE.py:NAME or package.module:NAME; `name` is what reports call it.

    Layouts are letters of ACTIVATION_AXES or KERNEL_AXES in the order of the axes; one that is left
    out stands for an axis of size 1 that the arrays do not have. Empty: what the code says itself,
    or the default. `passes` are Python expressions, for code whose functions are called otherwise.
    """

    name: str
    code: str
    layout: str = ""
    kernel_layout: str = ""
    output_layout: str = ""
    passes: dict[Pass, str] = field(default_factory=dict)

    @staticmethod
    def is_spelled(name: str) -> bool:
        """Whether a name is spelled as own code is: FILE.py, FILE.py:NAME or package.module:NAME.

        Such a name needs no description: it is the code's own.
        """
        return ":" in name or name.endswith(".py")

    @classmethod
    def of(cls, code: str) -> OwnCode:
        """Code that is called as our conventions say, and named as it is spelled."""
        return cls(code, code)

    @property
    def where(self) -> str:
        """The file, or the module's dotted name."""
        return self.code.rpartition(":")[0] if ":" in self.code else self.code

    @property
    def attribute(self) -> str:
        """NAME in the file or module; empty for a file as a whole."""
        return self.code.rpartition(":")[2] if ":" in self.code else ""

    @property
    def is_file(self) -> bool:
        """Whether it is in a file that was named; else in a module."""
        return self.where.endswith(".py") or "/" in self.where

    @property
    def place_kind(self) -> str:
        """How a message calls where it is: a file or a module."""
        return "file" if self.is_file else "module"

    @property
    def source(self) -> Path | None:
        """The file, as it stands; None where there is none.

        Nothing is run, not even a package's `__init__.py`.
        """
        if self.is_file:
            return Path(self.where) if (STARTED_IN / self.where).is_file() else None
        folders = [str(STARTED_IN), *sys.path]
        spec = None
        parts = self.where.split(".")
        for length in range(1, len(parts) + 1):
            spec = PathFinder.find_spec(".".join(parts[:length]), folders)
            if spec is None:
                return None
            folders = list(spec.submodule_search_locations or ())
        origin = spec.origin if spec is not None else None
        return Path(origin) if origin is not None and origin.endswith(".py") else None

    @property
    def spelling_problem(self) -> str | None:
        """What is wrong with how it is spelled; None where nothing is."""
        where, name = self.where, self.attribute
        if not where:
            return "it names no file"
        if self.code.endswith(":"):
            return "it has no name behind the colon"
        if not self.is_file and not all(part.isidentifier() for part in where.split(".")):
            return f"{where!r} is neither a file that ends in .py nor a module's dotted name"
        if name and not all(part.isidentifier() for part in name.split(".")):
            return f"{name!r} is not the name of a function or class"
        return None


def spelled(where: str, attribute: str) -> str:
    """`where:attribute`, or `where` alone for a file or module as a whole."""
    return f"{where}:{attribute}" if attribute else where


def layout_problem(letters: str, axes: str) -> str | None:
    """What is wrong with a layout of those axes; None where nothing is."""
    spatial = [axis for axis in "HW" if axis not in letters]
    if sorted(set(letters)) != sorted(letters) or set(letters) - set(axes) or spatial:
        return f"the letters {', '.join(axes)} in any order; those of size 1 but for H and W may go"
    return None


def expression_problem(expression: str) -> str | None:
    """Why an expression cannot be evaluated; None where it is one."""
    try:
        ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return getattr(error, "msg", None) or "it cannot be read"
    return None


def needed_keywords(layer: Layer, pass_: Pass) -> tuple[str, ...]:
    """The keywords without which code cannot compute a pass of this layer."""
    needs = {
        "bias": layer.use_bias and pass_ is Pass.FORWARD,
        "strides": layer.strides != (1, 1),
        "padding": layer.pads != ((0, 0), (0, 0)),
        "dilation_rate": layer.dilation_rate != (1, 1),
        "groups": layer.groups != 1,
    }
    return tuple(name for name, needed in needs.items() if needed)
