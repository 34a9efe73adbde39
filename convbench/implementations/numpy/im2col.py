"""im2col: gather the windows into the rows of a matrix, then make one matrix product.

The method is that of Chellapilla, Puri and Simard, "High Performance Convolutional Neural Networks
for Document Processing" (2006). The layout is NHWC, so the output of the product is the output of
the layer. The matrix is never built as a whole. Threads take blocks of images, or of output rows of
one image, and each has its own buffers, which `prepare` allocates. If a kernel row has enough
terms, a block gathers the columns of one kernel row only, which serve all of them
(`shared/column_products.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.implementations.contract import Stage
from convbench.implementations.numpy.direct import Direct, PreparedDirect
from convbench.implementations.numpy.shared.col2im import ColumnSums, sums_columns
from convbench.implementations.numpy.shared.column_products import (
    ColumnProducts,
    by_kernel_row,
    column_products,
)
from convbench.implementations.numpy.shared.columns import (
    BIAS_IN_KERNEL,
    MAX_BYTES,
    ONES_TERMS,
    Columns,
    by_group,
    columns_size,
)
from convbench.implementations.numpy.shared.correlation import Block, Correlation, Phase, phases
from convbench.implementations.numpy.shared.cost import moved_s, product_s
from convbench.implementations.numpy.shared.kernel_parts import Unit, part_of, units
from convbench.implementations.numpy.shared.products import SumOfProducts
from convbench.implementations.numpy.shared.scratch import Scratch
from convbench.implementations.numpy.shared.threaded import NumpyAlgorithm, Threaded, bias_step
from convbench.implementations.numpy.shared.threads import in_threads, worthwhile
from convbench.problem.layer import Layer, Pass
from convbench.problem.unsupported import Unsupported

Array = NDArray[np.floating[Any]]

MANY_POSITIONS = 1024
"""Fewest positions for which transposing the flipped kernel pays. The products are then some 6 %
faster (measured)."""


class Im2col(NumpyAlgorithm):
    name = "im2col"

    def unsupported(self, layer: Layer, pass_: Pass) -> Unsupported | None:
        return None

    def cost_s(self, layer: Layer, pass_: Pass, threads: int) -> float:
        if pass_ is Pass.FORWARD:
            gathered = [Correlation.of(layer)]
        elif pass_ is Pass.INPUT_GRADIENT and not sums_columns(layer):
            gathered = [c for phase in phases(layer) if (c := phase.correlation)]
        else:  # col2im reads and writes its columns a second time, in short runs
            columns = layer.columns_bytes * (2 if pass_ is Pass.INPUT_GRADIENT else 1)
            return _cost_s(Correlation.of(layer), columns) / threads
        return sum(_cost_s(c, _copied_bytes(c)) for c in gathered) / threads

    def prepare(self, layer: Layer, pass_: Pass, threads: int) -> Threaded:
        if layer.strides == (1, 1) and Direct().unsupported(layer, pass_) is None:
            return PreparedDirect(layer, pass_, threads)  # the input is its own columns
        if pass_ is Pass.FORWARD:
            return Forward(layer, threads)
        if pass_ is Pass.KERNEL_GRADIENT:
            return KernelGradient(layer, threads)
        return ColumnSums(layer, threads) if sums_columns(layer) else InputGradient(layer, threads)


def _cost_s(c: Correlation, columns_bytes: int) -> float:
    """Predict the seconds in one thread. BLAS packs the kernel for the product of each block."""
    if c.is_matrix:
        columns_bytes = 0
    blocks = columns_bytes // MAX_BYTES
    each = product_s(c.positions, c.terms, c.filters // c.groups, c.itemsize)
    return c.groups * each + moved_s(columns_bytes + blocks * c.kernel_bytes)


def _copied_bytes(c: Correlation) -> int:
    """Return the bytes of the columns, and of the sums if kernel rows have their own products."""
    columns = c.positions * c.terms * c.groups * c.itemsize
    if not by_kernel_row(c):
        return columns
    height = c.kernel_size[0]
    return columns // height + (height - 1) * c.positions * c.filters * c.itemsize


def steps(*correlations: Correlation, by_row: bool = True) -> tuple[str, str, str]:
    """Return the ledger's phrases for pads, columns and products. A step not needed is empty."""
    pad = "pad the block's images" if any(c.is_padded for c in correlations) else ""
    gathered = [c for c in correlations if not c.is_matrix]
    if by_row and any(map(by_kernel_row, gathered)):
        gather = "gather columns, once for all kernel rows"
        return pad, gather, "one product for each kernel row, added up"
    return pad, "gather columns" if gathered else "", "matrix product"


