"""mec: columns a kernel row high, which the windows of one output row share without a copy.

Cho and Brand, "MEC: Memory-efficient Convolution for Deep Neural Network" (arXiv:1706.06873). For
each output column the kernel-wide runs of all input rows lie one below the other, so that the
window of an output row is a stretch of them: as many rows as the kernel has. Its columns are a view
whose lines are further apart than they are long, which BLAS multiplies as it is. im2col copies
every element kernel height times as often; here products are as short as an output row.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.implementations.columns import BIAS_IN_KERNEL, MAX_BYTES, ONES_TERMS
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
from convbench.implementations.cost import START_S, moved_s, product_s
from convbench.implementations.scratch import Scratch
from convbench.implementations.threaded import NumpyAlgorithm, Threaded, add_bias, bias_step
from convbench.implementations.threads import in_threads
from convbench.layer import Layer, Pass

Array = NDArray[np.floating[Any]]

MAX_KERNEL_BYTES = MAX_BYTES // 8
"""Of a kernel whose gradient is computed: its products for several rows must stay in the cache."""

FEW_CHANNELS = 8
"""Runs as short as so many channels cost more than a loop over them, along the columns."""

SHORT_START_S = START_S / 30
"""Of one of many products that a single call of NumPy makes."""


class Mec(NumpyAlgorithm):
    name = "mec"

    def unsupported(self, layer: Layer, pass_: Pass) -> str | None:
        if layer.kernel_size[0] == 1:
            return "a kernel of one row has no rows to share: im2col copies as little"
        if layer.groups > 1:
            return "the channels of a window must lie side by side: groups must be 1"
        if layer.dilation_rate != (1, 1):
            return "the rows of a window must lie side by side: dilation_rate must be 1"
        kernel_bytes = Correlation.of(layer).kernel_bytes
        if pass_ is Pass.KERNEL_GRADIENT and kernel_bytes > MAX_KERNEL_BYTES:
            return f"a product as large as the kernel for each row: {kernel_bytes} bytes"
        return None

    def cost_s(self, layer: Layer, pass_: Pass, threads: int) -> float:
        turned = pass_ is Pass.INPUT_GRADIENT and not sums_lowered(layer)
        c = _phase(layer)[1] if turned else Correlation.of(layer)
        rows, columns = c.batch_size * c.output_size[0], c.output_size[1]
        height = c.reach(*c.output_size)[0] / c.output_size[0]
        copied = c.positions * height * c.kernel_size[1] * c.channels * c.itemsize
        product = product_s(columns, c.terms, c.filters, c.itemsize) - START_S + SHORT_START_S
        return (rows * product + moved_s(copied)) / threads

    def prepare(self, layer: Layer, pass_: Pass, threads: int) -> Threaded:
        if pass_ is Pass.FORWARD:
            return Forward(layer, threads)
        if pass_ is Pass.INPUT_GRADIENT:
            kind = LoweredSums if sums_lowered(layer) else InputGradient
            return kind(layer, threads)
        return KernelGradient(layer, threads)


def sums_lowered(layer: Layer) -> bool:
    """Whether the input gradient's products are added up in lowered memory."""
    return layer.strides != (1, 1)


def _phase(layer: Layer) -> tuple[Phase, Correlation]:
    """The input gradient of a layer with strides of 1."""
    (phase,) = phases(layer)
    assert phase.correlation is not None
    return phase, phase.correlation


class Lowered:
    """The lowered input of blocks: (images, output columns, input rows, run).

    With ones, each run has a 1 after it: the product with a kernel whose first row has the bias
    there, and the others 0, adds it in passing.
    """

    def __init__(
        self,
        correlation: Correlation,
        parts: int,
        row_bytes: int,
        taken: int = 0,
        has_ones: bool = False,
    ) -> None:
        """`row_bytes` are of what else a block needs for each output row, `taken` for all."""
        c = self._c = correlation
        self._run = c.kernel_size[1] * c.channels
        self._pitch = self._run + has_ones
        # Bytes of an input row: what is lowered, and the padded copy.
        line = c.output_size[1] * self._pitch * c.itemsize
        if c.is_padded:
            line += slab_shape(c, BlockSize(1, 1))[2] * c.channels * c.itemsize
        row = line * c.strides[0] + row_bytes
        halo = line * (c.kernel_size[0] - c.strides[0])  # of a block of rows; of each image
        height = c.output_size[0]
        budget = MAX_BYTES - taken
        whole = row * height + halo
        if whole <= budget:
            self.size = block_size(c, math.ceil(whole / height), budget, parts)
        else:
            self.size = block_size(c, row, budget - halo, parts)
        self.blocks = list(self.size.blocks(c))

    def reserve(self, scratch: Scratch) -> None:
        """Allocates what the largest block needs."""
        shape = slab_shape(self._c, self.size)
        if self._c.is_padded:
            scratch.array("slab", *shape)
        scratch.array("lowered", shape[0], self._c.output_size[1], shape[1], self._pitch)

    def windows(self, x: Array, block: Block, scratch: Scratch) -> Array:
        """A view (output rows, images, output columns, terms) of what is lowered here."""
        c = self._c
        found = cut(c, x, block, scratch)
        images, height, _, _ = slab_shape(c, block.size)
        image, row, column, _ = found.memory.strides
        # A run is copied as one element, which is faster than the floats that it is made of.
        run = np.dtype((np.void, self._run * c.itemsize))
        runs = np.ndarray(
            (images, c.output_size[1], height),
            run,
            buffer=found.memory,
            offset=found.offset,
            strides=(image, c.strides[1] * column, row),
        )
        lowered = scratch.array("lowered", *runs.shape, self._pitch)
        np.ndarray(runs.shape, run, lowered, strides=lowered.strides[:3])[...] = runs
        lowered[..., self._run :] = 1
        image, column, row, element = lowered.strides
        return np.ndarray(
            (block.end - block.row, images, c.output_size[1], c.kernel_size[0] * self._pitch),
            lowered.dtype,
            buffer=lowered,
            strides=(row * c.strides[0], image, column, element),
        )


