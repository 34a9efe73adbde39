"""Test comparing saved results: changes, their intervals, and what makes files incomparable."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from scipy import stats as scipy_stats

from convbench.compare import (
    MOST_ROUNDS,
    CellName,
    Deviations,
    Diff,
    Difference,
    changes_of_environment,
    diff,
    incomparable,
    other_geometry,
    rounds_to_show,
)
from convbench.machine.description import BlasLibrary
from convbench.results import stats
from convbench.results.file import Saved
from convbench.results.model import TWIN, Cell, RoundSamples, benchmark_name
from tests.diff_fixture import TIMES, again, few_rounds, new, old, other, saved, scaled, with_cells
from tests.report_fixture import CONV1, FORWARD, INPUT, KERNEL, WRONG

NOISELESS = Deviations(speedup=0.0, time=0.0)
TINY = {("conv1", FORWARD, "loop"): 8.0, ("conv1", FORWARD, "im2col"): 1.0}


def of_pair(before: Saved, after: Saved, deviations: Deviations = NOISELESS) -> Diff:
    return diff([("old.json", before), ("new.json", after)], deviations)


def compared(found: Diff, quantity: str, versus: str | None = None):
    return next(c for c in found.compared if (c.quantity, c.versus) == (quantity, versus))


def row(found: Diff, quantity: str, key, versus: str | None = None):
    rows = compared(found, quantity, versus).rows
    return next(r for r in rows if (r.layer, r.pass_, r.implementation) == key)


def exactly(logs: dict[str, list[float]]) -> Saved:
    """Make a run whose implementations took exp(log) seconds, with one sample in each round."""
    run = saved({("conv1", FORWARD, name): 1.0 for name in logs}, layers=(CONV1,))
    benchmarks = {
        benchmark_name("conv1", FORWARD, name): tuple(
            RoundSamples(number, (0,), 1, (math.exp(log),), (), {})
            for number, log in enumerate(of_one, 1)
        )
        for name, of_one in logs.items()
    }
    return again(replace(run, benchmarks=benchmarks))


# Changes

OLD_LOGS = {"loop": [2.00, 2.03, 1.98, 2.01, 2.02], "im2col": [0.10, 0.11, 0.08, 0.13, 0.09]}
NEW_LOGS = {
    "loop": [2.01, 2.00, 2.02, 1.99, 2.04, 2.01],
    "im2col": [0.33, 0.30, 0.31, 0.35, 0.29, 0.32],
}


def by_hand(above: list[float], below: list[float], tau: float, degrees: float):
    """Return a ratio and its 99 % interval by Welch's t test with one more variance."""
    parts = [
        (scipy_stats.sem(above) ** 2, len(above) - 1),
        (scipy_stats.sem(below) ** 2, len(below) - 1),
        (tau**2, degrees),
    ]
    variance = sum(part for part, _ in parts)
    welch = variance**2 / sum(part**2 / df for part, df in parts)
    log = sum(above) / len(above) - sum(below) / len(below)
    half = scipy_stats.t.ppf(0.995, welch) * math.sqrt(variance)
    return math.exp(log), (math.exp(log - half), math.exp(log + half))


@pytest.mark.parametrize("degrees", [math.inf, 6.0])
def test_a_change_is_the_quotient_of_the_sessions(degrees):
    deviations = Deviations(speedup=0.01, time=0.03, degrees=degrees)
    found = of_pair(exactly(OLD_LOGS), exactly(NEW_LOGS), deviations)
    key = ("conv1", FORWARD, "im2col")

    (change,) = row(found, "time", key).changes
    ratio, interval = by_hand(NEW_LOGS["im2col"], OLD_LOGS["im2col"], 0.03, degrees)
    assert change.ratio == pytest.approx(ratio)
    assert change.ci99 == pytest.approx(interval)
    assert change.verdict == "up"

    (change,) = row(found, "speedup", key, "loop").changes
    above, below = (
        [loop - own for loop, own in zip(logs["loop"], logs["im2col"], strict=True)]
        for logs in (NEW_LOGS, OLD_LOGS)
    )
    ratio, interval = by_hand(above, below, 0.01, degrees)
    assert change.ratio == pytest.approx(ratio)
    assert change.ci99 == pytest.approx(interval)
    assert change.verdict == "down"


