"""Compute a correlation by products with columns, block by block, on threads.

`WholeWindows` gathers all terms of a window side by side, and makes one product for a block.

`KernelRows` gathers only the columns of one kernel row, which serve all kernel rows: kernel row p
at output row i meets the same input row as kernel row p - 1 at output row i + 1. So the columns of
a kernel row are a stretch of the columns of all input rows. This is the lowering of Cho and Brand,
"MEC: Memory-efficient Convolution for Deep Neural Network" (arXiv:1706.06873). They make one
product for each output row. Here each kernel row is one product for all positions of the block, and
the products are added up. For a 3x3 kernel this copies a third as much. A block of the same memory
also has more positions, so BLAS packs the kernel less often.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.implementations.contract import Stage
from convbench.implementations.numpy.shared.columns import (
    MAX_BYTES,
    Columns,
    by_group,
    columns_size,
)
from convbench.implementations.numpy.shared.correlation import (
    Block,
    BlockSize,
    Correlation,
    block_size,
    copy_runs,
    cut,
    slab_shape,
)
from convbench.implementations.numpy.shared.products import multiply
from convbench.implementations.numpy.shared.scratch import Scratch
from convbench.implementations.numpy.shared.threaded import add_bias
from convbench.implementations.numpy.shared.threads import in_threads

Array = NDArray[np.floating[Any]]

LEAST_ROW_TERMS = 96
"""Fewest terms of a kernel row for which one product for each kernel row pays. With 192 terms and
64 filters it takes 9.6 ms instead of 11.6, with 48 terms 13.2 instead of 10.4 (measured)."""


def by_kernel_row(c: Correlation) -> bool:
    """Return whether KernelRows is the faster way."""
    return (
        c.groups == 1
        and c.kernel_size[0] > 1
        and c.kernel_size[1] * c.channels >= LEAST_ROW_TERMS
        and c.strides[0] == 1  # with larger strides, the rows of a stretch are not side by side
        and c.dilation_rate[1] == 1
    )


def column_products(
    c: Correlation,
    scratch: list[Scratch],
    dense: bool,
    kernel_bytes: int = 0,
    has_ones: bool = False,
) -> ColumnProducts:
    """Choose and prepare the faster of the two ways.

    `dense` says that the output's positions lie side by side in memory. The `kernel_bytes` of a
    copy of the kernel reduce the memory that the buffers may take. `has_ones` says that the last
    row of the kernel is the bias, which needs columns of whole windows.
    """
    # Phases share the scratch memory, and the largest array differs from phase to phase.
    taken = kernel_bytes // len(scratch) + (0 if dense else MAX_BYTES * 2 // 5)
    if by_kernel_row(c):
        return KernelRows(c, scratch, dense, taken)
    return WholeWindows(c, scratch, dense, taken, has_ones)


class ColumnProducts(ABC):
    """A correlation by products, whose buffers are allocated once and used by every call."""

    _multiply = staticmethod(multiply)
    _add_bias = staticmethod(add_bias)

    def __init__(self, correlation: Correlation, scratch: list[Scratch], size: BlockSize) -> None:
        self._c = correlation
        self._scratch = scratch
        self.blocks = size.blocks(correlation)
        for memory in scratch:
            self._reserve(size, memory)

    def run(self, x: Array, kernel: Array, bias: Array | None, output: Array) -> None:
        """Write the result into `output`, a view (batch, rows, columns, filters).

        `x` is NHWC and C-contiguous, and `kernel` is (groups, terms, filters of a group).
        """
        blocks = iter(self.blocks)  # next() of a list's iterator is safe in threads

        def work(thread: int) -> None:
            for block in blocks:
                target = output[block.first : block.last, block.row : block.end]
                self._write(target, x, kernel, block, self._scratch[thread])
                if bias is not None:
                    self._add_bias(target, bias)

        in_threads(work, len(self._scratch))

    @abstractmethod
    def stages(self) -> Iterator[Stage]: ...

    @abstractmethod
    def _reserve(self, size: BlockSize, scratch: Scratch) -> None: ...

    @abstractmethod
    def _write(
        self, target: Array, x: Array, kernel: Array, block: Block, scratch: Scratch
    ) -> None:
        """Write the block's part of the output into `target`, without the bias."""


