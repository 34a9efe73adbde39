"""shift-gemm: a product for each kernel position, shifted and added up, with no columns.

Anderson, Vasudevan, Keane and Gregg, "Low-memory GEMM-based convolution algorithms for deep neural
networks" (arXiv:1709.03395). Rows of the padded input lie one after the other, so that a shift of
the kernel is a shift of one long run; what comes out beside the output's columns is not looked at.

With many filters each position's product is added to the sum in turn. With few, as in the gradient
to an image, one product takes all positions, and one sum runs over a view of it whose rows begin
each at their own shift.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.implementations.contract import Costed, Ledger
from convbench.implementations.correlation import (
    Block,
    BlockSize,
    Correlation,
    Phase,
    block_size,
    cut,
    phases,
    slab_shape,
)
from convbench.implementations.cost import moved_s, product_s
from convbench.implementations.im2col import copied
from convbench.implementations.scratch import Scratch
from convbench.implementations.threads import in_threads, worthwhile
from convbench.layer import Layer, Pass
from convbench.operands import Operands

Array = NDArray[np.floating[Any]]

FEW = 8
"""Filters up to which one product for all kernel positions is the faster."""

BLOCK_BYTES = 512 * 1024
"""Of the products and sums of a thread's block, which stay in its L2 cache."""


class ShiftGemm(Costed):
    name = "shift-gemm"
    runtime = "numpy"

    def unsupported(self, layer: Layer, pass_: Pass) -> str | None:
        if pass_ is Pass.KERNEL_GRADIENT:
            return "the kernel's gradient has no shifted sums: im2col does what is left"
        if layer.groups > 1:
            return "groups are too small for a product each: groups must be 1"
        if pass_ is Pass.FORWARD and layer.strides != (1, 1):
            return "a shift must be one of all positions: strides must be 1"
        return None

    def exact(self, layer: Layer, pass_: Pass) -> bool:
        return True

    def cost_s(self, layer: Layer, pass_: Pass, threads: int) -> float:
        if pass_ is Pass.FORWARD:
            return _cost_s(Correlation.of(layer)) / threads
        return sum(_cost_s(c) for p in phases(layer) if (c := p.correlation)) / threads

    def workspace_bytes(self, layer: Layer, pass_: Pass, threads: int) -> int:
        prepared = self.prepare(layer, pass_, threads)
        return sum(buffer.nbytes for buffer in prepared.buffers) + prepared.call_bytes

    def prepare(self, layer: Layer, pass_: Pass, threads: int) -> Forward | InputGradient:
        return (Forward if pass_ is Pass.FORWARD else InputGradient)(layer, threads)


def _cost_s(c: Correlation) -> float:
    """In one thread: products of all padded positions, and the sums of them."""
    rows, columns = c.reach(*c.output_size)
    positions, taps = c.batch_size * rows * columns, math.prod(c.kernel_size)
    sums = moved_s(taps * positions * c.filters * c.itemsize)
    if c.filters <= FEW:
        return product_s(taps * c.filters, c.channels, positions, c.itemsize) + sums / 2
    return taps * product_s(positions, c.channels, c.filters, c.itemsize) + 2 * sums


