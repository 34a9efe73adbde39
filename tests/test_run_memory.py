"""Test the memory of runs: what is kept of a run, what is learnt, the file, and who uses it."""

import json
import math
import random
import re
from dataclasses import replace

import pytest

from convbench import runtimes
from convbench.compare import ASSUMED, diff, learnt_by
from convbench.gate import Terms
from convbench.gate.questions import OTHER_MACHINE
from convbench.gate.terms import Judgement
from convbench.machine import cache_file
from convbench.machine import description as machine
from convbench.report.views import deviation_words
from convbench.report.views.diff_tables import report as diff_report
from convbench.report.views.gate_tables import report as gate_report
from convbench.report.views.machine_tables import report as machine_report
from convbench.report.views.run_notes import between_runs_notes
from convbench.results import run_memory, run_memory_file
from convbench.results.between_runs import TWO_RUNS, Seen
from convbench.results.model import Cell, Deviation
from convbench.results.run_memory import (
    Known,
    RememberedRun,
    as_document,
    from_documents,
    learn,
    population,
    run_of,
    with_run,
)
from convbench.results.run_memory_file import MEMORY_VARIABLE, recall, remember
from convbench.results.stats import MIN_ROUNDS
from tests.cli import convbench, run_tiny
from tests.diff_fixture import TIMES, few_rounds, saved, scaled, with_cells
from tests.report_fixture import CONV1, FORWARD, KERNEL, MACHINE, MINE, SOFTWARE, WRONG

TIME, SPEEDUP = ("time", "numpy"), ("speedup", "keras/numpy")
KINDS = {
    *((of, kind) for of in ("time", "undisturbed-time") for kind in ("numpy", "keras")),
    *(
        (of, kinds)
        for of in ("speedup", "undisturbed-speedup")
        for kinds in ("numpy/numpy", "keras/numpy", "keras/keras")
    ),
}
CONV1_LINE = "28x28x1 -> 26x26x8, kernel 3x3, batch 32, pads 0+0 0+0, forward, threads 4"


def names(run, kind):
    return set(run.figures.get(kind, {}))


# The figures that are kept of a run


def test_figures_are_named_by_convolution_and_not_by_layer():
    run = run_of(saved())
    assert set(run.figures) == KINDS
    assert f"{CONV1_LINE}: im2col" in names(run, TIME)
    assert f"{CONV1_LINE}: im2col over the fastest of keras, keras-graph" in names(run, SPEEDUP)
    assert f"{CONV1_LINE}: im2col over loop" in names(run, ("speedup", "numpy/numpy"))
    times = {(("x" if key[0] == "conv1" else key[0]), *key[1:]): ms for key, ms in TIMES.items()}
    layers = [layer for layer in saved().result.suite.layers if layer.name != "conv1"]
    other = saved(times, layers=(replace(CONV1, name="x"), *layers))
    assert {kind: set(f) for kind, f in run_of(other).figures.items()} == {
        kind: set(f) for kind, f in run.figures.items()
    }


def test_the_figures_that_are_kept_are_those_of_the_result():
    of = saved()
    run = run_of(of)
    (cell,) = (
        c
        for c in of.result.cells
        if (c.layer, c.pass_, c.implementation) == ("conv1", FORWARD, "im2col")
    )
    name = f"{CONV1_LINE}: im2col"
    assert math.exp(run.figures[TIME][name].log) == pytest.approx(cell.time.time_s)
    undisturbed = run.figures["undisturbed-time", "numpy"][name]
    assert math.exp(undisturbed.log) == pytest.approx(cell.time.undisturbed_s)
    (speedup,) = (
        s
        for s in of.result.speedups
        if (s.layer, s.pass_, s.implementation, s.versus)
        == ("conv1", FORWARD, "im2col", "fastest-keras")
    )
    name += " over the fastest of keras, keras-graph"
    assert math.exp(run.figures[SPEEDUP][name].log) == pytest.approx(speedup.ratio)


