"""Bound how far floats may be off, for implementations that state it and for the checker.

Sources: Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed. (2002), by section.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.problem.layer import Layer, Pass
from convbench.problem.operands import Operands

Float64 = NDArray[np.float64]

UNIT_ROUNDOFF = {"float32": 2.0**-24, "float64": 2.0**-53}


def gamma(roundings: int, dtype: str) -> float:
    """Return gamma_n = n u / (1 - n u), the bound on the relative error of n roundings (lemma 3.1).

    The bound is infinite where n u is 1 or more, since the lemma does not hold there.
    """
    relative = roundings * UNIT_ROUNDOFF[dtype]
    return relative / (1 - relative) if relative < 1 else math.inf


def fft_bound(
    layer: Layer, pass_: Pass, operands: Operands, lengths: tuple[int, int], roundings: int
) -> Float64:
    """Bound the error of a result computed through FFTs of whole planes, in the result's shape.

    A plane is one channel of an image, of a kernel or of an output gradient. `lengths` are the
    lengths of the transforms. `roundings` counts the other roundings of one product: those of
    products, sums and scaling.

    A factor p of the length means p x p butterflies: sums of p complex products with factors that
    are off by u. They let the relative error of the 2-norm grow by
    eta_p = u + gamma_(p+2) (sqrt(p) + u). For p = 2 this is theorem 24.2, whose proof holds for any
    p. Two planes are transformed and their spectra multiplied. By Cauchy-Schwarz and Parseval, no
    element of the result is off by more than the errors so far times the product of the planes'
    2-norms. The inverse transform sums all frequencies in each element, so its error is no larger
    than the error of one forward transform.

    The bound belongs to the plane and not to an element, so it also holds where an element is zero.
    """
    factor = fft_factor(layer.dtype, lengths, roundings)
    bound = factor * norm_products(layer, pass_, operands)
    if operands.bias is not None:
        bound = bound + 2 * UNIT_ROUNDOFF[layer.dtype] * np.abs(operands.bias)
    return np.broadcast_to(bound, layer.result_shape(pass_))


def fft_factor(dtype: str, lengths: tuple[int, ...], roundings: int) -> float:
    """Return what `fft_bound` multiplies the product of two 2-norms by."""
    u = UNIT_ROUNDOFF[dtype]
    transform = math.prod(
        1 + u + gamma(p + 2, dtype) * (math.sqrt(p) + u)
        for length in lengths
        for p in prime_factors(length)
    )
    return transform**3 * (1 + gamma(roundings, dtype)) - 1


def norm_products(layer: Layer, pass_: Pass, operands: Operands) -> Float64:
    """Return, for each plane of the result, the sum of the products of its operands' 2-norms.

    The sum runs over all pairs of planes that the plane of the result is computed from. The shape
    is (batch, 1, 1, filters), (batch, 1, 1, channels) or (1, 1, channels of a group, filters).
    """
    each, groups = layer.channels // layer.groups, layer.groups
    sums: Float64
    if pass_ is Pass.KERNEL_GRADIENT:
        x = _norms(operands.input, (1, 2)).reshape(-1, groups, each)
        error = _norms(operands.output_gradient, (1, 2)).reshape(len(x), groups, -1)
        sums = np.einsum("ngc,ngf->cgf", x, error)
        return sums.reshape(1, 1, each, layer.filters)
    kernel = _norms(operands.kernel, (0, 1)).reshape(each, groups, -1)
    given = operands.input if pass_ is Pass.FORWARD else operands.output_gradient
    planes = _norms(given, (1, 2)).reshape(layer.batch_size, groups, -1)
    subscripts = "ngc,cgf->ngf" if pass_ is Pass.FORWARD else "ngf,cgf->ngc"
    sums = np.einsum(subscripts, planes, kernel)
    return sums.reshape(layer.batch_size, 1, 1, -1)


def prime_factors(number: int) -> tuple[int, ...]:
    """Return the prime factors in ascending order, with repetition. The number 1 has none."""
    factors: list[int] = []
    p = 2
    while number > 1:
        while number % p == 0:
            factors.append(p)
            number //= p
        p += 1
    return tuple(factors)


def _norms(array: NDArray[np.floating[Any]] | None, axes: tuple[int, ...]) -> Float64:
    """Return the 2-norms of an array over `axes`."""
    assert array is not None
    norms: Float64 = np.sqrt(np.sum(np.square(array, dtype=np.float64), axis=axes))
    return norms
