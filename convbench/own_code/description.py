"""Describe people's own code as a suite or a command line does: where it is, how it is called.

Nothing is imported here. The worker does that (own_code/files.py).
"""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from pathlib import Path

from convbench.problem.layer import Layer, Pass

ACTIVATION_AXES = "NCHW"
"""Axes of an input or output in the default layout: batch, channels (of an output: filters), height
and width."""

KERNEL_AXES = "OIHW"
"""Axes of a kernel in the default layout: filters, channels of a group, height and width."""

OPERANDS: dict[Pass, tuple[str, ...]] = {
    Pass.FORWARD: ("x", "kernel"),
    Pass.INPUT_GRADIENT: ("output_gradient", "kernel", "input_shape"),
    Pass.KERNEL_GRADIENT: ("x", "output_gradient", "kernel_size"),
}
"""Operands of each pass, in the order in which code is given them."""

KEYWORDS = ("bias", "strides", "padding", "dilation_rate", "groups", "threads")
"""Keywords that code is given if it has such parameters. A layer that needs a keyword that the code
lacks is unsupported."""

STARTED_IN = Path.cwd()
"""Folder that names of files and modules are relative to, even if the user's code leaves it."""


@dataclass(frozen=True)
class OwnCode:
    """Where own code is, and how it is called.

    `code` is FILE.py, FILE.py:NAME or package.module:NAME; `name` is what reports call it. Layouts
    are letters of ACTIVATION_AXES or KERNEL_AXES in the order of the axes. A letter that is left
    out stands for an axis of size 1 that the arrays do not have. An empty layout is the one that
    the code itself states, or the default. `passes` are Python expressions, for code that cannot be
    called by our conventions.
    """

    name: str
    code: str
    layout: str = ""
    kernel_layout: str = ""
    output_layout: str = ""
    passes: dict[Pass, str] = field(default_factory=dict)

    @staticmethod
    def is_spelled(name: str) -> bool:
        """Tell whether a name is spelled FILE.py, FILE.py:NAME or package.module:NAME.

        Such a name is itself enough to find the code.
        """
        return ":" in name or name.endswith(".py")

    @classmethod
    def of(cls, code: str) -> OwnCode:
        """Describe code that is called by our conventions, and named as it is spelled."""
        return cls(code, code)

    @property
    def where(self) -> str:
        """File of the code, or the module's dotted name."""
        return self.code.rpartition(":")[0] if ":" in self.code else self.code

    @property
    def attribute(self) -> str:
        """NAME in the file or module, or nothing for a file as a whole."""
        return self.code.rpartition(":")[2] if ":" in self.code else ""

    @property
    def is_file(self) -> bool:
        """Whether the code was named by its file, and not by its module."""
        return self.where.endswith(".py") or "/" in self.where

    @property
    def place_kind(self) -> str:
        """Word for `where` in messages: file or module."""
        return "file" if self.is_file else "module"

    @property
    def source(self) -> Path | None:
        """Path of the code's file as it was named or found, or None if there is no such file.

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
        """What is wrong with how the code is spelled, or None if nothing is."""
        where, name = self.where, self.attribute
        if not where:
            return "it names no file"
        if self.code.endswith(":"):
            return "it has no name after the colon"
        if not self.is_file and not all(part.isidentifier() for part in where.split(".")):
            return f"{where!r} is neither a file that ends in .py nor a module's dotted name"
        if name and not all(part.isidentifier() for part in name.split(".")):
            return f"{name!r} is not the name of a function or class"
        return None


def spelled(where: str, attribute: str) -> str:
    """Return `where:attribute`, or `where` alone for a file or module as a whole."""
    return f"{where}:{attribute}" if attribute else where


def layout_problem(letters: str, axes: str) -> str | None:
    """Return what a layout of those axes must be, or None if it is that."""
    spatial = [axis for axis in "HW" if axis not in letters]
    if sorted(set(letters)) != sorted(letters) or set(letters) - set(axes) or spatial:
        others = " and ".join(axis for axis in axes if axis not in "HW")
        return (
            f"the letters {', '.join(axes)} in any order; {others} may be left out for axes of "
            "size 1"
        )
    return None


def expression_problem(expression: str) -> str | None:
    """Return why text is no Python expression, or None if it is one."""
    try:
        ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return getattr(error, "msg", None) or "it cannot be read"
    return None


def needed_keywords(layer: Layer, pass_: Pass) -> tuple[str, ...]:
    """Return the keywords without which code cannot compute a pass of this layer."""
    needs = {
        "bias": layer.use_bias and pass_ is Pass.FORWARD,
        "strides": layer.strides != (1, 1),
        "padding": layer.pads != ((0, 0), (0, 0)),
        "dilation_rate": layer.dilation_rate != (1, 1),
        "groups": layer.groups != 1,
    }
    return tuple(name for name, needed in needs.items() if needed)
