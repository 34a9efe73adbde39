"""Judge one cell: does the implementation compute the convolution?

There are three checks. *Exact integers* run at full size: every sum is an integer that a float
holds, so that an implementation which only sums products must give the very same numbers. Any other
must be within the bound that it states. Some draws have values of a special kind (values.py).
*Floats* run on a cut copy of the layer, against the a-priori bound. *Few products* are floats at
full size, of very different sizes, with at most FEW_PRODUCTS in each sum that are not zero: the
bound is as tight as it can be, however long the sums are. Each check loads several times, with
different values, and memory that nobody wrote to is NaN. A result that depends on an earlier call,
or that was never written, therefore shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Self

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
from convbench.agreement.check.trial import GARBAGE, Seen, Trial
from convbench.implementations.contract import Implementation
from convbench.problem import operands, values
from convbench.problem.layer import ITEMSIZE, Layer, Pass
from convbench.problem.operands import Operands
from convbench.results.model import Agreement, RemarkKind

Array = NDArray[np.floating[Any]]
Float64 = NDArray[np.float64]

MISTRUSTED_ZEROS = 0.7
"""Largest part of a right result that may be zero where it need not be. With more zeros, agreement
proves nothing."""

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


SPECIAL = 2
"""Number of families of special values that a layer is asked. Others are asked of other layers."""

UNWRITTEN_TIMES_ZERO = (
    "it multiplies memory that nobody wrote to by zero, which is wrong where that memory happens "
    "to hold NaN or infinity"
)
"""Sentence of the remark `RemarkKind.UNWRITTEN_TIMES_ZERO`."""

SMALL_ELEMENTS = 100_000
"""Largest number of elements, of operands and result together, of a layer that is asked all draws
at full size. Of larger ones, a cut copy is asked floats and special values."""


@dataclass(frozen=True)
class Draw:
    """Operands, and how a result of them is judged.

    `step` is the difference between neighbouring sums of integers, and 0 for floats. `products` is
    the largest number of products in a sum that are not zero, if that is known. `where` completes
    the sentence "wrong where ...", for values of a special kind.
    """

    operands: Operands
    step: float = 0.0
    products: int | None = None
    where: str = ""


@dataclass(frozen=True)
class Comparison:
    """The largest deviation of several results from the right ones.

    `problem` is a sentence, or None. `steps` is the largest error of integers, in steps between
    neighbouring sums. `over_bound` is the largest ratio of an error to its bound: that of direct
    sums, or what the implementation states if that is more. `over_largest` is the ratio to the
    largest bound of any element, `over_transform` the ratio to the bound of transforms.
    `systematic` errors are not those of rounding (systematic.py). Errors beyond the bound `grows`
    if large sums are as wrong for their size as small ones. `modified` names the operands that the
    code wrote into. A result that `has_gaps` has elements that are NaN or infinity.
    """

    problem: str | None
    max_abs_error: float
    over_bound: float
    over_transform: float
    zeros: float  # part of the expected result that is zero where it need not be
    steps: float = 0.0
    over_largest: float = 0.0
    systematic: bool = False
    grows: bool = False
    modified: tuple[str, ...] = ()
    has_gaps: bool = False

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
            systematic=any(c.systematic for c in found),
            grows=any(c.grows for c in found),
            modified=tuple(name for c in found for name in c.modified),
            has_gaps=any(c.has_gaps for c in found),
        )


def check(
    implementation: Implementation, layer: Layer, pass_: Pass, threads: int, seed: int
) -> Agreement:
    """Run all checks. Whatever the implementation raises is raised on to the caller.

    An implementation says whether it is exact and, if not, how far off it may be. One that does not
    know may compute through transforms. It passes if its integers round to the right ones and its
    floats are within the bound of transforms, with errors like theirs; a remark then says so.
    """
    implementation = implementation.chosen(layer, pass_, threads)
    asked = asked_of(implementation, layer, pass_, threads, seed)
    found = _judged(implementation, layer, pass_, threads, seed, asked)
    if any(each.has_gaps for each in asked.all):
        asked = asked_of(implementation, layer, pass_, threads, seed, unwritten=GARBAGE)
        again = _judged(implementation, layer, pass_, threads, seed, asked)
        if again.verdict == "agrees":
            return again.remarked(RemarkKind.UNWRITTEN_TIMES_ZERO, UNWRITTEN_TIMES_ZERO)
    return found


def _judged(
    implementation: Implementation,
    layer: Layer,
    pass_: Pass,
    threads: int,
    seed: int,
    asked: Asked,
) -> Agreement:
    integers, floats, few = asked.integers, asked.floats, asked.few
    special = Comparison.of_all([asked.changed, asked.special])
    is_known = implementation.exact(layer, pass_) is not None
    is_inexact = _is_inexact(implementation, layer, pass_)

    equal = integers.problem is None and special.problem is None
    problem = integers.problem or special.problem
    compared = [floats, few, *([integers, special] if is_inexact else [])]
    over = max(each.over_bound for each in compared)
    remark = ""
    if not is_known:
        if _only_round(integers) and _only_round(special):
            problem = None
            if integers.steps >= ROUNDING:  # too many products to tell: try fewer
                problem = _of_fewer_products(implementation, asked.small, pass_, threads, seed)
        if over > 1 and _is_transform(floats, few, equal):
            remark = (
                f"its floats are off by up to {over:.2g} times the bound of direct sums, but "
                "within the bound of transforms such as FFT and Winograd"
            )
            over = max(_over_transform(each, equal) for each in (floats, few))
    if problem is None and over > 1:
        problem = floats.problem or few.problem
    modified = sorted({name for each in asked.all for name in each.modified})
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
    """Tell whether the check finds something wrong. It finds nothing if the code raises.

    What is wrong for most values is found without the other draws.
    """
    try:
        asking = _Asking(implementation, layer, pass_, threads)
        usual = asking.compare(_dense(layer, pass_, seed))
        if usual.steps >= ROUNDING and usual.over_transform > 1:
            return True
        return check(implementation, layer, pass_, threads, seed).verdict == "wrong"
    except Exception:  # noqa: BLE001 - the cell itself tells what the code raises
        return False


def _is_inexact(implementation: Implementation, layer: Layer, pass_: Pass) -> bool:
    """Tell whether the implementation says that it does more than sum products."""
    return implementation.exact(layer, pass_) is False


def _only_round(integers: Comparison) -> bool:
    return integers.steps < ROUNDING or integers.over_transform <= 1


def _is_transform(floats: Comparison, few: Comparison, integers_are_exact: bool) -> bool:
    """Tell whether errors beyond the bound of direct sums can be the rounding of a transform.

    A transform mixes elements before it multiplies, so that a small sum is as far off as a large
    one beside it. Operands that are rounded make a small sum less wrong than a large one.
    """
    compared = floats, few
    return not few.grows and not any(
        each.systematic or _over_transform(each, integers_are_exact) > 1 for each in compared
    )


def _over_transform(found: Comparison, integers_are_exact: bool) -> float:
    """Return the ratio of the largest error to the bound of transforms.

    Exact integers are those of a transform that only adds, subtracts and halves. It may mix all
    elements of the operands, as Strassen's method does, and loses few bits of the largest sum.
    """
    return found.over_largest / EXACT_GROWTH if integers_are_exact else found.over_transform


def _of_fewer_products(
    implementation: Implementation, small: Layer, pass_: Pass, threads: int, seed: int
) -> str | None:
    """Tell what is wrong on integers of a layer so small that they round to the right ones."""
    fewer = _Asking(implementation, small, pass_, threads).compare(_dense(small, pass_, seed))
    return None if fewer.steps < ROUNDING else fewer.problem


@dataclass(frozen=True)
class Asked:
    """What came out of each kind of draw, and the cut copy of the layer that was asked floats.

    `changed` are integers of which one element differs from those of the call before.
    """

    integers: Comparison
    changed: Comparison
    special: Comparison
    floats: Comparison
    few: Comparison
    small: Layer

    @property
    def is_imprecise(self) -> bool:
        """Tell whether integers are right, and floats are off by a part of each product."""
        return self.integers_are_right and self.few.grows and not self.few.systematic

    @property
    def is_right_for_usual_values(self) -> bool:
        """Tell whether integers and floats that were drawn as usual are as right as transforms'."""
        return self.integers_are_right and self.floats.over_transform <= 1

    @property
    def integers_are_right(self) -> bool:
        """Tell whether integers that were drawn as usual are right, or round to the right ones."""
        return _only_round(self.integers)

    @property
    def all(self) -> tuple[Comparison, ...]:
        """What came out of all kinds of draws."""
        return self.integers, self.changed, self.special, self.floats, self.few


