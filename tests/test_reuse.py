"""Test how code that keeps results is told from code that computes them."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from convbench import runtimes
from convbench.machine.description import Calibration, fingerprint, software
from convbench.measure.clock import Visited
from convbench.measure.environment import Environment
from convbench.measure.messages import Sampled
from convbench.problem.layer import Layer, Pass
from convbench.results.model import Probe
from convbench.schedule import Options, Session, run
from convbench.schedule.reuse import FEWEST, beyond_peak, reused
from convbench.suites.file import read_suite
from tests.cli import TINY

CALL_S = 1e-4


def _visits(new_s, same_s, rounds=FEWEST):
    """Make the visits of several rounds: a first one, one with new operands, one with the same."""
    visits = []
    for _ in range(rounds):
        for is_first, is_fresh, first_s in (
            (True, True, 1.0),
            (False, True, new_s.pop(0) if isinstance(new_s, list) else new_s),
            (False, False, same_s),
        ):
            visited = Visited(10, CALL_S, (CALL_S,), ((1, first_s),))
            probes = (Probe(*[1e-4] * 5), Probe(*[1e-4] * 5))
            visits.append(Sampled(visited, probes, is_first, is_fresh))
    return visits


def test_code_that_keeps_results_is_told_by_its_first_calls():
    assert reused(_visits(new_s=0.05, same_s=CALL_S), 1000) == pytest.approx(500)


@pytest.mark.parametrize(
    ("new_s", "same_s"),
    [
        (CALL_S, CALL_S),
        (4 * CALL_S, 2 * CALL_S),  # caches are colder
        (0.05, 0.05),  # threads wake up in both
    ],
)
def test_code_that_computes_is_not(new_s, same_s):
    assert reused(_visits(new_s, same_s), 1000) is None


def test_a_neighbour_in_most_first_calls_is_no_evidence():
    assert reused(_visits([0.05, 0.05, 0.05, 0.05, CALL_S], CALL_S), 1000) is None


def test_large_operands_may_come_from_memory():
    assert reused(_visits(new_s=0.05, same_s=CALL_S), 10**8) is None


def test_few_visits_tell_nothing():
    assert reused(_visits(0.05, CALL_S, rounds=FEWEST - 1), 1000) is None


@pytest.mark.parametrize(("kernel_size", "least"), [(1, 4), (3, 36)])
def test_a_rate_beyond_the_peak_is_told_where_no_transform_explains_it(kernel_size, least):
    layer = Layer("a", (28, 28, 16), 32, (kernel_size, kernel_size), padding="same", batch_size=8)
    rate = layer.flops_in_bounds / CALL_S
    visits = _visits(CALL_S, CALL_S)
    assert beyond_peak(visits, layer, rate / (1.1 * least)) == pytest.approx(1.1 * least)
    assert beyond_peak(visits, layer, rate / (0.9 * least)) is None


def test_a_peak_that_a_neighbour_spoilt_condemns_nothing(tmp_path):
    spoilt = Calibration({1: 1e3, 2: 1e3}, {1: 1e3, 2: 1e3}, 1e3, 1.0, 1.0)
    session = Session(
        suite=replace(read_suite(str(TINY)), implementations=("im2col",), passes=(Pass.FORWARD,)),
        machine=replace(fingerprint(), calibration=spoilt),
        software=software(runtimes.versions()),
        environment={},
        threads=2,
        effort="smoke",
        seed=0,
        path=tmp_path / "r.json",
    )
    for _ in run(session, Options(Environment(os.environ, {}))):
        pass
    assert {cell.status for cell in session.cells.values()} == {"ok"}
    peaks = session.machine.calibration
    assert peaks.sgemm[2] >= peaks.sgemm[1] > 1e8
    assert peaks.copy_bytes_per_s > 1e8 > 1.0 > peaks.small_call_s


def test_the_better_peaks_are_kept():
    one = Calibration({1: 1.0, 2: 4.0}, {1: 1.0, 2: 1.0}, 5.0, 0.1, 0.2)
    other = Calibration({1: 2.0, 2: 3.0}, {1: 1.0, 2: 2.0}, 4.0, 0.3, 0.1)
    best = Calibration({1: 2.0, 2: 4.0}, {1: 1.0, 2: 2.0}, 5.0, 0.1, 0.1)
    assert one.best_with(other) == other.best_with(one) == best
