"""Compute an input gradient by products into columns, which are added up where windows overlap.

im2col's other way round, and the cheaper one where the output has fewer elements than the input.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.implementations.contract import Stage
from convbench.implementations.numpy.shared.columns import MAX_BYTES, by_group
from convbench.implementations.numpy.shared.correlation import Correlation, block_size
from convbench.implementations.numpy.shared.products import multiply
from convbench.implementations.numpy.shared.scratch import Scratch
from convbench.implementations.numpy.shared.threaded import Threaded
from convbench.implementations.numpy.shared.threads import in_threads
from convbench.problem.layer import Layer, Pair

Array = NDArray[np.floating[Any]]

SPARSE = 6
"""The input gradient gathers columns of the output gradient, unless those of the input are so many
times fewer: then products go into columns and are added up (measured: 0.23 against 0.42 ms with 9
times fewer, 1.13 against 0.61 with 5). A third of it where the columns have long runs (0.54 against
0.63 with 2.3 times fewer, 0.30 against 0.52 with 5)."""

LARGE_KERNEL = 512 * 1024
"""Bytes from which on flipping the kernel costs more than adding up columns, which need no copy of
it: 3x3 on 512 channels, 8.3 against 4.9 ms for 7x7 and 80 against 65 for 28x28 (measured)."""

FEW_CHANNELS = 4
"""Runs as short as so many channels cost more than a loop over them, along the columns: 30 against
18 ms for 3 channels of 224x224 and 7x7 kernels (measured)."""

MANY_CHANNELS = 32
"""Channels of a group from which on the columns of one kernel position are product enough for
BLAS."""


def sums_columns(layer: Layer) -> bool:
    """Whether the input gradient's products go into columns that are added up (col2im)."""
    if layer.kernel_size == (1, 1):  # nothing overlaps: products are the columns
        return layer.strides != (1, 1)
    taps = math.prod(layer.kernel_size)
    gathered = math.prod(layer.input_size) * taps / math.prod(layer.strides) * layer.filters
    added = math.prod(layer.output_size) * taps * layer.channels
    if is_by_position(layer) and Correlation.of(layer).kernel_bytes >= LARGE_KERNEL:
        return True
    return gathered > (SPARSE / 3 if has_long_runs(layer) else SPARSE) * added


def has_long_runs(layer: Layer) -> bool:
    """Whether a product a kernel position pays: its columns lie side by side as the input does."""
    return is_by_position(layer) or (
        layer.groups == 1 and layer.channels >= 4 and layer.strides[1] == 1
    )


def is_by_position(layer: Layer) -> bool:
    """Whether the columns of one kernel position are made and added at a time."""
    return layer.channels // layer.groups >= MANY_CHANNELS


class ColumnSums(Threaded):
    """The input gradient by products into columns, which are added up where windows overlap."""

    _multiply = staticmethod(multiply)

    def __init__(self, layer: Layer, threads: int) -> None:
        super().__init__(
            layer,
            min(threads, layer.batch_size),
            "matrix product into columns",
            "add the columns into the windows",
        )
        c = self._c = Correlation.of(layer)
        width = c.channels if is_by_position(layer) else c.terms * c.groups
        # Rows of one image overlap and are added one after the other: threads take whole images.
        row = c.output_size[1] * width * c.itemsize
        if has_long_runs(layer) and not is_by_position(layer):
            self.call_bytes = c.kernel_bytes
        budget = MAX_BYTES - self.call_bytes // self._threads
        self._size = block_size(c, row, max(budget, row), self._threads)
        self._met_across = self._met(1, 0, c.output_size[1])
        for memory in self._scratch:
            memory.array("columns", self._size.images * self._size.rows * c.output_size[1] * width)

    def stages(self) -> Iterator[Stage]:
        yield Stage("product", "product", self, "_multiply")
        yield Stage("scatter", "arithmetic", self, "_add")
        yield Stage("reorder", "copy", self, "_contiguous")

    def run(self) -> object:
        layer, c = self._layer, self._c
        gradient = self.result(layer.batch_size, *layer.input_shape)
        images = iter(range(0, layer.batch_size, self._size.images))

        def work(thread: int) -> None:
            for first in images:
                last = min(first + self._size.images, layer.batch_size)
                gradient[first:last] = 0
                for row in range(0, c.output_size[0], self._size.rows):
                    end = min(row + self._size.rows, c.output_size[0])
                    error = self._error[first:last, row:end]
                    self._add(error, gradient[first:last], row, self._scratch[thread])

        in_threads(work, self._threads)
        return gradient

    def _add(self, error: Array, gradient: Array, row: int, scratch: Scratch) -> None:
        """Adds the shares of some output rows, from `row` on, into the windows of their images.

        Windows overlap, but those of one kernel position do not, so that `+=` is right.
        """
        c = self._c
        grouped = gradient.reshape(*gradient.shape[:3], c.groups, -1)
        met = self._met(0, row, error.shape[1])
        for (p, q), columns in self._columns(error, scratch):
            (rows, down), (cells, right) = met[p], self._met_across[q]
            window, shares = grouped[:, down, right], columns[:, rows, cells]
            if window.shape[-1] > FEW_CHANNELS:
                window += shares
            else:
                for channel in range(window.shape[-1]):
                    window[..., channel] += shares[..., channel]

    def _met(self, axis: int, first: int, count: int) -> list[tuple[slice, slice]]:
        """For each tap, which of `count` outputs from `first` on meet an input by it, and which."""
        c = self._c
        stride, size = c.strides[axis], c.input_size[axis]
        found = []
        for tap in range(c.kernel_size[axis]):
            start = c.origin[axis] + tap * c.dilation_rate[axis] + first * stride
            low = min(max(-(start // stride), 0), count)
            high = max(min((size - 1 - start) // stride + 1, count), low)
            at = start + low * stride
            found.append((slice(low, high), slice(at, at + (high - low) * stride, stride)))
        return found

    def _columns(self, error: Array, scratch: Scratch) -> Iterator[tuple[Pair, Array]]:
        """For each kernel position, (images, rows, columns, groups, channels of a group)."""
        c, shape = self._c, error.shape[:3]
        errors, each = by_group(error, c.groups), c.channels // c.groups
        taps = list(np.ndindex(*c.kernel_size))
        if is_by_position(self._layer):
            columns = scratch.array("columns", c.groups, errors.shape[1], each)
            kernel = self._kernel.reshape(*c.kernel_size, each, c.groups, -1)
            for tap in taps:
                self._multiply(errors, kernel[tap].transpose(1, 2, 0), out=columns)
                yield tap, columns.reshape(c.groups, *shape, each).transpose(1, 2, 3, 0, 4)
        elif has_long_runs(self._layer):
            columns = scratch.array("columns", len(taps), errors.shape[1], each)
            by_tap = self._kernel.reshape(len(taps), each, -1).transpose(0, 2, 1)
            self._multiply(errors, self._contiguous(by_tap), out=columns)
            yield from zip(taps, columns.reshape(len(taps), *shape, 1, each), strict=True)
        else:
            columns = scratch.array("columns", c.groups, errors.shape[1], c.terms)
            by_terms = self._kernel.reshape(c.terms, c.groups, -1).transpose(1, 2, 0)
            self._multiply(errors, by_terms, out=columns)
            parts = columns.reshape(c.groups, *shape, len(taps), each).transpose(4, 1, 2, 3, 0, 5)
            yield from zip(taps, parts, strict=True)

    def _contiguous(self, kernel: Array) -> Array:
        return np.ascontiguousarray(kernel)
