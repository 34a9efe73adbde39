"""Lower the input of `mec`: runs as wide as a kernel or wider, which output rows share."""

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
"""Bytes of a register of AVX-512."""

FEW_TERMS = 150
"""Most terms for which strips of two output columns pay. With 144 terms and 8 filters the product
takes 0.88 ms instead of 0.97, with 400 terms and 6 filters 0.73 instead of 0.62 (measured, with the
lowering)."""

Array = NDArray[np.floating[Any]]


def run_columns(c: Correlation, strip: int) -> int:
    """Input columns under so many output columns."""
    return c.kernel_size[1] + (strip - 1) * c.strides[1]


def strip_width(c: Correlation) -> int:
    """Output columns of one row of a product, so that few filters fill a vector register.

    With 9 terms and 8 filters half of a vector is idle. Two output columns side by side are 16, of
    a kernel with zeros where the other column's window is: 4 columns wide instead of 3, a third
    more terms, and 0.08 instead of 0.13 ms for 32 images of 28x28 (measured). With many terms it is
    the zeros that cost more. Only divisors of the output's width.
    """
    lanes = VECTOR_BYTES // c.itemsize
    if c.terms > FEW_TERMS or c.filters < lanes // 4:  # so few are a matrix times a vector
        return 1
    width = c.output_size[1]
    fit = (s for s in range(1, width + 1) if width % s == 0 and s * c.filters <= lanes)
    return max(fit, default=1)


class Lowered:
    """The lowered input of blocks: (images, strips, input rows, run).

    A strip is some output columns, and its run what they meet of an input row. With ones, each run
    has a 1 after it: the product with a kernel whose first row has the bias there, and the others
    0, adds it in passing.
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
        """`row_bytes` are of what else a block needs for each output row, `taken` for all.

        `is_flipped`: the kernel is copied at every call, in any case.
        """
        c = self._c = correlation
        self.strip = strip_width(c)
        self.strips = c.output_size[1] // self.strip
        self._has_ones = has_ones
        self._run = run_columns(c, self.strip) * c.channels
        self._pitch = self._run + has_ones
        # Bytes of an input row: what is lowered, and the padded copy.
        line = self.strips * self._pitch * c.itemsize
        if c.is_padded:
            line += slab_shape(c, BlockSize(1, 1))[2] * c.channels * c.itemsize
        row = line * c.strides[0] + row_bytes
        halo = line * (c.kernel_size[0] - c.strides[0])  # of a block of rows; of each image
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
        """Of a row of the products."""
        return self._c.kernel_size[0] * self._pitch

    @property
    def filters(self) -> int:
        """Columns of the products: those of every output column of a strip."""
        return self.strip * self._c.filters

    def stages(self) -> Iterator[Stage]:
        yield Stage("pad", "copy", self, "_cut")
        yield Stage("gather", "copy", self, "windows")

    def reserve(self, scratch: Scratch) -> None:
        """Allocates what the largest block needs."""
        shape = slab_shape(self._c, self.size)
        if self._c.is_padded:
            scratch.array("slab", *shape)
        scratch.array("lowered", shape[0], self.strips, shape[1], self._pitch)

    def windows(self, x: Array, block: Block, scratch: Scratch) -> Array:
        """A view (output rows, images, strips, terms) of what is lowered here."""
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
        """(terms, columns) of the products, from (kh, kw, channels, filters)."""
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
        """Writes into `gradient` (kh, kw, channels, filters) the shares that the columns of a strip
        have of it in `matrix` (terms, columns)."""
        whole = matrix.reshape(self._c.kernel_size[0], self._pitch, self.strip, self._c.filters)
        gradient[...] = 0
        for part, _ in self._shifted(whole):
            gradient += part

    def _shifted(self, matrix: Array) -> Iterator[tuple[Array, int]]:
        """For each output column of a strip, where the kernel is in a matrix; views."""
        c = self._c
        (kh, kw), stride = c.kernel_size, c.strides[1]
        runs = matrix[:, : self._run].reshape(kh, -1, c.channels, self.strip, c.filters)
        for column in range(self.strip):
            first = column * stride
            yield runs[:, first : first + kw, :, column], column
