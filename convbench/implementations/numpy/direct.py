"""direct: compute a 1x1 convolution as one matrix product of the pixels with the kernel.

The threads are BLAS's own. With one thread, a product with a small kernel is split into parts (see
`shared/products.py`). If strides skip pixels, the others are copied side by side before the
product, or in the input gradient spread out after it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.implementations.contract import Stage
from convbench.implementations.numpy.shared.correlation import NO_PADS
from convbench.implementations.numpy.shared.cost import moved_s, product_s
from convbench.implementations.numpy.shared.products import SumOfProducts, multiply, part_rows
from convbench.implementations.numpy.shared.threaded import (
    NumpyAlgorithm,
    Threaded,
    add_bias,
    bias_step,
)
from convbench.problem.layer import Layer, Pass
from convbench.problem.unsupported import Unsupported

Array = NDArray[np.floating[Any]]


class Direct(NumpyAlgorithm):
    name = "direct"

    def unsupported(self, layer: Layer, pass_: Pass) -> Unsupported | None:
        if layer.kernel_size != (1, 1):
            return Unsupported(
                "kernel_size must be 1, since larger kernels meet more than one pixel",
                ("kernel_size",),
            )
        if layer.groups > 1:
            return Unsupported(
                "groups must be 1, since the product is over all channels", ("groups",)
            )
        if layer.pads != NO_PADS:
            return Unsupported(
                "padding must be 0, since the product has no padded pixels", ("padding",)
            )
        return None

    def cost_s(self, layer: Layer, pass_: Pass, threads: int) -> float:
        positions = layer.batch_size * math.prod(layer.output_size)
        product = product_s(positions, layer.channels, layer.filters, layer.itemsize) / threads
        copies = 2 * positions * layer.channels * layer.itemsize if layer.strides != (1, 1) else 0
        return product + moved_s(copies)

    def prepare(self, layer: Layer, pass_: Pass, threads: int) -> Threaded:
        return PreparedDirect(layer, pass_, threads)


class PreparedDirect(Threaded):
    _add_bias = staticmethod(add_bias)

    def __init__(self, layer: Layer, pass_: Pass, threads: int) -> None:
        self._pass = pass_
        self._skips = layer.strides != (1, 1)
        is_last = pass_ is Pass.INPUT_GRADIENT
        super().__init__(
            layer,
            1,  # BLAS has threads of its own
            "gather pixels" if self._skips and not is_last else "",
            "matrix product",
            "spread pixels" if self._skips and is_last else "",
            bias_step(layer) if pass_ is Pass.FORWARD else "",
        )
        if self._skips:
            self._met()
        is_small = part_rows(layer.channels, layer.filters) is not None
        self._in_parts = threads == 1 and is_small
        self._sums = SumOfProducts(layer.channels, layer.filters, layer.itemsize)
        if self._in_parts and pass_ is Pass.KERNEL_GRADIENT:
            self._sums.reserve(self._scratch[0])

    def stages(self) -> Iterator[Stage]:
        if self._skips:
            yield Stage("gather", "copy", self, "_pixels")
        yield Stage("product", "product", self, "_multiply")
        yield Stage("product", "product", self, "_sum")
        yield Stage("bias", "arithmetic", self, "_add_bias")

    def _met(self) -> Array:
        """Return memory for the pixels that the strides meet."""
        layer = self._layer
        return self._scratch[0].array("met", layer.batch_size, *layer.output_size, layer.channels)

    def _strided(self, x: Array) -> Array:
        """Return a view of the pixels that the strides meet."""
        (stride_h, stride_w), (rows, columns) = self._layer.strides, self._layer.output_size
        return x[:, : rows * stride_h : stride_h, : columns * stride_w : stride_w]

    def _pixels(self) -> Array:
        """Return the input's pixels that the strides meet, (positions, channels)."""
        if not self._skips:
            return self._x.reshape(-1, self._layer.channels)
        met = self._met()
        met[...] = self._strided(self._x)
        return met.reshape(-1, self._layer.channels)

    def run(self) -> object:
        layer = self._layer
        result = self.result(*layer.result_shape(self._pass))
        if self._pass is Pass.FORWARD:
            self._multiply(self._pixels(), self._kernel[0, 0], result.reshape(-1, layer.filters))
            if self._bias is not None:
                self._add_bias(result, self._bias)
            return result
        errors = self._error.reshape(-1, layer.filters)
        if self._pass is Pass.KERNEL_GRADIENT:
            self._sum(self._pixels(), errors, result[0, 0])
            return result
        kernel = self._kernel[0, 0].T
        if not self._skips:
            self._multiply(errors, kernel, result.reshape(-1, layer.channels))
            return result
        met = self._met()
        self._multiply(errors, kernel, met.reshape(-1, layer.channels))
        result[...] = 0
        self._strided(result)[...] = met
        return result

    def _multiply(self, left: Array, right: Array, out: Array) -> None:
        (multiply if self._in_parts else np.matmul)(left, right, out=out)

    def _sum(self, left: Array, right: Array, out: Array) -> None:
        if self._in_parts:
            self._sums.add(left, right, out, self._scratch[0], is_first=True)
        else:
            np.matmul(left.T, right, out=out)
