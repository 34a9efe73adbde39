"""Turn checked values of a file into those of the dataclasses: a short form becomes a pair."""

from __future__ import annotations

from typing import Any

from convbench.problem.layer import Padding


def image(value: list[int]) -> tuple[int, int, int]:
    """Return (height, width, channels). A value without channels has one."""
    height, width, channels = (*value, 1)[:3]
    return height, width, channels


def pair(value: Any) -> tuple[Any, Any]:
    """Return both values of a pair. One integer stands for two equal ones."""
    first, second = (value, value) if isinstance(value, int) else value
    return first, second


def padding(value: Any) -> Padding:
    """Return `valid`, `same` or ((top, bottom), (left, right)). One integer stands for all four."""
    if isinstance(value, str):
        return value.lower()  # type: ignore[return-value]
    rows, columns = map(pair, pair(value))
    return rows, columns


def layer_values(given: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of a layer, with every pair and padding in the form of the dataclass."""
    values = dict(given)
    for key in given.keys() & {"kernel_size", "strides", "dilation_rate", "pool_size"}:
        values[key] = pair(given[key])
    if "padding" in given:
        values["padding"] = padding(given["padding"])
    return values