def test_figures_come_from_the_samples_not_from_what_was_derived():
    run = new()
    stale = replace(
        run.result,
        cells=tuple(
            replace(c, time=c.time and replace(c.time, time_s=9.0)) for c in run.result.cells
        ),
        speedups=tuple(replace(s, ratio=9.0, reliable=False) for s in run.result.speedups),
        rounds=1,
    )
    assert of_pair(old(), replace(run, result=stale)).compared == of_pair(old(), run).compared


def test_a_file_compared_with_itself_shows_nothing():
    found = of_pair(old(), old(), Deviations())
    verdicts = {
        c.verdict for q in found.compared for r in (*q.rows, *q.means) for c in r.changes if c
    }
    assert verdicts == {"unclear", "equal", "estimated"}
    assert found.differences[0] == Difference((), (), {}, (), ())


def test_under_five_rounds_there_is_no_interval():
    found = of_pair(old(), few_rounds())
    for quantity, versus in (("time", None), ("speedup", "loop")):
        for one in (
            *compared(found, quantity, versus).rows,
            *compared(found, quantity, versus).means,
        ):
            (change,) = one.changes
            assert (change.ci99, change.verdict, change.rounds_to_show) == (
                None,
                "no_interval",
                None,
            )


def test_without_samples_there_are_statuses_and_memory_only():
    bare = replace(old(), benchmarks={})
    found = of_pair(bare, bare)
    assert [c.quantity for c in found.compared] == ["peak_memory"]
    assert found.files[0].date is None


def test_the_date_of_a_file_is_that_of_its_first_sample():
    assert of_pair(old(), new()).files[1].date == "2026-11-24 10:02:01.000001"


def test_fewer_than_two_files_are_refused():
    with pytest.raises(ValueError, match="two files"):
        diff([("old.json", old())])


# Rounds

ESTIMATE = stats.estimate([0.10, 0.13, 0.08, 0.16, 0.04, 0.12])
OTHER = stats.estimate([0.10, 0.11, 0.09, 0.12, 0.08, 0.10, 0.11, 0.09])


def half_width(rounds: int, tau: float, degrees: float) -> float:
    """Return the half width of the change's logarithm, if each file had `rounds` rounds."""
    parts = [(e.error**2 * e.rounds / rounds, rounds - 1) for e in (ESTIMATE, OTHER)] + [
        (tau**2, degrees)
    ]
    variance = sum(part for part, _ in parts)
    welch = variance**2 / sum(part**2 / df for part, df in parts)
    return float(scipy_stats.t.ppf(0.995, welch)) * math.sqrt(variance)


@pytest.mark.parametrize("degrees", [math.inf, 30.0])
@pytest.mark.parametrize("tau", [0.0, 0.004, 0.012, 0.016])
def test_rounds_to_show_is_the_smallest_number_that_shows_a_change(tau, degrees):
    rounds = rounds_to_show(ESTIMATE, OTHER, tau, degrees)
    assert rounds is not None
    assert rounds > stats.MIN_ROUNDS
    assert half_width(rounds, tau, degrees) < math.log(1.05) <= half_width(rounds - 1, tau, degrees)


def test_no_number_of_rounds_shows_what_sessions_hide():
    hidden = math.log(1.05) / float(scipy_stats.norm.ppf(0.995))
    assert rounds_to_show(ESTIMATE, OTHER, hidden, math.inf) is None
    assert rounds_to_show(ESTIMATE, OTHER, 0.9 * hidden, math.inf) is not None
    # With four degrees of freedom only, six tenths of that deviation hide as much.
    assert rounds_to_show(ESTIMATE, OTHER, 0.6 * hidden, 4) is None
    assert half_width(MOST_ROUNDS, 0.6 * hidden, 4) > math.log(1.05)


