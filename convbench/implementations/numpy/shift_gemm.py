"""shift-gemm: make a product for each kernel position, and add the products up, shifted.

The method is that of Anderson, Vasudevan, Keane and Gregg, "Low-memory GEMM-based convolution
algorithms for deep neural networks" (arXiv:1709.03395). The rows of the padded input lie one after
the other, so moving the kernel by a position means a shift of one long run. Results between the
output's rows are ignored.

With many filters, the product of each kernel position is added to the sum in turn. With few, as in
the gradient to an image, one product serves all positions, and one sum runs over a view of it in
which each row begins at its own shift. With one channel, the input is copied once for each shift,
and one product sums over the copies. The kernel gradient of such a layer is computed in this way
too.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.implementations.contract import Stage
from convbench.implementations.numpy.shared.correlation import (
    Block,
    BlockSize,
    Correlation,
    Phase,
    block_size,
    cut,
    phases,
    slab_shape,
)
from convbench.implementations.numpy.shared.cost import moved_s, product_s
from convbench.implementations.numpy.shared.images_innermost import (
    ImagesInnermost,
    images_innermost_s,
    suits_images_innermost,
)
from convbench.implementations.numpy.shared.products import multiply
from convbench.implementations.numpy.shared.scratch import Scratch
from convbench.implementations.numpy.shared.threaded import (
    NumpyAlgorithm,
    Threaded,
    add_bias,
    bias_step,
)
from convbench.implementations.numpy.shared.threads import in_threads
from convbench.problem.layer import Layer, Pass
from convbench.problem.unsupported import Unsupported

Array = NDArray[np.floating[Any]]

FEW_FILTERS = 8
"""Most filters for which one product for all kernel positions is faster."""

FEW_CHANNELS = 1
"""Most channels for which shifted copies of the input are long runs."""

BLOCK_BYTES = 2 * 1024**2
"""Bytes of the products and sums of a thread's block. The block is larger than the L2 cache, since
each call of NumPy takes the interpreter's lock. A layer of 26x26 with 8 channels and 16 filters
takes 0.6 ms, and 0.95 ms in blocks of 512 KiB (measured)."""


class ShiftGemm(NumpyAlgorithm):
    name = "shift-gemm"

    def unsupported(self, layer: Layer, pass_: Pass) -> Unsupported | None:
        if layer.kernel_size == (1, 1):
            return Unsupported(
                "the kernel must be larger than 1x1; for 1x1, direct needs no copies",
                ("kernel_size",),
            )
        if layer.groups > 1:
            return Unsupported(
                "groups must be 1, since products for single groups would be too small",
                ("groups",),
            )
        if pass_ is not Pass.INPUT_GRADIENT and layer.strides != (1, 1):
            return Unsupported(
                "strides must be 1, so that a shift moves all positions alike", ("strides",)
            )
        if pass_ is Pass.KERNEL_GRADIENT and layer.channels > FEW_CHANNELS:
            return Unsupported(
                "the kernel gradient needs an input of one channel, whose shifted runs are long",
                ("input_shape",),
            )
        return None

    def cost_s(self, layer: Layer, pass_: Pass, threads: int) -> float:
        if pass_ is Pass.FORWARD:
            return _cost_s(Correlation.of(layer)) / threads
        if pass_ is Pass.INPUT_GRADIENT and suits_images_innermost(layer):
            return images_innermost_s(layer) / threads
        return sum(_cost_s(c) for p in phases(layer) if (c := p.correlation)) / threads

    def prepare(self, layer: Layer, pass_: Pass, threads: int) -> Threaded:
        if pass_ is Pass.FORWARD:
            return Forward(layer, threads)
        if pass_ is Pass.INPUT_GRADIENT:
            kind = ImagesInnermost if suits_images_innermost(layer) else InputGradient
            return kind(layer, threads)
        return KernelGradient(layer, threads)


def _cost_s(c: Correlation) -> float:
    """Predict the seconds in one thread.

    The prediction counts the products of all padded positions, and their sums or the copies.
    """
    rows, columns = c.reach(*c.output_size)
    positions, taps = c.batch_size * rows * columns, math.prod(c.kernel_size)
    each = taps * positions * c.itemsize
    kind = _kind(c)
    if kind is ShiftedSum:
        product = product_s(taps * c.filters, c.channels, positions, c.itemsize)
        return product + moved_s(each * c.filters / 2)
    if kind is ShiftedCopies:
        product = product_s(positions, taps * c.channels, c.filters, c.itemsize)
        return product + moved_s(each * c.channels)
    return taps * product_s(positions, c.channels, c.filters, c.itemsize) + moved_s(
        2 * each * c.filters
    )


class Rows:
    """The padded input of blocks. Row lies after row, so that every kernel position is a shift."""

    def __init__(self, correlation: Correlation) -> None:
        c = self._c = correlation
        (kh, kw), (dh, dw) = c.kernel_size, c.dilation_rate
        self.width = c.reach(1, c.output_size[1])[1]
        self.down, self.right = dh * self.width, dw  # shifts of the next kernel row and column
        self.last = (kh - 1) * self.down + (kw - 1) * self.right

    def shape(self, size: BlockSize) -> tuple[int, int, int, int]:
        return slab_shape(self._c, size)

    def of(self, x: Array, block: Block, scratch: Scratch) -> Array:
        """Return the padded input of a block, (images, rows, width, channels), C-contiguous."""
        c = self._c
        slab = scratch.array("slab", *self.shape(block.size))
        if c.is_padded:
            return cut(c, x, block, scratch).memory  # `cut` writes into the slab
        top, left = c.origin[0] + block.row, c.origin[1]
        rows, columns = slab.shape[1:3]
        slab[...] = x[block.first : block.last, top : top + rows, left : left + columns]
        return slab


def copies(c: Correlation, positions: int, scratch: Scratch) -> Array:
    """Return memory for the shifted copies, (kh, kw, channels, positions)."""
    return scratch.array("copies", *c.kernel_size, c.channels, positions)


def copied_shifts(c: Correlation, shifts: Rows, rows: Array, scratch: Scratch) -> Array:
    """Copy the input from its shift onwards for each kernel position and channel.

    The copies are (terms, positions).
    """
    length = math.prod(rows.shape[:3]) - shifts.last
    step = rows.itemsize
    column = c.channels * step
    shifted = np.ndarray(
        (*c.kernel_size, c.channels, length),
        rows.dtype,
        buffer=rows,
        strides=(shifts.down * column, shifts.right * column, step, column),
    )
    memory = copies(c, length, scratch)
    memory[...] = shifted
    return memory.reshape(c.terms, length)


class Shifting(ABC):
    """A correlation with strides of 1, block by block. Each way to add up is a subclass."""

    _multiply: Callable[..., object] = staticmethod(multiply)
    _add_bias = staticmethod(add_bias)

    def __init__(self, correlation: Correlation, scratch: list[Scratch]) -> None:
        c = self._c = correlation
        self._scratch = scratch
        self._rows = Rows(c)
        row = self._rows.width * c.itemsize * (c.channels + self._elements_a_position())
        size = block_size(c, row, BLOCK_BYTES, len(scratch))
        self._blocks = size.blocks(c)
        images, rows, width, channels = self._rows.shape(size)
        for memory in scratch:
            memory.array("slab", images, rows, width, channels)
            self._reserve(images * rows * width, memory)

    def stages(self) -> Iterator[Stage]:
        yield Stage("gather", "copy", self._rows, "of")
        yield Stage("product", "product", self, "_multiply")
        yield Stage("scatter", "arithmetic", self, "_summed")
        yield Stage("bias", "arithmetic", self, "_add_bias")

    def run(self, x: Array, kernel: Array, bias: Array | None, output: Array) -> None:
        """Write the result into `output`, a view (batch, rows, columns, filters).

        `kernel` is a view (kh, kw, channels, filters), in any order of memory.
        """
        matrix = self._matrix(kernel)
        blocks = iter(self._blocks)

        def work(thread: int) -> None:
            scratch = self._scratch[thread]
            for block in blocks:
                rows = self._rows.of(x, block, scratch)
                found = self._summed(rows, matrix, scratch)
                target = output[block.first : block.last, block.row : block.end]
                target[...] = found[:, : target.shape[1], : target.shape[2]]
                if bias is not None:
                    self._add_bias(target, bias)

        in_threads(work, len(self._scratch))

    @abstractmethod
    def _elements_a_position(self) -> int:
        """Return the number of elements of scratch memory for a position, without the input's."""

    @abstractmethod
    def _reserve(self, positions: int, scratch: Scratch) -> None:
        """Allocate the memory that a block of `positions` needs."""

    @abstractmethod
    def _matrix(self, kernel: Array) -> Array:
        """Return the kernel in the layout of the products. A copy counts as `call_bytes`."""

    @abstractmethod
    def _summed(self, rows: Array, matrix: Array, scratch: Scratch) -> Array:
        """Return the sums, (images, rows, width, filters). Only those of output positions count."""


