"""Ask an implementation about one cell: draw operands of several kinds, call, and compare.

*Exact integers* run at full size: every sum is an integer that a float holds, so that an
implementation which only sums products must give the very same numbers. Any other must be within
the bound that it states. Some draws have values of a special kind (values.py). *Floats* run on a
cut copy of the layer, against the a-priori bound. *Few products* are floats at full size, of very
different sizes, with at most FEW_PRODUCTS in each sum that are not zero: the bound is as tight as
it can be, however long the sums are. Each check loads several times, with different values, and
memory that nobody wrote to is NaN. A result that depends on an earlier call, or that was never
written, therefore shows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from convbench.agreement.check.bound import cut, with_small_planes
from convbench.agreement.check.case import Case
from convbench.agreement.check.deviation import Comparison, Right, deviation
from convbench.agreement.check.trial import Seen
from convbench.problem import values
from convbench.problem.layer import ITEMSIZE, Layer
from convbench.problem.operands import Operands

SPECIAL = 2
"""Number of families of special values that a layer is asked. Others are asked of other layers."""

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
class Asked:
    """What came out of each kind of draw.

    `changed` are integers of which one element differs from those of the call before.
    """

    integers: Comparison
    changed: Comparison
    special: Comparison
    floats: Comparison
    few: Comparison

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
        return self.integers.rounds_right

    @property
    def all(self) -> tuple[Comparison, ...]:
        """What came out of all kinds of draws."""
        return self.integers, self.changed, self.special, self.floats, self.few


def asked_of(case: Case, unwritten: float = np.nan) -> Asked:
    """Call the implementation on all draws. Memory that nobody wrote to holds `unwritten`."""
    small = case.on(_cut(case))
    whole = Asking(case, unwritten)
    first, second, nearly = dense(case)
    integers, changed = whole.compare([first, second]), whole.compare([nearly])
    part = whole if small.layer == case.layer else Asking(small, unwritten)
    floats = part.compare([Draw(small.floats(number)) for number in (0, 1)])
    asking = whole if _is_small(case) else part
    few = values.few_products(case.layer, case.pass_, case.seed)
    return Asked(
        integers=integers,
        changed=changed,
        special=asking.compare(_special(asking.case)),
        floats=floats,
        few=whole.compare([Draw(few, products=values.FEW_PRODUCTS)]),
    )


class Asking:
    """A trial of one case, and the judgement of its results."""

    def __init__(self, case: Case, unwritten: float = np.nan) -> None:
        self.case = case
        self._is_inexact = is_inexact(case)
        self._trial = case.trial(unwritten)

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
        right = self.case.right(draw.operands, draw.products)
        if not self._is_inexact:
            return right
        cell = self.case.layer, self.case.pass_
        return replace(right, stated=self.case.implementation.error_bound(*cell, draw.operands))

    def _comparison(self, right: Right, seen: Seen, draw: Draw) -> Comparison:
        found = deviation(right, seen, exactly=draw.step > 0 and not self._is_inexact)
        found = replace(found, modified=seen.modified)
        if draw.step:
            found = replace(found, steps=found.max_abs_error / draw.step)
        if draw.where:
            problem = found.problem and f"where {draw.where}: {found.problem}"
            found = replace(found, problem=problem, zeros=0.0)
        return found


def _cut(case: Case) -> Layer:
    """Return the copy of a layer that is asked floats: the layer itself, if it is small.

    Implementations that are not exact have bounds that grow with the layer, so that their copies
    are as small as can be.
    """
    if is_inexact(case):
        return with_small_planes(cut(case.layer, case.pass_))
    return case.layer if _is_small(case) else cut(case.layer, case.pass_)


def _is_small(case: Case) -> bool:
    layer, pass_ = case.layer, case.pass_
    elements = (layer.operand_bytes(pass_) + layer.result_bytes(pass_)) // ITEMSIZE[layer.dtype]
    return elements <= SMALL_ELEMENTS


def dense(case: Case) -> list[Draw]:
    """Draw integers twice, and a third time with one element changed."""
    first, second = case.integers(0), case.integers(1)
    changed = values.one_changed(second, case.layer, case.pass_, case.seed)
    return [
        Draw(first, step=1),
        Draw(second, step=1),
        Draw(changed, step=1, where="one element differs from those of the call before"),
    ]


def _special(case: Case) -> list[Draw]:
    """Draw values of some families."""
    cell = case.layer, case.pass_, case.seed
    return [
        Draw(family.draw(*cell), family.unit(case.layer), where=family.what)
        for family in values.families(*cell, SPECIAL)
    ]


def is_inexact(case: Case) -> bool:
    """Tell whether the implementation says that it does more than sum products."""
    return case.implementation.exact(case.layer, case.pass_) is False
