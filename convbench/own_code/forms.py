"""Put a value into the form of a parameter's default, which the code's author expects.

`strides=1` gets one number, `strides=[1, 1]` a list, `padding="VALID"` capital letters. A form that
can be read in more than one way, such as four numbers of padding, is not guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any

import numpy as np

from convbench.problem.layer import Layer
from convbench.problem.unsupported import Unsupported


class UnsupportedError(Exception):
    """The code cannot be given what a layer needs; `unsupported` says what."""

    def __init__(self, why: str, lacks: tuple[str, ...] = (), subject: str = "") -> None:
        super().__init__(why)
        self.unsupported = Unsupported(why, lacks, subject)


def in_form_of(
    default: object, name: str, values: Mapping[str, object], layer: Layer, what: str
) -> object:
    """Return the value of that name in the form that a parameter's default has.

    Raises UnsupportedError for a value that has no such form.
    """
    value = values[name]
    if name == "padding":
        return _padding(default, layer, what)
    if name == "dtype":
        return _dtype(default, layer.dtype)
    if not isinstance(value, tuple):
        return value
    if isinstance(default, Integral):
        return _one_number(name, value, what)
    if not isinstance(default, tuple | list):
        return value
    if len(value) == 2 and len(default) not in (0, 2):
        value = _as_many(default, name, value, what)
    return _like(default, value)


def _padding(default: object, layer: Layer, what: str) -> object:
    (top, bottom), (left, right) = layer.pads
    pads = (top, bottom, left, right)
    if isinstance(default, str):
        return _named_padding(default, layer, what)
    if isinstance(default, bool | np.bool_):
        if any(pads):
            raise UnsupportedError(
                f"{what} takes padding as {default}, which cannot say how much", ("padding",)
            )
        return False
    if isinstance(default, Integral):
        return _one_number("padding", pads, what)
    if not isinstance(default, tuple | list) or not default:
        return layer.pads
    if all(isinstance(pad, Integral) for pad in default):
        if len(default) != 2:
            return _like(default, _as_many(default, "padding", pads, what))
        if (top, left) != (bottom, right):
            raise UnsupportedError(
                f"{what} takes padding as (height, width), not as four pads", ("padding",)
            )
        return _like(default, (top, left))
    pairs = [pair for pair in default if isinstance(pair, tuple | list) and len(pair) == 2]
    if len(pairs) == len(default) == 2:
        return _like(default, (_like(p, given) for p, given in zip(pairs, layer.pads, strict=True)))
    if not any(pads) and _is_zero(default):
        return default
    raise UnsupportedError(
        f"{what} takes padding as {default}, not as ((0, 0), (0, 0))", ("padding",)
    )


def _named_padding(default: str, layer: Layer, what: str) -> str:
    """Return `valid` or `same`, capitalised as the default is."""
    if isinstance(layer.padding, str):
        name = layer.padding
    elif layer.pads == ((0, 0), (0, 0)):
        name = "valid"
    else:
        raise UnsupportedError(f"{what} takes padding as a name, not as pads", ("padding",))
    if default.isupper():
        return name.upper()
    return name.capitalize() if default.istitle() else name


def _dtype(default: object, name: str) -> object:
    """Return `float32` or `float64` as text, or as a type or NumPy dtype if the default is one."""
    if isinstance(default, np.dtype):
        return np.dtype(name)
    is_type = isinstance(default, type) and issubclass(default, np.generic | float)
    return np.dtype(name).type if is_type else name


def _one_number(name: str, value: tuple[Any, ...], what: str) -> object:
    numbers = {*value}
    if len(numbers) > 1:
        raise UnsupportedError(f"{what} takes {name} as one number", (name,))
    return numbers.pop()


def _as_many(
    default: tuple[Any, ...] | list[Any], name: str, value: tuple[Any, ...], what: str
) -> tuple[Any, ...]:
    """Return equal numbers, as many as the default has. What each stands for is not known.

    More than two strides or dilations may include those of batch and channels, for which only 1 is
    safe. Raises UnsupportedError for other numbers.
    """
    length, equal = len(default), len({*value}) == 1
    if equal and (name == "padding" or length == 1 or value[0] == 1):
        return (value[0],) * length
    order = "one number" if length == 1 else f"{length} numbers, whose order is not known"
    raise UnsupportedError(f"{what} takes {name} as {order}", (name,))


def _like(default: tuple[Any, ...] | list[Any], value: Iterable[Any]) -> object:
    return [*value] if isinstance(default, list) else (*value,)


def _is_zero(default: object) -> bool:
    if isinstance(default, tuple | list):
        return all(map(_is_zero, default))
    return default == 0
