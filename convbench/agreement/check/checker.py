"""Judge one cell: does the implementation compute the convolution?

There are two checks. *Exact integers* run at full size: every sum is an integer that a float holds,
so that an implementation which only sums products must give the very same numbers. Any other must
be within the bound that it states. *Floats* run on a cut copy of the layer, against the a-priori
bound. Each check loads twice, with different values, and memory that nobody wrote to is NaN. A
result that depends on an earlier call, or that was never written, therefore shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.agreement.check import oracle
from convbench.agreement.check.bound import (
    EXACT_GROWTH,
    cut,
    direct_factor,
    transform_bound,
    with_small_planes,
)
from convbench.agreement.check.systematic import trend
from convbench.agreement.check.trial import Seen, Trial
from convbench.implementations.contract import Implementation
from convbench.problem import operands
from convbench.problem.layer import Layer, Pass
from convbench.problem.operands import Operands
from convbench.results.model import Agreement, RemarkKind

Array = NDArray[np.floating[Any]]
Float64 = NDArray[np.float64]
Draw = Callable[[Layer, Pass, int], Operands]

MISTRUSTED_ZEROS = 0.7
"""Largest part of a right result that may be zero where it need not be. With more zeros, agreement
proves nothing."""

ROUNDING = 0.5
"""An error below this still rounds to the right integer."""


@dataclass(frozen=True)
class Comparison:
    """The largest deviation of several results from the right ones.

    `problem` is a sentence, or None. `over_bound` is the largest ratio of an error to its bound:
    that of direct sums, or what the implementation states if that is more. `over_largest` is the
    ratio to the largest bound of any element, `over_transform` the ratio to the bound of
    transforms. `systematic` errors are not those of rounding (systematic.py). `modified` names the
    operands that the code wrote into.
    """

    problem: str | None
    max_abs_error: float
    over_bound: float
    over_transform: float
    zeros: float  # part of the expected result that is zero where it need not be
    over_largest: float = 0.0
    systematic: bool = False
    modified: tuple[str, ...] = ()


def check(
    implementation: Implementation, layer: Layer, pass_: Pass, threads: int, seed: int
) -> Agreement:
    """Run both checks. Whatever the implementation raises is raised on to the caller.

    An implementation says whether it is exact and, if not, how far off it may be. One that does not
    know may compute through transforms. It passes if its integers round to the right ones and its
    floats are within the bound of transforms; a remark then says so.
    """
    implementation = implementation.chosen(layer, pass_, threads)
    is_known = implementation.exact(layer, pass_) is not None
    is_inexact = _is_inexact(implementation, layer, pass_)
    integers = _compare(implementation, layer, pass_, threads, seed, operands.exact_integers)
    small = cut(layer, pass_)
    if is_inexact:
        small = with_small_planes(small)
    floats = _compare(implementation, small, pass_, threads, seed, operands.floats)

    equal = integers.problem is None
    problem = integers.problem
    over = max(floats.over_bound, integers.over_bound) if is_inexact else floats.over_bound
    remark = ""
    if not is_known:
        if _only_round(integers):
            problem = None
            if integers.max_abs_error >= ROUNDING:  # too many products to tell: try fewer
                fewer = _compare(
                    implementation, small, pass_, threads, seed, operands.exact_integers
                )
                problem = None if fewer.max_abs_error < ROUNDING else fewer.problem
        if over > 1 and _is_transform(floats, equal):
            remark = (
                f"its floats are off by up to {over:.2g} times the bound of direct sums, but "
                "within the bound of transforms such as FFT and Winograd"
            )
            over = floats.over_transform
    if problem is None and over > 1:
        problem = floats.problem
    modified = sorted({*integers.modified, *floats.modified})
    if problem is None and modified:
        problem = f"it writes into {' and '.join(modified)}: operands belong to the caller"
    verdict = Agreement(
        exact=None if is_inexact else equal,
        error_over_bound=_finite(over),
        max_abs_error=_finite(floats.max_abs_error),
        verdict="agrees",
    )
    if remark:
        verdict = verdict.remarked(RemarkKind.LIKE_A_TRANSFORM, remark)
    if problem is not None:
        return replace(verdict, verdict="wrong", diagnosis=problem)
    zeros = max(integers.zeros, floats.zeros)
    if zeros > MISTRUSTED_ZEROS:
        return replace(
            verdict,
            verdict="mistrusted",
            diagnosis=f"{zeros:.0%} of the right result is zero, so that agreement proves nothing",
        )
    return verdict


def is_wrong(
    implementation: Implementation, layer: Layer, pass_: Pass, threads: int, seed: int
) -> bool:
    """Tell whether the check finds something wrong. It finds nothing if the code raises."""
    try:
        return check(implementation, layer, pass_, threads, seed).verdict == "wrong"
    except Exception:  # noqa: BLE001 - the cell itself tells what the code raises
        return False


def _is_inexact(implementation: Implementation, layer: Layer, pass_: Pass) -> bool:
    """Tell whether the implementation says that it does more than sum products."""
    return implementation.exact(layer, pass_) is False


def _only_round(integers: Comparison) -> bool:
    return integers.max_abs_error < ROUNDING or integers.over_transform <= 1


def _is_transform(floats: Comparison, integers_are_exact: bool) -> bool:
    """Tell whether errors beyond the bound of direct sums can be the rounding of a transform."""
    if floats.systematic or floats.over_transform > 1:
        return False
    return not integers_are_exact or floats.over_largest <= EXACT_GROWTH


def _compare(
    implementation: Implementation,
    layer: Layer,
    pass_: Pass,
    threads: int,
    seed: int,
    draw: Draw,
) -> Comparison:
    """Call with one draw, once more with what is loaded, and with another draw; compare all."""
    trial = Trial(implementation, layer, pass_, threads)
    first, second = (draw(layer, pass_, 2 * seed + i) for i in (0, 1))
    seen = [trial.call(first), trial.call(), trial.call(second)]
    # Results are copies, so that a later call cannot have overwritten an earlier result.
    is_inexact = _is_inexact(implementation, layer, pass_)
    exactly = draw is operands.exact_integers and not is_inexact
    one, other = (
        Right(
            layer,
            pass_,
            drawn,
            implementation.error_bound(layer, pass_, drawn) if is_inexact else None,
        )
        for drawn in (first, second)
    )
    found = [deviation(*both, exactly) for both in zip((one, one, other), seen, strict=True)]
    return Comparison(
        problem=next((c.problem for c in found if c.problem is not None), None),
        max_abs_error=max(c.max_abs_error for c in found),
        over_bound=max(c.over_bound for c in found),
        over_transform=max(c.over_transform for c in found),
        zeros=max(c.zeros for c in found),
        over_largest=max(c.over_largest for c in found),
        systematic=any(c.systematic for c in found),
        modified=tuple(name for call in seen for name in call.modified),
    )


@dataclass(frozen=True)
class Right:
    """The right result for one draw, and how far off a result may be, computed when asked for."""

    layer: Layer
    pass_: Pass
    operands: Operands
    stated: Float64 | None = None  # bound that the implementation states for its own errors

    @cached_property
    def expected(self) -> Float64:
        return oracle.expected(self.layer, self.pass_, self.operands)

    @cached_property
    def bound(self) -> Float64:
        """Bound of direct sums, element by element, or the stated bound where it is larger."""
        magnitude = oracle.magnitude(self.layer, self.pass_, self.operands)
        direct = direct_factor(self.layer, self.pass_) * magnitude
        return direct if self.stated is None else np.maximum(direct, self.stated)

    @cached_property
    def transform(self) -> Float64:
        """Bound of transforms, element by element, which is never below that of direct sums."""
        return np.maximum(self.bound, transform_bound(self.layer, self.pass_, self.operands))

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
    unwritten = int(np.count_nonzero(~np.isfinite(error)))
    if unwritten:
        sentence = (
            f"{unwritten} of {error.size} elements are not finite: they were never written, or "
            "were computed as infinity or NaN"
        )
        return Comparison(sentence, np.inf, np.inf, np.inf, right.zeros)
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
        over_largest=largest / max(float(right.bound.max()), np.finfo(np.float64).tiny),
        systematic=over > 1 and trend(result, right.expected) is not None,
    )


def _over(error: Array, bound: Array) -> float:
    """Return the largest ratio of an error to its bound."""
    ratio = np.divide(error, bound, out=np.zeros_like(error), where=bound > 0)
    return float(np.inf if (error[bound == 0] > 0).any() else ratio.max(initial=0))


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


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
