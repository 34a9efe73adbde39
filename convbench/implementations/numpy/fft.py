"""fft: multiply spectra, with one matrix product for each frequency. It pays for large kernels.

The method is that of Mathieu, Henaff and LeCun, "Fast training of convolutional networks through
FFTs" (arXiv:1312.5851). Each plane of an image or a kernel is transformed once, and each frequency
is one matrix product over the channels, whatever the size of the kernel. Spectra have the axes
(rows, columns of frequencies, images or channels, channels or filters), so the products are batched
matrix products. A transform is as long as the padded image, or as the next number without a prime
factor above 5. Elements that wrap around fall on results that are cut off.

Images are computed in blocks, so the workspace does not grow with the batch.

Transforms use `norm="forward"`, because without a factor NumPy (2.4.6) transforms float32 in
float64, which takes twice the time and four times the memory. The factors are removed again when
the result is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.implementations.contract import Float64, Stage
from convbench.implementations.numpy.shared.correlation import even
from convbench.implementations.numpy.shared.cost import moved_s, product_s
from convbench.implementations.numpy.shared.threaded import NumpyAlgorithm, Threaded, add_bias
from convbench.implementations.numpy.shared.threads import in_threads
from convbench.machine.tuning import cache_bytes
from convbench.problem.layer import Layer, Pair, Pass
from convbench.problem.operands import Operands
from convbench.problem.rounding import fft_bound
from convbench.problem.unsupported import Unsupported

Array = NDArray[Any]  # NumPy's stubs know transforms of float64 only
Spectrum = NDArray[Any]

FAST_FACTORS = (2, 3, 5)
"""Prime factors of the lengths for which NumPy's pocketfft is fastest."""

SCALINGS = 15
"""Number of an element's roundings beside those of transforms and sums. Each of six transforms
along one axis has two: its factor 1/n, and the product with it. Removing the factors has two more,
and the bias one."""


