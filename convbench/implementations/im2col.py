"""im2col: gather the windows into the rows of a matrix, then one matrix product.

The method of Chellapilla, Puri and Simard, "High Performance Convolutional Neural Networks for
Document Processing" (2006). Layout NHWC, so that the output of the product is the output of the
layer. The matrix is never built whole: blocks of images, or of output rows of one image, are dealt
to threads, each with buffers of its own that `prepare` allocates.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from convbench.implementations.columns import MAX_BYTES, Columns, columns_size
from convbench.implementations.contract import Costed, Ledger
from convbench.implementations.correlation import (
    Block,
    Correlation,
    Phase,
    block_size,
    even,
    phases,
)
from convbench.implementations.cost import moved_s, product_s
from convbench.implementations.scratch import Scratch
from convbench.implementations.threads import in_threads, worthwhile
from convbench.layer import Layer, Pass
from convbench.operands import Operands

Array = NDArray[np.floating[Any]]

SPARSE = 6
"""The input gradient gathers columns of the output gradient, unless those of the input are so many
times fewer: then products go into columns and are added up (measured: 0.23 against 0.42 ms with 9
times fewer, 1.13 against 0.61 with 5). A third of it where the columns have long runs (0.54 against
0.63 with 2.3 times fewer, 0.30 against 0.52 with 5)."""

MANY_POSITIONS = 1024
"""From here on the flipped kernel is also transposed, which makes the products some 6 % faster."""

UNIT_BYTES = MAX_BYTES // 4
"""Most of the kernel's gradient that is summed at a time where threads share the kernel."""


class Im2col(Costed):
    name = "im2col"
    runtime = "numpy"

    def unsupported(self, layer: Layer, pass_: Pass) -> str | None:
        return None

    def exact(self, layer: Layer, pass_: Pass) -> bool:
        return True

    def cost_s(self, layer: Layer, pass_: Pass, threads: int) -> float:
        columns = layer.columns_bytes
        if pass_ is Pass.INPUT_GRADIENT and not sums_columns(layer):
            gathered = [c for phase in phases(layer) if (c := phase.correlation)]
            return sum(_cost_s(c, c.positions * c.terms * c.itemsize) for c in gathered) / threads
        if pass_ is Pass.INPUT_GRADIENT:
            columns *= 2  # read and written once more, in short runs
        return _cost_s(Correlation.of(layer), columns) / threads

    def workspace_bytes(self, layer: Layer, pass_: Pass, threads: int) -> int:
        prepared = self.prepare(layer, pass_, threads)
        return sum(buffer.nbytes for buffer in prepared.buffers) + prepared.call_bytes

    def prepare(
        self, layer: Layer, pass_: Pass, threads: int
    ) -> Forward | InputGradient | ColumnSums | KernelGradient:
        if pass_ is Pass.FORWARD:
            return Forward(layer, threads)
        if pass_ is Pass.KERNEL_GRADIENT:
            return KernelGradient(layer, threads)
        return ColumnSums(layer, threads) if sums_columns(layer) else InputGradient(layer, threads)


