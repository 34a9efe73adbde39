"""Draw the values on which code may fail although it is right for others.

A family changes a draw of exact integers (operands.py) so that its sums stay exact: it sets
elements to zero, takes other integers of the same range, or multiplies an operand by a power of 2.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.problem.layer import Layer, Pass
from convbench.problem.operands import MAX_INTEGER, Operands, density, exact_integers

Array = NDArray[np.floating[Any]]
Change = Callable[[Array, np.random.Generator], Array]

READS = {
    Pass.FORWARD: ("input", "kernel"),
    Pass.INPUT_GRADIENT: ("output_gradient", "kernel"),
    Pass.KERNEL_GRADIENT: ("input", "output_gradient"),
}
"""The two operands whose products a pass sums: the images first, then what they are met by."""

SMALL_INTEGER = 5
"""Largest absolute value of the factors of a separable kernel. Their products stay under
MAX_INTEGER."""

MANY_ZEROS = 0.9
"""Part of the elements that is zero where a family makes most of them zero."""

ONE_DENORMAL_IN = 100
"""Number of elements of which one is a denormal number. CPUs take some 100 cycles for each product
of such a number, so that many of them would make the check twice as slow (measured)."""

LARGEST = {"float32": 126, "float64": 500}
"""Power of two that products of large values stay under, and that products of small ones stay above
with a minus. In float64 it is half of the range, since the oracle squares values in float64."""

SUM_BITS = {"float32": 24, "float64": 53}
"""Bits of the largest integer sum of a draw."""

KERNEL_BITS = 30
"""Powers of two by which very large and very small products are so by their kernel. The images take
the rest: SciPy's ndimage takes weights below 2^-52 for zero, and no kernel has such."""

SPARE_BITS = 12
"""Powers of two that are left between the products and the ends of the range. Transforms have
intermediate numbers that are larger than their results, and errors are smaller than sums."""


@dataclass(frozen=True)
class Family:
    """Values of one kind. `what` completes the sentence "it is wrong where ...".

    `first` and `second` change the two operands of READS. They are scaled by powers of two. A
    family that `fills` an operand needs a draw in which no element had to be zero.
    """

    name: str
    what: str
    first: Change | None = None
    second: Change | None = None
    scales: tuple[int, int] = (0, 0)
    fills: bool = False
    of_kernels: bool = False

    def fits(self, layer: Layer, pass_: Pass) -> bool:
        """Tell whether the family can be drawn for a layer."""
        if self.of_kernels and pass_ is Pass.KERNEL_GRADIENT:
            return False
        return not self.fills or density(layer, pass_) == 1.0

    def draw(self, layer: Layer, pass_: Pass, seed: int) -> Operands:
        """Draw operands of this family."""
        drawn = exact_integers(layer, pass_, seed)
        rng = np.random.default_rng([seed, zlib.crc32(self.name.encode())])
        changed: dict[str, Array] = {}
        for name, change, scale in zip(
            READS[pass_], (self.first, self.second), self.exponents(layer), strict=True
        ):
            array: Array = getattr(drawn, name)
            if change is not None:
                array = change(array, rng)
            changed[name] = np.ascontiguousarray(np.ldexp(array, scale), dtype=layer.dtype)
        if drawn.bias is not None:
            changed["bias"] = np.ldexp(drawn.bias, sum(self.exponents(layer))).astype(layer.dtype)
        return replace(drawn, **changed)

    def exponents(self, layer: Layer) -> tuple[int, int]:
        """Return the powers of two by which the operands are multiplied, in the layer's dtype."""
        return self.scales

    def unit(self, layer: Layer) -> float:
        """Return the size of one step between two sums: 1 for integers."""
        return float(2.0 ** sum(self.exponents(layer)))


@dataclass(frozen=True)
class Extreme(Family):
    """Values whose products are near the largest or the smallest normal numbers of float32."""

    is_large: bool = True

    def exponents(self, layer: Layer) -> tuple[int, int]:
        both = LARGEST[layer.dtype] - SUM_BITS[layer.dtype] - SPARE_BITS
        sign = 1 if self.is_large else -1
        return sign * (both - KERNEL_BITS), sign * KERNEL_BITS