class Fft(NumpyAlgorithm):
    name = "fft"

    def unsupported(self, layer: Layer, pass_: Pass) -> Unsupported | None:
        if max(layer.strides) > 1:
            return Unsupported(
                "strides must be 1, since larger strides discard most positions, which an FFT "
                "computes all the same",
                ("strides",),
            )
        return None

    def exact(self, layer: Layer, pass_: Pass) -> bool:
        return False

    def error_bound(self, layer: Layer, pass_: Pass, operands: Operands) -> Float64:
        """Return the bound for FFTs of these lengths; `rounding.fft_bound` names its source.

        A sum of m complex products is two sums of 2m real ones. Each of them is within gamma_2m, so
        both together are within sqrt(2) gamma_2m <= gamma_3m.
        """
        pairs = {
            Pass.FORWARD: layer.channels // layer.groups,
            Pass.INPUT_GRADIENT: layer.filters // layer.groups,
            Pass.KERNEL_GRADIENT: layer.batch_size,
        }[pass_]
        return fft_bound(layer, pass_, operands, lengths(layer), 3 * pairs + SCALINGS)

    def cost_s(self, layer: Layer, pass_: Pass, threads: int) -> float:
        """Count transforms as passes over all planes, and add one product for each frequency."""
        height, width = lengths(layer)
        points, frequencies = height * width, height * (width // 2 + 1)
        images, (channels, filters) = layer.batch_size, layer.kernel_shape[2:]
        planes = images * (layer.channels + layer.filters) + channels * filters
        passes = 3 * math.ceil(math.log2(points)) * planes * points * layer.itemsize
        # A complex product is four real ones.
        one = product_s(images, channels, filters // layer.groups, 4 * layer.itemsize)
        return (moved_s(passes) + frequencies * layer.groups * one) / threads

    def workspace_bytes(self, layer: Layer, pass_: Pass, threads: int) -> int:
        """Count the spectra of a block's images and of the kernel, and their planes."""
        complex_, real = _buffer_shapes(layer, pass_)
        elements = 2 * sum(map(math.prod, complex_.values())) + sum(map(math.prod, real.values()))
        return elements * layer.itemsize

    def prepare(self, layer: Layer, pass_: Pass, threads: int) -> Threaded:
        kinds: dict[Pass, type[Forward | InputGradient | KernelGradient]] = {
            Pass.FORWARD: Forward,
            Pass.INPUT_GRADIENT: InputGradient,
            Pass.KERNEL_GRADIENT: KernelGradient,
        }
        return kinds[pass_](layer, threads)


def lengths(layer: Layer) -> Pair:
    """Return the rows and columns of a transform, which are at least the padded image's."""
    height, width = layer.padded_size
    return fast_length(height), fast_length(width)


def fast_length(size: int) -> int:
    """Return the smallest number of at least `size` whose prime factors are all in FAST_FACTORS."""
    while True:
        rest = size
        for factor in FAST_FACTORS:
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return size
        size += 1


def block_images(layer: Layer) -> int:
    """Return the number of images in a block.

    The spectra of a block's images are as large as the kernel's spectra, which every block reads.
    If the kernel's spectra are small, the block's spectra fill the L2 cache.
    """
    height, width = lengths(layer)
    plane = height * (width // 2 + 1) * 2 * layer.itemsize
    kernel = plane * math.prod(layer.kernel_shape[2:])
    image = plane * (layer.channels + layer.filters)
    return min(max(max(kernel, cache_bytes().l2) // image, 1), layer.batch_size)


Shapes = dict[str, tuple[int, ...]]


def _buffer_shapes(layer: Layer, pass_: Pass) -> tuple[Shapes, Shapes]:
    """Return the shapes of the complex and of the real buffers, by name.

    The first two axes of every shape are rows and columns.
    """
    height, width = lengths(layer)
    frequencies = height, width // 2 + 1
    images, kernel = block_images(layer), layer.kernel_shape[2:]
    spectra: Shapes = {
        "input": (*frequencies, images, layer.channels),
        "kernel": (*frequencies, *kernel),
        "output": (*frequencies, images, layer.filters),
    }
    padded = (*layer.padded_size, images, layer.channels)
    spread = (*layer.effective_kernel_size, *kernel)
    if pass_ is Pass.FORWARD:
        planes = (layer.output_size[0], width, images, layer.filters)
        return spectra, {"padded": padded, "spread": spread, "planes": planes}
    if pass_ is Pass.INPUT_GRADIENT:
        planes = (layer.input_size[0], width, images, layer.channels)
        return spectra, {"spread": spread, "planes": planes}
    planes = (layer.kernel_size[0], width, *kernel)
    spectra["product"] = spectra["kernel"]
    return spectra, {"padded": padded, "planes": planes}


class PreparedFft(Threaded):
    """The buffers and the steps of a pass. There is a subclass for each pass."""

    def __init__(self, layer: Layer, threads: int, pass_: Pass, *inside: str) -> None:
        super().__init__(layer, threads, *inside)
        self._pass = pass_
        self._height, self._width = lengths(layer)
        complex_, real = _buffer_shapes(layer, pass_)
        dtype = np.dtype(layer.dtype)
        self._spectra: dict[str, Spectrum] = {
            name: np.empty(shape, np.result_type(dtype, 1j)) for name, shape in complex_.items()
        }
        self._real: dict[str, Array] = {name: np.empty(s, dtype) for name, s in real.items()}

    @property
    def buffers(self) -> tuple[Array, ...]:
        """All buffers. A complex buffer shows as real numbers, its real and imaginary parts."""
        spectra = tuple(s.view(self._layer.dtype) for s in self._spectra.values())
        return (*spectra, *self._real.values(), *super().buffers)

    def stages(self) -> Iterator[Stage]:
        yield Stage("transform", "arithmetic", self, "_transform")
        yield Stage("transform", "arithmetic", self, "_back")
        yield Stage("product", "product", self, "_multiply")
        yield Stage("reorder", "copy", self, "_planes")

    def _blocks(self) -> Iterator[slice]:
        images = block_images(self._layer)
        for first in range(0, self._layer.batch_size, images):
            yield slice(first, min(first + images, self._layer.batch_size))

    def _transform(self, planes: Array, spectrum: Spectrum) -> Spectrum:
        """Write the spectrum of `planes`, (rows, columns, ...), into `spectrum`, and return it.

        The spectrum is divided by the number of points of the transform.
        """
        rows = len(planes)

        def along_rows(part: slice) -> None:
            np.fft.rfft(
                planes[part], self._width, axis=1, norm="forward", out=spectrum[:rows][part]
            )

        def along_columns(part: slice) -> None:
            np.fft.fft(spectrum[:, part], axis=0, norm="forward", out=spectrum[:, part])

        self._share(rows, along_rows)
        spectrum[rows:] = 0
        self._share(spectrum.shape[1], along_columns)
        return spectrum

    def _transform_input(self, block: slice) -> Spectrum:
        (top, _), (left, _) = self._layer.pads
        height, width = self._layer.input_size
        x = self._x[block]
        padded = self._real["padded"][:, :, : len(x)]
        padded.fill(0)
        padded[top : top + height, left : left + width] = self._planes(x)
        return self._transform(padded, self._spectra["input"][:, :, : len(x)])

    def _transform_error(self, block: slice) -> Spectrum:
        error = self._planes(self._error[block])
        return self._transform(error, self._spectra["output"][:, :, : error.shape[2]])

    def _transform_kernel(self) -> Spectrum:
        down, right = self._layer.dilation_rate
        spread = self._real["spread"]
        spread.fill(0)
        spread[::down, ::right] = self._kernel
        return self._transform(spread, self._spectra["kernel"])

    def _back(self, spectrum: Spectrum, rows: slice, columns: slice, target: Array) -> None:
        """Transform `spectrum` back, and write these rows and columns of the planes into `target`.

        `spectrum` is overwritten.
        """
        planes = self._real["planes"][:, :, : spectrum.shape[2]]
        wanted = spectrum[rows]

        def along_columns(part: slice) -> None:
            np.fft.ifft(spectrum[:, part], axis=0, out=spectrum[:, part])

        def along_rows(part: slice) -> None:
            np.fft.irfft(wanted[part], self._width, axis=1, out=planes[part])
            scale = (self._height * self._width) ** 2
            np.multiply(planes[part, columns], scale, out=target[part])

        self._share(spectrum.shape[1], along_columns)
        self._share(len(planes), along_rows)

    def _multiply(self, left: Spectrum, right: Spectrum, product: Spectrum) -> None:
        """Compute one matrix product for each frequency."""
        self._share(
            len(product), lambda part: np.matmul(left[part], right[part], out=product[part])
        )

    def _planes(self, images: Array) -> Array:
        """Return a view (height, width, batch, channels) of (batch, height, width, channels)."""
        return images.transpose(1, 2, 0, 3)

    def _share(self, length: int, work: Callable[[slice], object]) -> None:
        """Split `length` into one part for each thread, and call `work` on each part."""
        parts = even(length, self._threads)
        in_threads(lambda thread: work(parts[thread]), len(parts))

    def _grouped(self, spectrum: Spectrum) -> Spectrum:
        """Return a view (rows, columns, groups, n, channels of a group) of a spectrum."""
        split = spectrum.reshape(*spectrum.shape[:3], self._layer.groups, -1)
        return split.transpose(0, 1, 3, 2, 4)


class Forward(PreparedFft):
    def __init__(self, layer: Layer, threads: int) -> None:
        bias = ("add the bias",) if layer.use_bias else ()
        super().__init__(
            layer,
            threads,
            Pass.FORWARD,
            "transform the kernel",
            "pad and transform images",
            "multiply spectra by the conjugate of the kernel's",
            "transform back",
            *bias,
        )

    def run(self) -> object:
        output = self.result(*self._layer.result_shape(self._pass))
        out_h, out_w = self._layer.output_size
        kernel = self._transform_kernel()
        np.conjugate(kernel, out=kernel)
        for block in self._blocks():
            x = self._transform_input(block)
            product = self._spectra["output"][:, :, : x.shape[2]]
            self._multiply(self._grouped(x), self._grouped(kernel), self._grouped(product))
            self._back(product, slice(out_h), slice(out_w), self._planes(output[block]))
            if self._bias is not None:
                add_bias(output[block], self._bias)
        return output


class InputGradient(PreparedFft):
    def __init__(self, layer: Layer, threads: int) -> None:
        super().__init__(
            layer,
            threads,
            Pass.INPUT_GRADIENT,
            "transform the kernel",
            "transform errors",
            "multiply their spectra",
            "transform back, cut the pads",
        )

    def run(self) -> object:
        gradient = self.result(*self._layer.result_shape(self._pass))
        (top, _), (left, _) = self._layer.pads
        height, width = self._layer.input_size
        rows, columns = slice(top, top + height), slice(left, left + width)
        kernel = self._grouped(self._transform_kernel()).swapaxes(-1, -2)
        for block in self._blocks():
            error = self._transform_error(block)
            product = self._spectra["input"][:, :, : error.shape[2]]
            self._multiply(self._grouped(error), kernel, self._grouped(product))
            self._back(product, rows, columns, self._planes(gradient[block]))
        return gradient


class KernelGradient(PreparedFft):
    def __init__(self, layer: Layer, threads: int) -> None:
        super().__init__(
            layer,
            threads,
            Pass.KERNEL_GRADIENT,
            "pad and transform images",
            "transform errors",
            "multiply spectra by the conjugate of the errors', sum over the blocks",
            "transform back, cut to the kernel",
        )

    def run(self) -> object:
        gradient = self.result(*self._layer.result_shape(self._pass))
        total, product = self._spectra["kernel"], self._spectra["product"]
        total.fill(0)
        for block in self._blocks():
            x = self._grouped(self._transform_input(block)).swapaxes(-1, -2)
            error = self._transform_error(block)
            np.conjugate(error, out=error)
            self._multiply(x, self._grouped(error), self._grouped(product))
            total += product
        span_h, span_w = self._layer.effective_kernel_size
        down, right = self._layer.dilation_rate
        self._back(total, slice(0, span_h, down), slice(0, span_w, right), gradient)
        return gradient
