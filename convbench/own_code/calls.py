"""Decide which of a pass's values each parameter of somebody's function gets.

A parameter is matched by its name; operands that no parameter is named after go to the others by
position. A keyword that has a default gets its value in the default's form (forms.py).
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from convbench.errors import ImplementationError
from convbench.own_code.description import KEYWORDS, OPERANDS, needed_keywords
from convbench.own_code.forms import UnsupportedError, in_form_of
from convbench.problem.layer import Layer, Pass

Parameter = inspect.Parameter
Values = Mapping[str, object]

SETTINGS = ("filters", "kernel_size", "use_bias", "input_shape", "batch_size", "dtype", "layer")
"""Names that parameters of `__init__` can have, besides KEYWORDS."""

NAMES = {*KEYWORDS, *SETTINGS, *(name for names in OPERANDS.values() for name in names)}
"""Names that an expression can use."""

_BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True)
class Operand:
    """Stand-in for an array that is not loaded yet."""

    name: str


@dataclass(frozen=True)
class Call:
    """What a function is called with. Arrays replace Operands once they are loaded."""

    arguments: tuple[object, ...]
    keywords: dict[str, object]

    def filled(self, arrays: Values) -> Call:
        """Return the call with these arrays in place of Operands."""

        def value(given: object) -> object:
            return arrays[given.name] if isinstance(given, Operand) else given

        return Call(
            tuple(map(value, self.arguments)), {k: value(v) for k, v in self.keywords.items()}
        )


def parameters(function: Callable[..., object]) -> list[Parameter]:
    """Return the parameters of a function. One that has no signature gets two by position."""
    try:
        return list(inspect.signature(function).parameters.values())
    except (ValueError, TypeError):
        return [Parameter(name, Parameter.POSITIONAL_ONLY) for name in ("first", "second")]


def bind(
    what: str,
    found: Iterable[Parameter],
    layer: Layer,
    pass_: Pass,
    values: Values,
    handled: Collection[str] = (),
) -> Call:
    """Return the call of a function that computes a pass.

    `handled` are the keywords that `__init__` took. Raises UnsupportedError if the layer needs a
    keyword that the function does not take, and ImplementationError if the function needs a value
    that convbench does not have.
    """
    found = list(found)
    named = {parameter.name for parameter in found}
    unnamed = [operand for operand in OPERANDS[pass_] if operand not in named]
    known = {*OPERANDS[pass_], *KEYWORDS, *SETTINGS}
    arguments: list[object] = []
    keywords: dict[str, object] = {}
    taken: set[str] = set()
    takes_any = False
    arrays = [operand for operand in unnamed if operand not in SETTINGS]
    unknown = [p for p in found if p.name not in known and _is_required(p)]
    lacks_kernel = "kernel" in arrays and len(unknown) < len(arrays)

    def give(parameter: Parameter, value: object) -> None:
        if parameter.kind is Parameter.POSITIONAL_ONLY:
            arguments.append(value)
        else:
            keywords[parameter.name] = value

    for parameter in found:
        name, has_default = parameter.name, parameter.default is not Parameter.empty
        if parameter.kind is Parameter.VAR_POSITIONAL:
            arguments += [values[operand] for operand in unnamed]
            unnamed = []
        elif parameter.kind is Parameter.VAR_KEYWORD:
            takes_any = True
        elif name == "filters" and lacks_kernel and _is_required(parameter):
            give(parameter, values["kernel"])  # no other parameter can be the kernel
            unnamed.remove("kernel")
        elif name in known:
            taken.add(name)
            if values.get(name) is not None or not has_default:
                give(parameter, in_form_of(parameter.default, name, values, layer, what))
        elif unnamed and _is_required(parameter):
            give(parameter, values[unnamed.pop(0)])
        elif not has_default:
            raise ImplementationError(
                f"{what} has a parameter {name!r} that convbench has no value for",
                hint="give it a default, or say how to call it with `passes` in a suite "
                "(docs/your-own-convolution.md)",
            )
    taken |= {*handled}
    follows = {"input_shape", "kernel_size"} if "layer" in taken else taken
    _require(what, [name for name in unnamed if name not in follows], layer)
    if "layer" in taken:  # a layer says everything but the bias, which is an array
        taken |= {*KEYWORDS} - {"bias"}
    lacking = [keyword for keyword in needed_keywords(layer, pass_) if keyword not in taken]
    if takes_any:  # other keywords could be unknown to a function that they are handed on to
        keywords |= {keyword: values[keyword] for keyword in lacking}
    elif lacking:
        names = [_with_other_name(name, named) for name in lacking]
        raise UnsupportedError(f"{what} does not accept {', '.join(names)}", tuple(lacking), what)
    return Call(tuple(arguments), keywords)


def _is_required(parameter: Parameter) -> bool:
    """Tell whether a parameter must be given and can be given by position."""
    return parameter.kind in _BY_POSITION and parameter.default is Parameter.empty


def bind_init(what: str, found: Iterable[Parameter], layer: Layer, values: Values) -> Call:
    """Return the call of a class. Its only required parameter may be the layer, under any name.

    Raises ImplementationError for a parameter that convbench has no value for.
    """
    arguments: list[object] = []
    keywords: dict[str, object] = {}
    found = [p for p in found if p.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)]
    is_alone = sum(parameter.default is Parameter.empty for parameter in found) == 1
    for parameter in found:
        name, has_default = parameter.name, parameter.default is not Parameter.empty
        if name in SETTINGS or (name in KEYWORDS and name != "bias"):
            keywords[name] = in_form_of(parameter.default, name, values, layer, what)
        elif is_alone and _is_required(parameter):
            arguments.append(layer)
        elif not has_default:
            raise ImplementationError(
                f"{what}.__init__ has a parameter {name!r} that convbench has no value for",
                hint=f"use the names {', '.join((*SETTINGS, *KEYWORDS[1:]))}, or have one required "
                "parameter for the layer as a whole",
            )
    return Call(tuple(arguments), keywords)


def expression(text: str, pass_: Pass, namespace: dict[str, Any]) -> Callable[..., object]:
    """Return a function of those names in NAMES that an expression uses.

    Raises ImplementationError for an operand that the pass does not have.
    """
    used = names_in(text) & NAMES
    available = {*OPERANDS[pass_], *KEYWORDS, *SETTINGS}
    if foreign := sorted(used - available):
        raise ImplementationError(
            f"{text!r} names {', '.join(foreign)}, which the {pass_} pass does not have",
            hint=f"the pass has {', '.join(OPERANDS[pass_])}",
        )
    names = ", ".join(["*", *sorted(used)] if used else [])  # keyword-only: all are known by name
    function: Callable[..., object] = eval(
        compile(f"lambda {names}: ({text.strip()}\n)", expression_file(pass_), "eval"), namespace
    )
    return function


def expression_file(pass_: Pass) -> str:
    """Return the file name that frames of a pass's expression have."""
    return f"<{pass_}>"