def _relu(array: Array, rng: np.random.Generator) -> Array:
    return np.maximum(array, 0)


def _mostly_zero(array: Array, rng: np.random.Generator) -> Array:
    kept = np.where(rng.random(array.shape, np.float32) < MANY_ZEROS, 0, array)
    kept[:, 0, 0] = 0  # the first pixel of each image
    return kept


def _zero_parts(array: Array, rng: np.random.Generator) -> Array:
    """Make one image zero, if there are several, and one channel."""
    kept = array.copy()
    if len(kept) > 1:
        kept[rng.integers(len(kept))] = 0
    if kept.shape[-1] > 1:
        kept[..., rng.integers(kept.shape[-1])] = 0
    return kept


def _zero_filter(kernel: Array, rng: np.random.Generator) -> Array:
    kept = kernel.copy()
    kept[..., rng.integers(kept.shape[-1])] = 0
    return kept


def _one_element(array: Array, rng: np.random.Generator) -> Array:
    """Keep one element. If it was zero in the draw, it is one now."""
    kept = np.zeros_like(array)
    at = tuple(rng.integers(array.shape))
    kept[at] = array[at] or 1
    return kept


def _denormal(array: Array, rng: np.random.Generator) -> Array:
    """Make a few elements denormal numbers. Their products may be flushed to zero."""
    kept = array.copy()
    chosen = rng.integers(array.size, size=max(array.size // ONE_DENORMAL_IN, 1))
    kept.flat[chosen] *= np.finfo(array.dtype).smallest_subnormal
    return kept


def _constant(array: Array, rng: np.random.Generator) -> Array:
    """Set all elements that are not zero to the same integer."""
    constant = array.dtype.type(rng.integers(2, MAX_INTEGER))
    return np.where(array == 0, 0 * constant, constant)


def _separable(kernel: Array, rng: np.random.Generator) -> Array:
    """Make each plane (kh, kw) the product of a column and a row."""
    high, wide, *rest = kernel.shape
    column = rng.integers(1, SMALL_INTEGER, (high, 1, *rest), endpoint=True)
    row = rng.integers(1, SMALL_INTEGER, (1, wide, *rest), endpoint=True)
    signs = rng.choice((-1, 1), (1, 1, *rest))
    separable: Array = (column * row * signs).astype(kernel.dtype)
    return separable


def _symmetric(kernel: Array, rng: np.random.Generator) -> Array:
    """Make each plane (kh, kw) equal to its flipped copy."""
    flat = kernel.reshape(-1, *kernel.shape[2:])
    half = len(flat) // 2
    mirrored = flat.copy()
    mirrored[len(flat) - half :] = flat[:half][::-1]
    return mirrored.reshape(kernel.shape)


def _equal_channels(array: Array, rng: np.random.Generator) -> Array:
    return np.repeat(array[..., :1], array.shape[-1], axis=-1)


def _absolute(array: Array, rng: np.random.Generator) -> Array:
    return np.abs(array)


def _negative(array: Array, rng: np.random.Generator) -> Array:
    return -np.abs(array)


FAMILIES = (
    Family("relu", "negative elements of the images are 0, as after a ReLU", _relu),
    Family("mostly-zero", "most elements of the images are 0", _mostly_zero),
    Family("zero-parts", "an image or a channel is 0 everywhere", _zero_parts),
    Family("zero-filter", "a filter is 0 everywhere", None, _zero_filter),
    Family("constant-images", "all elements of the images are equal", _constant),
    Family("constant-kernel", "all elements of the kernel are equal", None, _constant),
    Family("one-element", "one element of the images is not 0", _one_element),
    Family("one-tap", "one element of the kernel is not 0", None, _one_element),
    Family("separable", "the kernel is separable", None, _separable, fills=True, of_kernels=True),
    Family("symmetric", "the kernel is symmetric", None, _symmetric, fills=True, of_kernels=True),
    Family("equal-channels", "all channels of the images are equal", _equal_channels, fills=True),
    Family("positive", "no element is negative", _absolute, _absolute),
    Family("negative", "the images are negative and the kernel positive", _negative, _absolute),
    Family("medium", "numbers are beyond 65,504", scales=(6, 5)),
    Family("unbalanced", "the images are 2^40 times smaller than the kernel", scales=(-22, 18)),
    Family("denormal", "some elements of the images are denormal numbers", _denormal),
    Extreme("large", "products are very large numbers", is_large=True),
    Extreme("small", "products are very small numbers", is_large=False),
)
"""All families. Each layer is drawn from some of them, and all occur in a suite of many layers."""


def families(layer: Layer, pass_: Pass, seed: int, count: int) -> tuple[Family, ...]:
    """Return `count` of the families that fit, others for other layers, passes and seeds."""
    fit = [family for family in FAMILIES if family.fits(layer, pass_)]
    key = [seed, zlib.crc32(layer.name.encode()), list(Pass).index(pass_)]
    chosen = np.random.default_rng(key).permutation(len(fit))[:count]
    return tuple(fit[index] for index in chosen)


def one_changed(operands: Operands, layer: Layer, pass_: Pass, seed: int) -> Operands:
    """Return a copy in which one element of one operand differs, by its sign or from 0 to 1."""
    rng = np.random.default_rng([seed, zlib.crc32(layer.name.encode())])
    name = READS[pass_][rng.integers(2)]
    array = getattr(operands, name).copy()
    at = tuple(rng.integers(array.shape))
    array[at] = -array[at] or 1
    return replace(operands, **{name: array})


FEW_PRODUCTS = 2
"""Largest number of products in a sum that are not zero, in draws of few products. The bound of two
products is that of two roundings."""

OCTAVES = 10
"""Binary orders of magnitude, up and down from 1, over which the elements of such draws spread."""


def few_products(layer: Layer, pass_: Pass, seed: int) -> Operands:
    """Draw floats of very different sizes: at most FEW_PRODUCTS products of a sum are not 0.

    Elements of one operand are zero so that this holds, however long the sums are.
    """
    drawn = exact_integers(layer, pass_, seed)
    rng = np.random.default_rng([seed, 2])
    first, second = READS[pass_]
    images, met = (_spread(getattr(drawn, name).shape, rng) for name in (first, second))
    met = _few_in_a_sum(met, layer, pass_, rng)
    changed = {first: images.astype(layer.dtype), second: met.astype(layer.dtype)}
    if drawn.bias is not None:
        changed["bias"] = _spread(drawn.bias.shape, rng).astype(layer.dtype)
    return replace(drawn, **changed)


def _spread(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw floats of both signs whose logarithms are uniform."""
    sizes = np.exp2(rng.uniform(-OCTAVES, OCTAVES, shape))
    return np.asarray(sizes * rng.choice((-1.0, 1.0), shape))


def _few_in_a_sum(
    array: NDArray[np.float64], layer: Layer, pass_: Pass, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Keep FEW_PRODUCTS random elements of all that one sum meets, and set the others to zero."""
    shape = array.shape
    if pass_ is not Pass.INPUT_GRADIENT:  # a filter's sums run over all other axes
        terms = array.reshape(-1, shape[-1])
    else:  # the sums of a channel run over the taps and over the filters of its group
        kh, kw, channels, filters = shape
        grouped = array.reshape(kh * kw, channels, layer.groups, filters // layer.groups)
        terms = grouped.transpose(0, 3, 1, 2).reshape(-1, channels * layer.groups)
    order = rng.random(terms.shape)
    number = min(FEW_PRODUCTS, len(terms))
    limit = np.sort(order, axis=0)[number - 1]
    kept = np.where(order <= limit, terms, 0)
    if pass_ is not Pass.INPUT_GRADIENT:
        return kept.reshape(shape)
    kh, kw, channels, filters = shape
    split = kept.reshape(kh * kw, filters // layer.groups, channels, layer.groups)
    return np.ascontiguousarray(split.transpose(0, 2, 3, 1).reshape(shape))
