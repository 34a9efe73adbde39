"""Test calm and disturbed visits, two times and two states, and what a run can tell apart."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path

import pytest

from convbench.problem.layer import Pass
from convbench.results import file as result_file
from convbench.results import stats, summary
from convbench.results.model import Cell, Probe, RoundSamples
from convbench.results.phases import calm_loop_s, phases, with_calm
from convbench.results.rounds import log_median, log_ratio, log_undisturbed
from convbench.results.summary import summarise
from tests.diff_fixture import saved

CALM, DISTURBED = 60e-6, 100e-6


def probe(slowest: float, quickest: float = CALM) -> Probe:
    return Probe(slowest, quickest, 4e-5, 2e-5, 9e-5)


def run(*visits: tuple[float, ...], slowest: tuple[float, ...] = (), number: int = 1):
    """Make a round of visits; each is disturbed where `slowest` says so."""
    slowest = slowest or (CALM,) * len(visits)
    return RoundSamples(
        round=number,
        order=tuple(range(len(visits))),
        loops=1,
        values=tuple(value for visit in visits for value in visit),
        warmups=(),
        metadata={},
        visits=tuple(map(len, visits)),
        probes=tuple((probe(CALM), probe(loop)) for loop in slowest),
    )


def test_the_time_of_a_round_is_the_median_of_its_visits_medians():
    samples = run((1.0, 1.0, 9.0), (4.0, 4.0, 4.0))
    assert log_median(samples) == pytest.approx(math.log(2.0))
    assert log_undisturbed(samples) == pytest.approx(0.0)
    with_a_slow_one = run((2.0, 2.0, 9.0), (50.0, 50.0, 50.0), (2.1, 2.1, 2.1))
    assert log_median(with_a_slow_one) == pytest.approx(math.log(2.1))


def test_the_time_of_a_round_without_visits_is_the_median_of_its_samples():
    old = RoundSamples(1, (0, 1, 2), 1, (1.0, 2.0, 30.0), (), {})
    assert log_median(old) == pytest.approx(math.log(2.0))
    assert log_ratio(old, replace(old, values=(2.0, 4.0, 6.0))) == pytest.approx(-math.log(2))


def test_disturbed_visits_are_set_aside_where_the_round_has_a_calm_one():
    both = run((1.0,) * 4, (2.0,) * 4, slowest=(CALM, DISTURBED))
    never = run((3.0,) * 4, (3.0,) * 4, slowest=(DISTURBED, DISTURBED))
    kept = with_calm({"a": (both,), "b": (never,)})
    assert log_median(kept["a"][0]) == 0.0
    assert log_median(kept["b"][0]) == pytest.approx(math.log(3.0))
    found = phases({"a": (both,), "b": (never,)})
    assert (found.visits, found.disturbed, found.set_aside) == (4, 3, 1)


def test_the_times_of_an_arm_do_not_decide_what_is_set_aside():
    """A calm visit that was slow stays, and a disturbed visit that was quick goes."""
    samples = run((5.0,) * 4, (1.0,) * 4, slowest=(CALM, DISTURBED))
    assert log_median(with_calm({"a": (samples,)})["a"][0]) == pytest.approx(math.log(5.0))


def test_the_ratio_of_two_arms_is_paired_by_sweeps():
    """A neighbour that slows both arms cancels. The median ignores a sweep in which it left."""
    versus = run((2.0,), (4.0,), (4.0,))
    arm = run((1.0,), (2.0,), (1.0,))
    assert log_ratio(versus, arm) == pytest.approx(math.log(2))
    fewer = run((1.0,), (1.0,))
    assert log_ratio(versus, fewer) == pytest.approx(log_median(versus))


def test_without_probes_no_visit_is_called_disturbed():
    old = RoundSamples(1, (0,), 1, (1.0,), (), {})
    assert phases({"a": (old,)}) is None
    assert with_calm({"a": (old,)}) == {"a": (old,)}
    assert calm_loop_s({}) is None


def test_visits_and_probes_are_read_back_from_a_file(tmp_path: Path):
    before = saved()
    name, runs = next(iter(before.benchmarks.items()))
    kept = run((1.25e-3, 1.5e-3), (1e-3,), slowest=(CALM, DISTURBED), number=runs[0].round)
    before = replace(before, benchmarks={**before.benchmarks, name: (kept, *runs[1:])})
    path = result_file.save(tmp_path / "r.json", before)
    assert result_file.load(path).benchmarks[name][0] == kept


def test_a_file_whose_visits_do_not_add_up_is_refused(tmp_path: Path):
    before = saved()
    name, runs = next(iter(before.benchmarks.items()))
    kept = run((1.25e-3, 1.5e-3), number=runs[0].round)
    path = result_file.save(
        tmp_path / "r.json",
        replace(before, benchmarks={**before.benchmarks, name: (kept, *runs[1:])}),
    )
    path.write_text(path.read_text().replace('"visits":"2"', '"visits":"3"'))
    with pytest.raises(result_file.ResultError, match="not as convbench writes them"):
        result_file.load(path)


# Two states


def spread(rng: random.Random, share: float, apart: float) -> tuple[float, ...]:
    return tuple(
        math.exp(rng.gauss(0, 0.02) + (apart if rng.random() < share else 0)) for _ in range(50)
    )


def states_of(share: float, apart: float):
    rng = random.Random(3)
    return summary._states([run(spread(rng, share, apart), number=n) for n in range(1, 9)])


def test_two_states_are_found_with_their_shares():
    quick, slow = states_of(0.35, 0.4)
    assert quick.time_s == pytest.approx(1.0, rel=0.02)
    assert slow.time_s == pytest.approx(math.exp(0.4), rel=0.02)
    assert slow.share == pytest.approx(0.35, abs=0.06)
    assert quick.share + slow.share == pytest.approx(1.0)


@pytest.mark.parametrize(("share", "apart"), [(0.0, 0.0), (0.02, 0.4), (0.35, 0.05)])
def test_outliers_and_one_broad_state_do_not_make_two_states(share, apart):
    assert states_of(share, apart) == ()


# What a run can tell


def with_twin(deviation: float, noise: float = 0.01, seed: int = 5):
    """Make a result whose twin of im2col in conv1 forward deviates by `deviation`, in logs."""
    of = saved(noise=noise, seed=seed)
    arm = "conv1/forward/im2col"
    twin = tuple(
        replace(one, values=tuple(value * math.exp(deviation) for value in one.values))
        for one in of.benchmarks[arm]
    )
    return summarise(of.result, {**of.benchmarks, f"{arm}#twin": twin})


def test_a_twin_beyond_what_the_run_claims_makes_it_unreliable():
    calm = with_twin(0.001)
    assert calm.duplicates[0].reliable
    assert calm.resolution is not None
    assert calm.resolution.typical <= calm.resolution.worst < 0.05
    wild = with_twin(0.3)
    assert not wild.duplicates[0].reliable
    assert summary.is_unreliable(wild)
    # The run cannot tell differences as small as that of its twin.
    assert wild.resolution.worst == pytest.approx(math.expm1(0.3), rel=0.2)
    assert (wild.resolution.layer, wild.resolution.pass_) == ("conv1", "forward")


def twins_of(rng: random.Random, count: int, deviation: float = 0.0):
    """Make the twins of a simulated run, as noisy as its speedups; the first twin deviates."""
    cells, rounds, claims = [], {}, {}
    for index in range(count):
        cells.append(Cell(f"{index}", Pass.FORWARD, "im2col", "ok"))
        for suffix in ("", "#twin"):
            shift = deviation if suffix and index == 0 else 0.0
            rounds[f"{index}/forward/im2col{suffix}"] = {
                r: run((math.exp(rng.gauss(shift, 0.02)),), number=r) for r in range(8)
            }
        claims[f"{index}", Pass.FORWARD] = stats.estimate(
            [rng.gauss(0, 0.02 * math.sqrt(2)) for _ in range(8)]
        )
    return summary._duplicates(cells, rounds, log_ratio, claims)[0]


def test_calm_runs_are_reliable_however_many_twins_they_have():
    rng = random.Random(1)
    condemned = sum(not all(t.reliable for t in twins_of(rng, 30)) for _ in range(200))
    assert condemned <= 0.03 * 200


def test_a_twin_that_deviates_is_found_among_many():
    rng = random.Random(1)
    found = [twins_of(rng, 30, deviation=0.2) for _ in range(20)]
    assert sum(not twins[0].reliable for twins in found) >= 18
    assert sum(t.reliable for twins in found for t in twins[1:]) >= 0.99 * 20 * 29


# Going on until intervals are narrow


@pytest.mark.slow
def test_the_interval_of_a_run_that_went_on_until_it_was_narrow_is_valid():
    """A simulation of Stein's procedure: stopping by seen deviations keeps the coverage at 99 %."""
    rng = random.Random(2)
    held, naive, runs = 0, 0, 1500
    for _ in range(runs):
        logs = [rng.gauss(0, 0.05) for _ in range(5)]
        while (stats.estimate(logs, 5).half_width() or 1.0) > 0.04 and len(logs) < 100:
            logs.append(rng.gauss(0, 0.05))
        low, high = stats.estimate(logs, 5).interval()
        held += low <= 1 <= high
        low, high = stats.estimate(logs).interval()
        naive += low <= 1 <= high
    assert held >= 0.985 * runs
    assert held >= naive


def test_without_further_rounds_the_interval_is_students():
    logs = [0.1, 0.12, 0.09, 0.11, 0.13]
    assert stats.estimate(logs, 5) == stats.estimate(logs)
    more = [*logs, 0.1, 0.11]
    assert stats.estimate(more, 5).log == pytest.approx(sum(more) / 7)
    assert stats.estimate(more, 5).degrees in (4, 6)
    assert stats.estimate(more, 5).half_width() >= stats.estimate(more).half_width()


def test_an_estimate_of_the_long_run_is_wider_than_that_of_the_run():
    found = stats.estimate([0.1, 0.12, 0.09, 0.11, 0.13])
    wider = stats.in_the_long_run(found, 0.02, 10)
    assert wider.log == found.log
    assert wider.error == pytest.approx(math.hypot(found.error, 0.02))
    assert wider.half_width() > found.half_width()
