"""Estimate how much runs differ beyond what the rounds of each of them show.

A run's own interval covers what varies during the run. Other things vary only from run to run:
where the system put the threads and the pages, who else is on the host today. Their effect shows
when the same figures of several runs are compared.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

LEAST_DEVIATION = 0.005
"""Smallest deviation between runs, of logs, that is ever assumed. A few runs may agree better by
chance."""

LEAST_RUNS = 5
"""Fewest runs with figures in common that show how much runs differ. Five runs have four degrees of
freedom, which makes a 99 % interval 1.8 times as wide as if the deviation were known for sure.
Three runs would make it 3.9 times as wide, which tells a reader nothing."""

TWO_RUNS = math.sqrt(2)
"""How much more two runs differ from each other than one run deviates from the long run."""


@dataclass(frozen=True)
class Seen:
    """One figure of one run: its logarithm, and the logarithm's standard error within the run."""

    log: float
    error: float


@dataclass(frozen=True)
class Between:
    """The deviation of a run from the long run, as a standard deviation of logs.

    `degrees` are its degrees of freedom, and `runs` is the number of runs that showed it.
    """

    deviation: float
    degrees: float
    runs: int


def between_runs(figures: Iterable[Mapping[int, Seen]]) -> Between | None:
    """Pool the deviation between runs over figures, each keyed by the number of its run.

    A figure that k runs have estimates the variance between them without bias: the variance of its
    k logs, less the mean of their squared errors. Its weight is k - 1, reduced where its own errors
    are large beside those of the median figure, because it would add little but noise. (Simulated
    with 40 figures, errors that differ by factors of 2, and 3 runs: the standard deviation comes
    out within 30 % of the true one. With equal weights it is anywhere from 0 to 1.7 times.)

    The degrees of freedom are those of a deviation that all figures of a run have in common: for
    each group of runs that figures join, its runs less one. Returns None where there are fewer
    degrees of freedom than LEAST_RUNS runs that share a figure have.
    """
    shared = [seen for seen in figures if len(seen) > 1]
    groups = _groups(shared)
    runs = sum(map(len, groups))
    degrees = runs - len(groups)
    if degrees < LEAST_RUNS - 1:
        return None
    errors = [statistics.fmean(one.error**2 for one in seen.values()) for seen in shared]
    typical = max(statistics.median(errors), LEAST_DEVIATION**2)
    total = weights = 0.0
    for seen, error in zip(shared, errors, strict=True):
        weight = (len(seen) - 1) / (error + typical)
        total += weight * (statistics.variance(one.log for one in seen.values()) - error)
        weights += weight
    variance = total / weights
    deviation = max(math.sqrt(max(variance, 0.0)), LEAST_DEVIATION)
    return Between(deviation, degrees, runs)


def _groups(figures: Iterable[Mapping[int, Seen]]) -> list[set[int]]:
    """Group the runs that have figures in common, directly or through other runs."""
    groups: list[set[int]] = []
    for seen in figures:
        joined = set(seen).union(*(group for group in groups if group & seen.keys()))
        groups = [group for group in groups if not group & seen.keys()] + [joined]
    return groups
