"""Test typical and undisturbed figures: which verdicts turn, which are apart, and plain loops."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from convbench import compare
from convbench.report.formats.csv_ import render
from convbench.report.views.diff_tables import report
from convbench.results.file import Saved
from convbench.results.model import PLAIN, Precision, Probe, RoundSamples, Speedup, SummaryRow, Time
from convbench.results.summary import confirmations, subject, summarise, time_of
from convbench.results.two_times import apart, of_mean, of_speedup, turned, verdict
from tests.diff_fixture import TIMES, again, old, saved
from tests.report_fixture import FORWARD, KERNEL, MINE, OTHER, confirmed_run, typical_run

FASTER, SLOWER, UNCLEAR = (1.02, 1.19), (0.93, 0.97), (0.98, 1.03)


def speedup(typical: tuple[float, float], undisturbed: tuple[float, float] | None) -> Speedup:
    return Speedup(
        "conv2",
        FORWARD,
        "im2col",
        "fastest-keras",
        "keras",
        math.sqrt(typical[0] * typical[1]),
        typical,
        8,
        True,
        undisturbed_ratio=undisturbed and math.sqrt(undisturbed[0] * undisturbed[1]),
        undisturbed_ci99=undisturbed,
    )


@pytest.mark.parametrize("typical", [FASTER, SLOWER, UNCLEAR])
@pytest.mark.parametrize("undisturbed", [FASTER, SLOWER, UNCLEAR])
def test_a_verdict_is_turned_wherever_the_undisturbed_one_differs(typical, undisturbed):
    found = of_speedup(speedup(typical, undisturbed))
    assert found.is_turned == (typical != undisturbed)
    assert found.is_turned == (verdict(typical) != verdict(undisturbed))


def test_nothing_is_turned_without_both_intervals_or_trust():
    assert of_speedup(speedup(FASTER, None)) is None
    assert of_speedup(replace(speedup(FASTER, SLOWER), ci99=None)) is None
    assert of_speedup(replace(speedup(FASTER, SLOWER), reliable=False)) is None
    assert of_mean(SummaryRow("im2col", "loop", None, 1.1, FASTER)) is None


def test_figures_are_apart_where_their_intervals_have_no_point_in_common():
    far, near = speedup((2.0, 2.1), (2.2, 2.3)), speedup((2.0, 2.1), (2.05, 2.3))
    result = replace(typical_run(), speedups=(far, near, speedup(FASTER, SLOWER)), summary=())
    assert [one.undisturbed_ci99 for one in apart(result)] == [(2.2, 2.3)]
    assert apart(result)[0].distance == pytest.approx(math.log(2.2 * 2.3 / (2.0 * 2.1)) / 2)
    assert [one.typical_ci99 for one in turned(result)] == [FASTER]


def test_a_mean_is_named_only_if_it_is_over_several_speedups():
    def mean(pass_):
        return SummaryRow("im2col", "fastest-keras", pass_, 1.1, FASTER, FASTER, 0.95, SLOWER)

    one = speedup(FASTER, SLOWER)
    other = replace(one, layer="conv1")
    single = replace(typical_run(), speedups=(one,), summary=(mean(FORWARD), mean(None)))
    assert [(t.layer, t.pass_) for t in turned(single)] == [("conv2", FORWARD)]
    # With one pass, the mean over all passes repeats that of the pass.
    both = replace(single, speedups=(one, other))
    assert (turned(both)[0].layer, turned(both)[0].pass_) == (None, FORWARD)
    assert len(turned(both)) == 3
    passes = replace(
        both,
        speedups=(one, replace(one, pass_=KERNEL)),
        summary=(mean(FORWARD), mean(KERNEL), mean(None)),
    )
    assert (turned(passes)[0].layer, turned(passes)[0].pass_) == (None, None)
    assert len(turned(passes)) == 3


# Plain loops


def test_the_harness_is_compared_with_plain_loops_for_each_implementation():
    found = {one.implementation: one for one in confirmations(confirmed_run())}
    assert list(found) == ["loop", "im2col", "keras"]
    assert found["keras"].geometric_mean == pytest.approx(1.018 * 1.02, abs=0.01)
    assert (found["keras"].cell.layer, found["keras"].cell.pass_) == ("conv2", KERNEL)
    assert found["keras"].distance == pytest.approx(math.log(found["keras"].cell.time.over_plain))
    assert confirmations(typical_run()) == []
    assert Time(1.0, None, 1, 1, "b").over_plain is None


def test_the_times_of_plain_loops_are_derived_from_their_benchmarks():
    before = saved()
    plain = RoundSamples(3, (0,), 1, (2e-4, 3e-4, 9e-4), (), {}, visits=(3,))
    found = summarise(
        before.result, {**before.benchmarks, f"conv1/forward/im2col{PLAIN}": (plain,)}
    )
    times = {(c.layer, c.pass_, c.implementation): c.time for c in found.cells}
    assert times["conv1", FORWARD, "im2col"].confirmed_s == pytest.approx(3e-4)
    assert sum(time.confirmed_s is not None for time in times.values()) == 1


# Precision


def test_figures_that_missed_the_precision_asked_for_are_in_the_result():
    wide = saved(noise=0.05, precision=Precision(0.03, 8)).result.imprecise
    assert wide
    assert [one.half_width for one in wide] == sorted((w.half_width for w in wide), reverse=True)
    assert all(one.half_width > 0.03 for one in wide)
    assert saved(noise=0.05).result.imprecise == ()
    assert saved(noise=0.001, precision=Precision(0.03, 8)).result.imprecise == ()
    few = saved(rounds=3, precision=Precision(0.03, 8)).result.imprecise
    assert {one.half_width for one in few} == {None}


# Comparing files


def pair(factor: float = 1.0) -> Saved:
    """Make a result of two files of own code, with neither loop nor Keras."""
    times = {
        (layer, pass_, name): ms * (factor if name == MINE else 1.0)
        for (layer, pass_, mine), ms in TIMES.items()
        if mine == MINE
        for name in (OTHER, MINE)
    }
    return saved(times, seed=3)


def test_without_loop_and_keras_a_suite_is_compared_with_its_first_implementation():
    result = pair().result
    assert {s.versus for s in result.speedups} == {OTHER}
    assert subject(result) == MINE


def test_speedups_over_the_first_implementation_of_suites_can_be_compared():
    found = compare.diff([("a.json", pair()), ("b.json", pair(0.5))])
    over = {compared.versus: compared for compared in found.compared if compared.versus}
    assert list(over) == [OTHER]
    change = over[OTHER].rows[0].changes[0]
    assert change.ratio == pytest.approx(2.0, rel=0.05)
    assert f"Speedup over {OTHER}" in [table.title.split(" (")[0] for table in report(found).tables]


def test_another_state_makes_results_incomparable():
    cold = replace(old().result, state="cold-threads")
    assert compare.incomparable(old().result, cold) == ("state: warm then, cold-threads now",)
    assert compare.incomparable(cold, cold) == ()
    found = compare.diff([("a.json", old()), ("b.json", replace(old(), result=cold))])
    assert found.differences[0].incomparable == ("state: warm then, cold-threads now",)
    assert any("not the same state" in note.text for note in report(found).notes)


def test_the_csv_of_a_diff_has_the_undisturbed_figures():
    before = old()
    found = compare.diff([("a.json", before), ("b.json", before)])
    lines = render(report(found)).splitlines()
    keys = lines[0].split(",")
    rows = [dict(zip(keys, line.split(","), strict=False)) for line in lines[1:]]
    row = next(r for r in rows if r["quantity"] == "time" and r["implementation"] == "im2col")
    time = next(c.time for c in before.result.cells if c.implementation == "im2col")
    assert float(row["old_undisturbed"]) == pytest.approx(time.undisturbed_s)
    assert float(row["new_undisturbed_lo"]) == pytest.approx(time.undisturbed_ci99_s[0])
    of_memory = next(r for r in rows if r["quantity"] == "peak_memory" and r["layer"])
    assert of_memory["old_undisturbed"] == ""


def with_disturbed_visits() -> Saved:
    """Make a result whose rounds have a calm visit, and one that a neighbour made twice as long."""
    of = old()

    def probes(slowest: float) -> tuple[Probe, Probe]:
        return (Probe(slowest, 6e-5, 4e-5, 2e-5, 9e-5),) * 2

    def disturbed(run: RoundSamples) -> RoundSamples:
        return replace(
            run,
            values=(*run.values, *(2 * value for value in run.values)),
            visits=(len(run.values),) * 2,
            order=(0, 1),
            probes=(probes(6e-5), probes(1.1e-4)),
        )

    return again(
        replace(
            of,
            benchmarks={name: tuple(map(disturbed, runs)) for name, runs in of.benchmarks.items()},
        )
    )


def test_a_diff_and_a_gate_leave_out_the_visits_that_results_leave_out():
    found = with_disturbed_visits()
    cell = next(c for c in found.result.cells if c.implementation == "im2col")
    figure = next(
        row.figures[0]
        for row in compare.diff([("a.json", found), ("b.json", found)]).compared[0].rows
        if row.implementation == "im2col"
    )
    assert figure.value == pytest.approx(cell.time.time_s)
    assert figure.ci99 == pytest.approx(cell.time.ci99_s)
    of_gate = time_of(found.benchmarks, cell.time.benchmark)
    assert of_gate.value == pytest.approx(cell.time.time_s)
