"""Split a kernel into parts, if its gradient is too large for every thread to have a sum of it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from convbench.implementations.numpy.shared.columns import MAX_BYTES
from convbench.implementations.numpy.shared.correlation import Correlation, even
from convbench.problem.layer import Layer

Array = NDArray[np.floating[Any]]

UNIT_BYTES = MAX_BYTES // 4
"""Most bytes of the kernel's gradient that a thread sums at a time, if threads share the kernel."""


class Unit(NamedTuple):
    """A part of the kernel: some groups, kernel rows, kernel columns, and channels of a group."""

    groups: slice
    rows: slice
    columns: slice
    channels: slice

    def of(self, gradient: Array, groups: int) -> Array:
        """Return this part as a view (kh, kw, channels of a group, groups, filters of a group)."""
        grouped = gradient.reshape(*gradient.shape[:3], groups, -1)
        return grouped[self.rows, self.columns, self.channels, self.groups]


def units(layer: Layer) -> list[Unit]:
    """Split the kernel into parts of at most UNIT_BYTES: by groups, positions, then channels."""
    kh, kw, channels, _ = layer.kernel_shape
    every = slice(None)
    if math.prod(layer.kernel_shape) * layer.itemsize <= UNIT_BYTES:
        return [Unit(every, slice(0, kh), slice(0, kw), slice(0, channels))]
    each = channels * (layer.filters // layer.groups) * layer.itemsize  # bytes of a position
    parts = math.ceil(each / UNIT_BYTES)
    columns = min(max(UNIT_BYTES // each, 1), kw)
    return [
        Unit(slice(g, g + 1), slice(p, p + 1), slice(q, min(q + columns, kw)), some)
        for g in range(layer.groups)
        for p in range(kh)
        for q in range(0, kw, columns)
        for some in even(channels, parts)
    ]


def part_of(whole: Correlation, unit: Unit) -> Correlation:
    """Return the correlation of which `unit` is the whole kernel."""
    (top, left), (dilation_h, dilation_w) = whole.origin, whole.dilation_rate
    origin = (top + unit.rows.start * dilation_h, left + unit.columns.start * dilation_w)
    size = unit.rows.stop - unit.rows.start, unit.columns.stop - unit.columns.start
    if unit.groups == slice(None):
        return replace(whole, origin=origin, kernel_size=size)
    each = whole.channels // whole.groups
    return replace(
        whole,
        origin=origin,
        kernel_size=size,
        channels=unit.channels.stop - unit.channels.start,
        filters=whole.filters // whole.groups,
        groups=1,
        first_channel=unit.groups.start * each + unit.channels.start,
    )