class ProductAPosition(Shifting):
    """Many filters: the product of each kernel position is added to the sum in turn."""

    def _elements_a_position(self) -> int:
        return 2 * self._c.filters

    def _reserve(self, positions: int, scratch: Scratch) -> None:
        scratch.array("product", positions, self._c.filters)
        scratch.array("sum", positions, self._c.filters)

    def _matrix(self, kernel: Array) -> Array:
        return kernel

    def _summed(self, rows: Array, matrix: Array, scratch: Scratch) -> Array:
        c, shifts = self._c, self._rows
        flat = rows.reshape(-1, c.channels)
        length = len(flat) - shifts.last
        product = scratch.array("product", length, c.filters)
        total = scratch.array("sum", len(flat), c.filters)
        for p, q in np.ndindex(*c.kernel_size):
            shift = p * shifts.down + q * shifts.right
            met = flat[shift : shift + length]
            if shift == 0:
                self._multiply(met, matrix[p, q], out=total[:length])
            else:
                self._multiply(met, matrix[p, q], out=product)
                total[:length] += product
        return total.reshape(*rows.shape[:3], -1)


class ShiftedSum(Shifting):
    """Few filters: one product for all kernel positions, and a sum over shifted runs of it."""

    _multiply = np.matmul

    def _elements_a_position(self) -> int:
        return self._c.filters * (1 + math.prod(self._c.kernel_size))

    def _reserve(self, positions: int, scratch: Scratch) -> None:
        scratch.array("product", math.prod(self._c.kernel_size) * self._c.filters, positions)
        scratch.array("sum", self._c.filters, positions)

    def _matrix(self, kernel: Array) -> Array:
        return np.ascontiguousarray(kernel.transpose(0, 1, 3, 2)).reshape(-1, self._c.channels)

    def _summed(self, rows: Array, matrix: Array, scratch: Scratch) -> Array:
        c, shifts = self._c, self._rows
        flat = rows.reshape(-1, c.channels)
        positions, length = len(flat), len(flat) - shifts.last
        product = scratch.array("product", len(matrix), positions)
        self._multiply(matrix, flat.T, out=product)
        of_position, step = c.filters * positions, product.itemsize
        down, right = c.kernel_size[1] * of_position + shifts.down, of_position + shifts.right
        shifted = np.ndarray(
            (*c.kernel_size, c.filters, length),
            product.dtype,
            buffer=product,
            strides=(down * step, right * step, positions * step, step),
        )
        total = scratch.array("sum", c.filters, positions)
        np.add.reduce(shifted, axis=(0, 1), out=total[:, :length])
        return total.reshape(c.filters, *rows.shape[:3]).transpose(1, 2, 3, 0)


