"""How far a float result may be from the true one, a priori: no constant is tuned.

A sum of K products, in any order, is off by at most gamma_K * sum |x_i k_i| with
gamma_K = K u / (1 - K u) and u the unit roundoff: Higham, "Accuracy and Stability of Numerical
Algorithms", 2nd ed., section 3.1 and lemma 3.1. A bias is one more term.

The bound grows with K and is empty for long sums, so floats are compared on a copy of the layer
that `cut` makes small enough.
"""

from __future__ import annotations

import math
from dataclasses import replace

from convbench.layer import Layer, Pass

MAX_TERMS = 1024
"""Sums of floats that are compared have at most this many products (research: the bound of 21,632
products is a quarter of the median result)."""

UNIT_ROUNDOFF = {"float32": 2.0**-24, "float64": 2.0**-53}


def gamma(layer: Layer, pass_: Pass) -> float:
    """The factor on |x| conv |k| that bounds the error of a pass.

    Doubled for float64, since the oracle that it is compared with has the same error.
    """
    terms = layer.terms(pass_) + (layer.use_bias and pass_ is Pass.FORWARD)
    roundoff = terms * UNIT_ROUNDOFF[layer.dtype]
    return roundoff / (1 - roundoff) * (2 if layer.dtype == "float64" else 1)


def cut(layer: Layer, pass_: Pass, terms: int = MAX_TERMS) -> Layer:
    """A copy of the layer whose sums have at most `terms` products, by the same code path.

    Kernel size, strides, dilation, groups and the padding rule stay; channels, filters, or batch
    and input size shrink. A kernel of more than `terms` taps is left as it is.
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


def _with_fewer_positions(layer: Layer, terms: int) -> Layer:
    """Fewer images, then a smaller input, until batch times output positions is small enough."""
    positions = math.prod(layer.output_size)
    if positions <= terms:
        return replace(layer, batch_size=terms // positions)
    layer = replace(layer, batch_size=1)
    while math.prod(layer.output_size) > terms:
        height, width, channels = layer.input_shape
        axis = 0 if layer.output_size[0] >= layer.output_size[1] else 1
        smaller = (
            (height - layer.strides[0], width) if axis == 0 else (height, width - layer.strides[1])
        )
        layer = replace(layer, input_shape=(*smaller, channels))
    return layer
