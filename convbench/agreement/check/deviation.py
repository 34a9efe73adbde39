"""Measure how far a result is from the right one, against the bounds of rounding.

Errors are those of one call. They are compared with the bound of direct sums and with the bound of
transforms, element by element, and it is told whether they look like rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from convbench.agreement.check import oracle
from convbench.agreement.check.bound import (
    direct_factor,
    largest_bound,
    mixing_bound,
    transform_bound,
)
from convbench.agreement.check.systematic import trend
from convbench.agreement.check.trial import Seen
from convbench.problem.layer import Layer, Pass
from convbench.problem.operands import Operands

Array = NDArray[np.floating[Any]]
Float64 = NDArray[np.float64]

SMALL_AND_LARGE = (0.25, 0.9)
"""Quantiles of the sizes of sums below which they count as small, and above which as large."""

SPREAD = 32
"""Factor by which the relative errors of small sums exceed those of large ones where errors spread.
In draws of few products, the quantiles differ by far more (OCTAVES of values.py)."""

FEWEST_SUMS = 64
"""Fewest sums of which it is told whether errors grow with them. The errors of a transform did so
by chance in 24 sums (measured, F(6x6, 3x3), F(2x2, 3x3) and Strassen)."""

GROWN = 4
"""Smallest ratio to the bound from which errors of large sums are those of rounded operands: 4 is
that of two operands with 22 bits where few products meet. A kernel that is computed from its
singular vectors again has errors of up to 1.6 times the bound (measured)."""

TYPICAL = 256
"""Largest ratio of the largest error of a large sum to the median error, both for their size, where
each product is rounded. Of clipped results only a few are wrong."""

ROUNDING = 0.5
"""An error below this still rounds to the right integer."""


@dataclass(frozen=True)
class Comparison:
    """The largest deviation of several results from the right ones.

    `problem` is a sentence, or None. `steps` is the largest error of integers, in steps between
    neighbouring sums. `over_bound` is the largest ratio of an error to its bound: that of direct
    sums, or what the implementation states if that is more. `over_largest` is the ratio to the
    largest bound of direct sums (`Right.largest`), `over_transform` the ratio to the bound of
    transforms, and `over_all_transforms` that to the largest of these. `systematic`
    errors are not those of rounding (systematic.py). Errors beyond the bound `grows` if large sums
    are as wrong for their size as small ones. `modified` names the operands that the code wrote
    into. A result that `has_gaps` has elements that are NaN or infinity.
    """

    problem: str | None
    max_abs_error: float
    over_bound: float
    over_transform: float
    zeros: float  # part of the expected result that is zero where it need not be
    steps: float = 0.0
    over_largest: float = 0.0
    over_all_transforms: float = 0.0
    systematic: bool = False
    grows: bool = False
    modified: tuple[str, ...] = ()
    has_gaps: bool = False

    @property
    def rounds_right(self) -> bool:
        """Tell whether integers are right, or round to the right ones as those of transforms do."""
        is_rounding = self.steps < ROUNDING and self.over_all_transforms <= 1
        return is_rounding or self.over_transform <= 1

    @classmethod
    def of_all(cls, found: Sequence[Self]) -> Self:
        """Return what several comparisons have found together."""
        return cls(
            problem=next((c.problem for c in found if c.problem is not None), None),
            max_abs_error=max(c.max_abs_error for c in found),
            over_bound=max(c.over_bound for c in found),
            over_transform=max(c.over_transform for c in found),
            zeros=max(c.zeros for c in found),
            steps=max(c.steps for c in found),
            over_largest=max(c.over_largest for c in found),
            over_all_transforms=max(c.over_all_transforms for c in found),
            systematic=any(c.systematic for c in found),
            grows=any(c.grows for c in found),
            modified=tuple(name for c in found for name in c.modified),
            has_gaps=any(c.has_gaps for c in found),
        )


@dataclass(frozen=True)
class Right:
    """The right result for one draw, and how far off a result may be, computed when asked for."""

    layer: Layer
    pass_: Pass
    operands: Operands
    stated: Float64 | None = None  # bound that the implementation states for its own errors
    products: int | None = None  # most products in a sum that are not zero, if that is known

    @cached_property
    def expected(self) -> Float64:
        return oracle.expected(self.layer, self.pass_, self.operands)

    @cached_property
    def magnitude(self) -> Float64:
        """Sum of the absolute values of the products of each element."""
        return oracle.magnitude(self.layer, self.pass_, self.operands)

    @cached_property
    def bound(self) -> Float64:
        """Bound of direct sums, element by element, or the stated bound where it is larger."""
        direct = direct_factor(self.layer, self.pass_, self.products) * self.magnitude
        return direct if self.stated is None else np.maximum(direct, self.stated)

    @cached_property
    def transform(self) -> Float64:
        """Bound of transforms, element by element, which is never below that of direct sums.

        Where few products meet, elements are of very different sizes, and it counts which of them a
        transform mixes: it may be all.
        """
        bound = transform_bound if self.products is None else mixing_bound
        return np.maximum(self.bound, bound(self.layer, self.pass_, self.operands))

    @cached_property
    def largest(self) -> float:
        """Largest bound of direct sums or, where few products meet, that of the largest elements.

        There the largest elements may meet in no sum.
        """
        if self.products is None:
            return float(self.bound.max())
        return largest_bound(self.layer, self.pass_, self.operands, self.products)

    @cached_property
    def zeros(self) -> float:
        """Part of the right result that is zero where it need not be."""
        reached = np.broadcast_to(_reached(self.layer, self.pass_), self.expected.shape)
        return float(np.mean(self.expected[reached] == 0)) if reached.any() else 0.0


def deviation(right: Right, seen: Seen, exactly: bool) -> Comparison:
    """Measure how far one result is from the right one. `exactly` allows no error at all."""
    result = seen.result
    if result is None:
        return Comparison(seen.problem, np.inf, np.inf, np.inf, 0.0)
    with np.errstate(invalid="ignore"):
        error = np.abs(result - right.expected)
    error[error <= np.finfo(right.layer.dtype).smallest_normal] = 0  # may be flushed to zero
    unwritten = int(np.count_nonzero(~np.isfinite(error)))
    if unwritten:
        sentence = (
            f"{unwritten} of {error.size} elements are not finite: they were never written, or "
            "were computed as infinity or NaN"
        )
        return Comparison(sentence, np.inf, np.inf, np.inf, right.zeros, has_gaps=True)
    largest = float(error.max())
    if largest == 0:
        return Comparison(None, 0.0, 0.0, 0.0, right.zeros)
    bad = error > (0 if exactly else right.bound)
    told = _difference(result, right.expected, bad, right.pass_) if bad.any() else None
    over = _over(error, right.bound)
    return Comparison(
        problem=told,
        max_abs_error=largest,
        over_bound=over,
        over_transform=_over(error, right.transform),
        zeros=right.zeros,
        over_largest=_ratio(largest, right.largest),
        over_all_transforms=_ratio(largest, float(right.transform.max())),
        systematic=trend(result, right.expected) is not None,
        grows=over > 1 and _grow(error, right),
    )


def fits(right: Right, seen: Seen) -> bool:
    """Tell whether a result is as near to the right one as any transform would be."""
    return deviation(right, seen, exactly=False).over_transform <= 1


def _grow(error: Array, right: Right) -> bool:
    """Tell whether errors are about the same part of each sum, be it small or large.

    The largest must be beyond the bound of a sum of the largest elements: mixing explains others.
    """
    if error.max() <= right.largest:
        return False
    known = right.bound > 0
    if np.count_nonzero(known) < FEWEST_SUMS or error[~known].any():
        return False
    sizes, over = right.magnitude[known], error[known] / right.bound[known]
    low, high = np.quantile(sizes, SMALL_AND_LARGE)
    of_small, of_large = (float(over[part].max()) for part in (sizes <= low, sizes >= high))
    return GROWN < of_large <= TYPICAL * float(np.median(over)) and of_small <= SPREAD * of_large


def _over(error: Array, bound: Array) -> float:
    """Return the largest ratio of an error to its bound."""
    ratio = np.divide(error, bound, out=np.zeros_like(error), where=bound > 0)
    return float(np.inf if (error[bound == 0] > 0).any() else ratio.max(initial=0))


def _ratio(error: float, bound: float) -> float:
    """Return the ratio of an error that is not 0 to a bound that may be."""
    return error / bound if bound > 0 else np.inf


def _difference(result: Array, expected: Array, bad: NDArray[np.bool_], pass_: Pass) -> str:
    where = tuple(int(i) for i in np.unravel_index(int(np.argmax(bad)), bad.shape))
    return (
        f"{np.count_nonzero(bad)} of {bad.size} elements differ, the first at "
        f"{place(pass_, where)}: found {result[where]:.6g}, expected {expected[where]:.6g}"
    )


def place(pass_: Pass, at: tuple[int, ...]) -> str:
    """Return an index of our layout in words: `image 0, filter 2, row 3, column 1`."""
    if pass_ is Pass.KERNEL_GRADIENT:
        row, column, channel, kernel_filter = at
        return f"filter {kernel_filter}, channel {channel}, row {row}, column {column}"
    image, row, column, last = at
    what = "filter" if pass_ is Pass.FORWARD else "channel"
    return f"image {image}, {what} {last}, row {row}, column {column}"


@lru_cache(maxsize=8)
def _reached(layer: Layer, pass_: Pass) -> NDArray[np.bool_]:
    """Return which elements are a sum of at least one product, for one image, channel and filter.

    With strides larger than the kernel, most of an input gradient is zero and has to be.
    """
    plain = replace(
        layer,
        batch_size=1,
        input_shape=(*layer.input_size, 1),
        filters=1,
        groups=1,
        use_bias=False,
        dtype="float64",
    )
    ones = Operands(
        np.ones((1, *plain.input_shape)),
        np.ones(plain.kernel_shape),
        None,
        np.ones((1, *plain.output_shape)),
    )
    return oracle.expected(plain, pass_, ones) > 0