class ShiftedCopies(Shifting):
    """Few channels: a copy of the input for each kernel position, and one product."""

    _copied_shifts = staticmethod(copied_shifts)

    def stages(self) -> Iterator[Stage]:
        yield Stage("gather", "copy", self, "_copied_shifts")
        yield from super().stages()

    def _elements_a_position(self) -> int:
        return math.prod(self._c.kernel_size) * self._c.channels + self._c.filters

    def _reserve(self, positions: int, scratch: Scratch) -> None:
        copies(self._c, positions, scratch)
        scratch.array("sum", positions, self._c.filters)

    def _matrix(self, kernel: Array) -> Array:
        return np.ascontiguousarray(kernel).reshape(-1, self._c.filters)

    def _summed(self, rows: Array, matrix: Array, scratch: Scratch) -> Array:
        shifted = self._copied_shifts(self._c, self._rows, rows, scratch)
        total = scratch.array("sum", math.prod(rows.shape[:3]), self._c.filters)
        self._multiply(shifted.T, matrix, out=total[: shifted.shape[1]])
        return total.reshape(*rows.shape[:3], -1)


def shifting(correlation: Correlation, scratch: list[Scratch]) -> Shifting:
    """Prepare the correlation in the way that suits it."""
    return _kind(correlation)(correlation, scratch)


def _kind(c: Correlation) -> type[Shifting]:
    if c.channels <= min(FEW_CHANNELS, c.filters):
        return ShiftedCopies
    return ShiftedSum if c.filters <= FEW_FILTERS else ProductAPosition


STEPS = ("copy padded rows", "products, and sums at shifts")


