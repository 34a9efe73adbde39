"""Derive which difference a run can tell, and why it can tell no less, from intervals and twins."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from typing import Literal

from convbench.results.model import (
    Duplicate,
    Interval,
    Part,
    Phases,
    Resolution,
    ResultFile,
    Speedup,
)
from convbench.suites.suite import LOOP

Unit = tuple[str, Part]  # layer, pass

Cause = Literal["other-processes", "neighbour", "few-rounds"]
"""Causes of wide intervals."""

MANY_DISTURBED = 0.05
"""Share of the visits above which disturbed ones explain wide intervals. A neighbour makes a visit
take 1.6 times as long (measured). Where it meets one visit in twenty, rounds differ by 10 % (a
standard deviation), and eight rounds leave an interval of 13 %."""

OWN_LOAD = 1.0
"""Load average that a run adds beside the threads of its arm: the process that waits for the arms,
and the workers that start."""


def resolution_of(
    speedups: Iterable[Speedup], duplicates: Iterable[Duplicate]
) -> Resolution | None:
    """Return the difference that a run can tell; None without intervals.

    A (layer, pass) counts with the widest interval of its speedups as they are printed, or with its
    twin's deviation if that is more. Speedups of the reference loop and over it count only where
    there are no others, because a few per cent do not matter there. Where nothing was compared, the
    twin's own interval counts.
    """
    speedups = list(speedups)
    others = {(s.layer, s.pass_) for s in speedups if LOOP not in (s.implementation, s.versus)}
    widths: dict[Unit, float] = {}
    for s in speedups:
        with_loop = LOOP in (s.implementation, s.versus)
        if s.ci99 and not (with_loop and (s.layer, s.pass_) in others):
            _widen(widths, (s.layer, s.pass_), half_width(s.ci99))
    compared = set(widths)
    for twin in duplicates:
        unit, claimed = (twin.layer, twin.pass_), claim_of(twin)
        if claimed is None:
            continue
        if unit not in compared:
            _widen(widths, unit, claimed)
        _widen(widths, unit, twin.deviation)
    if not widths:
        return None
    layer, pass_ = max(widths, key=widths.__getitem__)
    typical = statistics.median(widths.values())
    return Resolution(typical, widths[layer, pass_], layer, pass_, len(widths))


def _widen(widths: dict[Unit, float], unit: Unit, width: float) -> None:
    widths[unit] = max(widths.get(unit, 0.0), width)


def half_width(interval: Interval) -> float:
    """Return half of an interval as a fraction: 0.03 where a quantity is known to 3 %."""
    low, high = interval
    return math.sqrt(high / low) - 1


def claim_of(twin: Duplicate) -> float | None:
    """Return the difference that the run claims to tell in a twin's (layer, pass), as a fraction.

    Files of earlier versions do not have it; there half of the twin's own interval stands for it.
    Returns None without intervals.
    """
    if twin.claimed is None and twin.ci99 is not None:
        return half_width(twin.ci99)
    return twin.claimed


def cause_of_width(result: ResultFile) -> Cause:
    """Return the likeliest cause of wide intervals, from what was seen of the machine."""
    seen = result.phases or Phases(0, 0, 0)
    if any(caution.kind == "other-processes" for caution in result.warnings):
        return "other-processes"
    if seen.load is not None and seen.load > result.threads + OWN_LOAD:
        return "other-processes"
    if seen.disturbed - seen.set_aside > MANY_DISTURBED * seen.visits:
        return "neighbour"
    return "few-rounds"