class Correlating:
    """A correlation whose output rows lie side by side, block by block."""

    def __init__(
        self,
        correlation: Correlation,
        scratch: list[Scratch],
        taken: int = 0,
        has_ones: bool = False,
    ) -> None:
        self._scratch = scratch
        c = correlation
        # What is written is worth being still in the cache when the bias is added.
        row = c.output_size[1] * c.filters * c.itemsize
        self._lowered = Lowered(c, len(scratch), row, taken, has_ones)
        for memory in scratch:
            self._lowered.reserve(memory)

    def run(self, x: Array, kernel: Array, bias: Array | None, output: Array) -> None:
        """Writes into `output` (batch, rows, columns, filters); `kernel` is (terms, filters)."""
        blocks = iter(self._lowered.blocks)  # next() of a list's iterator is safe in threads

        def work(thread: int) -> None:
            for block in blocks:
                windows = self._lowered.windows(x, block, self._scratch[thread])
                target = output[block.first : block.last, block.row : block.end]
                np.matmul(windows.transpose(1, 0, 2, 3), kernel, out=target)
                if bias is not None:
                    add_bias(target, bias)

        in_threads(work, len(self._scratch))


LOWER = "lower the rows"


class Forward(Threaded):
    def __init__(self, layer: Layer, threads: int) -> None:
        c = Correlation.of(layer)
        pad = "pad the block's images" if c.is_padded else ""
        self._has_ones = layer.use_bias and c.terms <= ONES_TERMS
        bias = BIAS_IN_KERNEL if self._has_ones else bias_step(layer)
        super().__init__(layer, threads, pad, LOWER, "a product a row", bias)
        self._correlating = Correlating(c, self._scratch, has_ones=self._has_ones)

    def run(self) -> object:
        layer = self._layer
        output = self.result(layer.batch_size, *layer.output_shape)
        kernel, bias = self._kernel.reshape(layer.kernel_size[0], -1, layer.filters), self._bias
        if self._has_ones:
            more = np.zeros((len(kernel), 1, layer.filters), kernel.dtype)
            more[0] = bias
            kernel, bias = np.concatenate((kernel, more), axis=1), None
        self._correlating.run(self._x, kernel.reshape(-1, layer.filters), bias, output)
        return output


class InputGradient(Threaded):
    """The same of the output gradient, with the kernel flipped and its axes exchanged."""

    def __init__(self, layer: Layer, threads: int) -> None:
        self._phase, c = _phase(layer)
        pad = "pad the block's images" if c.is_padded else ""
        super().__init__(layer, threads, pad, "flip the kernel", LOWER, "a product a row")
        self.call_bytes = c.kernel_bytes
        taken = c.kernel_bytes // self._threads
        self._correlating = Correlating(c, self._scratch, taken)

    def run(self) -> object:
        layer = self._layer
        gradient = self.result(layer.batch_size, *layer.input_shape)
        flipped = self._phase.kernel(self._kernel, 1)[0].transpose(1, 2, 3, 0)
        kernel = np.ascontiguousarray(flipped).reshape(-1, layer.channels)
        self._correlating.run(self._error, kernel, None, gradient)
        return gradient


