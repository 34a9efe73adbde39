"""Name what is wrong with code that is right for most values: which values, or how many bits."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from convbench.agreement.check.asking import Asked
from convbench.agreement.check.case import Case
from convbench.agreement.check.deviation import fits
from convbench.agreement.diagnosis.patterns import linear
from convbench.problem import values
from convbench.problem.values import FAMILIES, SUM_BITS, Family
from convbench.results.model import Explanation, MistakeKind

FORMATS = {8: "bfloat16", 11: "float16 or TF32", 24: "float32"}
"""Formats by the number of bits of their significands."""

TOGETHER: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset({"relu", "mostly-zero", "one-element"}), "an element of the images is 0"),
    (frozenset({"zero-filter", "one-tap"}), "an element of the kernel is 0"),
    (frozenset({"medium", "large"}), "numbers are large (sums beyond 32,767)"),
    (frozenset({"positive", "negative"}), "no product is of the other sign than the others"),
)
"""Families that fail together, and what their values have in common."""


def special(case: Case, asked: Asked) -> Explanation | None:
    """Explain a cell that is right for integers or floats as they are usually drawn, else None."""
    is_stale = asked.is_right_for_usual_values and asked.changed.over_transform > 1
    if is_stale and _is_right_alone(case):
        kind = MistakeKind("depends-on-previous-call", "by a part of the operands")
        sentence = (
            "it returns the result of the call before if only one element of the operands is new: "
            "it keeps results by a part of their operands"
        )
        return Explanation.of([kind], sentence, reproduces=False)
    if asked.is_imprecise:
        return _few_bits(case)
    if asked.is_right_for_usual_values and asked.special.problem is not None:
        failing, told = _failing(case)
        if told is not None:
            return told
        if failing:
            where = _where(failing)
            kind = MistakeKind("depends-on-values", " ".join(sorted(f.name for f in failing)))
            sentence = f"it is right for other values, and wrong where {where}"
            return Explanation.of([kind], sentence, reproduces=False)
    return None


def _is_right_alone(case: Case) -> bool:
    """Tell whether the operands that fail after nearly equal ones are right in a fresh module."""
    drawn = values.one_changed(case.integers(1), case.layer, case.pass_, case.seed)
    return fits(case.right(drawn), case.fresh().trial().call(drawn))


def _failing(case: Case) -> tuple[list[Family], Explanation | None]:
    """Return the families of values for which the code is wrong.

    If the errors of several are an offset, or those of several a factor, return that explanation,
    too: that of the smallest values, which come last.
    """
    trial = case.trial()
    failing: list[Family] = []
    explanations: list[Explanation | None] = []
    for family in FAMILIES:
        if not family.fits(case.layer, case.pass_):
            continue
        drawn = family.draw(case.layer, case.pass_, case.seed)
        right, seen = case.right(drawn), trial.call(drawn)
        if not fits(right, seen):
            failing.append(family)
            told = None if seen.result is None else linear(seen.result, right.expected)
            explanations.append(told)
    kinds = Counter(told.kinds for told in explanations if told is not None)
    most, count = kinds.most_common(1)[0] if kinds else ((), 0)
    linear_ones = [told for told in explanations if told is not None and told.kinds == most]
    return failing, linear_ones[-1] if count > 1 else None


def _where(failing: list[Family]) -> str:
    names = {family.name for family in failing}
    told = []
    for together, what in TOGETHER:
        if together <= names:
            told.append(what)
            names -= together
    told += [family.what for family in failing if family.name in names]
    return told[0] if len(told) == 1 else f"{', '.join(told[:-1])}, or {told[-1]}"


def _few_bits(case: Case) -> Explanation | None:
    """Tell how many bits of single products are right."""
    drawn = values.few_products(case.layer, case.pass_, case.seed)
    right, seen = case.right(drawn, values.FEW_PRODUCTS), case.trial().call(drawn)
    if seen.result is None or not np.isfinite(seen.result).all():
        return None
    known = right.magnitude > 0
    relative = np.abs(seen.result - right.expected)[known] / right.magnitude[known]
    worst = float(relative.max(initial=0))
    if not 0 < worst < 1:
        return None
    bits = math.floor(-math.log2(worst))
    # Two operands that are rounded cost a product one bit, and two that are truncated two bits.
    of_format = (FORMATS[n] for n in (bits, bits + 1, bits + 2) if n in FORMATS)
    name = next((f", as of {format_}," for format_ in of_format), "")
    sentence = (
        f"about {bits} bits of a product{name} are right where {case.layer.dtype} has "
        f"{SUM_BITS[case.layer.dtype]}: operands, products or sums are rounded"
    )
    return Explanation.of([MistakeKind("low-precision", "few bits")], sentence, reproduces=False)