def asked_of(
    implementation: Implementation,
    layer: Layer,
    pass_: Pass,
    threads: int,
    seed: int,
    unwritten: float = np.nan,
) -> Asked:
    """Call the implementation on all draws. Memory that nobody wrote to holds `unwritten`."""
    small = _cut(implementation, layer, pass_)
    whole = _Asking(implementation, layer, pass_, threads, unwritten)
    first, second, nearly = _dense(layer, pass_, seed)
    integers, changed = whole.compare([first, second]), whole.compare([nearly])
    part = whole if small == layer else _Asking(implementation, small, pass_, threads, unwritten)
    floats = part.compare([Draw(operands.floats(small, pass_, 2 * seed + i)) for i in (0, 1)])
    asking = whole if _is_small(layer, pass_) else part
    return Asked(
        integers=integers,
        changed=changed,
        special=asking.compare(_special(asking.layer, pass_, seed)),
        floats=floats,
        few=whole.compare(
            [Draw(values.few_products(layer, pass_, seed), products=values.FEW_PRODUCTS)]
        ),
        small=small,
    )


def _cut(implementation: Implementation, layer: Layer, pass_: Pass) -> Layer:
    """Return the copy of a layer that is asked floats: the layer itself, if it is small.

    Implementations that are not exact have bounds that grow with the layer, so that their copies
    are as small as can be.
    """
    if _is_inexact(implementation, layer, pass_):
        return with_small_planes(cut(layer, pass_))
    return layer if _is_small(layer, pass_) else cut(layer, pass_)