class Forward(Threaded):
    def __init__(self, layer: Layer, threads: int) -> None:
        super().__init__(layer, threads, *STEPS, bias_step(layer))
        self._shifting = shifting(Correlation.of(layer), self._scratch)
        if isinstance(self._shifting, ShiftedSum):
            self.call_bytes = math.prod(layer.kernel_shape) * layer.itemsize

    def stages(self) -> Iterator[Stage]:
        return self._shifting.stages()

    def run(self) -> object:
        layer = self._layer
        output = self.result(layer.batch_size, *layer.output_shape)
        self._shifting.run(self._x, self._kernel, self._bias, output)
        return output


class InputGradient(Threaded):
    """The input gradient, as a correlation of the output gradient for each phase of the input."""

    def __init__(self, layer: Layer, threads: int) -> None:
        super().__init__(layer, threads, "flip the kernel", *STEPS)
        self._phases = [(phase, self._shifting(phase)) for phase in phases(layer)]
        small = [
            c.kernel_bytes
            for phase, way in self._phases
            if (c := phase.correlation) and not isinstance(way, ProductAPosition)
        ]
        self.call_bytes = max(small, default=0)

    def stages(self) -> Iterator[Stage]:
        for _, way in self._phases:
            if way is not None:
                yield from way.stages()

    def _shifting(self, phase: Phase) -> Shifting | None:
        c = phase.correlation
        return None if c is None else shifting(c, self._scratch)

    def run(self) -> object:
        layer = self._layer
        gradient = self.result(layer.batch_size, *layer.input_shape)
        for phase, way in self._phases:
            target = gradient[:, *phase.target]
            if way is None:
                target[...] = 0
            else:
                kernel = phase.kernel(self._kernel, 1)[0].transpose(1, 2, 3, 0)
                way.run(self._error, kernel, None, target)
        return gradient


class KernelGradient(Threaded):
    """The kernel gradient: shifted copies times the output gradient with zeros between its rows."""

    _copied_shifts = staticmethod(copied_shifts)
    _matmul = np.matmul

    def __init__(self, layer: Layer, threads: int) -> None:
        super().__init__(
            layer, threads, "copy padded rows", "copy errors between zeros", "matrix product"
        )
        c = self._c = Correlation.of(layer)
        self._rows = Rows(c)
        row = self._rows.width * c.itemsize * (c.channels * (1 + c.terms) + c.filters)
        size = block_size(c, row, BLOCK_BYTES, self._threads)
        self._blocks = size.blocks(c)
        for scratch in self._scratch:
            shape = self._rows.shape(size)
            scratch.array("slab", *shape)
            copies(c, math.prod(shape[:3]), scratch)
            scratch.array("errors", *shape[:3], c.filters)
            self._sums(scratch)

    def stages(self) -> Iterator[Stage]:
        yield Stage("gather", "copy", self._rows, "of")
        yield Stage("gather", "copy", self, "_copied_shifts")
        yield Stage("product", "product", self, "_matmul")

    def _sums(self, scratch: Scratch) -> tuple[Array, Array]:
        """Return memory for the product of a block and for the sum of all blocks."""
        shape = self._c.terms, self._c.filters
        return scratch.array("product", *shape), scratch.array("sum", *shape)

    def run(self) -> object:
        """Sum a fixed set of blocks in each thread, so that every call gives the same bits."""
        threads = min(self._threads, len(self._blocks))

        def work(thread: int) -> None:
            scratch = self._scratch[thread]
            product, total = self._sums(scratch)
            for index, block in enumerate(self._blocks[thread::threads]):
                rows = self._rows.of(self._x, block, scratch)
                shifted = self._copied_shifts(self._c, self._rows, rows, scratch)
                errors = self._errors(block, rows.shape, scratch)[: shifted.shape[1]]
                if index == 0:
                    self._matmul(shifted, errors, out=total)
                else:
                    total += self._matmul(shifted, errors, out=product)

        in_threads(work, threads)
        gradient = self._sums(self._scratch[0])[1].copy()
        for scratch in self._scratch[1:threads]:
            gradient += self._sums(scratch)[1]
        return gradient.reshape(self._layer.kernel_shape)

    def _errors(self, block: Block, shape: tuple[int, ...], scratch: Scratch) -> Array:
        """Copy the output gradient to (positions, filters), the positions being the input's.

        It is zero where there is no output.
        """
        errors = scratch.array("errors", *shape[:3], self._c.filters)
        given = self._error[block.first : block.last, block.row : block.end]
        rows, columns = given.shape[1:3]
        errors[:, :rows, :columns] = given
        errors[:, :rows, columns:] = 0
        errors[:, rows:] = 0
        return errors.reshape(-1, self._c.filters)