def test_own_code_and_wrong_cells_are_left_out():
    assert MINE in saved().result.suite.implementations
    run = run_of(with_cells(saved(), Cell("conv1", KERNEL, "im2col", "wrong", agreement=WRONG)))
    assert not any("my_convolution" in name for kind in KINDS for name in names(run, kind))
    found = [name for kind in KINDS for name in names(run, kind) if "kernel-gradient" in name]
    assert found
    assert not any(": im2col" in name for name in found)


def test_runs_of_few_rounds_or_of_cold_threads_are_not_kept():
    assert few_rounds().result.rounds < MIN_ROUNDS
    assert run_of(few_rounds()) is None
    assert run_of(replace(saved(), result=replace(saved().result, state="cold-threads"))) is None
    assert run_of(replace(saved(), benchmarks={})) is None
    own = saved({key: ms for key, ms in TIMES.items() if key[2] == MINE})
    assert run_of(own) is None


def test_only_the_subject_of_a_noise_run_is_kept():
    times = {key: ms for key, ms in TIMES.items() if key[2] == "im2col"}
    times |= {(*key[:2], "im2col again"): ms for key, ms in times.items()}
    of = saved(dict(times))
    run = run_of(of, "im2col")
    assert set(run.figures) == {
        *((of, "numpy") for of in ("time", "undisturbed-time")),
        *((of, "numpy/numpy") for of in ("speedup", "undisturbed-speedup")),
    }
    assert all("again" not in name for kind in run.figures for name in names(run, kind))
    # Each cell is set over the next one. A gate's conditions differ from those of `run`.
    assert len(run.figures["speedup", "numpy/numpy"]) == len(run.figures[TIME]) - 1
    assert run.conditions != run_of(of).conditions
    with_loop = run_of(saved(), "im2col")
    assert names(with_loop, ("speedup", "numpy/numpy")) == {
        name
        for name in names(run_of(saved()), ("speedup", "numpy/numpy"))
        if name.endswith(": im2col over loop")
    }


def test_the_number_of_figures_kept_of_a_run_is_bounded(monkeypatch):
    monkeypatch.setattr(run_memory, "MAX_FIGURES", 3)
    run, other = run_of(saved()), run_of(saved(seed=4))
    assert max(map(len, run.figures.values())) == 3
    assert {kind: set(f) for kind, f in run.figures.items()} == {
        kind: set(f) for kind, f in other.figures.items()
    }


# The deviations that are learnt


def runs_of(count, apart=0.05, seed=1, **fields):
    """Make `count` runs whose times of Keras differ by a standard deviation of `apart`, in logs."""
    draw = random.Random(seed)
    return [
        run_of(
            saved(
                scaled(TIMES, keras=math.exp(log), keras_graph=math.exp(log)),
                noise=0.005,
                seed=number,
                date=f"2026-11-{number + 1:02d} 09:31",
                **fields,
            )
        )
        for number in range(count)
        for log in [draw.gauss(0, apart)]
    ]


def known(found, *kind):
    return next(one for one in found.deviations if (one.of, one.between) == kind)


def test_runs_tell_how_much_runs_differ():
    found = learn(runs_of(25))
    assert found.runs == 25
    assert {(one.of, one.between) for one in found.deviations} == KINDS
    assert known(found, *SPEEDUP).value == pytest.approx(0.05, rel=0.4)
    assert known(found, *SPEEDUP).degrees == 24
    assert known(found, "speedup", "numpy/numpy").value < 0.01
    assert known(found, "time", "keras").value == pytest.approx(0.05, rel=0.4)


def test_few_runs_tell_nothing_and_other_conditions_are_not_compared():
    assert learn(runs_of(2)) == Known(2)
    mixed = [*runs_of(3), *runs_of(3, tune=False)]
    assert len({run.conditions for run in mixed}) == 2
    # Each of the two groups has a mean of its own; their deviations are pooled.
    found = learn(mixed)
    assert (known(found, *SPEEDUP).runs, known(found, *SPEEDUP).degrees) == (6, 4)


