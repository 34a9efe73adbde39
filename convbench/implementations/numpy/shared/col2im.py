"""Compute an input gradient by products into columns, which are added up where windows overlap.

This is im2col reversed (col2im). It is cheaper where the output has fewer elements than the input.
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
"""Ratio of the output gradient's columns to the input's columns, in elements, above which col2im
pays. At a ratio of 9 it takes 0.23 ms instead of 0.42, at 5 it takes 1.13 instead of 0.61. A third
of this ratio is enough if the columns have long runs: 0.54 instead of 0.63 ms at 2.3, 0.30 instead
of 0.52 at 5 (all measured)."""

LARGE_KERNEL = 512 * 1024
"""Smallest kernel in bytes for which flipping it costs more than col2im, which needs no copy of the
kernel. 3x3 kernels on 512 channels take 8.3 ms flipped and 4.9 by col2im for images of 7x7, 80 and
65 for 28x28 (measured)."""

FEW_CHANNELS = 4
"""Most channels of a group for which adding channel by channel pays, since a run of so few channels
is short. 3 channels of 224x224 with 7x7 kernels take 18 ms instead of 30 (measured)."""

MANY_CHANNELS = 32
"""Fewest channels of a group for which the product of one kernel position is large enough for
BLAS."""


def sums_columns(layer: Layer) -> bool:
    """Return whether the input gradient is faster by col2im."""
    if layer.kernel_size == (1, 1):  # no windows overlap, and the products are the columns
        return layer.strides != (1, 1)
    taps = math.prod(layer.kernel_size)
    gathered = math.prod(layer.input_size) * taps / math.prod(layer.strides) * layer.filters
    added = math.prod(layer.output_size) * taps * layer.channels
    if is_by_position(layer) and Correlation.of(layer).kernel_bytes >= LARGE_KERNEL:
        return True
    return gathered > (SPARSE / 3 if has_long_runs(layer) else SPARSE) * added


def has_long_runs(layer: Layer) -> bool:
    """Return whether one product for each kernel position pays.

    The columns of a position then lie side by side, like the pixels of the input.
    """
    return is_by_position(layer) or (
        layer.groups == 1 and layer.channels >= 4 and layer.strides[1] == 1
    )


def is_by_position(layer: Layer) -> bool:
    """Return whether the columns are made and added for one kernel position at a time."""
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
        # Threads take whole images, because the windows of an image's rows overlap.
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
        """Add the shares of some output rows, the first of which is `row`, into their windows.

        Windows overlap, but not where they meet one kernel position, so `+=` is right.
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
        """Return two slices for each tap: the outputs that meet an input by it, and these inputs.

        The first slice counts from the output `first` along `axis`. There are `count` outputs.
        """
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
        """Yield each kernel position with its columns.

        The columns are (images, rows, columns, groups, channels of a group).
        """
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
