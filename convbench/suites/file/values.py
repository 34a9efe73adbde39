"""Turn checked values of a file into those of the dataclasses: a short form becomes a pair."""

from __future__ import annotations

from typing import Any

from convbench.problem.layer import Padding


def image(value: list[int]) -> tuple[int, int, int]:
    """[height, width] is of one channel."""
    height, width, channels = (*value, 1)[:3]
    return height, width, channels


def pair(value: Any) -> tuple[Any, Any]:
    first, second = (value, value) if isinstance(value, int) else value
    return first, second


def padding(value: Any) -> Padding:
    if isinstance(value, str):
        return value.lower()  # type: ignore[return-value]
    rows, columns = map(pair, pair(value))
    return rows, columns


def layer_values(given: dict[str, Any]) -> dict[str, Any]:
    """The keys of a layer, every pair and padding as a dataclass has it."""
    values = dict(given)
    for key in given.keys() & {"kernel_size", "strides", "dilation_rate", "pool_size"}:
        values[key] = pair(given[key])
    if "padding" in given:
        values["padding"] = padding(given["padding"])
    return values
