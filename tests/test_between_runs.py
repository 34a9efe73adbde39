"""Test how much runs differ: a simulated deviation is found, and pairs of runs agree within it."""

import math
import random
import statistics

import pytest

from convbench.results.between_runs import LEAST_DEVIATION, TWO_RUNS, Between, Seen, between_runs
from convbench.results.stats import Estimate, estimate, in_the_long_run, quotient, t_cdf

ROUNDS = 5


class Runs:
    """Runs of the same figures on one machine, each with an error of its own.

    A part `shared` of the variance between runs is common to all figures of a run.
    """

    def __init__(self, seed, figures, tau, shared):
        self.draw = random.Random(seed)
        self.tau, self.shared = tau, shared
        self.sigmas = [0.04 * math.exp(self.draw.gauss(0, 0.7)) for _ in range(figures)]

    def run(self):
        """Return one run's estimate of each figure."""
        common = self.draw.gauss(0, self.tau) * math.sqrt(self.shared)
        own = self.tau * math.sqrt(1 - self.shared)
        levels = [common + self.draw.gauss(0, own) for _ in self.sigmas]
        return [
            estimate([self.draw.gauss(level, sigma) for _ in range(ROUNDS)])
            for level, sigma in zip(levels, self.sigmas, strict=True)
        ]

    def learnt(self, count):
        """Make `count` runs; return what is learnt from them, and the runs."""
        runs = [self.run() for _ in range(count)]
        figures = [
            {number: Seen(run[i].log, run[i].error) for number, run in enumerate(runs)}
            for i in range(len(self.sigmas))
        ]
        return between_runs(figures), runs


def holds_0(found):
    """Tell whether the 99 % interval of a log holds 0, much faster than by the interval itself."""
    return 2 * (1 - t_cdf(abs(found.log) / found.error, found.degrees)) >= 0.01


def test_holds_0_agrees_with_the_interval():
    for log in (0.0, 0.03, 0.05, 0.08):
        found = Estimate(log, 0.01, 5, 4.0)
        low, high = found.interval()
        assert holds_0(found) == (low <= 1 <= high)


@pytest.mark.parametrize("tau", [0.01, 0.03, 0.1])
@pytest.mark.parametrize("shared", [0.0, 1.0])
def test_the_deviation_between_runs_is_found(tau, shared):
    found, _ = Runs(1, 30, tau, shared).learnt(60)
    assert found.deviation == pytest.approx(tau, rel=0.25)
    assert (found.degrees, found.runs) == (59, 60)


@pytest.mark.parametrize("count", [5, 6, 20])
@pytest.mark.parametrize("shared", [0.0, 0.5, 1.0])
def test_pairs_of_runs_agree_within_what_was_learnt(count, shared):
    """The 99 % interval of the difference of two runs holds 0, and so does that of the long run."""
    differences, long_runs = [], []
    for seed in range(80):
        simulated = Runs(seed, 12, 0.03, shared)
        found, _ = simulated.learnt(count)
        for one, other in zip(simulated.run(), simulated.run(), strict=True):
            between = (TWO_RUNS * found.deviation, found.degrees)
            differences.append(holds_0(quotient(one, other, *between)))
            long_run = in_the_long_run(one, found.deviation, found.degrees)
            long_runs.append(holds_0(long_run))
    assert statistics.fmean(differences) >= 0.97
    assert statistics.fmean(long_runs) >= 0.97


def test_pairs_of_runs_do_not_agree_without_what_was_learnt():
    """If they did, the test above would pass whatever was learnt."""
    simulated = Runs(1, 200, 0.03, 0.0)
    pairs = zip(simulated.run(), simulated.run(), strict=True)
    held = [holds_0(quotient(one, other, 0.0)) for one, other in pairs]
    assert statistics.fmean(held) < 0.93


def test_runs_of_different_suites_are_pooled():
    """The two suites share no figure: there are four runs of one and three of the other."""
    draw = random.Random(2)
    a = [{run: Seen(draw.gauss(0, 0.02), 0.001) for run in (0, 1, 2, 3)} for _ in range(200)]
    b = [{run: Seen(draw.gauss(5, 0.02), 0.001) for run in (4, 5, 6)} for _ in range(200)]
    alone = [{run: Seen(draw.gauss(9, 1), 0.001)} for run in range(6)]
    found = between_runs([*a, *b, *alone])
    assert found.deviation == pytest.approx(0.02, rel=0.1)
    assert (found.degrees, found.runs) == (5, 7)
    joined = [{3: Seen(0.0, 0.001), 4: Seen(0.0, 0.001)}]
    assert between_runs([*a, *b, *joined]).degrees == 6


@pytest.mark.parametrize("runs", [0, 1, 2, 3, 4])
def test_few_runs_tell_nothing(runs):
    assert between_runs([{run: Seen(0.1 * run, 0.01) for run in range(runs)}]) is None


def test_runs_are_never_taken_to_agree_entirely():
    same = [{run: Seen(0.5, 0.0) for run in range(9)}]
    assert between_runs(same) == Between(LEAST_DEVIATION, 8, 9)


def test_a_figure_with_a_large_error_does_not_decide():
    """One of 40 figures is far more uncertain than the others, and far off by chance."""
    draw = random.Random(3)
    calm = [{run: Seen(draw.gauss(0, 0.02), 0.005) for run in range(5)} for _ in range(39)]
    wild = {run: Seen(log, 0.2) for run, log in enumerate((-0.4, 0.4, -0.3, 0.3, 0.0))}
    assert between_runs([*calm, wild]).deviation == pytest.approx(0.02, rel=0.15)