def test_five_rounds_are_the_fewest_of_all():
    still = stats.estimate([0.1] * 8)
    assert rounds_to_show(still, still, 0.0, math.inf) == stats.MIN_ROUNDS


def test_rounds_are_given_where_nothing_shows_and_only_there():
    found = of_pair(old(), new(), Deviations(speedup=0.004, time=0.008))
    for one in (r for q in found.compared for r in q.rows):
        for change in one.changes:
            if change is not None:
                assert (change.rounds_to_show is not None) == (change.verdict == "unclear")


# Cells that are not compared


def test_statuses_stand_in_place_of_figures():
    found = of_pair(old(), other())
    for name, status in (("keras", "failed"), ("examples/my_convolution.py:forward_fast", "wrong")):
        one = row(found, "time", ("conv1", FORWARD, name))
        then, now = one.figures
        assert then.value is not None
        # The wrong cell was timed, but its time is not shown.
        assert (now.status, now.value, one.changes) == (status, None, (None,))


def test_cells_that_are_not_ok_in_any_file_are_shown_once():
    failed = Cell("conv1", FORWARD, "keras", "failed", "killed")
    found = of_pair(with_cells(old(), failed), with_cells(new(), failed))
    shown = [
        q.quantity
        for q in found.compared
        for r in q.rows
        if (r.layer, r.pass_, r.implementation) == ("conv1", FORWARD, "keras")
    ]
    assert shown == ["time"]


def test_cells_that_only_one_file_has_are_listed():
    (difference,) = of_pair(old(), other()).differences
    assert difference.only_in_old == (
        CellName("conv1", KERNEL, "examples/my_convolution.py:forward_fast"),
    )
    assert difference.only_in_new == (CellName("conv1", FORWARD, "mine"),)


def test_each_of_several_files_is_compared_with_the_first():
    files = [("a", old()), ("b", other()), ("c", new())]
    found = diff(files, NOISELESS)
    key = ("conv1", KERNEL, "examples/my_convolution.py:forward_fast")
    one = row(found, "time", key)
    assert (one.figures[1], one.changes[0]) == (None, None)
    assert one.changes[1] == row(of_pair(old(), new()), "time", key).changes[0]
    for means in compared(found, "time").means:
        assert len(means.changes) == 2


def test_files_with_nothing_in_common_are_no_error():
    elsewhere = saved({("other", FORWARD, "loop"): 1.0}, layers=(replace(CONV1, name="other"),))
    found = of_pair(old(), elsewhere)
    assert found.compared == ()
    assert len(found.differences[0].only_in_old) == len(TIMES)


# Speedups


def test_the_fastest_keras_has_no_speedup_over_itself():
    one = row(of_pair(old(), new()), "speedup", ("conv1", FORWARD, "keras"), "fastest-keras")
    assert [f.chosen for f in one.figures] == ["keras-graph", "keras-graph"]
    swapped = saved(scaled(TIMES, keras=0.5), seed=5)
    one = row(of_pair(old(), swapped), "speedup", ("conv1", FORWARD, "keras"), "fastest-keras")
    assert [f.value is None for f in one.figures] == [False, True]
    assert one.figures[1].chosen == "keras"
    assert one.changes == (None,)


def test_doubtful_sessions_make_doubtful_changes():
    def with_twin(run: Saved, factor: float) -> Saved:
        name = benchmark_name("conv1", FORWARD, "im2col")
        twin = tuple(
            replace(r, values=tuple(v * factor for v in r.values)) for r in run.benchmarks[name]
        )
        return again(replace(run, benchmarks={**run.benchmarks, name + TWIN: twin}))

    found = of_pair(with_twin(old(), 1.0), with_twin(new(), 1.2))
    doubtful = row(found, "speedup", ("conv1", FORWARD, "im2col"), "loop")
    assert [f.reliable for f in doubtful.figures] == [True, False]
    assert not doubtful.changes[0].reliable
    assert row(found, "speedup", ("conv1", KERNEL, "im2col"), "loop").changes[0].reliable
    assert row(found, "time", ("conv1", FORWARD, "im2col")).changes[0].reliable
    assert not mean(found, "speedup", "im2col", None, "loop").reliable


