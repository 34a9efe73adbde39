"""Hold typical and undisturbed figures together: where they differ, where one turns a verdict.

A verdict is what a 99 % interval says: faster where it lies wholly above 1, slower where it lies
wholly below, unclear otherwise.
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
    """One ratio told twice. `layer` None: a geometric mean, of one pass or (`pass_` None) of all.

    `versus` names the implementation, or `fastest-keras` in a mean, which has a way for each layer.
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
        """Whether the undisturbed figure's verdict is another than the typical one's."""
        return verdict(self.typical_ci99) != verdict(self.undisturbed_ci99)

    @property
    def is_apart(self) -> bool:
        """Whether the two differ by more than their intervals: these have no point in common."""
        return (
            self.typical_ci99[1] < self.undisturbed_ci99[0]
            or self.undisturbed_ci99[1] < self.typical_ci99[0]
        )

    @property
    def distance(self) -> float:
        """How far the two are apart, of logs and without a sign."""
        return abs(math.log(self.undisturbed / self.typical))


def verdict(ci99: Interval) -> Verdict:
    low, high = ci99
    return "faster" if low > 1 else "slower" if high < 1 else "unclear"


def of_speedup(speedup: Speedup) -> TwoTimes | None:
    """A speedup told twice; None without both intervals, or where nothing is claimed of it."""
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
    """A geometric mean told twice; None without both intervals."""
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
    """Every ratio whose verdict the undisturbed figure would turn: means of several, then cells."""
    return [found for found in (*_means(result), *speedups(result)) if found.is_turned]


def apart(result: ResultFile) -> list[TwoTimes]:
    """The speedups whose two figures are apart but say the same."""
    return [found for found in speedups(result) if found.is_apart and not found.is_turned]


def speedups(result: ResultFile) -> Iterator[TwoTimes]:
    """The speedups of cells that can be told twice."""
    return (found for speedup in result.speedups if (found := of_speedup(speedup)))


def _means(result: ResultFile) -> Iterator[TwoTimes]:
    """The means over more than one speedup, those over all passes first."""
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