class Correlating:
    """One correlation with strides of 1, block by block."""

    def __init__(self, correlation: Correlation, scratch: list[Scratch]) -> None:
        c = self._c = correlation
        self._scratch = scratch
        self.has_few = c.filters <= FEW
        self._taps = math.prod(c.kernel_size)
        self._width = c.reach(1, c.output_size[1])[1]
        row = self._width * c.itemsize
        row *= c.channels + c.filters * (1 + (self._taps if self.has_few else 1))
        size = block_size(c, row, BLOCK_BYTES, len(scratch))
        self._blocks = list(size.blocks(c))
        for memory in scratch:
            self._memory(size, memory)

    def _memory(self, size: BlockSize, scratch: Scratch) -> tuple[Array, Array, Array]:
        """The input of a block row after row, its products, and their sum."""
        c = self._c
        shape = slab_shape(c, size)
        length = math.prod(shape[:3])
        slab = scratch.array("slab", *shape)
        products = c.filters * (self._taps if self.has_few else 1)
        product = scratch.array("product", products * length)
        return slab, product, scratch.array("sum", c.filters * length)

    def run(self, x: Array, kernel: Array, bias: Array | None, output: Array) -> None:
        """Writes into `output`, a view (batch, rows, columns, filters).

        `kernel` is (positions, filters, channels) with few filters, else (positions, channels,
        filters), in any order of memory.
        """
        blocks = iter(self._blocks)

        def work(thread: int) -> None:
            for block in blocks:
                target = output[block.first : block.last, block.row : block.end]
                target[...] = self._block(x, kernel, block, self._scratch[thread])
                if bias is not None:
                    target += bias

        in_threads(work, len(self._scratch))

    def _block(self, x: Array, kernel: Array, block: Block, scratch: Scratch) -> Array:
        """(images, rows, columns, filters) of a block: a view of scratch memory."""
        c = self._c
        size = BlockSize(block.last - block.first, block.end - block.row)
        slab, product, total = self._memory(size, scratch)
        self._fill(slab, x, block, scratch)
        images, height, width, _ = slab.shape
        flat = slab.reshape(-1, c.channels)
        (kh, kw), (dh, dw) = c.kernel_size, c.dilation_rate
        last = (kh - 1) * dh * width + (kw - 1) * dw
        length = len(flat) - last  # of the runs that all kernel positions have
        if self.has_few:
            products = product.reshape(-1, len(flat))
            np.matmul(kernel.reshape(-1, c.channels), flat.T, out=products)
            step = products.itemsize
            along = c.filters * len(flat)
            shifted = np.ndarray(
                (kh, kw, c.filters, length),
                products.dtype,
                buffer=products,
                strides=(
                    (kw * along + dh * width) * step,
                    (along + dw) * step,
                    len(flat) * step,
                    step,
                ),
            )
            sums = total.reshape(c.filters, -1)
            np.add.reduce(shifted, axis=(0, 1), out=sums[:, :length])
            found = sums.reshape(c.filters, images, height, width).transpose(1, 2, 3, 0)
        else:
            sums = total.reshape(-1, c.filters)
            products = product.reshape(-1, c.filters)[:length]
            for position, matrix in enumerate(kernel):
                shift = position // kw * dh * width + position % kw * dw
                met = flat[shift : shift + length]
                if position == 0:
                    np.matmul(met, matrix, out=sums[:length])
                else:
                    sums[:length] += np.matmul(met, matrix, out=products)
            found = sums.reshape(images, height, width, c.filters)
        return found[:, : size.rows, : c.output_size[1]]

    def _fill(self, slab: Array, x: Array, block: Block, scratch: Scratch) -> None:
        c = self._c
        if c.is_padded:
            cut(c, x, block, scratch)  # into the same memory
            return
        top, left = c.origin[0] + block.row, c.origin[1]
        rows, columns = slab.shape[1:3]
        slab[...] = x[block.first : block.last, top : top + rows, left : left + columns]


class PreparedShiftGemm:
    call_bytes = 0  # what a call allocates beside its result

    def __init__(self, layer: Layer, threads: int) -> None:
        self._layer = layer
        self._threads = worthwhile(threads, layer.flops)
        self._scratch = [Scratch(layer.dtype) for _ in range(self._threads)]

    @property
    def buffers(self) -> tuple[Array, ...]:
        return tuple(array for scratch in self._scratch for array in scratch.buffers)

    def _ledger_of(self, *inside: str) -> Ledger:
        return Ledger(
            inside,
            ("copy of the operands into NHWC", "allocation of the buffers"),
        )

    def to_numpy(self, result: object) -> Array:
        return np.asarray(result)


class Forward(PreparedShiftGemm):
    def __init__(self, layer: Layer, threads: int) -> None:
        super().__init__(layer, threads)
        self._correlating = Correlating(Correlation.of(layer), self._scratch)
        bias = ("add the bias",) if layer.use_bias else ()
        self.ledger = self._ledger_of(
            "copy padded rows", "a product a kernel position", "shifted sums", *bias
        )
        self.call_bytes = self._correlating.has_few * math.prod(layer.kernel_shape) * layer.itemsize

    def load(self, operands: Operands) -> None:
        assert operands.input is not None
        assert operands.kernel is not None
        self._x = operands.own(operands.input)
        self._kernel = operands.own(operands.kernel)
        self._bias = None if operands.bias is None else operands.own(operands.bias)

    def run(self) -> object:
        layer = self._layer
        output = np.empty((layer.batch_size, *layer.output_shape), layer.dtype)
        kernel = self._kernel.reshape(-1, layer.channels, layer.filters)
        if self._correlating.has_few:
            kernel = copied(kernel.transpose(0, 2, 1), axis=2, threads=self._threads)
        self._correlating.run(self._x, kernel, self._bias, output)
        return output


class InputGradient(PreparedShiftGemm):
    """A correlation of the output gradient for each phase of the input."""

    def __init__(self, layer: Layer, threads: int) -> None:
        super().__init__(layer, threads)
        self._phases = [(phase, self._correlating(phase)) for phase in phases(layer)]
        self.ledger = self._ledger_of(
            "flip the kernel", "copy padded rows", "a product a kernel position", "shifted sums"
        )
        kernels = [c.kernel_bytes for p, _ in self._phases if (c := p.correlation)]
        self.call_bytes = max(kernels, default=0)

    def _correlating(self, phase: Phase) -> Correlating | None:
        c = phase.correlation
        return None if c is None else Correlating(c, self._scratch)

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
            if correlating is None:
                target[...] = 0
                continue
            taps = phase.kernel(self._kernel, 1)[0].transpose(1, 2, 0, 3)
            taps = copied(taps, axis=2, threads=self._threads)
            kernel = taps.reshape(-1, layer.channels, layer.filters)
            if not correlating.has_few:
                kernel = kernel.transpose(0, 2, 1)
            correlating.run(self._error, kernel, None, target)
        return gradient
