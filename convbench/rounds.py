"""One figure a round: an arm's median, its ratio to another arm, the fastest of several."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

from convbench.results import Benchmarks, RoundSamples

QUICKEST_PART = 8
"""An eighth of a round's samples are its quickest ones."""

Logs = dict[int, float]  # by round
Rounds = dict[int, RoundSamples]
LogRatio = Callable[[RoundSamples, RoundSamples], float]


def by_round(benchmarks: Benchmarks) -> dict[str, Rounds]:
    return {name: {run.round: run for run in runs} for name, runs in benchmarks.items()}


def log_median(run: RoundSamples) -> float:
    return math.log(statistics.median(run.values))


def log_ratio(versus: RoundSamples, arm: RoundSamples) -> float:
    """Log of T_versus / T_arm in a round. Arms with as many samples were in the same blocks."""
    if len(versus.values) != len(arm.values):
        return log_median(versus) - log_median(arm)
    pairs = zip(versus.values, arm.values, strict=True)
    return statistics.median(math.log(theirs / ours) for theirs, ours in pairs)


def log_ratio_of_quickest(versus: RoundSamples, arm: RoundSamples) -> float:
    """The same of the quickest samples; of both as many, or the arm with more is favoured."""
    count = min(len(versus.values), len(arm.values))
    return _log_of_quickest(versus.values[:count]) - _log_of_quickest(arm.values[:count])


def _log_of_quickest(values: Sequence[float]) -> float:
    """Mean of the logs of the quickest samples, an eighth of all and one at least."""
    return statistics.fmean(map(math.log, sorted(values)[: max(1, len(values) // QUICKEST_PART)]))


def logs_of(versus: Rounds, arm: Rounds, ratio: LogRatio = log_ratio) -> Logs:
    return {r: ratio(versus[r], arm[r]) for r in sorted(versus.keys() & arm.keys())}


def fastest_by_round(ways: Mapping[str, Rounds]) -> dict[int, str]:
    """Which of some ways is taken for the fastest, in each round that all of them have.

    The even rounds pick the way that stands for the odd rounds, and the other way round, so that
    no round is used for both: a minimum picked by its own noise is too small. With one round there
    is nothing to split.
    """
    rounds = sorted(set.intersection(*(set(way) for way in ways.values())))
    halves = (rounds[::2], rounds[1::2])
    picked: dict[int, str] = {}
    for estimated, picking in (halves, halves[::-1]):
        over = picking or estimated
        if over:
            means = {
                name: statistics.fmean(log_median(way[r]) for r in over)
                for name, way in ways.items()
            }
            picked |= dict.fromkeys(estimated, min(means, key=means.__getitem__))
    return dict(sorted(picked.items()))
