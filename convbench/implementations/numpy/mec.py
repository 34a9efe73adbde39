"""mec: gather columns one kernel row high, which the windows of several output rows share.

The method is that of Cho and Brand, "MEC: Memory-efficient Convolution for Deep Neural Network"
(arXiv:1706.06873). For each output column, the kernel-wide runs of all input rows lie one below the
other. The window of an output row is a stretch of these runs, as long as the kernel is high. The
windows of an output row are a view, whose lines are further apart than they are long. BLAS
multiplies it without a copy. For a kernel of n rows, im2col copies n times as much, but a product
here is only as long as an output row.

If few filters would leave most of a vector register idle, a row of a product is a strip of several
output columns (`shared/lowered.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.implementations.contract import Stage
from convbench.implementations.numpy.shared.columns import BIAS_IN_KERNEL, MAX_BYTES, ONES_TERMS
from convbench.implementations.numpy.shared.correlation import Block, Correlation, Phase, phases
from convbench.implementations.numpy.shared.cost import START_S, moved_s, product_s
from convbench.implementations.numpy.shared.lowered import Lowered, run_columns, strip_width
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

MAX_KERNEL_BYTES = MAX_BYTES // 8
"""Largest kernel in bytes for which `mec` computes the gradient. The products for several rows,
each as large as the kernel, must stay in the cache."""

FEW_CHANNELS = 8
"""Most channels for which adding channel by channel pays, since a run of so few is short."""

SHORT_START_S = START_S / 30
"""Seconds to start one of the many products that a single call of NumPy makes."""


class Mec(NumpyAlgorithm):
    name = "mec"

    def unsupported(self, layer: Layer, pass_: Pass) -> Unsupported | None:
        if layer.kernel_size[0] == 1:
            return Unsupported(
                "the kernel must have several rows; with one, im2col copies as little",
                ("kernel_size",),
            )
        if layer.groups > 1:
            return Unsupported(
                "groups must be 1, so that the channels of a window lie side by side", ("groups",)
            )
        if layer.dilation_rate != (1, 1):
            return Unsupported(
                "dilation_rate must be 1, so that the rows of a window lie side by side",
                ("dilation_rate",),
            )
        kernel_bytes = Correlation.of(layer).kernel_bytes
        if pass_ is Pass.KERNEL_GRADIENT and kernel_bytes > MAX_KERNEL_BYTES:
            return Unsupported(
                f"the kernel must have at most {MAX_KERNEL_BYTES} bytes, found {kernel_bytes}; "
                "each output row has a product as large as the kernel",
                ("kernel_size",),
            )
        return None

    def cost_s(self, layer: Layer, pass_: Pass, threads: int) -> float:
        is_input_gradient, sums = pass_ is Pass.INPUT_GRADIENT, sums_lowered(layer)
        c = _phase(layer)[1] if is_input_gradient and not sums else Correlation.of(layer)
        strip = 1 if is_input_gradient and sums else strip_width(c)
        rows, columns = c.batch_size * c.output_size[0], c.output_size[1]
        height = c.reach(*c.output_size)[0] / c.output_size[0]
        copied = c.positions * height * run_columns(c, strip) / strip * c.channels * c.itemsize
        terms = c.kernel_size[0] * run_columns(c, strip) * c.channels
        each = product_s(columns // strip, terms, strip * c.filters, c.itemsize)
        return (rows * (each - START_S + SHORT_START_S) + moved_s(copied)) / threads

    def prepare(self, layer: Layer, pass_: Pass, threads: int) -> Threaded:
        if pass_ is Pass.FORWARD:
            return Forward(layer, threads)
        if pass_ is Pass.INPUT_GRADIENT:
            kind = LoweredSums if sums_lowered(layer) else InputGradient
            return kind(layer, threads)
        return KernelGradient(layer, threads)


def sums_lowered(layer: Layer) -> bool:
    """Return whether the input gradient's products are added up in lowered memory."""
    return layer.strides != (1, 1)


def _phase(layer: Layer) -> tuple[Phase, Correlation]:
    """Return the only phase of the input gradient of a layer with strides of 1."""
    (phase,) = phases(layer)
    assert phase.correlation is not None
    return phase, phase.correlation