@pytest.mark.parametrize(
    "change",
    [
        {"environment": {"OPENBLAS_CORETYPE": "Haswell"}},
        {"tune": False},
        {"software": replace(SOFTWARE, python="3.13.0")},
        {"software": replace(SOFTWARE, blas=())},
    ],
)
def test_another_environment_or_software_makes_other_conditions(change):
    assert run_of(saved(**change)).conditions != run_of(saved()).conditions


def test_other_code_makes_other_conditions(monkeypatch):
    before = run_of(saved()).conditions
    monkeypatch.setattr(run_memory, "_source", lambda: 1)
    assert run_of(saved()).conditions != before


def test_a_population_is_of_one_machine_with_its_versions_and_threads():
    here = population(MACHINE, SOFTWARE, 2)
    assert here == population(replace(MACHINE, hostname="x"), replace(SOFTWARE, python="3"), 2)
    others = {
        population(MACHINE, SOFTWARE, 1),
        population(replace(MACHINE, cpu="Z80"), SOFTWARE, 2),
        population(replace(MACHINE, isa=()), SOFTWARE, 2),
        population(replace(MACHINE, logical_cpus=2), SOFTWARE, 2),
        population(replace(MACHINE, cpu_quota=None), SOFTWARE, 2),
        population(MACHINE, replace(SOFTWARE, versions={"numpy": "3.0"}), 2),
    }
    assert len(others - {here}) == 6


def test_a_run_that_was_resumed_replaces_itself():
    one, two = RememberedRun("a", "quick", 5, "c"), RememberedRun("b", "quick", 5, "c")
    more = replace(one, rounds=9)
    assert with_run([one, two], more, 9) == [two, more]
    assert with_run([one, two], replace(one, date="d"), 2) == [two, replace(one, date="d")]


# The file


