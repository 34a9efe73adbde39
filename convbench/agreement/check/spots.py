"""Check timed results: a few elements by direct sums, with operands that change at every visit.

A timed arm computes the same thing again and again. Code that returns an earlier result would look
fast and be wrong as soon as one operand changes. So each visit loads operands of which one element
is new, large, and part of the sum of an element that is checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.agreement.check.deviation import place
from convbench.problem.layer import Layer, Pass
from convbench.problem.operands import Operands, floats
from convbench.problem.values import READS

Array = NDArray[np.floating[Any]]
Index = tuple[int, int, int, int]

SPOTS = 8
"""Number of elements of a result that are checked."""

LARGE = 64.0
"""Absolute value of the element that is changed. The others are below 1."""

FAR_OFF = 1e-3
"""Smallest error that is reported, as a part of the largest sum of absolute products among the
elements that are checked. It is far above any rounding, and below what the changed element adds."""

TRIES = 200
"""Number of random products of a sum among which one is looked for that lies on no pad."""


class Spots:
    """The operands of a (layer, pass), which change at every visit, and the elements to check."""

    def __init__(self, layer: Layer, pass_: Pass, seed: int) -> None:
        self._layer, self._pass = layer, pass_
        self._operands = floats(layer, pass_, seed)
        self._rng = np.random.default_rng([seed, SPOTS])
        self._spots = [self._drawn_spot() for _ in range(SPOTS)]
        self._changed: tuple[str, Index, float] | None = None
        self._visits = 0

    def _drawn_spot(self) -> Index:
        one, two, three, four = self._rng.integers(self._layer.result_shape(self._pass))
        return int(one), int(two), int(three), int(four)

    def fresh(self) -> Operands:
        """Return the operands with one changed element, and the one changed before as it was."""
        if self._changed is not None:
            name, at, value = self._changed
            getattr(self._operands, name)[at] = value
        spot = self._spots[self._visits % SPOTS]
        met = self._met(spot)
        if met is not None:
            which = self._visits % 2
            name, at = READS[self._pass][which], met[which]
            array = getattr(self._operands, name)
            self._changed = name, at, float(array[at])
            array[at] = np.copysign(LARGE, -array[at])
        self._visits += 1
        return self._operands

    def problem(self, result: Array) -> str | None:
        """Return what is wrong with a result of the operands as they are, or None."""
        pairs = [self._sums(spot) for spot in self._spots]
        tolerance = FAR_OFF * max(magnitude for _, magnitude in pairs)
        for spot, (expected, _) in zip(self._spots, pairs, strict=True):
            found = float(result[spot])
            if not abs(found - expected) <= tolerance:
                return (
                    f"the result of a timed call is wrong at {place(self._pass, spot)}: found "
                    f"{found:.6g}, expected {expected:.6g}"
                )
        return None

    # Which elements of the operands meet in the sum of an element

    def _met(self, spot: Index) -> tuple[Index, Index] | None:
        """Return the indices of the two factors of a random product of an element's sum."""
        for _ in range(TRIES):
            factors = self._factors(spot)
            if factors is not None:
                return factors
        return None

    def _factors(self, spot: Index) -> tuple[Index, Index] | None:
        layer, rng = self._layer, self._rng
        kh, kw = layer.kernel_size
        if self._pass is Pass.KERNEL_GRADIENT:
            p, q, in_group, f = spot
            n = int(rng.integers(layer.batch_size))
            i, j = (int(rng.integers(size)) for size in layer.output_size)
            at = self._position(i, j, p, q)
            channel = self._group(f) * self._channels + in_group
            return at and ((n, *at, channel), (n, i, j, f))
        p, q = int(rng.integers(kh)), int(rng.integers(kw))
        in_group = int(rng.integers(self._channels))
        if self._pass is Pass.FORWARD:
            n, i, j, f = spot
            at = self._position(i, j, p, q)
            channel = self._group(f) * self._channels + in_group
            return at and ((n, *at, channel), (p, q, in_group, f))
        n, row, column, channel = spot
        window = self._window(row, column, p, q)
        group, in_group = divmod(channel, self._channels)
        f = group * self._filters + int(rng.integers(self._filters))
        return window and ((n, *window, f), (p, q, in_group, f))

    @property
    def _channels(self) -> int:
        """Number of channels of a group."""
        return self._layer.channels // self._layer.groups

    @property
    def _filters(self) -> int:
        """Number of filters of a group."""
        return self._layer.filters // self._layer.groups

    def _group(self, f: int) -> int:
        return f // self._filters

    def _position(self, i: int, j: int, p: int, q: int) -> tuple[int, int] | None:
        """Return the row and column that a tap of a window meets, or None if it meets a pad."""
        layer = self._layer
        (top, _), (left, _) = layer.pads
        row = i * layer.strides[0] + p * layer.dilation_rate[0] - top
        column = j * layer.strides[1] + q * layer.dilation_rate[1] - left
        height, width = layer.input_size
        return (row, column) if 0 <= row < height and 0 <= column < width else None

    def _window(self, row: int, column: int, p: int, q: int) -> tuple[int, int] | None:
        """Return the window of which a tap meets a row and column, or None if there is none."""
        layer = self._layer
        (top, _), (left, _) = layer.pads
        i, rest_i = divmod(row + top - p * layer.dilation_rate[0], layer.strides[0])
        j, rest_j = divmod(column + left - q * layer.dilation_rate[1], layer.strides[1])
        rows, columns = layer.output_size
        inside = 0 <= i < rows and 0 <= j < columns
        return (i, j) if inside and not rest_i and not rest_j else None

    # The sum of an element

    def _sums(self, spot: Index) -> tuple[float, float]:
        """Return the sum of an element's products in float64, and that of their absolute values."""
        value = magnitude = 0.0
        for one, other in self._products(spot):
            products = one.astype(np.float64) * other
            value += float(products.sum())
            magnitude += float(np.abs(products).sum())
        if self._operands.bias is not None and self._pass is Pass.FORWARD:
            value += float(self._operands.bias[spot[3]])
        return value, magnitude

    def _products(self, spot: Index) -> Iterator[tuple[Array, Array]]:
        """Yield arrays of equal shape whose elements are the factors of an element's products."""
        given, layer = self._operands, self._layer
        if self._pass is Pass.KERNEL_GRADIENT:
            yield self._all_windows(spot)
            return
        assert given.kernel is not None
        for p in range(layer.kernel_size[0]):
            for q in range(layer.kernel_size[1]):
                if self._pass is Pass.FORWARD:
                    n, i, j, f = spot
                    at, first = self._position(i, j, p, q), self._group(f) * self._channels
                    if at is not None and given.input is not None:
                        images = given.input[n, at[0], at[1], first : first + self._channels]
                        yield images, given.kernel[p, q, :, f]
                    continue
                n, row, column, channel = spot
                window, (group, in_group) = (
                    self._window(row, column, p, q),
                    divmod(channel, self._channels),
                )
                if window is not None and given.output_gradient is not None:
                    filters = slice(group * self._filters, (group + 1) * self._filters)
                    errors = given.output_gradient[n, window[0], window[1], filters]
                    yield errors, given.kernel[p, q, in_group, filters]

    def _all_windows(self, spot: Index) -> tuple[Array, Array]:
        """Return what one tap meets in all windows, and the output gradient of these windows."""
        layer, (p, q, in_group, f) = self._layer, spot
        (top, _), (left, _) = layer.pads
        rows = np.arange(layer.output_size[0]) * layer.strides[0] + p * layer.dilation_rate[0] - top
        columns = (
            np.arange(layer.output_size[1]) * layer.strides[1] + q * layer.dilation_rate[1] - left
        )
        i = np.flatnonzero((rows >= 0) & (rows < layer.input_size[0]))
        j = np.flatnonzero((columns >= 0) & (columns < layer.input_size[1]))
        images, errors = self._operands.input, self._operands.output_gradient
        assert images is not None
        assert errors is not None
        channel = self._group(f) * self._channels + in_group
        met = images[:, rows[i][:, None], columns[j], channel]
        return met, errors[:, i[:, None], j, f]