class Correlating:
    """A correlation whose output rows lie side by side. It is computed block by block."""

    _matmul = np.matmul
    _add_bias = staticmethod(add_bias)

    def __init__(
        self,
        correlation: Correlation,
        scratch: list[Scratch],
        *,
        has_ones: bool = False,
        is_flipped: bool = False,
    ) -> None:
        """Allocate the buffers. If `has_ones`, the products add the bias (see Lowered)."""
        self._scratch = scratch
        self._has_ones = has_ones
        c = correlation
        # The output counts too, so that it is still in the cache when the bias is added.
        row = c.output_size[1] * c.filters * c.itemsize
        self._lowered = Lowered(c, len(scratch), row, has_ones=has_ones, is_flipped=is_flipped)
        for memory in scratch:
            self._lowered.reserve(memory)
        self.call_bytes = self._lowered.call_bytes

    def stages(self) -> Iterator[Stage]:
        yield from self._lowered.stages()
        yield Stage("product", "product", self, "_matmul")
        yield Stage("reorder", "copy", self._lowered, "matrix")
        yield Stage("bias", "arithmetic", self, "_add_bias")

    def run(self, x: Array, kernel: Array, bias: Array | None, output: Array) -> None:
        """Write the result into `output`, (batch, rows, columns, filters).

        `kernel` is (kh, kw, channels, filters).
        """
        lowered = self._lowered
        matrix = lowered.matrix(kernel, bias)
        if self._has_ones:
            bias = None
        strips = output.reshape(*output.shape[:2], lowered.strips, lowered.filters)
        blocks = iter(lowered.blocks)  # next() of a list's iterator is safe in threads

        def work(thread: int) -> None:
            for block in blocks:
                windows = lowered.windows(x, block, self._scratch[thread])
                part = slice(block.first, block.last), slice(block.row, block.end)
                self._matmul(windows.transpose(1, 0, 2, 3), matrix, out=strips[part])
                if bias is not None:
                    self._add_bias(output[part], bias)

        in_threads(work, len(self._scratch))


LOWER = "lower the rows"
"""Phrase of a ledger."""

PRODUCT = "one product for each row"
"""Phrase of a ledger."""


class Forward(Threaded):
    def __init__(self, layer: Layer, threads: int) -> None:
        c = Correlation.of(layer)
        pad = "pad the block's images" if c.is_padded else ""
        has_ones = layer.use_bias and c.terms <= ONES_TERMS
        bias = BIAS_IN_KERNEL if has_ones else bias_step(layer)
        super().__init__(layer, threads, pad, LOWER, PRODUCT, bias)
        self._correlating = Correlating(c, self._scratch, has_ones=has_ones)
        self.call_bytes = self._correlating.call_bytes

    def stages(self) -> Iterator[Stage]:
        return self._correlating.stages()

    def run(self) -> object:
        layer = self._layer
        output = self.result(layer.batch_size, *layer.output_shape)
        self._correlating.run(self._x, self._kernel, self._bias, output)
        return output


class InputGradient(Threaded):
    """The input gradient with strides of 1: a correlation of the output gradient.

    Its kernel is the layer's, flipped and with its axes exchanged.
    """

    def __init__(self, layer: Layer, threads: int) -> None:
        self._phase, c = _phase(layer)
        pad = "pad the block's images" if c.is_padded else ""
        super().__init__(layer, threads, pad, "flip the kernel", LOWER, PRODUCT)
        self._correlating = Correlating(c, self._scratch, is_flipped=True)
        self.call_bytes = self._correlating.call_bytes

    def stages(self) -> Iterator[Stage]:
        return self._correlating.stages()

    def run(self) -> object:
        layer = self._layer
        gradient = self.result(layer.batch_size, *layer.input_shape)
        flipped = self._phase.kernel(self._kernel, 1)[0].transpose(1, 2, 3, 0)
        self._correlating.run(self._error, flipped, None, gradient)
        return gradient