class Forward(Threaded):
    def __init__(self, layer: Layer, threads: int) -> None:
        c = Correlation.of(layer)
        is_gathered = not c.is_matrix and c.groups == 1 and not by_kernel_row(c)
        self._has_ones = layer.use_bias and is_gathered and c.terms <= ONES_TERMS
        bias = BIAS_IN_KERNEL if self._has_ones else bias_step(layer)
        super().__init__(layer, threads, *steps(c), bias)
        if self._has_ones:  # a copy of the kernel with one row more
            self.call_bytes = c.kernel_bytes + c.filters * c.itemsize
        self._products = column_products(
            c, self._scratch, dense=True, kernel_bytes=self.call_bytes, has_ones=self._has_ones
        )

    def stages(self) -> Iterator[Stage]:
        yield from self._products.stages()

    def run(self) -> object:
        layer = self._layer
        output = self.result(layer.batch_size, *layer.output_shape)
        kernel = self._kernel.reshape(-1, layer.groups, layer.filters // layer.groups)
        bias = self._bias
        if self._has_ones:
            assert bias is not None
            kernel, bias = np.concatenate((kernel, bias[np.newaxis, np.newaxis])), None
        self._products.run(self._x, kernel.transpose(1, 0, 2), bias, output)
        return output


def copied(array: Array, axis: int, threads: int) -> Array:
    """Return a C-contiguous copy, which several threads make along one axis."""
    result = np.empty(array.shape, array.dtype)
    source, target = np.moveaxis(array, axis, 0), np.moveaxis(result, axis, 0)
    threads = worthwhile(threads, array.size * 100)

    def work(thread: int) -> None:
        part = slice(len(source) * thread // threads, len(source) * (thread + 1) // threads)
        target[part] = source[part]

    in_threads(work, threads)
    return result


class InputGradient(Threaded):
    """The input gradient, as a correlation of the output gradient for each phase of the input."""

    _copied = staticmethod(copied)

    def __init__(self, layer: Layer, threads: int) -> None:
        every = phases(layer)
        correlations = [c for phase in every if (c := phase.correlation)]
        is_flipped = layer.kernel_size != (1, 1)
        flip = "flip the kernel" if is_flipped else ""
        super().__init__(layer, threads, flip, *steps(*correlations))
        if is_flipped:
            self.call_bytes = max((c.kernel_bytes for c in correlations), default=0)
        self._phases = [(phase, self._way(phase)) for phase in every]

    def _way(self, phase: Phase) -> ColumnProducts | None:
        if phase.correlation is None:
            return None
        dense = self._layer.strides == (1, 1)
        return column_products(phase.correlation, self._scratch, dense, self.call_bytes)

    def stages(self) -> Iterator[Stage]:
        for _, way in self._phases:
            if way is not None:
                yield from way.stages()
        yield Stage("reorder", "copy", self, "_copied")

    def run(self) -> object:
        layer = self._layer
        gradient = self.result(layer.batch_size, *layer.input_shape)
        for phase, way in self._phases:
            target = gradient[:, *phase.target]
            if phase.correlation is None or way is None:
                target[...] = 0
                continue
            kernel = self._matrix(phase.kernel(self._kernel, layer.groups), phase.correlation)
            way.run(self._error, kernel, None, target)
        return gradient

    def _matrix(self, kernel: Array, correlation: Correlation) -> Array:
        """Return the right operand of the products, (groups, terms, channels).

        `kernel` is a view (groups, channels, kh, kw, filters).
        """
        groups, channels = kernel.shape[:2]
        if kernel.shape[2:4] == (1, 1):
            return kernel.reshape(groups, channels, -1).transpose(0, 2, 1)
        if correlation.positions >= MANY_POSITIONS:
            transposed = kernel.transpose(0, 2, 3, 4, 1)
            return self._copied(transposed, 3, self._threads).reshape(groups, -1, channels)
        flat = self._copied(kernel, 1, self._threads).reshape(groups, channels, -1)
        return flat.transpose(0, 2, 1)


class KernelGradient(Threaded):
    """The kernel gradient: columns of each block, transposed, times its output gradient.

    The products are summed over the blocks. If the kernel is small, the threads share the blocks,
    and each has its own sum. Otherwise the threads share the parts of the kernel.
    """

    _matmul = np.matmul

    def __init__(self, layer: Layer, threads: int) -> None:
        whole = Correlation.of(layer)
        super().__init__(layer, threads, *steps(whole, by_row=False), "sum over the blocks")
        self._units = [(unit, Columns(part_of(whole, unit))) for unit in units(layer)]
        is_shared = len(self._units) > 1
        parts = 1 if is_shared else self._threads
        correlations = [columns.correlation for _, columns in self._units]
        largest = max(c.terms * c.filters for c in correlations)
        self._sums = SumOfProducts(whole.terms, whole.filters, whole.itemsize)
        self._is_dense = not is_shared and layer.groups == 1
        held = self._sums.elements if self._is_dense else largest
        held += 0 if is_shared or self._threads == 1 else largest
        taken = held * layer.itemsize + (MAX_BYTES // 8 if is_shared else 0)
        self._sizes = [columns_size(c, parts, taken) for c in correlations]
        self._blocks = [s.blocks(c) for s, c in zip(self._sizes, correlations, strict=True)]
        for memory in self._scratch:
            if self._is_dense:
                self._sums.reserve(memory)
            else:
                memory.array("product", largest)
            if not is_shared and self._threads > 1:
                memory.array("sum", largest)
            for size, (_, columns) in zip(self._sizes, self._units, strict=True):
                columns.reserve(size, memory)

    def stages(self) -> Iterator[Stage]:
        for _, columns in self._units:
            yield from columns.stages()
        yield Stage("product", "product", self, "_matmul")
        yield Stage("product", "product", self._sums, "add")

    def run(self) -> object:
        gradient = self.result(*self._layer.kernel_shape)
        if len(self._units) == 1:
            self._share_blocks(gradient)
        else:
            self._share_units(gradient)
        return gradient

    def _share_units(self, gradient: Array) -> None:
        units = iter(list(zip(self._units, self._blocks, strict=True)))

        def work(thread: int) -> None:
            for (unit, columns), blocks in units:
                target = unit.of(gradient, self._layer.groups)
                self._sum(unit, columns, blocks, target, self._scratch[thread])

        in_threads(work, self._threads)

    def _share_blocks(self, gradient: Array) -> None:
        """Sum a fixed set of blocks in each thread, so that every call gives the same bits."""
        (((unit, columns),), (blocks,)) = self._units, self._blocks
        threads = min(self._threads, len(blocks))
        whole = unit.of(gradient, self._layer.groups)
        sums = [whole]
        sums += [self._scratch[t].array("sum", *whole.shape) for t in range(1, threads)]

        def work(thread: int) -> None:
            mine = blocks[thread::threads]
            self._sum(unit, columns, mine, sums[thread], self._scratch[thread])

        in_threads(work, threads)
        for other in sums[1:]:
            whole += other

    def _sum(
        self, unit: Unit, columns: Columns, blocks: Sequence[Block], target: Array, scratch: Scratch
    ) -> None:
        """Write the sum over the blocks into `target`.

        `target` is (kh, kw, channels of a group, groups, filters of a group).
        """
        c, each = columns.correlation, target.shape[4]
        for index, block in enumerate(blocks):
            gathered = columns.gather(self._x, block, scratch)
            error = self._error[block.first : block.last, block.row : block.end]
            grouped = by_group(error, self._layer.groups)[unit.groups]
            if self._is_dense:
                total = target.reshape(c.terms, each)
                self._sums.add(gathered[0], grouped[0], total, scratch, is_first=index == 0)
                continue
            product = scratch.array("product", c.groups, c.terms, each)
            self._matmul(gathered.transpose(0, 2, 1), grouped, out=product)
            parts = product.reshape(c.groups, *target.shape[:3], each).transpose(1, 2, 3, 0, 4)
            if index == 0:
                target[...] = parts
            else:
                target += parts
