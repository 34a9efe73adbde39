"""depthwise: multiply shifted rows by rows of kernels, and add them up in one go.

Every channel has its own filters, so nothing can be computed as a matrix product. Each kernel
position multiplies the input by its weights and adds the products to the sum. Inner loops over the
channels alone would be so short that they cost more than the arithmetic. So the weights of a
position are repeated across the width, and a loop runs over a whole row. np.einsum multiplies and
adds without an array in between.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.implementations.contract import Stage
from convbench.implementations.numpy.shared.correlation import (
    Block,
    BlockSize,
    Correlation,
    block_size,
    cut,
    phases,
    slab_shape,
)
from convbench.implementations.numpy.shared.cost import START_S
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

BLOCK_BYTES = 2 * 1024**2
"""Bytes of the rows that a thread works on at a time. Smaller blocks would stay in the L2 cache,
but each call of NumPy takes the interpreter's lock. With strides of 2, a layer takes 5.4 ms in
blocks of 256 KiB and 1.25 ms in blocks of 2 MiB (measured)."""

MULTIPLY_ADD_FLOPS_PER_S = 15e9
"""FLOP/s of np.einsum on rows in the L2 cache. A product and its addition take 0.13 ns
(measured)."""

SLOWER = 10
"""How much slower np.einsum is than a matrix product of the same FLOPs (measured)."""


class Depthwise(NumpyAlgorithm):
    name = "depthwise"

    def unsupported(self, layer: Layer, pass_: Pass) -> Unsupported | None:
        if layer.groups != layer.channels:
            return Unsupported(
                "groups must be the number of channels, so that each channel has its own filters",
                ("groups",),
            )
        return None

    def cost_s(self, layer: Layer, pass_: Pass, threads: int) -> float:
        products = layer.flops * layer.itemsize / 4 / MULTIPLY_ADD_FLOPS_PER_S
        return products / threads + START_S

    def prepare(self, layer: Layer, pass_: Pass, threads: int) -> Threaded:
        if pass_ is Pass.FORWARD:
            return Forward(layer, threads)
        if pass_ is Pass.INPUT_GRADIENT:
            return InputGradient(layer, threads)
        return KernelGradient(layer, threads)


@dataclass(frozen=True)
class Rows:
    """The input rows under the windows of a block, one run for each kernel column.

    Every channel occurs `repeats` times, once for each of its filters. With strides of 1 and one
    filter a channel, the runs are views that overlap in the padded input. Otherwise each run is a
    copy.
    """

    correlation: Correlation
    repeats: int

    @property
    def _is_copied(self) -> bool:
        return self.repeats > 1 or self.correlation.strides[1] > 1

    @property
    def run(self) -> int:
        """Number of elements of an output row."""
        return self.correlation.output_size[1] * self.correlation.channels * self.repeats

    def row_bytes(self) -> int:
        """Return the bytes of the buffers for one row of the output."""
        c = self.correlation
        copies = c.kernel_size[1] * self.run if self._is_copied else 0
        padded = slab_shape(c, BlockSize(1, 1))[2] * c.channels
        return (copies + padded) * c.strides[0] * c.itemsize

    def reserve(self, size: BlockSize, scratch: Scratch) -> None:
        c = self.correlation
        shape = slab_shape(c, size)
        if c.is_padded:
            scratch.array("slab", *shape)
        if self._is_copied:
            scratch.array("runs", *shape[:2], c.kernel_size[1], self.run)

    def of(self, x: Array, block: Block, scratch: Scratch) -> Array:
        """Return the rows of a block as a view (kh, kw, images, rows, run)."""
        c = self.correlation
        images, rows = block.last - block.first, block.end - block.row
        (kh, kw), (dilation_h, dilation_w) = c.kernel_size, c.dilation_rate
        found = cut(c, x, block, scratch)
        image, row, column, channel = found.memory.strides
        memory, offset, step = found.memory, found.offset, dilation_w * column
        if self._is_copied:
            height, width = c.reach(rows, 1)[0], c.output_size[1]
            met = np.ndarray(
                (images, height, kw, width, c.channels, 1),
                memory.dtype,
                buffer=memory,
                offset=offset,
                strides=(image, row, step, c.strides[1] * column, channel, 0),
            )
            memory, offset = scratch.array("runs", images, height, kw, self.run), 0
            memory.reshape(*met.shape[:-1], self.repeats)[...] = met
            image, row, step, channel = memory.strides
        return np.ndarray(
            (kh, kw, images, rows, self.run),
            memory.dtype,
            buffer=memory,
            offset=offset,
            strides=(dilation_h * row, step, image, c.strides[0] * row, channel),
        )


class PreparedDepthwise(Threaded):
    def __init__(self, layer: Layer, threads: int, *inside: str) -> None:
        super().__init__(layer, threads, *inside, flops=layer.flops * SLOWER)
        self._repeats = layer.filters // layer.groups


class Multiplying:
    """A correlation of each channel with its own weights, block by block.

    Each channel has `repeats` filters. The results of `summed` channels are added up. `dense` says
    that the output's positions lie side by side in memory.
    """

    _einsum: Callable[..., object] = staticmethod(np.einsum)
    _add_bias = staticmethod(add_bias)

    def __init__(
        self,
        correlation: Correlation,
        scratch: list[Scratch],
        repeats: int,
        summed: int,
        dense: bool,
    ) -> None:
        c = self._c = correlation
        self._rows = Rows(c, repeats)
        self._scratch = scratch
        self._summed = summed
        self._is_dense = dense and summed == 1
        row = self._rows.row_bytes() + self._rows.run * c.itemsize
        size = block_size(c, row, BLOCK_BYTES, len(scratch))
        self._blocks = size.blocks(c)
        for memory in scratch:
            self._rows.reserve(size, memory)
            if not self._is_dense:
                memory.array("result", size.images, size.rows, self._rows.run)

    def stages(self) -> Iterator[Stage]:
        yield Stage("gather", "copy", self._rows, "of")
        yield Stage("product", "product", self, "_einsum")
        yield Stage("bias", "arithmetic", self, "_add_bias")

    def run(self, x: Array, kernel: Array, bias: Array | None, output: Array) -> None:
        """Write the result into `output`, a view (batch, rows, columns, channels).

        `kernel` is (kh, kw, filters).
        """
        width = self._c.output_size[1]
        weights = np.tile(kernel, (1, 1, width))
        blocks = iter(self._blocks)

        def work(thread: int) -> None:
            scratch = self._scratch[thread]
            for block in blocks:
                rows = self._rows.of(x, block, scratch)
                target = output[block.first : block.last, block.row : block.end]
                if self._is_dense:
                    flat = target.reshape(rows.shape[2:])
                    self._einsum("pqnix,pqx->nix", rows, weights, out=flat)
                else:
                    found = scratch.array("result", *rows.shape[2:])
                    self._einsum("pqnix,pqx->nix", rows, weights, out=found)
                    if self._summed == 1:  # a reduction would take four times as long
                        target[...] = found.reshape(target.shape)
                    else:
                        parts = found.reshape(*target.shape, self._summed)
                        np.add.reduce(parts, axis=4, out=target)
                if bias is not None:
                    self._add_bias(target, bias)

        in_threads(work, len(self._scratch))


class Forward(PreparedDepthwise):
    def __init__(self, layer: Layer, threads: int) -> None:
        super().__init__(
            layer,
            threads,
            "repeat the kernel across a row",
            "pad rows",
            "multiply and add rows",
            bias_step(layer),
        )
        c = Correlation.of(layer)
        self._multiplying = Multiplying(c, self._scratch, self._repeats, 1, dense=True)
        self.call_bytes = layer.output_size[1] * math.prod(layer.kernel_shape) * layer.itemsize

    def stages(self) -> Iterator[Stage]:
        return self._multiplying.stages()

    def run(self) -> object:
        layer = self._layer
        output = self.result(layer.batch_size, *layer.output_shape)
        self._multiplying.run(self._x, self._kernel[:, :, 0], self._bias, output)
        return output


class InputGradient(PreparedDepthwise):
    """The input gradient, as a correlation of the output gradient for each phase of the input."""

    def __init__(self, layer: Layer, threads: int) -> None:
        super().__init__(
            layer,
            threads,
            "repeat the flipped kernel across a row",
            "pad rows",
            "multiply and add rows",
        )
        self._phases = [(phase, self._multiplying(phase.correlation)) for phase in phases(layer)]
        width = max((c.output_size[1] for p, _ in self._phases if (c := p.correlation)), default=0)
        self.call_bytes = width * math.prod(layer.kernel_shape) * layer.itemsize

    def _multiplying(self, correlation: Correlation | None) -> Multiplying | None:
        if correlation is None:
            return None
        dense = self._layer.strides == (1, 1)
        return Multiplying(correlation, self._scratch, 1, self._repeats, dense)

    def stages(self) -> Iterator[Stage]:
        for _, multiplying in self._phases:
            if multiplying is not None:
                yield from multiplying.stages()

    def run(self) -> object:
        layer = self._layer
        gradient = self.result(layer.batch_size, *layer.input_shape)
        for phase, multiplying in self._phases:
            target = gradient[:, *phase.target]
            if multiplying is None:
                target[...] = 0
            else:
                multiplying.run(self._error, self._kernel[phase.taps][:, :, 0], None, target)
        return gradient


class KernelGradient(PreparedDepthwise):
    """The kernel gradient: rows of the input times rows of the output gradient, summed."""

    _einsum: Callable[..., object] = staticmethod(np.einsum)

    def __init__(self, layer: Layer, threads: int) -> None:
        super().__init__(
            layer, threads, "pad rows", "multiply and add rows", "sum across the width"
        )
        c = Correlation.of(layer)
        self._rows = Rows(c, self._repeats)
        size = block_size(c, self._rows.row_bytes() or 1, BLOCK_BYTES, self._threads)
        self._blocks = size.blocks(c)
        for scratch in self._scratch:
            self._rows.reserve(size, scratch)
            self._sums(scratch)

    def stages(self) -> Iterator[Stage]:
        yield Stage("gather", "copy", self._rows, "of")
        yield Stage("product", "product", self, "_einsum")

    def _sums(self, scratch: Scratch) -> tuple[Array, Array]:
        """Return memory for the sums of one block and of all blocks: (kh, kw, output row)."""
        shape = (*self._layer.kernel_size, self._rows.run)
        return scratch.array("block", *shape), scratch.array("sum", *shape)

    def run(self) -> object:
        """Sum a fixed set of blocks in each thread, so that every call gives the same bits."""
        threads = min(self._threads, len(self._blocks))
        found: list[Array] = [np.empty(0)] * threads

        def work(thread: int) -> None:
            scratch = self._scratch[thread]
            one, total = self._sums(scratch)
            for index, block in enumerate(self._blocks[thread::threads]):
                rows = self._rows.of(self._x, block, scratch)
                error = self._error[block.first : block.last, block.row : block.end]
                error = error.reshape(rows.shape[2:])
                self._einsum("pqnix,nix->pqx", rows, error, out=one if index else total)
                if index:
                    total += one
            across = total.reshape(*self._layer.kernel_size, self._layer.output_size[1], -1)
            found[thread] = np.add.reduce(across, axis=2)

        in_threads(work, threads)
        gradient = found[0]
        for other in found[1:]:
            gradient += other
        return gradient[:, :, None]
