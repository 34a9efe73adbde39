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
    """gamma_n = n u / (1 - n u), which bounds the relative error of n roundings (lemma 3.1).

    Infinite from n u = 1 on, where the lemma says nothing.
    """
    relative = roundings * UNIT_ROUNDOFF[dtype]
    return relative / (1 - relative) if relative < 1 else math.inf


def fft_bound(
    layer: Layer, pass_: Pass, operands: Operands, lengths: tuple[int, int], roundings: int
) -> Float64:
    """The error of a result computed through FFTs of whole planes, in the result's shape.

    A plane is one channel of an image, of a kernel or of an output gradient. `lengths` are those of
    the transforms, `roundings` what one product goes through beside them: products, sums, scaling.

    A factor p of the length is p x p butterflies: sums of p complex products with factors that are
    off by u, so that the 2-norm's relative error grows by eta_p = u + gamma_(p+2) (sqrt(p) + u).
    For p = 2 this is theorem 24.2, whose proof holds for any p. Two planes are transformed, their
    spectra multiplied, and by Cauchy-Schwarz and Parseval no element of what comes back is off by
    more than the errors so far times the product of the planes' 2-norms. The transform back is a
    sum of all frequencies in each element: its error is no more than that of one forward.

    It holds of the plane and not of an element, and so also where the element is zero.
    """
    u = UNIT_ROUNDOFF[layer.dtype]
    transform = math.prod(
        1 + u + gamma(p + 2, layer.dtype) * (math.sqrt(p) + u)
        for length in lengths
        for p in prime_factors(length)
    )
    factor = transform**3 * (1 + gamma(roundings, layer.dtype)) - 1
    bound = factor * norm_products(layer, pass_, operands)
    if operands.bias is not None:
        bound = bound + 2 * u * np.abs(operands.bias)
    return np.broadcast_to(bound, layer.result_shape(pass_))


def norm_products(layer: Layer, pass_: Pass, operands: Operands) -> Float64:
    """For every plane of the result, the products of 2-norms of the planes that it is summed from.

    Shape (batch, 1, 1, filters), (batch, 1, 1, channels) or (1, 1, channels of a group, filters).
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
    """Ascending, with repetition; none of 1."""
    factors: list[int] = []
    p = 2
    while number > 1:
        while number % p == 0:
            factors.append(p)
            number //= p
        p += 1
    return tuple(factors)


def _norms(array: NDArray[np.floating[Any]] | None, axes: tuple[int, ...]) -> Float64:
    """2-norms of the planes of an array."""
    assert array is not None
    norms: Float64 = np.sqrt(np.sum(np.square(array, dtype=np.float64), axis=axes))
    return norms