class LoweredSums(Threaded):
    """The same backwards: products of output rows are added to the stretches that their windows
    are of what is lowered, and then the kernel's columns to the columns that they met.
    """

    def __init__(self, layer: Layer, threads: int) -> None:
        super().__init__(
            layer,
            min(threads, layer.batch_size),
            "a product a row",
            "add rows to what is lowered",
            "add that to the columns",
        )
        c = self._c = Correlation.of(layer)
        width = c.output_size[1]
        self.call_bytes = c.kernel_bytes
        self._run = c.kernel_size[1] * c.channels
        self._height = max(c.reach(*c.output_size)[0], layer.padded_size[0])
        # Rows of products at a time, beside the lowered image.
        lowered = width * self._height * self._run * c.itemsize
        self._rows = max((MAX_BYTES - lowered) // (width * c.terms * c.itemsize), 1)
        self._rows = min(self._rows, c.output_size[0])
        for scratch in self._scratch:
            scratch.array("lowered", width, self._height, self._run)
            scratch.array("product", self._rows, width, c.terms)

    def run(self) -> object:
        layer = self._layer
        gradient = self.result(layer.batch_size, *layer.input_shape)
        kernel = np.ascontiguousarray(self._kernel.reshape(-1, layer.filters).T)
        images = iter(range(layer.batch_size))

        def work(thread: int) -> None:
            scratch = self._scratch[thread]
            for image in images:
                lowered = self._lowered(self._error[image], kernel, scratch)
                self._raise(lowered, gradient[image])

        in_threads(work, self._threads)
        return gradient

    def _lowered(self, error: Array, kernel: Array, scratch: Scratch) -> Array:
        """(output columns, padded rows, kernel columns, channels) of an image."""
        c = self._c
        height, width = c.output_size
        lowered = scratch.array("lowered", width, self._height, self._run)
        lowered[...] = 0
        for first in range(0, height, self._rows):
            last = min(first + self._rows, height)
            products = scratch.array("product", (last - first) * width, c.terms)
            np.matmul(error[first:last].reshape(-1, c.filters), kernel, out=products)
            for row, product in enumerate(products.reshape(-1, width, c.terms), first):
                top = row * c.strides[0]
                stretch = lowered[:, top : top + c.kernel_size[0]]
                stretch += product.reshape(stretch.shape)
        return lowered.reshape(width, self._height, c.kernel_size[1], c.channels)

    def _raise(self, lowered: Array, gradient: Array) -> None:
        """Adds the columns of the windows of one image to those that they met."""
        layer, c = self._layer, self._c
        (top, _), (left, _) = layer.pads
        rows, columns = layer.input_size
        gradient[...] = 0
        inside = lowered[:, top : top + rows].transpose(1, 0, 2, 3)
        stride = c.strides[1]
        for q in range(c.kernel_size[1]):
            start = q - left  # the column that the first window's tap meets
            low = max(-(start // stride), 0)
            high = max(min((columns - 1 - start) // stride + 1, c.output_size[1]), low)
            at = start + low * stride
            met = gradient[:, at : at + (high - low) * stride : stride]
            if c.channels <= FEW_CHANNELS:
                for channel in range(c.channels):
                    met[..., channel] += inside[:, low:high, q, channel]
            else:
                met += inside[:, low:high, q]


class KernelGradient(Threaded):
    """The windows of an output row of all images, transposed, times its output gradient; summed."""

    def __init__(self, layer: Layer, threads: int) -> None:
        c = self._c = Correlation.of(layer)
        pad = "pad the block's images" if c.is_padded else ""
        super().__init__(
            layer, threads, pad, LOWER, "copy errors row by row", "a product a row", "sum"
        )
        row = c.output_size[1] * c.filters * c.itemsize + c.kernel_bytes
        self._lowered = Lowered(c, self._threads, row, 2 * c.kernel_bytes)
        size = self._lowered.size
        for scratch in self._scratch:
            self._lowered.reserve(scratch)
            scratch.array("errors", size.rows, size.images, c.output_size[1], c.filters)
            scratch.array("products", size.rows, c.terms, c.filters)
            self._sums(scratch)

    def _sums(self, scratch: Scratch) -> tuple[Array, Array]:
        """That of a block, and that of all blocks."""
        shape = self._c.terms, self._c.filters
        return scratch.array("block", *shape), scratch.array("sum", *shape)

    def run(self) -> object:
        """Which blocks a thread sums is fixed, so that a call repeats itself to the last bit."""
        c, blocks = self._c, self._lowered.blocks
        threads = min(self._threads, len(blocks))

        def work(thread: int) -> None:
            scratch = self._scratch[thread]
            of_block, total = self._sums(scratch)
            for index, block in enumerate(blocks[thread::threads]):
                products = self._products(block, scratch)
                if index == 0:
                    np.add.reduce(products, axis=0, out=total)
                else:
                    total += np.add.reduce(products, axis=0, out=of_block)

        in_threads(work, threads)
        gradient = self.result(*self._layer.kernel_shape)
        flat = gradient.reshape(c.terms, c.filters)
        flat[...] = self._sums(self._scratch[0])[1]
        for scratch in self._scratch[1:threads]:
            flat += self._sums(scratch)[1]
        return gradient

    def _products(self, block: Block, scratch: Scratch) -> Array:
        """(output rows, terms, filters), of all images of the block."""
        c = self._c
        windows = self._lowered.windows(self._x, block, scratch)
        rows, images, width, _ = windows.shape
        errors = scratch.array("errors", rows, images, width, c.filters)
        error = self._error[block.first : block.last, block.row : block.end]
        errors[...] = error.transpose(1, 0, 2, 3)
        products = scratch.array("products", rows, c.terms, c.filters)
        np.matmul(
            windows.reshape(rows, -1, c.terms).transpose(0, 2, 1),
            errors.reshape(rows, -1, c.filters),
            out=products,
        )
        return products
