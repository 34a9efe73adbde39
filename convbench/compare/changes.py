"""Decide whether a change between two sessions shows, and with how many rounds one would."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import replace

from convbench.compare.document import Change
from convbench.results import stats

CONFIDENCE = 0.99

TO_SHOW = 0.05
"""The change for which `rounds_to_show` are counted."""

MOST_ROUNDS = 1000
"""Largest number of rounds that is suggested. Where it would not suffice, no number is given."""


def change_of(new: stats.Estimate, old: stats.Estimate, deviation: float, degrees: float) -> Change:
    """The quotient of two sessions that differ by `deviation` (of logs), and whether it shows."""
    quotient = stats.quotient(new, old, deviation, degrees)
    interval = quotient.interval(CONFIDENCE)
    if interval is None:
        return Change(quotient.value, None, "no_interval")
    low, high = interval
    if not low <= 1 <= high:
        return Change(quotient.value, interval, "up" if low > 1 else "down")
    rounds = rounds_to_show(new, old, deviation, degrees)
    return Change(quotient.value, interval, "unclear", rounds)


def rounds_to_show(
    new: stats.Estimate, old: stats.Estimate, deviation: float, degrees: float
) -> int | None:
    """The fewest rounds of each session with which a change of 5 % would show; or None.

    Then half of the interval is less than that.
    """

    def would_show(rounds: int) -> bool:
        then, now = _with_rounds(old, rounds), _with_rounds(new, rounds)
        changed = replace(now, log=then.log + math.log1p(TO_SHOW))
        quotient = stats.quotient(changed, then, deviation, degrees)
        return quotient.p_above(0.0) < (1 - CONFIDENCE) / 2

    counts = range(stats.MIN_ROUNDS, MOST_ROUNDS + 1)
    fewest = bisect_left(counts, True, key=would_show)
    return counts[fewest] if fewest < len(counts) else None


def _with_rounds(estimate: stats.Estimate, rounds: int) -> stats.Estimate:
    """The estimate as so many rounds with its round-to-round deviation would give it."""
    error = estimate.error * math.sqrt(estimate.rounds / rounds)
    return stats.Estimate(estimate.log, error, rounds, rounds - 1)