# Geometric means


def mean(found: Diff, quantity: str, implementation: str, pass_, versus: str | None = None):
    means = compared(found, quantity, versus).means
    return next(m for m in means if (m.implementation, m.pass_) == (implementation, pass_)).changes[
        0
    ]


def test_a_mean_is_over_the_cells_that_both_files_have():
    found = of_pair(old(), other())
    rows = [r for r in compared(found, "time").rows if r.implementation == "im2col"]
    ratios = [r.changes[0].ratio for r in rows]
    of_all = mean(found, "time", "im2col", None)
    assert of_all.cells == len(ratios) == 3
    assert of_all.ratio == pytest.approx(math.prod(ratios) ** (1 / 3))
    assert mean(found, "time", "im2col", KERNEL).cells == 1
    assert mean(found, "time", "keras", FORWARD).cells == 1  # the other cell failed


def test_rounds_stay_the_replicates_of_a_mean():
    """Cells of a round share its processes. Two cells that move together tell no more than one."""
    run = saved({**TINY, ("conv1", KERNEL, "loop"): 8.0}, layers=(CONV1,))
    forward = run.benchmarks[benchmark_name("conv1", FORWARD, "loop")]
    together = replace(
        run, benchmarks={**run.benchmarks, benchmark_name("conv1", KERNEL, "loop"): forward}
    )
    found = of_pair(together, together)
    one = row(found, "time", ("conv1", FORWARD, "loop")).changes[0]
    of_both = mean(found, "time", "loop", None)
    assert of_both.cells == 2
    assert of_both.ci99 == pytest.approx(one.ci99)


def test_the_deviation_between_sessions_does_not_shrink_in_a_mean():
    found = of_pair(old(), new(), Deviations(time=0.5))
    low, high = mean(found, "time", "loop", None).ci99
    assert math.log(high / low) > 2 * 2.57 * 0.5


# Memory


def with_peak(size: int, exact: bool = True) -> Saved:
    run = saved(TINY, layers=(CONV1,))
    changed = [
        replace(cell, memory=replace(cell.memory, peak_bytes=size, exact=exact))
        for cell in run.result.cells
    ]
    return with_cells(run, *changed)


@pytest.mark.parametrize(
    ("then", "now", "ratio", "verdict"),
    [
        (with_peak(1000), with_peak(1000), 1.0, "equal"),
        (with_peak(1000), with_peak(1001), 1.001, "up"),
        (with_peak(1000), with_peak(500), 0.5, "down"),
        (with_peak(1000), with_peak(500, exact=False), 0.5, "estimated"),
        (with_peak(1000, exact=False), with_peak(1000), 1.0, "estimated"),
    ],
)
def test_a_change_of_memory_is_exact_or_estimated(then, now, ratio, verdict):
    found = of_pair(then, now)
    for change in (
        row(found, "peak_memory", ("conv1", FORWARD, "im2col")).changes[0],
        mean(found, "peak_memory", "im2col", None),
    ):
        assert change.ratio == pytest.approx(ratio)
        assert (change.ci99, change.verdict) == (None, verdict)


def test_a_change_from_no_memory_at_all_has_no_ratio():
    one = row(of_pair(with_peak(0), with_peak(10)), "peak_memory", ("conv1", FORWARD, "im2col"))
    assert [f.value for f in one.figures] == [0, 10]
    assert one.changes == (None,)


def test_the_fraction_of_peak_changes_inversely_to_the_time():
    """The peak is the same in both files, so that the one change is the inverse of the other."""
    pair = of_pair(old(), new())
    times = {(r.layer, r.pass_, r.implementation): r for r in compared(pair, "time").rows}
    for row in compared(pair, "fraction_of_peak").rows:
        assert all(0 < figure.value < 1 for figure in row.figures)
        (change,), (of_time,) = (
            row.changes,
            times[row.layer, row.pass_, row.implementation].changes,
        )
        assert change.ratio == pytest.approx(1 / of_time.ratio)
        assert change.ci99 == pytest.approx(tuple(1 / bound for bound in of_time.ci99[::-1]))


