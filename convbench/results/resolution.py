"""Derive what a run can tell apart, and why it cannot tell more, from its intervals and twins."""

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
"""Share of the visits from which on disturbed ones explain wide intervals. A neighbour makes a
visit take 1.6 times as long (measured), so that rounds differ by 10 % (a standard deviation) where
it meets one visit in twenty; eight rounds then leave an interval of 13 %."""

OWN_LOAD = 1.0
"""Load average that a run adds beside the threads of its arm: the process that waits for the arms,
and workers that start."""


def resolution_of(
    speedups: Iterable[Speedup], duplicates: Iterable[Duplicate]
) -> Resolution | None:
    """What a run can tell apart; None without intervals.

    A (layer, pass) counts with the widest interval of its speedups as they are printed, or with its
    twin's deviation where that is more. Speedups of and over the reference loop count only where
    there are no others: nobody looks at them for a few per cent. Where nothing was compared, what
    counts is what the twin's own interval says.
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
    """Half of an interval as a part: 0.03 where a quantity is known to 3 %."""
    low, high = interval
    return math.sqrt(high / low) - 1


def claim_of(twin: Duplicate) -> float | None:
    """What the run claims to tell in a twin's (layer, pass); None without intervals. Files of
    earlier versions do not say; there it is what the twin's interval says."""
    if twin.claimed is None and twin.ci99 is not None:
        return half_width(twin.ci99)
    return twin.claimed


def cause_of_width(result: ResultFile) -> Cause:
    """The likeliest cause of wide intervals, from what was seen of the machine."""
    seen = result.phases or Phases(0, 0, 0)
    if any(caution.kind == "other-processes" for caution in result.warnings):
        return "other-processes"
    if seen.load is not None and seen.load > result.threads + OWN_LOAD:
        return "other-processes"
    if seen.disturbed - seen.set_aside > MANY_DISTURBED * seen.visits:
        return "neighbour"
    return "few-rounds"
