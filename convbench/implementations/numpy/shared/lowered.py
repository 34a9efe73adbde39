"""Lower the input of `mec`: copy it into runs, as wide as a kernel or wider, that rows share."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.implementations.contract import Stage
from convbench.implementations.numpy.shared.columns import MAX_BYTES
from convbench.implementations.numpy.shared.correlation import (
    Block,
    BlockSize,
    Correlation,
    block_size,
    copy_runs,
    cut,
    slab_shape,
)
from convbench.implementations.numpy.shared.scratch import Scratch

VECTOR_BYTES = 64
"""Bytes of an AVX-512 register."""

FEW_TERMS = 150
"""Most terms for which strips of two output columns pay. Lowering and product take 0.88 ms instead
of 0.97 with 144 terms and 8 filters, and 0.73 instead of 0.62 with 400 terms and 6 filters
(measured)."""

Array = NDArray[np.floating[Any]]


def run_columns(c: Correlation, strip: int) -> int:
    """Return the number of input columns under `strip` output columns."""
    return c.kernel_size[1] + (strip - 1) * c.strides[1]


def strip_width(c: Correlation) -> int:
    """Return the number of output columns in one row of a product. It divides the output's width.

    A strip lets few filters fill a vector register. With 9 terms and 8 filters, half of the
    register is idle. A product for two adjacent output columns has 16 columns, of a kernel with
    zeros where only the other output's window is. This kernel is 4 columns wide instead of 3 and so
    has a third more terms, but 32 images of 28x28 take 0.08 instead of 0.13 ms (measured). With
    many terms, the zeros cost more than they save.
    """
    lanes = VECTOR_BYTES // c.itemsize
    if c.terms > FEW_TERMS or c.filters < lanes // 4:  # nearly a product with a vector
        return 1
    width = c.output_size[1]
    fit = (s for s in range(1, width + 1) if width % s == 0 and s * c.filters <= lanes)
    return max(fit, default=1)


class Lowered:
    """The lowered input of blocks: (images, strips, input rows, run).

    A strip is a number of adjacent output columns. Its run is the part of an input row that they
    meet. `has_ones` puts a 1 after each run. At these places the kernel has the bias in its first
    row and 0 in its other rows, so that the product also adds the bias.
    """

    _cut = staticmethod(cut)

    def __init__(
        self,
        correlation: Correlation,
        parts: int,
        row_bytes: int,
        *,
        has_ones: bool = False,
        is_flipped: bool = False,
        taken: int = 0,
    ) -> None:
        """Choose the size of the blocks.

        A block also needs `row_bytes` for each output row and `taken` bytes as a whole. If
        `is_flipped`, every call copies the kernel.
        """
        c = self._c = correlation
        self.strip = strip_width(c)
        self.strips = c.output_size[1] // self.strip
        self._has_ones = has_ones
        self._run = run_columns(c, self.strip) * c.channels
        self._pitch = self._run + has_ones
        # Bytes for an input row: its lowered runs and its padded copy.
        line = self.strips * self._pitch * c.itemsize
        if c.is_padded:
            line += slab_shape(c, BlockSize(1, 1))[2] * c.channels * c.itemsize
        row = line * c.strides[0] + row_bytes
        halo = line * (c.kernel_size[0] - c.strides[0])  # for each block of rows, or each image
        height = c.output_size[0]
        is_copied = is_flipped or has_ones or self.strip > 1
        self.call_bytes = self.terms * self.filters * c.itemsize if is_copied else 0
        budget = MAX_BYTES - taken - self.call_bytes // parts
        whole = row * height + halo
        if whole <= budget:
            self.size = block_size(c, math.ceil(whole / height), budget, parts)
        else:
            self.size = block_size(c, row, budget - halo, parts)
        self.blocks = self.size.blocks(c)

    @property
    def terms(self) -> int:
        """Number of terms that each element of a product sums up."""
        return self._c.kernel_size[0] * self._pitch

    @property
    def filters(self) -> int:
        """Number of columns of the products: the filters of all output columns of a strip."""
        return self.strip * self._c.filters

    def stages(self) -> Iterator[Stage]:
        yield Stage("pad", "copy", self, "_cut")
        yield Stage("gather", "copy", self, "windows")

    def reserve(self, scratch: Scratch) -> None:
        """Allocate the memory that the largest block needs."""
        shape = slab_shape(self._c, self.size)
        if self._c.is_padded:
            scratch.array("slab", *shape)
        scratch.array("lowered", shape[0], self.strips, shape[1], self._pitch)

    def windows(self, x: Array, block: Block, scratch: Scratch) -> Array:
        """Lower a block of `x`, and return a view (output rows, images, strips, terms) of it."""
        c = self._c
        found = self._cut(c, x, block, scratch)
        images, height, _, _ = slab_shape(c, block.size)
        image, row, column, _ = found.memory.strides
        lowered = scratch.array("lowered", images, self.strips, height, self._pitch)
        strides = (image, self.strip * c.strides[1] * column, row)
        copy_runs(found, strides, lowered[..., : self._run])
        lowered[..., self._run :] = 1
        image, column, row, element = lowered.strides
        return np.ndarray(
            (block.end - block.row, images, self.strips, self.terms),
            lowered.dtype,
            buffer=lowered,
            strides=(row * c.strides[0], image, column, element),
        )

    def matrix(self, kernel: Array, bias: Array | None) -> Array:
        """Return the right operand of the products, (terms, filters of a strip).

        `kernel` is (kh, kw, channels, filters).
        """
        c, height = self._c, self._c.kernel_size[0]
        if self.strip == 1 and not self._has_ones:
            return np.ascontiguousarray(kernel).reshape(self.terms, c.filters)
        matrix = np.zeros((height, self._pitch, self.strip, c.filters), kernel.dtype)
        for target, column in self._shifted(matrix):
            target[...] = kernel
            if self._has_ones:
                matrix[0, self._run, column] = bias
        return matrix.reshape(self.terms, self.filters)

    def add_up(self, matrix: Array, gradient: Array) -> None:
        """Write the kernel's gradient into `gradient`, (kh, kw, channels, filters).

        `matrix` is (terms, filters of a strip). It has a part for each output column of a strip,
        and the gradient is the sum of these parts.
        """
        whole = matrix.reshape(self._c.kernel_size[0], self._pitch, self.strip, self._c.filters)
        gradient[...] = 0
        for part, _ in self._shifted(whole):
            gradient += part

    def _shifted(self, matrix: Array) -> Iterator[tuple[Array, int]]:
        """Yield each output column of a strip: a view of its kernel in `matrix`, and its index."""
        c = self._c
        (kh, kw), stride = c.kernel_size, c.strides[1]
        runs = matrix[:, : self._run].reshape(kh, -1, c.channels, self.strip, c.filters)
        for column in range(self.strip):
            first = column * stride
            yield runs[:, first : first + kw, :, column], column
