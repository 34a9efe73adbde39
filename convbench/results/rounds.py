"""Make one figure of each round: an arm's two times, its ratio to another arm, the fastest arm.

The typical time of a round is the median of its visits' medians. Like the median of a plain loop,
it does not show a spell that disturbs less than half of the samples. (The mean over visits was 3 to
5 % above plain loops on one thread, where neighbours disturbed a tenth of the time.) Visits that
the probes found disturbed are left out where the round has calm ones. The undisturbed time is that
of the quickest eighth of all samples of the round.

The ratio of two arms is paired by sweeps, because two visits of one sweep mostly found the host in
the same state. Each sweep gives the ratio of the medians of the two visits, and the round's ratio
is the median of these.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

from convbench.results.model import Benchmarks, RoundSamples
from convbench.results.phases import with_calm

QUICKEST_PART = 8
"""Number of parts into which a round's samples are cut: the quickest part, an eighth, counts."""

Logs = dict[int, float]  # by round
Rounds = dict[int, RoundSamples]
LogRatio = Callable[[RoundSamples, RoundSamples], float]


def by_round(benchmarks: Benchmarks) -> dict[str, Rounds]:
    """Return the rounds of every benchmark, each with its calm visits filled in."""
    return {name: {run.round: run for run in runs} for name, runs in with_calm(benchmarks).items()}


def log_median(run: RoundSamples) -> float:
    """Return the log of the round's typical time in seconds."""
    if not run.visits:  # earlier versions had single samples, spread over the round
        return math.log(statistics.median(run.values))
    visits = _log_medians(run)
    return statistics.median(visits[index] for index in run.calm or range(len(visits)))


def _log_medians(run: RoundSamples) -> list[float]:
    return [math.log(statistics.median(visit)) for visit in run.by_visit]


def log_undisturbed(run: RoundSamples) -> float:
    """Return the log of the round's undisturbed time in seconds."""
    return _log_of_quickest(run.values)


def log_ratio(versus: RoundSamples, arm: RoundSamples) -> float:
    """Return the log of T_versus / T_arm in a round, from their typical times."""
    theirs, ours = _log_medians(versus), _log_medians(arm)
    if len(theirs) == len(ours):  # visits pair by sweep; in old files, samples pair by block
        return statistics.median(t - o for t, o in zip(theirs, ours, strict=True))
    return log_median(versus) - log_median(arm)


def log_ratio_undisturbed(versus: RoundSamples, arm: RoundSamples) -> float:
    """Return the log of T_versus / T_arm in a round, from their undisturbed times."""
    return log_undisturbed(versus) - log_undisturbed(arm)


def log_ratio_of_quickest(versus: RoundSamples, arm: RoundSamples) -> float:
    """Return the log of T_versus / T_arm in a round, from the quickest samples of each.

    Both arms give the same number of samples, or the one with more would be favoured.
    """
    count = min(len(versus.values), len(arm.values))
    return _log_of_quickest(versus.values[:count]) - _log_of_quickest(arm.values[:count])


def _log_of_quickest(values: Sequence[float]) -> float:
    """Return the mean of the logs of the quickest samples: an eighth of them, at least one."""
    return statistics.fmean(map(math.log, sorted(values)[: max(1, len(values) // QUICKEST_PART)]))


def logs_of(versus: Rounds, arm: Rounds, ratio: LogRatio = log_ratio) -> Logs:
    """Return the log of T_versus / T_arm in each round that both have."""
    return {r: ratio(versus[r], arm[r]) for r in sorted(versus.keys() & arm.keys())}


def fastest_by_round(ways: Mapping[str, Rounds]) -> dict[int, str]:
    """Choose the fastest of several implementations in each round that all of them have.

    The even rounds pick the one that counts in the odd rounds, and the odd rounds the one that
    counts in the even rounds. No round is used for both, because a minimum picked by its own noise
    is too small. With one round there is nothing to split.
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