class WholeWindows(ColumnProducts):
    """One product for each block, of columns with all terms of a window."""

    def __init__(
        self,
        c: Correlation,
        scratch: list[Scratch],
        dense: bool,
        taken: int,
        has_ones: bool,
    ) -> None:
        self._is_dense = dense
        self._columns = Columns(c, has_ones)
        size = columns_size(c, len(scratch), taken, has_product=not dense, has_ones=has_ones)
        super().__init__(c, scratch, size)

    def stages(self) -> Iterator[Stage]:
        yield from self._columns.stages()
        yield Stage("product", "product", self, "_multiply")
        yield Stage("bias", "arithmetic", self, "_add_bias")

    def _reserve(self, size: BlockSize, scratch: Scratch) -> None:
        c = self._c
        self._columns.reserve(size, scratch)
        if not self._is_dense:
            positions = size.images * size.rows * c.output_size[1]
            scratch.array("product", c.groups, positions, c.filters // c.groups)

    def _write(
        self, target: Array, x: Array, kernel: Array, block: Block, scratch: Scratch
    ) -> None:
        groups, _, each = kernel.shape
        columns = self._columns.gather(x, block, scratch)
        if self._is_dense:
            for one, matrix, part in zip(columns, kernel, by_group(target, groups), strict=True):
                self._multiply(one, matrix, out=part)
            return
        product = scratch.array("product", groups, columns.shape[1], each)
        self._multiply(columns, kernel, out=product)
        shape = target.shape
        parts = product.reshape(groups, *shape[:3], each).transpose(1, 2, 3, 0, 4)
        target.reshape(*shape[:3], groups, each)[...] = parts


class KernelRows(ColumnProducts):
    """One product for each kernel row, of columns that all kernel rows share."""

    _cut = staticmethod(cut)

    def __init__(self, c: Correlation, scratch: list[Scratch], dense: bool, taken: int) -> None:
        self._run = c.kernel_size[1] * c.channels
        size = self._size(c, len(scratch), dense, MAX_BYTES - taken)
        # The positions of a block are ordered by row and then by image. Unless this is the order
        # of the output too, the sums need memory of their own and are copied to the output.
        self._sums_apart = not dense or size.images > 1
        super().__init__(c, scratch, size)

    def stages(self) -> Iterator[Stage]:
        yield Stage("pad", "copy", self, "_cut")
        yield Stage("gather", "copy", self, "_gather")
        yield Stage("product", "product", self, "_multiply")
        yield Stage("scatter", "arithmetic", self, "_write")
        yield Stage("bias", "arithmetic", self, "_add_bias")

    def _size(self, c: Correlation, parts: int, dense: bool, budget: int) -> BlockSize:
        height = c.output_size[0]
        each = c.output_size[1] * c.filters * c.itemsize  # bytes of a product for an output row
        gathered = self._gathered_bytes(c, height)
        if gathered + 2 * height * each <= budget:
            row = math.ceil(gathered / height) + 2 * each
            return block_size(c, row, budget, parts)
        row = self._gathered_bytes(c, 2) - self._gathered_bytes(c, 1)
        halo = self._gathered_bytes(c, 1) - row
        return block_size(c, row + (1 if dense else 2) * each, budget - halo, parts)

    def _gathered_bytes(self, c: Correlation, rows: int) -> int:
        """Return the bytes of the columns and the padded input for `rows` output rows."""
        _, height, width, channels = slab_shape(c, BlockSize(1, rows))
        elements = height * c.output_size[1] * self._run
        if c.is_padded:
            elements += height * width * channels
        return elements * c.itemsize

    def _reserve(self, size: BlockSize, scratch: Scratch) -> None:
        c = self._c
        shape = slab_shape(c, size)
        if c.is_padded:
            scratch.array("slab", *shape)
        scratch.array("columns", shape[1], shape[0], c.output_size[1], self._run)
        for name in ("product", "sum") if self._sums_apart else ("product",):
            scratch.array(name, size.rows * size.images * c.output_size[1], c.filters)

    def _write(
        self, target: Array, x: Array, kernel: Array, block: Block, scratch: Scratch
    ) -> None:
        c, (matrix,) = self._c, kernel
        columns = self._gather(x, block, scratch)
        images, rows, width, filters = target.shape
        line = images * width
        product = scratch.array("product", rows * line, filters)
        if self._sums_apart:
            total = scratch.array("sum", rows * line, filters)
        else:
            total = target.reshape(-1, filters)
        for p in range(c.kernel_size[0]):
            first = p * c.dilation_rate[0] * line
            met = columns[first : first + rows * line]
            part = matrix[p * self._run : (p + 1) * self._run]
            if p == 0:
                self._multiply(met, part, out=total)
            else:
                self._multiply(met, part, out=product)
                total += product
        if self._sums_apart:
            target[...] = total.reshape(rows, images, width, filters).transpose(1, 0, 2, 3)

    def _gather(self, x: Array, block: Block, scratch: Scratch) -> Array:
        """Return the columns, (input rows * images * output columns, terms of a kernel row)."""
        c = self._c
        found = self._cut(c, x, block, scratch)
        images, height, _, _ = slab_shape(c, block.size)
        image, row, column, _ = found.memory.strides
        columns = scratch.array("columns", height, images, c.output_size[1], self._run)
        copy_runs(found, (row, image, column * c.strides[1]), columns)
        return columns.reshape(-1, self._run)
