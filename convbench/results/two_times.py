"""Hold typical and undisturbed figures together: where they differ, where one turns a verdict.

A 99 % interval gives the verdict: faster where it lies wholly above 1, slower where it lies wholly
below, unclear otherwise.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from convbench.results.model import Interval, Part, ResultFile, Speedup, SummaryRow

Verdict = Literal["faster", "slower", "unclear"]


@dataclass(frozen=True)
class TwoTimes:
    """One ratio with both figures, the typical and the undisturbed one.

    `layer` is None for a geometric mean, over one pass or, with `pass_` None, over all. `versus`
    names the implementation compared with. In a mean it may be `fastest-keras`, which stands for a
    Keras way of each layer.
    """

    layer: str | None
    pass_: Part | None
    implementation: str
    versus: str
    typical: float
    typical_ci99: Interval
    undisturbed: float
    undisturbed_ci99: Interval

    @property
    def is_turned(self) -> bool:
        """Whether the undisturbed figure gives another verdict than the typical one."""
        return verdict(self.typical_ci99) != verdict(self.undisturbed_ci99)

    @property
    def is_apart(self) -> bool:
        """Whether the two differ by more than their intervals, which have no point in common."""
        return (
            self.typical_ci99[1] < self.undisturbed_ci99[0]
            or self.undisturbed_ci99[1] < self.typical_ci99[0]
        )

    @property
    def distance(self) -> float:
        """Distance between the two figures, of logs and without a sign."""
        return abs(math.log(self.undisturbed / self.typical))


def verdict(ci99: Interval) -> Verdict:
    """Return the verdict that a 99 % interval gives."""
    low, high = ci99
    return "faster" if low > 1 else "slower" if high < 1 else "unclear"


def of_speedup(speedup: Speedup) -> TwoTimes | None:
    """Return a speedup with both figures; None if an interval is missing or it is unreliable."""
    if not speedup.reliable or speedup.ci99 is None or speedup.undisturbed_ci99 is None:
        return None
    assert speedup.undisturbed_ratio is not None
    return TwoTimes(
        speedup.layer,
        speedup.pass_,
        speedup.implementation,
        speedup.chosen,
        speedup.ratio,
        speedup.ci99,
        speedup.undisturbed_ratio,
        speedup.undisturbed_ci99,
    )


def of_mean(row: SummaryRow) -> TwoTimes | None:
    """Return a geometric mean with both figures; None if an interval is missing."""
    if row.ci99 is None or row.undisturbed_ci99 is None:
        return None
    assert row.undisturbed_mean is not None
    return TwoTimes(
        None,
        row.pass_,
        row.implementation,
        row.versus,
        row.geometric_mean,
        row.ci99,
        row.undisturbed_mean,
        row.undisturbed_ci99,
    )


def turned(result: ResultFile) -> list[TwoTimes]:
    """Return the ratios whose verdict the undisturbed figure would turn, means before cells."""
    return [found for found in (*_means(result), *speedups(result)) if found.is_turned]


def apart(result: ResultFile) -> list[TwoTimes]:
    """Return the speedups whose two figures are apart but give the same verdict."""
    return [found for found in speedups(result) if found.is_apart and not found.is_turned]


def speedups(result: ResultFile) -> Iterator[TwoTimes]:
    """Yield the speedups of cells that have both figures with their intervals."""
    return (found for speedup in result.speedups if (found := of_speedup(speedup)))


def _means(result: ResultFile) -> Iterator[TwoTimes]:
    """Yield the means over more than one speedup, those over all passes first."""
    members: Counter[tuple[str, str, Part | None]] = Counter()
    passes: Counter[tuple[str, str]] = Counter()
    for row in result.summary:
        passes[row.implementation, row.versus] += row.pass_ is not None
    for s in result.speedups:
        for pass_ in (s.pass_, None):
            members[s.implementation, s.versus, pass_] += 1
    for row in sorted(result.summary, key=lambda row: row.pass_ is not None):
        is_repeated = row.pass_ is None and passes[row.implementation, row.versus] == 1
        several = members[row.implementation, row.versus, row.pass_] > 1
        if several and not is_repeated and (found := of_mean(row)):
            yield found
