"""Compute shift-gemm's input gradient of few channels, with the images innermost in memory.

One product serves all kernel positions. It takes the output gradient without pads. For each kernel
position, a row of all images together is one long run, which is added to the sum at its shift.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.implementations.contract import Stage
from convbench.implementations.numpy.shared.cost import moved_s, product_s
from convbench.implementations.numpy.shared.products import multiply_wide
from convbench.implementations.numpy.shared.scratch import Scratch
from convbench.implementations.numpy.shared.threaded import Threaded
from convbench.implementations.numpy.shared.threads import in_threads
from convbench.problem.layer import Layer

Array = NDArray[np.floating[Any]]

BLOCK_BYTES = 4 * 1024**2
"""Bytes of the images that a thread works on at a time. Longer runs are faster even beyond the L2
cache: 32 images of 10x10 take 0.65 ms with 1 MiB, 0.56 with 2, and 0.50 in one go (measured)."""

LEAST_IMAGES = 16
"""Smallest batch for which this layout pays. With fewer images, each copied run is short."""

FEW_CHANNELS, FEW_FILTERS = 8, 16
"""Most channels and filters of a layer for which this layout pays. With more channels, products
with columns are faster. With more filters, moving the images innermost takes too long: 1.4 ms for
32 images of 24x24x32, and 0.04 ms for 24x24x6 (measured)."""

PADDED = 1.5
"""How many times as many positions there must be with pads as without, for this layout to pay. 32
images of 10x10 (18x18 with the pads of a 5x5 kernel) took 1.0 ms and take 0.47; images of 24x24
with a 3x3 kernel took 1.3 and would take 1.5 (measured)."""


def suits_images_innermost(layer: Layer) -> bool:
    """Return whether this is faster than a correlation of the padded output gradient."""
    (kh, kw), (rows, columns) = layer.kernel_size, layer.output_size
    down, right = layer.dilation_rate
    padded = (rows + 2 * (kh - 1) * down) * (columns + 2 * (kw - 1) * right)
    return (
        layer.strides == (1, 1)
        and layer.batch_size >= LEAST_IMAGES
        and layer.channels <= FEW_CHANNELS
        and layer.filters <= FEW_FILTERS
        and padded >= PADDED * rows * columns
    )


def images_innermost_s(layer: Layer) -> float:
    """Predict the seconds of a call in one thread."""
    positions = layer.batch_size * math.prod(layer.output_size)
    columns = math.prod(layer.kernel_size) * layer.channels
    product = product_s(columns, layer.filters, positions, layer.itemsize)
    return product + moved_s((columns + layer.filters) * positions * layer.itemsize)


class ImagesInnermost(Threaded):
    _multiply = staticmethod(multiply_wide)

    def __init__(self, layer: Layer, threads: int) -> None:
        super().__init__(
            layer, threads, "turn images innermost", "matrix product", "sums at shifts", "turn back"
        )
        most = max(BLOCK_BYTES // self._image_bytes(), 1)
        parts = max(math.ceil(layer.batch_size / most), self._threads)
        self._images = math.ceil(layer.batch_size / parts)  # about equal parts
        for scratch in self._scratch:
            for name, shape in self._shapes().items():
                scratch.array(name, *shape, self._images)

    def stages(self) -> Iterator[Stage]:
        yield Stage("product", "product", self, "_multiply")
        yield Stage("scatter", "arithmetic", self, "_write")

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the scratch arrays without their last axis, the images."""
        layer = self._layer
        return {
            "errors": (layer.filters, *layer.output_size),
            "products": (*layer.kernel_size, layer.channels, *layer.output_size),
            "sum": (layer.channels, *layer.padded_size),
        }

    def _image_bytes(self) -> int:
        return sum(math.prod(shape) for shape in self._shapes().values()) * self._layer.itemsize

    def run(self) -> object:
        layer = self._layer
        gradient = self.result(layer.batch_size, *layer.input_shape)
        kernel = self._kernel.reshape(-1, layer.filters)
        firsts = iter(range(0, layer.batch_size, self._images))

        def work(thread: int) -> None:
            for first in firsts:
                some = slice(first, first + self._images)
                self._write(gradient[some], self._error[some], kernel, self._scratch[thread])

        in_threads(work, self._threads)
        return gradient

    def _write(self, gradient: Array, error: Array, kernel: Array, scratch: Scratch) -> None:
        layer, images = self._layer, len(error)
        errors, products, total = (
            scratch.array(name, *shape, images) for name, shape in self._shapes().items()
        )
        errors[...] = error.transpose(3, 1, 2, 0)
        flat = products.reshape(len(kernel), -1)
        self._multiply(kernel, errors.reshape(layer.filters, -1), out=flat)
        total[...] = 0
        rows, columns = layer.output_size
        for p, q in np.ndindex(*layer.kernel_size):
            top, left = p * layer.dilation_rate[0], q * layer.dilation_rate[1]
            total[:, top : top + rows, left : left + columns] += products[p, q]
        (top, _), (left, _) = layer.pads
        rows, columns = layer.input_size
        inside = total[:, top : top + rows, left : left + columns]
        gradient[...] = inside.transpose(3, 1, 2, 0)