# What sets files apart


def test_the_same_machine_under_another_name_is_comparable():
    before = old().result
    renamed = replace(before.machine, hostname="elsewhere", platform="Linux-7.0", memory_bytes=1)
    assert incomparable(before, replace(before, machine=renamed)) == ()
    tensorflows = BlasLibrary("mkl", "2025.1", None, 2, "tensorflow")
    software = replace(before.software, blas=(*before.software.blas, tensorflows))
    assert incomparable(before, replace(before, software=software)) == ()


def blas(**changes: object):
    (library,) = old().result.software.blas
    return {"software": replace(old().result.software, blas=(replace(library, **changes),))}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"machine": replace(old().result.machine, cpu="Arm Neoverse-V2")},
            "CPU: AMD EPYC 7763 64-Core Processor then, Arm Neoverse-V2 now",
        ),
        (
            {"machine": replace(old().result.machine, logical_cpus=2)},
            "logical CPUs: 8 then, 2 now",
        ),
        ({"threads": 1}, "threads: 4 then, 1 now"),
        (
            blas(library="mkl"),
            "BLAS: openblas 0.3.30 Haswell 4 threads then, mkl 0.3.30 Haswell 4 threads now",
        ),
        (
            blas(version="0.3.31"),
            "BLAS: openblas 0.3.30 Haswell 4 threads then, openblas 0.3.31 Haswell 4 threads now",
        ),
        (
            blas(kernels=None),
            "BLAS: openblas 0.3.30 Haswell 4 threads then, openblas 0.3.30 4 threads now",
        ),
        (
            blas(threads=1),
            "BLAS: openblas 0.3.30 Haswell 4 threads then, openblas 0.3.30 Haswell 1 threads now",
        ),
        (
            {"software": replace(old().result.software, blas=())},
            "BLAS: openblas 0.3.30 Haswell 4 threads then, none known now",
        ),
    ],
)
def test_another_machine_makes_files_incomparable(changes, reason):
    before = old().result
    assert incomparable(before, replace(before, **changes)) == (reason,)
    assert of_pair(old(), replace(old(), result=replace(before, **changes))).differences[
        0
    ].incomparable == (reason,)


def test_changes_of_the_environment_are_listed():
    before = old().result
    software = replace(before.software, convbench="0.2.0", python="3.13.0", versions={"numpy": "3"})
    after = replace(
        before, software=software, environment={"OMP_NUM_THREADS": "1"}, effort="quick", seed=7
    )
    assert changes_of_environment(before, after) == (
        "convbench: 0.1.0 then, 0.2.0 now",
        "Python: 3.12.3 then, 3.13.0 now",
        "numpy: 2.4.6 then, 3 now",
        "tensorflow: 2.20.0 then, absent now",
        "keras: 3.15.1 then, absent now",
        "OMP_NUM_THREADS: unset then, 1 now",
        "effort: standard then, quick now",
        "seed: 0 then, 7 now",
    )
    assert incomparable(before, after) == ()
    assert changes_of_environment(before, before) == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch_size": 16}, "batch 16"),
        ({"dtype": "float64"}, "float64"),
        ({"use_bias": True}, "bias"),
        ({"filters": 9}, "26x26x9"),
        ({"padding": "same"}, "padding same"),
    ],
)
def test_another_convolution_of_the_same_name_is_not_compared(change, words):
    changed = saved(TINY, layers=(replace(CONV1, **change),))
    before = saved(TINY, layers=(CONV1,))
    then, now = other_geometry(before.result, changed.result)["conv1"]
    assert words in now
    assert words not in then
    found = of_pair(before, changed)
    assert found.compared == ()
    assert (found.differences[0].only_in_old, found.differences[0].only_in_new) == ((), ())


