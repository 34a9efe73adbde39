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
from convbench.agreement.check.deviation import Comparison, Right, deviation
from convbench.agreement.check.trial import Seen, Trial
from convbench.implementations.contract import Implementation
from convbench.problem import operands, values
from convbench.problem.layer import ITEMSIZE, Layer, Pass
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
    whole = Asking(implementation, layer, pass_, threads, unwritten)
    first, second, nearly = dense(layer, pass_, seed)
    integers, changed = whole.compare([first, second]), whole.compare([nearly])
    part = whole if small == layer else Asking(implementation, small, pass_, threads, unwritten)
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
    )


class Asking:
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
        self._is_inexact = is_inexact(implementation, layer, pass_)
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


def _cut(implementation: Implementation, layer: Layer, pass_: Pass) -> Layer:
    """Return the copy of a layer that is asked floats: the layer itself, if it is small.

    Implementations that are not exact have bounds that grow with the layer, so that their copies
    are as small as can be.
    """
    if is_inexact(implementation, layer, pass_):
        return with_small_planes(cut(layer, pass_))
    return layer if _is_small(layer, pass_) else cut(layer, pass_)


def _is_small(layer: Layer, pass_: Pass) -> bool:
    elements = (layer.operand_bytes(pass_) + layer.result_bytes(pass_)) // ITEMSIZE[layer.dtype]
    return elements <= SMALL_ELEMENTS


def dense(layer: Layer, pass_: Pass, seed: int) -> list[Draw]:
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


def is_inexact(implementation: Implementation, layer: Layer, pass_: Pass) -> bool:
    """Tell whether the implementation says that it does more than sum products."""
    return implementation.exact(layer, pass_) is False
