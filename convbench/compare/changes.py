"""Decide whether a change between two sessions shows, and with how many rounds one would."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import replace

from convbench.compare.document import Change
from convbench.results import stats

CONFIDENCE = 0.99
"""Confidence of the intervals of figures and changes."""

TO_SHOW = 0.05
"""Change, as a fraction, that would show with the rounds that `rounds_to_show` counts."""

MOST_ROUNDS = 1000
"""Largest number of rounds that is suggested. Where it would not suffice, no number is given."""


def change_of(new: stats.Estimate, old: stats.Estimate, deviation: float, degrees: float) -> Change:
    """Divide the figures of two sessions, and tell whether the change shows.

    Sessions differ by `deviation` (of logs), which has `degrees` degrees of freedom.
    """
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
    """Return the fewest rounds of each session with which a change of TO_SHOW would show.

    With so many rounds, half of the interval is less than the change. Returns None if MOST_ROUNDS
    would not suffice.
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
    """Return the estimate that `rounds` rounds of the same deviation would give."""
    error = estimate.error * math.sqrt(estimate.rounds / rounds)
    return stats.Estimate(estimate.log, error, rounds, rounds - 1)
