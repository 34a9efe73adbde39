"""col2im: an input gradient by products into columns, which are added up where windows overlap.

im2col's other way round, and the cheaper one where the output has fewer elements than the input.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.implementations.columns import MAX_BYTES, by_group
from convbench.implementations.correlation import Correlation, block_size
from convbench.implementations.scratch import Scratch
from convbench.implementations.threaded import Threaded
from convbench.implementations.threads import in_threads
from convbench.layer import Layer

Array = NDArray[np.floating[Any]]

SPARSE = 6
"""The input gradient gathers columns of the output gradient, unless those of the input are so many
times fewer: then products go into columns and are added up (measured: 0.23 against 0.42 ms with 9
times fewer, 1.13 against 0.61 with 5). A third of it where the columns have long runs (0.54 against
0.63 with 2.3 times fewer, 0.30 against 0.52 with 5)."""


def sums_columns(layer: Layer) -> bool:
    """Whether the input gradient's products go into columns that are added up (col2im)."""
    if layer.kernel_size == (1, 1):  # nothing overlaps: products are the columns
        return layer.strides != (1, 1)
    taps = math.prod(layer.kernel_size)
    gathered = math.prod(layer.input_size) * taps / math.prod(layer.strides) * layer.filters
    sparse = SPARSE / 3 if has_long_runs(layer) else SPARSE
    return gathered > sparse * math.prod(layer.output_size) * taps * layer.channels


def has_long_runs(layer: Layer) -> bool:
    """Whether a product a kernel position pays: its columns lie side by side as the input does."""
    return layer.groups == 1 and layer.channels >= 4 and layer.strides[1] == 1


class ColumnSums(Threaded):
    """The input gradient by products into columns, which are added up where windows overlap."""

    def __init__(self, layer: Layer, threads: int) -> None:
        c = self._c = Correlation.of(layer)
        super().__init__(
            layer,
            min(threads, layer.batch_size),
            "matrix product into columns",
            "add the columns into the windows",
            "cut the pads" if c.is_padded else "",
        )
        self._has_long_runs = has_long_runs(layer)
        # Rows of one image overlap and are added one after the other: threads take whole images.
        row = c.output_size[1] * c.terms * c.groups * c.itemsize
        budget = max(MAX_BYTES - self._padded_bytes(1), row)
        self._size = block_size(
            c, row + self._padded_bytes(1) // c.output_size[0], budget, self._threads
        )
        for memory in self._scratch:
            self._padded(memory, self._size.images)
            memory.array(
                "columns", c.groups, self._size.images * self._size.rows * c.output_size[1], c.terms
            )

    def _padded_bytes(self, images: int) -> int:
        layer = self._layer
        if not self._c.is_padded:
            return 0
        return images * math.prod(layer.padded_size) * layer.channels * layer.itemsize

    def _padded(self, scratch: Scratch, images: int) -> Array | None:
        layer = self._layer
        if not self._c.is_padded:
            return None
        return scratch.array("padded", images, *layer.padded_size, layer.channels)

    def run(self) -> object:
        layer, c = self._layer, self._c
        gradient = self.result(layer.batch_size, *layer.input_shape)
        kernel = self._matrices()
        (top, _), (left, _) = layer.pads
        height, width = layer.input_size
        images = iter(range(0, layer.batch_size, self._size.images))

        def work(thread: int) -> None:
            scratch = self._scratch[thread]
            for first in images:
                last = min(first + self._size.images, layer.batch_size)
                padded = self._padded(scratch, last - first)
                target = gradient[first:last] if padded is None else padded
                target[...] = 0
                for row in range(0, c.output_size[0], self._size.rows):
                    end = min(row + self._size.rows, c.output_size[0])
                    self._add(self._error[first:last, row:end], kernel, target, row, scratch)
                if padded is not None:
                    inside = padded[:, top : top + height, left : left + width]
                    gradient[first:last] = inside

        in_threads(work, self._threads)
        return gradient

    def _matrices(self) -> Array:
        """(kernel positions, filters, channels), or (groups, filters of a group, terms)."""
        c = self._c
        if self._has_long_runs:
            by_position = self._kernel.reshape(-1, c.channels, c.filters).transpose(0, 2, 1)
            return np.ascontiguousarray(by_position)
        return self._kernel.reshape(c.terms, c.groups, -1).transpose(1, 2, 0)

    def _add(self, error: Array, kernel: Array, target: Array, row: int, scratch: Scratch) -> None:
        """Adds the shares of some output rows into the windows that they were computed from.

        Windows overlap, but those of one kernel position do not, so that `+=` is right.
        """
        c = self._c
        _, rows, width, _ = error.shape
        parts = self._products(error, kernel, scratch)
        grouped = target.reshape(*target.shape[:3], c.groups, -1)
        (stride_h, stride_w), (dilation_h, dilation_w) = c.strides, c.dilation_rate
        for p in range(c.kernel_size[0]):
            top = row * stride_h + p * dilation_h
            for q in range(c.kernel_size[1]):
                left = q * dilation_w
                met = grouped[
                    :,
                    top : top + (rows - 1) * stride_h + 1 : stride_h,
                    left : left + (width - 1) * stride_w + 1 : stride_w,
                ]
                met += parts[p, q]

    def _products(self, error: Array, kernel: Array, scratch: Scratch) -> Array:
        """A view (kh, kw, images, rows, columns, groups, channels of a group) of the columns."""
        c, shape = self._c, error.shape[:3]
        if self._has_long_runs:
            columns = scratch.array("columns", len(kernel), math.prod(shape), c.channels)
            np.matmul(error.reshape(-1, c.filters), kernel, out=columns)
            return columns.reshape(*c.kernel_size, *shape, 1, c.channels)
        columns = scratch.array("columns", c.groups, math.prod(shape), c.terms)
        np.matmul(by_group(error, c.groups), kernel, out=columns)
        parts = columns.reshape(c.groups, *shape, *c.kernel_size, -1)
        return parts.transpose(4, 5, 1, 2, 3, 0, 6)
