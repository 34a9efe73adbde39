"""Judge one cell: does the implementation compute the convolution?

asking.py has the draws that a cell is asked, and deviation.py how far a result is from the right
one. Here the verdict is made of them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from convbench.agreement.check.asking import Asked, Asking, asked_of, dense, is_inexact
from convbench.agreement.check.bound import EXACT_GROWTH, cut
from convbench.agreement.check.case import Case
from convbench.agreement.check.deviation import ROUNDING, Comparison
from convbench.agreement.check.trial import GARBAGE
from convbench.results.model import Agreement, RemarkKind

MISTRUSTED_ZEROS = 0.7
"""Largest part of a right result that may be zero where it need not be. With more zeros, agreement
proves nothing."""

UNWRITTEN_TIMES_ZERO = (
    "it multiplies memory that nobody wrote to by zero, which is wrong where that memory happens "
    "to hold NaN or infinity"
)
"""Sentence of the remark `RemarkKind.UNWRITTEN_TIMES_ZERO`."""


def check(case: Case) -> Agreement:
    """Run all checks. Whatever the implementation raises is raised on to the caller.

    An implementation says whether it is exact and, if not, how far off it may be. One that does not
    know may compute through transforms. It passes if its integers round to the right ones and its
    floats are within the bound of transforms, with errors like theirs; a remark then says so.
    """
    case = case.by(case.implementation.chosen(case.layer, case.pass_, case.threads))
    asked = asked_of(case)
    found = _judged(case, asked)
    if any(each.has_gaps for each in asked.all):
        again = _judged(case, asked_of(case, unwritten=GARBAGE))
        if again.verdict == "agrees":
            return again.remarked(RemarkKind.UNWRITTEN_TIMES_ZERO, UNWRITTEN_TIMES_ZERO)
    return found


def _judged(case: Case, asked: Asked) -> Agreement:
    integers, floats, few = asked.integers, asked.floats, asked.few
    special = Comparison.of_all([asked.changed, asked.special])
    is_known = case.implementation.exact(case.layer, case.pass_) is not None
    inexact = is_inexact(case)

    equal = integers.problem is None and special.problem is None
    problem = integers.problem or special.problem
    compared = [floats, few, *([integers, special] if inexact else [])]
    over = max(each.over_bound for each in compared)
    remark = ""
    if not is_known:
        if integers.rounds_right and special.rounds_right:
            problem = None
            if integers.steps >= ROUNDING:  # too many products to tell: try fewer
                problem = _of_fewer_products(case)
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
        exact=None if inexact else equal,
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


def is_wrong(case: Case) -> bool:
    """Tell whether the check finds something wrong. It finds nothing if the code raises.

    What is wrong for most values is found without the other draws.
    """
    try:
        usual = Asking(case).compare(dense(case))
        if usual.steps >= ROUNDING and usual.over_transform > 1:
            return True
        return check(case).verdict == "wrong"
    except Exception:  # noqa: BLE001 - the cell itself tells what the code raises
        return False


def _is_transform(floats: Comparison, few: Comparison, integers_are_exact: bool) -> bool:
    """Tell whether errors beyond the bound of direct sums can be the rounding of a transform.

    A transform mixes elements before it multiplies, so that a small sum is as far off as a large
    one beside it. Operands that are rounded make a small sum less wrong than a large one. Where few
    products meet, one element may be so large that its own rounding is all that is seen: errors
    that have something in common prove nothing there.
    """
    if floats.systematic or few.grows:
        return False
    return all(_over_transform(each, integers_are_exact) <= 1 for each in (floats, few))


def _over_transform(found: Comparison, integers_are_exact: bool) -> float:
    """Return the ratio of the largest error to the bound of transforms.

    Exact integers are those of a transform that only adds, subtracts and halves. It may mix all
    elements of the operands, as Strassen's method does, and loses few bits of the largest sum.
    """
    return found.over_largest / EXACT_GROWTH if integers_are_exact else found.over_transform


def _of_fewer_products(case: Case) -> str | None:
    """Tell what is wrong on integers of a layer so small that they round to the right ones."""
    small = case.on(cut(case.layer, case.pass_))
    fewer = Asking(small).compare(dense(small))
    return None if fewer.steps < ROUNDING else fewer.problem


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