def names_in(expression: str) -> set[str]:
    """Return the names that a Python expression uses."""
    tree = ast.parse(expression.strip(), mode="eval")
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


_OTHER_NAMES = {
    "strides": ("stride", "step"),
    "padding": ("pad", "pads"),
    "dilation_rate": ("dilation", "dilations"),
    "groups": ("group",),
    "bias": ("b", "biases"),
}


def _with_other_name(keyword: str, taken: Collection[str]) -> str:
    """Return a keyword that is not taken, and a parameter that may be meant to be it."""
    other = next((name for name in _OTHER_NAMES[keyword] if name in taken), None)
    return f"{keyword} (but has {other})" if other else keyword


def _require(what: str, unnamed: list[str], layer: Layer) -> None:
    """Raise an error if an operand was not taken, unless its value follows from the others."""
    if "input_shape" in unnamed:
        rest = [
            (padded - span) % stride
            for padded, span, stride in zip(
                layer.padded_size, layer.effective_kernel_size, layer.strides, strict=True
            )
        ]
        if any(rest):
            raise UnsupportedError(
                f"{what} lacks input_shape, which cannot be inferred if strides leave rows over"
            )
    if "kernel_size" in unnamed and layer.strides != (1, 1):
        raise UnsupportedError(
            f"{what} lacks kernel_size, which cannot be inferred if strides are above 1"
        )
    if arrays := [name for name in unnamed if name not in ("input_shape", "kernel_size")]:
        raise ImplementationError(
            f"{what} has no parameter for {' or '.join(arrays)}",
            hint="say how to call it with `passes` in a suite (docs/your-own-convolution.md)",
        )