@pytest.fixture
def memory(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "runs.json"
    monkeypatch.setenv(MEMORY_VARIABLE, str(path))
    return path


HERE = (MACHINE, SOFTWARE, 4)


def test_remembered_runs_are_recalled(memory):
    assert recall(*HERE) == Known(0)
    runs = runs_of(5)
    for run in runs:
        remember(*HERE, run)
    assert recall(*HERE).runs == 5
    assert known(recall(*HERE), *SPEEDUP).value == pytest.approx(
        known(learn(runs), *SPEEDUP).value, rel=0.01
    )
    assert recall(MACHINE, SOFTWARE, 1) == Known(0)


def test_a_run_reads_back_from_its_document():
    (run,) = runs_of(1)
    (back,) = from_documents(json.loads(json.dumps([as_document(run)])))
    assert (back.date, back.effort, back.rounds, back.conditions) == (
        run.date,
        run.effort,
        run.rounds,
        run.conditions,
    )
    for kind, figures in run.figures.items():
        assert back.figures[kind].keys() == figures.keys()
        for name, seen in figures.items():
            assert back.figures[kind][name].log == pytest.approx(seen.log, abs=1e-6)
            assert back.figures[kind][name].error == pytest.approx(seen.error, rel=0.01)


RUN = {"date": "d", "effort": "quick", "rounds": 5, "conditions": "c", "figures": {}}


@pytest.mark.parametrize(
    "damaged",
    [
        None,
        1,
        {"a": 1},
        [1, None, "x", []],
        [{**RUN, "figures": []}],
        [{**RUN, "figures": {"time": {"numpy": {"n": [1]}}}}],
        [{**RUN, "figures": {"time": {"numpy": {"n": ["x", 1]}}}}],
        [{**RUN, "figures": {"time": {"numpy": {"n": [math.nan, 1]}}}}],
        [{**RUN, "figures": {"time": {"numpy": {"n": [1e300, 1]}}}}],
        [{**RUN, "figures": {"time": {"numpy": {"n": [10**400, 1]}}}}],
        [{**RUN, "figures": {"time": {"numpy": {"n": [1, -1]}}}}],
        [{**RUN, "figures": {"time": {"numpy": 5}}}],
        [{**RUN, "rounds": math.inf}],
        [{**RUN, "rounds": None}],
    ],
)
def test_damaged_runs_are_dropped(memory, damaged):
    memory.parent.mkdir()
    key = population(*HERE)
    document = {"schema": run_memory_file.SCHEMA, "runs": {key: damaged}}
    memory.write_text(json.dumps(document))
    assert recall(*HERE) == Known(0)
    remember(*HERE, RememberedRun("e", "quick", 5, "c", {TIME: {"n": Seen(0.0, 0.1)}}))
    assert recall(*HERE) == Known(1)


def test_figures_of_an_unknown_kind_are_dropped():
    later = {"speed": {"numpy": {"n": [1, 1]}}, "time": {"numpy": {"n": [1, 1]}}}
    (run,) = from_documents([{**RUN, "figures": later}])
    assert set(run.figures) == {TIME}


@pytest.mark.parametrize("theirs", ["my thesis", '{"a": 1}', '{"schema": "convbench-tuning/1"}'])
def test_a_file_that_is_no_memory_of_runs_is_left_alone(memory, theirs):
    memory.parent.mkdir()
    memory.write_text(theirs)
    remember(*HERE, runs_of(1)[0])
    assert recall(*HERE) == Known(0)
    assert memory.read_text() == theirs


def test_a_place_that_cannot_be_written_does_no_harm(memory):
    memory.parent.write_text("a file where the folder should be")
    remember(*HERE, runs_of(1)[0])
    assert recall(*HERE) == Known(0)


def test_without_a_path_nothing_is_remembered(monkeypatch, tmp_path):
    monkeypatch.setenv(MEMORY_VARIABLE, "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    remember(*HERE, runs_of(1)[0])
    assert recall(*HERE) is None
    assert list(tmp_path.iterdir()) == []
    monkeypatch.delenv(MEMORY_VARIABLE)
    assert run_memory_file.memory_path() == tmp_path / "convbench" / "runs.json"
    assert cache_file.path_of("tuning.json", "NOTHING_SUCH").parent == tmp_path / "convbench"


def test_runs_and_populations_are_bounded(memory, monkeypatch):
    monkeypatch.setattr(run_memory_file, "MAX_RUNS", 3)
    monkeypatch.setattr(run_memory_file, "MAX_POPULATIONS", 2)
    for threads in (1, 2, 3):
        for run in runs_of(4):
            remember(MACHINE, SOFTWARE, threads, run)
    assert [recall(MACHINE, SOFTWARE, threads).runs for threads in (1, 2, 3)] == [0, 3, 3]


# What reports say


LEARNT = (
    Deviation("speedup", "keras/numpy", 0.021, 11, 12),
    Deviation("speedup", "numpy/numpy", 0.008, 11, 12),
    Deviation("speedup", "keras/keras", 0.03, 11, 12),
    Deviation("time", "keras", 0.042, 11, 12),
    Deviation("time", "numpy", 0.012, 10, 11),
    Deviation("undisturbed-time", "numpy", 0.5, 10, 11),
)


def said(**fields):
    (note,) = between_runs_notes(saved(**fields).result)
    return note.text


def test_a_run_says_what_its_intervals_include():
    assert said(deviations=LEARNT, earlier_runs=12) == (
        "± includes how much 12 earlier runs on this machine differed: speedups by 2.1 % over "
        "Keras, 0.80 % among NumPy and 3.0 % among Keras, times by 4.2 % of Keras and 1.2 % of "
        "NumPy"
    )
    assert said(deviations=LEARNT[2:], earlier_runs=12).endswith(
        "; for speedups over Keras, speedups among NumPy, ± covers this run alone"
    )
    assert said(earlier_runs=2) == (
        "± covers this run alone: convbench does not know yet how much runs differ on this machine "
        "(2 earlier runs remembered, 5 are needed)"
    )
    assert "(7 earlier runs remembered, 5 with these convolutions are needed)" in said(
        earlier_runs=7
    )
    assert said() == (
        "± covers this run alone: how much runs on this machine differ was not looked up"
    )
    assert list(between_runs_notes(few_rounds().result)) == []


def test_learnt_deviations_widen_the_intervals_and_both_are_kept():
    wide, narrow = saved(deviations=LEARNT).result, saved().result
    for one, other in zip(wide.speedups, narrow.speedups, strict=True):
        assert one.run_ci99 == other.ci99 == other.run_ci99
        assert one.ci99[0] < one.run_ci99[0] < one.run_ci99[1] < one.ci99[1]
    rows = [row for row in wide.summary if row.versus == "fastest-keras"]
    assert rows
    for row in rows:
        assert row.ci99[0] < row.run_ci99[0] < row.run_ci99[1] < row.ci99[1]
    for row in wide.network:
        assert row.ci99_s[0] < row.run_ci99_s[0] < row.run_ci99_s[1] < row.ci99_s[1]
        if row.over_fastest_keras is not None:
            assert row.over_fastest_keras_ci99[0] < row.over_fastest_keras_run_ci99[0]


# Sessions against each other


def test_a_diff_takes_the_deviations_that_the_newer_result_knew():
    old, new = saved(), saved(seed=2, deviations=LEARNT)
    deviations = learnt_by(new.result)
    assert deviations.of_speedup("keras/numpy") == (pytest.approx(TWO_RUNS * 0.021), 11)
    assert deviations.of_time("numpy") == (pytest.approx(TWO_RUNS * 0.012), 10)
    assert deviations.of_speedup("other") == (ASSUMED.speedup, math.inf)
    assert learnt_by(old.result) is ASSUMED
    found = diff([("old.json", old), ("new.json", new)], deviations)
    assumed = diff([("old.json", old), ("new.json", new)])

    def width(of, quantity, versus=None):
        compared = next(c for c in of.compared if (c.quantity, c.versus) == (quantity, versus))
        row = next(r for r in compared.rows if r.implementation == "im2col")
        low, high = row.changes[0].ci99
        return math.log(high / low)

    assert width(found, "time") < width(assumed, "time")  # 1.7 % instead of the assumed 10 %
    assert width(found, "speedup", "fastest-keras") > width(assumed, "speedup", "fastest-keras")
    notes = " ".join(note.text for note in diff_report(found).notes)
    assert (
        "the same code differs in two sessions: speedups by 3.0 % over Keras, 1.1 % among NumPy "
        "and 4.2 % among Keras, times by 5.9 % of Keras and 1.7 % of NumPy (standard deviations, "
        "from 12 earlier runs on this machine); others by 2.0 % (speedups) and 10 % (times), "
        "assumed"
    ) in notes
    assert deviation_words.between_two(deviations) in notes


def test_a_gate_takes_the_deviations_that_the_newer_result_knew():
    old, new = saved(), saved(scaled(TIMES, im2col=1.04), noise=0.002, deviations=LEARNT)
    calm = tuple(replace(one, value=0.0001, degrees=99) for one in LEARNT)
    terms = Terms(baseline=old)
    deviations = terms.deviations_for(new)
    assert deviations == learnt_by(new.result)
    widths = [
        question.slowdown.error
        for knew in ((), LEARNT, calm)
        for question in Terms(baseline=saved(noise=0.002)).questions(
            replace(new, result=replace(new.result, deviations=knew))
        )
        if (question.subject.implementation, question.subject.versus) == ("im2col", "fastest-keras")
    ]
    third = len(widths) // 3
    assert widths[2 * third] < widths[0] < widths[third]
    judgement = Judgement(
        target="mnist",
        verdicts=tuple(terms.verdicts(new, 0.01)),
        looks=1,
        alpha=0.01,
        exit_code=0,
        baseline="old.json",
        deviations=deviations,
    )
    notes = " ".join(note.text for note in gate_report(judgement, new.result).notes)
    assert (
        "the same code is taken to differ in the two sessions: speedups by 3.0 % over Keras"
        in notes
    )
    assert "is assumed" not in notes


def test_a_wide_deviation_is_assumed_of_another_machine():
    old = saved(machine=replace(MACHINE, cpu="Z80"))
    new = saved(deviations=(replace(LEARNT[0], value=0.2),))
    terms = Terms(baseline=old, allow_different_machine=True)
    assert terms.deviations_for(new).learnt == ()
    assert terms.deviations_for(new).speedup == pytest.approx(0.2 * TWO_RUNS)
    assert terms.deviations_for(replace(new, result=saved().result)).speedup == OTHER_MACHINE


# The commands


def _remember_here(count):
    for run in runs_of(count):
        remember(machine.fingerprint(), machine.software(runtimes.versions()), 1, run)


@pytest.mark.slow
def test_a_run_learns_from_earlier_ones_and_is_remembered(memory, tmp_path):
    options = ("--effort", "quick", "--layer", "a", "--pass", "forward", "--threads", "1")
    done, document = run_tiny(tmp_path / "one.json", *options, "--quiet")
    assert done.returncode in (0, 3), done.stderr
    assert "± covers this run alone: convbench does not know yet" in done.stdout
    assert "(0 earlier runs remembered, 5 are needed)" in done.stdout
    assert document["convbench"]["earlier_runs"] == 0
    assert document["convbench"]["deviations"] == []
    assert recall(machine.fingerprint(), machine.software(runtimes.versions()), 1).runs == 1

    again = convbench("run", "--resume", tmp_path / "one.json", "--quiet")
    assert again.returncode == done.returncode, again.stderr
    assert recall(machine.fingerprint(), machine.software(runtimes.versions()), 1).runs == 1

    _remember_here(5)
    done, document = run_tiny(tmp_path / "two.json", *options, "--quiet")
    assert done.returncode in (0, 3), done.stderr
    assert "± includes how much 5 earlier runs on this machine differed: speedups by" in done.stdout
    part = document["convbench"]
    assert part["earlier_runs"] == 6
    assert {one["between"] for one in part["deviations"] if one["of"] == "time"} == {
        "numpy",
        "keras",
    }
    for cell in part["cells"]:
        (low, high), (inner_low, inner_high) = cell["time"]["ci99_s"], cell["time"]["run_ci99_s"]
        assert low <= inner_low < inner_high <= high
    shown = convbench("show", tmp_path / "two.json")
    assert shown.stdout == done.stdout
    compared = convbench("diff", tmp_path / "one.json", tmp_path / "two.json")
    assert "from 5 earlier runs on this machine" in compared.stdout
    assert recall(machine.fingerprint(), machine.software(runtimes.versions()), 1).runs == 7

    told = convbench("machine", "--quiet").stdout
    assert re.search(r"^runs +1 thread, 7 runs remembered: they differ in speedups by", told, re.M)
    assert "0 runs remembered: how much runs differ is not known yet" in told


def test_a_run_of_too_few_rounds_is_not_remembered(memory, tmp_path):
    done, _ = run_tiny(tmp_path / "few.json", "--layer", "a", "--pass", "forward", "--quiet")
    assert done.returncode in (0, 3), done.stderr
    assert "±" not in done.stdout
    assert not memory.exists()


def test_the_machine_report_says_that_nothing_is_known_yet():
    description = machine.MachineDescription(MACHINE, SOFTWARE, {}, ())
    assert not any(fact.label == "runs" for fact in machine_report(description).facts)
    (fact,) = (f for f in machine_report(description, {2: Known(2)}).facts if f.label == "runs")
    assert fact.text == (
        "2 threads, 2 runs remembered: how much runs differ is not known yet, 5 runs of a suite "
        "are needed"
    )