class LoweredSums(Threaded):
    """The input gradient with larger strides: the forward pass in reverse.

    The product of each output row is added to the stretch of lowered memory of its windows. Then
    each kernel column of the lowered memory is added to the input columns that it met.
    """

    _matmul = np.matmul

    def __init__(self, layer: Layer, threads: int) -> None:
        super().__init__(
            layer,
            min(threads, layer.batch_size),
            PRODUCT,
            "add the rows up in lowered memory",
            "add lowered memory to the input's columns",
        )
        c = self._c = Correlation.of(layer)
        width = c.output_size[1]
        self.call_bytes = c.kernel_bytes
        self._run = c.kernel_size[1] * c.channels
        self._height = max(c.reach(*c.output_size)[0], layer.padded_size[0])
        # Number of output rows whose products fit beside the lowered image.
        lowered = width * self._height * self._run * c.itemsize
        self._rows = max((MAX_BYTES - lowered) // (width * c.terms * c.itemsize), 1)
        self._rows = min(self._rows, c.output_size[0])
        for scratch in self._scratch:
            scratch.array("lowered", width, self._height, self._run)
            scratch.array("product", self._rows, width, c.terms)

    def stages(self) -> Iterator[Stage]:
        yield Stage("product", "product", self, "_matmul")
        yield Stage("reorder", "copy", self, "_transposed_kernel")

    def run(self) -> object:
        layer = self._layer
        gradient = self.result(layer.batch_size, *layer.input_shape)
        kernel = self._transposed_kernel()
        images = iter(range(layer.batch_size))

        def work(thread: int) -> None:
            scratch = self._scratch[thread]
            for image in images:
                lowered = self._lowered(self._error[image], kernel, scratch)
                self._raise(lowered, gradient[image])

        in_threads(work, self._threads)
        return gradient

    def _transposed_kernel(self) -> Array:
        """Return the kernel as (filters, terms), C-contiguous."""
        return np.ascontiguousarray(self._kernel.reshape(-1, self._layer.filters).T)

    def _lowered(self, error: Array, kernel: Array, scratch: Scratch) -> Array:
        """Return the lowered gradient of an image.

        It is (output columns, padded rows, kernel columns, channels).
        """
        c = self._c
        height, width = c.output_size
        lowered = scratch.array("lowered", width, self._height, self._run)
        lowered[...] = 0
        for first in range(0, height, self._rows):
            last = min(first + self._rows, height)
            products = scratch.array("product", (last - first) * width, c.terms)
            self._matmul(error[first:last].reshape(-1, c.filters), kernel, out=products)
            for row, product in enumerate(products.reshape(-1, width, c.terms), first):
                top = row * c.strides[0]
                stretch = lowered[:, top : top + c.kernel_size[0]]
                stretch += product.reshape(stretch.shape)
        return lowered.reshape(width, self._height, c.kernel_size[1], c.channels)

    def _raise(self, lowered: Array, gradient: Array) -> None:
        """Add the lowered columns of one image to the columns of its gradient."""
        layer, c = self._layer, self._c
        (top, _), (left, _) = layer.pads
        rows, columns = layer.input_size
        gradient[...] = 0
        inside = lowered[:, top : top + rows].transpose(1, 0, 2, 3)
        stride = c.strides[1]
        for q in range(c.kernel_size[1]):
            start = q - left  # the column that tap q of the first window meets
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
    """The kernel gradient: windows of each output row, transposed, times its output gradient.

    A product covers all images of a block. The products are summed.
    """

    _matmul = np.matmul

    def __init__(self, layer: Layer, threads: int) -> None:
        c = self._c = Correlation.of(layer)
        pad = "pad the block's images" if c.is_padded else ""
        super().__init__(
            layer, threads, pad, LOWER, "copy errors row by row", PRODUCT, "sum of the products"
        )
        strip = strip_width(c)
        terms, filters = c.kernel_size[0] * run_columns(c, strip) * c.channels, strip * c.filters
        product = terms * filters * c.itemsize
        row = c.output_size[1] * c.filters * c.itemsize + product
        self._lowered = Lowered(c, self._threads, row, taken=2 * product)
        size = self._lowered.size
        for scratch in self._scratch:
            self._lowered.reserve(scratch)
            scratch.array("errors", size.rows, size.images, c.output_size[1], c.filters)
            scratch.array("products", size.rows, terms, filters)
            self._sums(scratch)

    def stages(self) -> Iterator[Stage]:
        yield from self._lowered.stages()
        yield Stage("product", "product", self, "_matmul")

    def _sums(self, scratch: Scratch) -> tuple[Array, Array]:
        """Return memory for the sum of a block and for the sum of all blocks."""
        shape = self._lowered.terms, self._lowered.filters
        return scratch.array("block", *shape), scratch.array("sum", *shape)

    def run(self) -> object:
        """Sum a fixed set of blocks in each thread, so that every call gives the same bits."""
        blocks = self._lowered.blocks
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
        total = self._sums(self._scratch[0])[1]
        for scratch in self._scratch[1:threads]:
            total += self._sums(scratch)[1]
        gradient = self.result(*self._layer.kernel_shape)
        self._lowered.add_up(total, gradient)
        return gradient

    def _products(self, block: Block, scratch: Scratch) -> Array:
        """Return the products of a block, (output rows, terms, filters of a strip)."""
        c, lowered = self._c, self._lowered
        windows = lowered.windows(self._x, block, scratch)
        rows, images, _, terms = windows.shape
        errors = scratch.array("errors", rows, images, c.output_size[1], c.filters)
        error = self._error[block.first : block.last, block.row : block.end]
        errors[...] = error.transpose(1, 0, 2, 3)
        products = scratch.array("products", rows, terms, lowered.filters)
        self._matmul(
            windows.reshape(rows, -1, terms).transpose(0, 2, 1),
            errors.reshape(rows, -1, lowered.filters),
            out=products,
        )
        return products