def _cost_s(c: Correlation, columns_bytes: int) -> float:
    """In one thread: columns, and products in blocks, for each of which the kernel is packed."""
    if c.is_matrix:
        columns_bytes = 0
    blocks = columns_bytes // MAX_BYTES
    each = product_s(c.positions, c.terms, c.filters // c.groups, c.itemsize)
    return c.groups * each + moved_s(columns_bytes + blocks * c.kernel_bytes)


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


class PreparedIm2col:
    """What the passes share: the layer, and scratch memory for each thread."""

    ledger: Ledger
    call_bytes = 0  # what a call allocates beside its result

    def __init__(self, layer: Layer, threads: int) -> None:
        self._layer = layer
        self._threads = worthwhile(threads, layer.flops)
        self._scratch = [Scratch(layer.dtype) for _ in range(self._threads)]

    @property
    def buffers(self) -> tuple[Array, ...]:
        return tuple(array for scratch in self._scratch for array in scratch.buffers)

    def _ledger_of(self, padded: bool, *inside: str) -> Ledger:
        padding = ("pad the block's images",) if padded else ()
        return Ledger(
            (*padding, *inside),
            ("copy of the operands into NHWC", "allocation of the buffers"),
        )

    def to_numpy(self, result: object) -> Array:
        return np.asarray(result)


class Correlating:
    """One correlation, block by block: gather columns, multiply them by a kernel matrix."""

    def __init__(self, correlation: Correlation, scratch: list[Scratch], dense: bool) -> None:
        c = self._c = correlation
        self._scratch = scratch
        self._is_dense = dense
        each = c.filters // c.groups
        # Phases share scratch memory, and each has another part that is the largest.
        taken = 0 if dense else MAX_BYTES * 2 // 5
        size = columns_size(c, len(scratch), taken, has_product=not dense)
        self._columns = Columns(c)
        self._blocks = list(size.blocks(c))
        positions = size.images * size.rows * c.output_size[1]
        for memory in scratch:
            self._columns.reserve(size, memory)
            if not dense:
                memory.array("product", c.groups, positions, each)

    def run(self, x: Array, kernel: Array, bias: Array | None, output: Array) -> None:
        """Writes into `output`, a view (batch, rows, columns, filters).

        `kernel` is (groups, terms, filters of a group). Where the output's rows lie side by side,
        the products go straight into it.
        """
        groups, _, each = kernel.shape
        blocks = iter(self._blocks)  # next() of a list's iterator is safe in threads

        def work(thread: int) -> None:
            scratch = self._scratch[thread]
            for block in blocks:
                columns = self._columns.gather(x, block, scratch)
                target = output[block.first : block.last, block.row : block.end]
                if self._is_dense:
                    for one, matrix, part in zip(
                        columns, kernel, by_group(target, groups), strict=True
                    ):
                        np.matmul(one, matrix, out=part)
                else:
                    product = scratch.array("product", groups, columns.shape[1], each)
                    np.matmul(columns, kernel, out=product)
                    shape = target.shape
                    parts = product.reshape(groups, *shape[:3], each).transpose(1, 2, 3, 0, 4)
                    target.reshape(*shape[:3], groups, each)[...] = parts
                if bias is not None:
                    target += bias

        in_threads(work, len(self._scratch))


def by_group(array: Array, groups: int) -> Array:
    """A view (groups, positions, filters of a group) of (images, rows, columns, filters)."""
    return array.reshape(-1, groups, array.shape[3] // groups).transpose(1, 0, 2)


class Forward(PreparedIm2col):
    def __init__(self, layer: Layer, threads: int) -> None:
        super().__init__(layer, threads)
        correlation = Correlation.of(layer)
        self._correlating = Correlating(correlation, self._scratch, dense=True)
        gather = () if correlation.is_matrix else ("gather columns",)
        bias = ("add the bias",) if layer.use_bias else ()
        self.ledger = self._ledger_of(correlation.is_padded, *gather, "matrix product", *bias)

    def load(self, operands: Operands) -> None:
        assert operands.input is not None
        assert operands.kernel is not None
        self._x = operands.own(operands.input)
        self._kernel = operands.own(operands.kernel)
        self._bias = None if operands.bias is None else operands.own(operands.bias)

    def run(self) -> object:
        layer = self._layer
        output = np.empty((layer.batch_size, *layer.output_shape), layer.dtype)
        kernel = self._kernel.reshape(-1, layer.groups, layer.filters // layer.groups)
        self._correlating.run(self._x, kernel.transpose(1, 0, 2), self._bias, output)
        return output


class InputGradient(PreparedIm2col):
    """A correlation of the output gradient for each phase of the input."""

    def __init__(self, layer: Layer, threads: int) -> None:
        super().__init__(layer, threads)
        self._phases = [(phase, self._correlating(phase)) for phase in phases(layer)]
        is_padded = any(
            p.correlation is not None and p.correlation.is_padded for p, _ in self._phases
        )
        flip = () if layer.kernel_size == (1, 1) else ("flip the kernel", "gather columns")
        self.ledger = self._ledger_of(is_padded, *flip, "matrix product")
        if layer.kernel_size != (1, 1):
            kernels = [c.kernel_bytes for p, _ in self._phases if (c := p.correlation)]
            self.call_bytes = max(kernels, default=0)

    def _correlating(self, phase: Phase) -> Correlating | None:
        if phase.correlation is None:
            return None
        return Correlating(phase.correlation, self._scratch, dense=self._layer.strides == (1, 1))

    def load(self, operands: Operands) -> None:
        assert operands.output_gradient is not None
        assert operands.kernel is not None
        self._error = operands.own(operands.output_gradient)
        self._kernel = operands.own(operands.kernel)

    def run(self) -> object:
        layer = self._layer
        gradient = np.empty((layer.batch_size, *layer.input_shape), layer.dtype)
        for phase, correlating in self._phases:
            target = gradient[:, *phase.target]
            if phase.correlation is None or correlating is None:
                target[...] = 0
                continue
            kernel = self._matrix(phase.kernel(self._kernel, layer.groups), phase.correlation)
            correlating.run(self._error, kernel, None, target)
        return gradient

    def _matrix(self, kernel: Array, correlation: Correlation) -> Array:
        """(groups, terms, channels) of a view (groups, channels, kh, kw, filters) of the kernel."""
        groups, channels = kernel.shape[:2]
        if kernel.shape[2:4] == (1, 1):
            return kernel.reshape(groups, channels, -1).transpose(0, 2, 1)
        if correlation.positions >= MANY_POSITIONS:
            return copied(kernel.transpose(0, 2, 3, 4, 1), axis=3, threads=self._threads).reshape(
                groups, -1, channels
            )
        flat = copied(kernel, axis=1, threads=self._threads).reshape(groups, channels, -1)
        return flat.transpose(0, 2, 1)


def copied(array: Array, axis: int, threads: int) -> Array:
    """A C-contiguous copy, made by several threads along one axis."""
    result = np.empty(array.shape, array.dtype)
    source, target = np.moveaxis(array, axis, 0), np.moveaxis(result, axis, 0)
    threads = worthwhile(threads, array.size * 100)

    def work(thread: int) -> None:
        part = slice(len(source) * thread // threads, len(source) * (thread + 1) // threads)
        target[part] = source[part]

    in_threads(work, threads)
    return result


class ColumnSums(PreparedIm2col):
    """The input gradient by products into columns, which are added up where windows overlap."""

    def __init__(self, layer: Layer, threads: int) -> None:
        super().__init__(layer, threads)
        self._threads = min(self._threads, layer.batch_size)
        del self._scratch[self._threads :]
        c = self._c = Correlation.of(layer)
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
        cut = ("cut the pads",) if c.is_padded else ()
        self.ledger = self._ledger_of(
            False, "matrix product into columns", "add the columns into the windows", *cut
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

    def load(self, operands: Operands) -> None:
        assert operands.output_gradient is not None
        assert operands.kernel is not None
        self._error = operands.own(operands.output_gradient)
        self._kernel = operands.own(operands.kernel)

    def run(self) -> object:
        layer, c = self._layer, self._c
        gradient = np.empty((layer.batch_size, *layer.input_shape), layer.dtype)
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


class Unit(NamedTuple):
    """A part of the kernel: some groups, kernel rows and columns, and channels of each group."""

    groups: slice
    rows: slice
    columns: slice
    channels: slice

    def of(self, gradient: Array, groups: int) -> Array:
        """A view (kh, kw, channels of a group, groups, filters of a group) of that part."""
        grouped = gradient.reshape(*gradient.shape[:3], groups, -1)
        return grouped[self.rows, self.columns, self.channels, self.groups]


class KernelGradient(PreparedIm2col):
    """Columns of a block, transposed, times its output gradient; summed over the blocks.

    Threads share the blocks where the kernel is small, each with a sum of its own; of a larger
    kernel they take parts in turn.
    """

    def __init__(self, layer: Layer, threads: int) -> None:
        super().__init__(layer, threads)
        whole = Correlation.of(layer)
        self._units = [(unit, part_of(whole, unit)) for unit in units(layer)]
        is_shared = len(self._units) > 1
        parts = 1 if is_shared else self._threads
        largest = max(c.terms * c.groups * c.filters // c.groups for _, c in self._units)
        held = 1 if is_shared or self._threads == 1 else 2
        taken = held * largest * layer.itemsize + (MAX_BYTES // 8 if is_shared else 0)
        self._sizes = [columns_size(c, parts, taken) for _, c in self._units]
        self._blocks = [
            list(s.blocks(c)) for s, (_, c) in zip(self._sizes, self._units, strict=True)
        ]
        for memory in self._scratch:
            memory.array("product", largest)
            if held == 2:
                memory.array("sum", largest)
            for size, (_, correlation) in zip(self._sizes, self._units, strict=True):
                Columns(correlation).reserve(size, memory)
        gather = () if whole.is_matrix else ("gather columns",)
        self.ledger = self._ledger_of(
            whole.is_padded, *gather, "matrix product", "sum over the blocks"
        )

    def load(self, operands: Operands) -> None:
        assert operands.input is not None
        assert operands.output_gradient is not None
        self._x = operands.own(operands.input)
        self._error = operands.own(operands.output_gradient)

    def run(self) -> object:
        gradient = np.empty(self._layer.kernel_shape, self._layer.dtype)
        if len(self._units) == 1:
            self._share_blocks(gradient)
        else:
            self._share_units(gradient)
        return gradient

    def _share_units(self, gradient: Array) -> None:
        units = iter(list(zip(self._units, self._blocks, strict=True)))

        def work(thread: int) -> None:
            for (unit, correlation), blocks in units:
                target = unit.of(gradient, self._layer.groups)
                self._sum(unit, correlation, blocks, target, self._scratch[thread])

        in_threads(work, self._threads)

    def _share_blocks(self, gradient: Array) -> None:
        """Which blocks a thread sums is fixed, so that a call repeats itself to the last bit."""
        (((unit, correlation),), (blocks,)) = self._units, self._blocks
        threads = min(self._threads, len(blocks))
        whole = unit.of(gradient, self._layer.groups)
        sums = [whole]
        sums += [self._scratch[t].array("sum", *whole.shape) for t in range(1, threads)]

        def work(thread: int) -> None:
            mine = blocks[thread::threads]
            self._sum(unit, correlation, mine, sums[thread], self._scratch[thread])

        in_threads(work, threads)
        for other in sums[1:]:
            whole += other

    def _sum(
        self, unit: Unit, c: Correlation, blocks: list[Block], target: Array, scratch: Scratch
    ) -> None:
        """Writes into `target` (kh, kw, channels of a group, groups, filters of a group)."""
        each = target.shape[4]
        is_dense = c.groups == 1 and target.flags.c_contiguous
        for index, block in enumerate(blocks):
            columns = Columns(c).gather(self._x, block, scratch).transpose(0, 2, 1)
            error = self._error[block.first : block.last, block.row : block.end]
            grouped = by_group(error, self._layer.groups)[unit.groups]
            if index == 0 and is_dense:
                np.matmul(columns[0], grouped[0], out=target.reshape(c.terms, each))
                continue
            product = scratch.array("product", c.groups, c.terms, each)
            np.matmul(columns, grouped, out=product)
            parts = product.reshape(c.groups, *target.shape[:3], each).transpose(1, 2, 3, 0, 4)
            if index == 0:
                target[...] = parts
            else:
                target += parts


def units(layer: Layer) -> list[Unit]:
    """The kernel in parts of at most UNIT_BYTES: groups, then kernel positions, then channels."""
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
    """The correlation whose kernel is that part."""
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
