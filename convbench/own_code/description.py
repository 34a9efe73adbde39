"""Describe people's own code as a suite or a command line does: where it is, how it is called.

Nothing is imported here: that happens in the worker (convbench/own_code).
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

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


def is_own_code(name: str) -> bool:
    """Whether `name` is spelled as own code is: FILE.py, FILE.py:NAME or package.module:NAME."""
    return ":" in name or name.endswith(".py")


def split(code: str) -> tuple[str, str]:
    """(file or module, NAME); NAME is empty for a file as a whole."""
    if ":" not in code:
        return code, ""
    where, _, name = code.rpartition(":")
    return where, name


def is_file(where: str) -> bool:
    """Whether the first part of own code is a file; else it is a module's dotted name."""
    return where.endswith(".py") or "/" in where


def spelling_problem(code: str) -> str | None:
    """What is wrong with how own code is spelled; None where nothing is."""
    where, name = split(code)
    if not where:
        return "it names no file"
    if code.endswith(":"):
        return "it has no name behind the colon"
    if not is_file(where) and not all(part.isidentifier() for part in where.split(".")):
        return f"{where!r} is neither a file that ends in .py nor a module's dotted name"
    if name and not all(part.isidentifier() for part in name.split(".")):
        return f"{name!r} is not the name of a function or class"
    return None


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
