"""Bound a priori how far a float result may be from the true one. No constant is tuned.

A sum of K products, in any order, is off by at most gamma_K * sum |x_i k_i| with
gamma_K = K u / (1 - K u) and u the unit roundoff: Higham, "Accuracy and Stability of Numerical
Algorithms", 2nd ed., section 3.1 and lemma 3.1. A bias is one more term.

The bound grows with K and says nothing about long sums, so floats are compared on a copy of the
layer that `cut` makes small enough.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from convbench.problem.layer import Layer, Pass
from convbench.problem.operands import Operands
from convbench.problem.rounding import fft_bound, fft_factor, gamma
from convbench.problem.values import READS

Float64 = NDArray[np.float64]

EXACT_GROWTH = 18
"""Largest float errors of code whose integers are exact, as a multiple of the largest bound of
direct sums. Such code may use a transform that only adds, subtracts and halves: Winograd's
F(2x2, 3x3), Strassen. In one dimension, the rows of F(2, 3)'s three matrices have sums of absolute
values of 3, 3/2 and 2 (Lavin and Gray, arXiv:1509.09308, equation 4): 9 in all, where a direct sum
has 3. In two dimensions the error grows by (9 / 3)^2 = 9 over that of direct sums whose elements
are all as large as the largest. The roundings in the transforms themselves double it."""

MAX_TERMS = 32
"""Most products in a sum of floats that is compared. The bound grows with the number of products
and the errors grow with its root, so that with many products a float16 inside would pass: its
errors are 60 times the bound with 27 products, and twice the bound with 144 (measured, 3x3)."""

PLANE_MARGIN = 8
"""Rows and columns by which images exceed the kernel where floats judge a transform. The bound of a
transform grows with the size of a plane, and its errors do not. The errors of a float16 inside
an FFT are 1.5 to 5 times the bound on such images, and 0.3 to 0.65 times on 112 x 112 (measured,
kernels of 3x3 to 15x15)."""


def direct_factor(layer: Layer, pass_: Pass, products: int | None = None) -> float:
    """Return the factor on |x| conv |k| that bounds the error of a pass computed by direct sums.

    `products` is the largest number of products in a sum that are not zero; None means all. A
    product that is zero adds no error. The factor is doubled for float64, since the oracle has the
    same error as the code.
    """
    terms = layer.terms(pass_) if products is None else min(products, layer.terms(pass_))
    terms += layer.use_bias and pass_ is Pass.FORWARD
    return gamma(terms, layer.dtype) * (2 if layer.dtype == "float64" else 1)


def largest_bound(layer: Layer, pass_: Pass, operands: Operands, products: int) -> float:
    """Return the bound of direct sums for a sum whose elements are all as large as the largest.

    `products` is as in `direct_factor`. Code that mixes elements before it multiplies them is off
    by a part of this bound, and not of what its own sum happens to hold.
    """
    first, second = (float(np.abs(getattr(operands, name)).max()) for name in READS[pass_])
    terms = min(products, layer.terms(pass_))
    bias = 0.0 if operands.bias is None else float(np.abs(operands.bias).max())
    return direct_factor(layer, pass_, products) * (terms * first * second + bias)


def transform_bound(layer: Layer, pass_: Pass, operands: Operands) -> Float64:
    """Return the error that own code may have if it uses transforms, in the result's shape.

    The bound is that of FFTs whose lengths are powers of two and hold the whole padded image and
    the kernel. It counts a pair of planes for each product of a direct sum, since the code may work
    on tiles. Minimal-filtering methods (Winograd) on tiles are well within it.
    """
    return fft_bound(layer, pass_, operands, _lengths(layer), layer.terms(pass_) + 5)


def mixing_bound(layer: Layer, pass_: Pass, operands: Operands) -> float:
    """Return the error that own code may have if its transforms mix all elements of an operand.

    An FFT may run over channels too, or over two images at once, so that the 2-norms are those of
    the whole operands. It has no more butterflies than `transform_bound` and one for each binary
    digit of the numbers of images, channels and filters.
    """
    others = (_power_of_two(n) for n in (layer.batch_size, layer.channels, layer.filters))
    lengths = *_lengths(layer), *others
    factor = fft_factor(layer.dtype, lengths, layer.terms(pass_) + 5)
    first, second = (
        float(np.linalg.norm(getattr(operands, name).astype(np.float64))) for name in READS[pass_]
    )
    bias = 0.0 if operands.bias is None else float(np.abs(operands.bias).max())
    return factor * first * second + gamma(2, layer.dtype) * bias


def _lengths(layer: Layer) -> tuple[int, int]:
    """Return powers of two that hold the padded image and the kernel."""
    height, width = (
        _power_of_two(padded + span)
        for padded, span in zip(layer.padded_size, layer.effective_kernel_size, strict=True)
    )
    return height, width


def _power_of_two(number: int) -> int:
    """Return the smallest power of two from 2 on that is not below the number."""
    return int(2 ** max(math.ceil(math.log2(number)), 1))


def cut(layer: Layer, pass_: Pass, terms: int = MAX_TERMS) -> Layer:
    """Return a copy of the layer whose sums have at most `terms` products.

    Kernel size, strides, dilation, groups and the padding rule stay, so that code takes the same
    path. Channels, filters, or batch and input size shrink. A kernel of more than `terms` taps is
    left as it is, and so are pads that alone have more positions.
    """
    if layer.terms(pass_) <= terms:
        return layer
    if pass_ is Pass.KERNEL_GRADIENT:
        return _with_fewer_positions(layer, terms)
    taps = math.prod(layer.kernel_size)
    each = max(terms // taps, 1)  # channels, or filters, of a group
    if pass_ is Pass.FORWARD:
        return replace(layer, input_shape=(*layer.input_size, each * layer.groups))
    return replace(layer, filters=each * layer.groups)


def with_small_planes(layer: Layer) -> Layer:
    """Return a copy of the layer whose images are little larger than its kernel."""
    height, width = (
        min(size, span + PLANE_MARGIN)
        for size, span in zip(layer.input_size, layer.effective_kernel_size, strict=True)
    )
    return replace(layer, input_shape=(height, width, layer.channels))


def _with_fewer_positions(layer: Layer, terms: int) -> Layer:
    """Take fewer images, then a smaller input, until at most `terms` positions are left."""
    positions = math.prod(layer.output_size)
    if positions <= terms:
        return replace(layer, batch_size=terms // positions)
    layer = replace(layer, batch_size=1)
    while math.prod(layer.output_size) > terms:
        axes = [
            axis
            for axis in (0, 1)
            if layer.output_size[axis] > 1 and layer.input_size[axis] > layer.strides[axis]
        ]
        if not axes:  # the remaining positions lie on pads
            break
        axis = max(axes, key=lambda axis: layer.output_size[axis])
        sizes = list(layer.input_size)
        sizes[axis] -= layer.strides[axis]
        layer = replace(layer, input_shape=(sizes[0], sizes[1], layer.channels))
    return layer