@pytest.mark.parametrize("change", [{"count": 3}, {"padding": ((0, 0), (0, 0))}])
def test_the_same_convolution_in_other_words_is_compared(change):
    after = saved(TINY, layers=(replace(CONV1, **change),))
    assert other_geometry(saved(TINY, layers=(CONV1,)).result, after.result) == {}


# Documents


def test_every_part_can_be_written_as_json():
    data = TypeAdapter(Diff).dump_python(of_pair(old(), other()), mode="json", by_alias=True)
    assert set(data) == {field.name for field in fields(Diff)}
    assert data["compared"][0]["rows"][0]["pass"] == "forward"
    assert {m["pass"] for m in data["compared"][0]["means"]} == {"forward", "kernel-gradient", None}
    assert data["differences"][0]["only_in_new"][0]["pass"] == "forward"
    assert "pass_" not in str(data)


# Any files

OPPOSITE = {"up": "down", "down": "up"}
RUNS = st.builds(
    lambda factors, rounds, noise, seed, mib: saved(
        {key: ms * factor for (key, ms), factor in zip(DRAWN.items(), factors, strict=True)},
        layers=(CONV1,),
        rounds=rounds,
        noise=noise,
        seed=seed,
        mib=mib,
    ),
    st.lists(st.floats(0.2, 5), min_size=5, max_size=5),
    st.integers(1, 9),
    st.sampled_from([0.0, 0.001, 0.02, 0.3]),
    st.integers(0, 99),
    st.sampled_from([0.5, 0.501, 2.0]),
)
DRAWN = {
    ("conv1", pass_, name): 2.0
    for pass_, names in {
        FORWARD: ("loop", "im2col", "keras"),
        INPUT: ("loop", "keras-graph"),
    }.items()
    for name in names
}


@settings(deadline=None)
@given(RUNS, RUNS, st.sampled_from([0.0, 0.003, 0.02]))
def test_swapping_the_files_inverts_every_change(first, second, tau):
    deviations = Deviations(speedup=tau, time=2 * tau, degrees=9)
    there, back = of_pair(first, second, deviations), of_pair(second, first, deviations)
    assert [(c.quantity, c.versus) for c in there.compared] == [
        (c.quantity, c.versus) for c in back.compared
    ]
    for forth, inverse in zip(there.compared, back.compared, strict=True):
        for one, mirrored in zip(
            (*forth.rows, *forth.means), (*inverse.rows, *inverse.means), strict=True
        ):
            assert one.implementation == mirrored.implementation
            if hasattr(one, "figures"):
                assert one.figures == mirrored.figures[::-1]
            are_reciprocal(one.changes[0], mirrored.changes[0])


def are_reciprocal(change, inverse) -> None:
    assert (change is None) == (inverse is None)
    if change is None:
        return
    assert inverse.ratio == pytest.approx(1 / change.ratio)
    assert inverse.verdict == OPPOSITE.get(change.verdict, change.verdict)
    assert inverse.rounds_to_show == change.rounds_to_show
    assert (inverse.cells, inverse.reliable) == (change.cells, change.reliable)
    if change.ci99 is not None:
        assert inverse.ci99 == pytest.approx([1 / bound for bound in change.ci99[::-1]])


def test_swapping_the_files_swaps_the_cells_that_only_one_has():
    (there,), (back,) = of_pair(old(), other()).differences, of_pair(other(), old()).differences
    assert (there.only_in_old, there.only_in_new) == (back.only_in_new, back.only_in_old)
    assert back.other_geometry == {n: pair[::-1] for n, pair in there.other_geometry.items()}
    assert len(back.incomparable) == len(there.incomparable) == 4


def test_a_wrong_cell_that_was_timed_is_not_compared():
    wrong = Cell("conv1", FORWARD, "im2col", "wrong", "wrong", agreement=WRONG)
    found = of_pair(with_cells(old(), wrong), new())
    one = row(found, "time", ("conv1", FORWARD, "im2col"))
    assert (one.figures[0].value, one.changes) == (None, (None,))