def _is_small(layer: Layer, pass_: Pass) -> bool:
    elements = (layer.operand_bytes(pass_) + layer.result_bytes(pass_)) // ITEMSIZE[layer.dtype]
    return elements <= SMALL_ELEMENTS


def _dense(layer: Layer, pass_: Pass, seed: int) -> list[Draw]:
    """Draw integers twice, and a third time with one element changed."""
    first, second = (operands.exact_integers(layer, pass_, 2 * seed + i) for i in (0, 1))
    changed = values.one_changed(second, layer, pass_, seed)
    return [
        Draw(first, step=1),
        Draw(second, step=1),
        Draw(changed, step=1, where="one element differs from those of the call before"),
    ]


def _special(layer: Layer, pass_: Pass, seed: int) -> list[Draw]:
    """Draw values of some families."""
    return [
        Draw(family.draw(layer, pass_, seed), family.unit(layer), where=family.what)
        for family in values.families(layer, pass_, seed, SPECIAL)
    ]


class _Asking:
    """A trial of one layer, and the judgement of its results."""

    def __init__(
        self,
        implementation: Implementation,
        layer: Layer,
        pass_: Pass,
        threads: int,
        unwritten: float = np.nan,
    ) -> None:
        self.layer = layer
        self._implementation, self._pass = implementation, pass_
        self._is_inexact = _is_inexact(implementation, layer, pass_)
        self._trial = Trial(implementation, layer, pass_, threads, unwritten)

    def compare(self, draws: Iterable[Draw]) -> Comparison:
        """Call with each draw, and once more with the first one as it is loaded; compare all.

        Results are copies, so that a later call cannot change an earlier result.
        """
        found: list[Comparison] = []
        for number, draw in enumerate(draws):
            right = self._right(draw)
            for call in (draw.operands, None) if number == 0 else (draw.operands,):
                found.append(self._comparison(right, self._trial.call(call), draw))
        return Comparison.of_all(found)

    def _right(self, draw: Draw) -> Right:
        stated = None
        if self._is_inexact:
            stated = self._implementation.error_bound(self.layer, self._pass, draw.operands)
        return Right(self.layer, self._pass, draw.operands, stated, draw.products)

    def _comparison(self, right: Right, seen: Seen, draw: Draw) -> Comparison:
        found = deviation(right, seen, exactly=draw.step > 0 and not self._is_inexact)
        found = replace(found, modified=seen.modified)
        if draw.step:
            found = replace(found, steps=found.max_abs_error / draw.step)
        if draw.where:
            problem = found.problem and f"where {draw.where}: {found.problem}"
            found = replace(found, problem=problem, zeros=0.0)
        return found


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
        over_largest=_over(error.max(keepdims=True), right.bound.max(keepdims=True)),
        systematic=trend(result, right.expected) is not None,
        grows=over > 1 and _grow(error, right),
    )


def _grow(error: Array, right: Right) -> bool:
    """Tell whether errors are about the same part of each sum, be it small or large.

    The largest must be beyond the bound of the largest sum: any mixing of elements explains others.
    """
    if error.max() <= right.bound.max():
        return False
    known = right.magnitude > 0
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
