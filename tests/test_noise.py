"""Test `convbench noise`: its delays, what trials come to, its file, and the command."""

import io
import json
import math
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from convbench import implementations
from convbench.errors import ExitCode, ResultError
from convbench.implementations.registry import REGISTRY
from convbench.implementations.variants import Delayed, Variant
from convbench.noise.file import deviations_of, load, save
from convbench.noise.trials import SCHEMA, Level, NoiseFile, NoiseRun, Trial, figures
from convbench.problem import operands
from convbench.problem.layer import Pass
from convbench.report import format_of, render
from convbench.report.formats.terminal import print_report
from convbench.report.views.noise_tables import report
from convbench.results import stats
from convbench.results.between_runs import LEAST_DEVIATION, TWO_RUNS
from convbench.results.run_memory_file import MEMORY_VARIABLE
from convbench.runtimes.numpy import NumPy
from tests.cli import ROOT, TINY, convbench, run_tiny
from tests.report_fixture import CONV1, MACHINE, SOFTWARE

# Variants


class Clock:
    """A clock that a call of the kernel moves by `call`, and a look at the clock by `look`."""

    def __init__(self, call, look=1e-7):
        self.now, self.call, self.look = 0.0, call, look

    def __call__(self):
        self.now += self.look
        return self.now


class Kernel:
    buffers, ledger = (), implementations.contract.Ledger(("everything",))

    def __init__(self, clock):
        self.clock = clock

    def load(self, operands):
        pass

    def run(self):
        self.clock.now += self.clock.call
        return self.clock.call

    def to_numpy(self, result):
        return np.array(result)


@pytest.mark.parametrize("delay", [0.02, 0.05, 0.1, 1.0])
@pytest.mark.parametrize("call", [1e-5, 1e-3, 0.2])
def test_a_delay_is_proportional_to_the_time_of_the_call(delay, call):
    clock = Clock(call)
    delayed = Delayed(Kernel(clock), delay, clock)
    before = clock.now
    for _ in range(10):
        assert delayed.run() == call
    assert (clock.now - before) / (10 * call) == pytest.approx(1 + delay, abs=0.05)
    assert delayed.seen_delay == pytest.approx(delay, abs=0.04 if call < 1e-4 else 0.002)
    delayed.load(None)
    assert delayed.seen_delay == 0.0


def test_a_variant_computes_what_it_stands_for():
    registry = REGISTRY.knowing(Variant("slow", "im2col", 0.5), Variant("again", "im2col"))
    results = []
    for name in ("im2col", "slow", "again"):
        prepared = registry.get(name).prepare(CONV1, Pass.FORWARD, 1)
        prepared.load(operands.floats(CONV1, Pass.FORWARD, 0))
        results.append(prepared.to_numpy(prepared.run()).copy())
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])
    assert registry.get("slow").runtime == NumPy("slow")  # it runs in a process of its own
    assert [v.name for v in registry.named] == ["slow", "again"]


# What trials come to


def trial(outcome, *, injected=0.0, rules=1, faster=False, layer="a"):
    return Trial(layer, Pass.FORWARD, injected, injected, rules, outcome, 1, 1.0, faster, 1.03)


def run(*trials, speedup=0.0, error=0.01, time=0.0):
    return NoiseRun(
        "2026-11-23T10:00:00+00:00",
        8.0,
        12.0,
        8,
        0.02,
        trials,
        (Level("a/forward/im2col/loop", speedup, error),),
        (Level("a/forward/im2col", time, error),),
    )


def file(*runs):
    return NoiseFile(SCHEMA, MACHINE, SOFTWARE, {}, "noise", "im2col", 2, "standard", tuple(runs))


def test_false_alarms_and_found_slowdowns_are_counted():
    one = run(
        trial("holds"),
        trial("regressed", layer="b"),
        trial("regressed", injected=0.05),
        trial("inconclusive", injected=0.05, layer="b"),
        trial("holds", rules=2),
        trial("regressed", rules=2, layer="b"),
    )
    two = run(
        trial("holds"),
        trial("inconclusive", layer="b"),
        trial("regressed", injected=0.05, faster=True),
        trial("holds", injected=0.05, layer="b"),
        trial("holds", rules=2),
        trial("holds", rules=2, layer="b"),
    )
    found = figures(file(one, two))
    alone, together = found.alarms
    assert (alone.jobs, alone.false_alarms, alone.held, alone.inconclusive) == (4, 1, 2, 1)
    # With two rules a run is one job, and any regression in it is one false alarm.
    assert (together.jobs, together.false_alarms, together.held) == (2, 1, 1)
    (power,) = found.power
    assert (power.trials, power.found, power.inconclusive, power.missed) == (4, 2, 1, 1)
    assert power.faster == 1
    assert found.detects == pytest.approx(1.03)


def test_299_trials_without_an_alarm_show_a_rate_of_at_most_one_per_cent():
    """A rate of at most 1 % is shown by 0 alarms of 299, or by 1 of 473."""
    from convbench.results.stats import proportion_upper

    assert proportion_upper(0, 299) < 0.01 < proportion_upper(0, 298)
    assert proportion_upper(1, 473) < 0.01 < proportion_upper(1, 472)


def test_the_deviation_between_sessions_is_what_rounds_do_not_explain():
    draw = np.random.default_rng(3)
    apart, error = 0.03, 0.01
    runs = [
        run(speedup=draw.normal(0, math.hypot(apart, error)), error=error, time=draw.normal(0, 0.1))
        for _ in range(400)
    ]
    found = file(*runs).deviations
    # Each session deviates from the long run. Two sessions differ by the root of two as much.
    assert found.speedup == pytest.approx(math.sqrt(2) * apart, rel=0.15)
    assert found.time == pytest.approx(math.sqrt(2) * 0.1, rel=0.15)
    assert found.degrees == 399


def test_clean_sessions_differ_within_the_deviations_of_a_file():
    """If they did not, a gate against a baseline would call one in thirty of them a regression."""
    draw = np.random.default_rng(5)
    apart, error = 0.03, 0.003

    def log():
        return draw.normal(0, math.hypot(apart, error))

    known = file(*(run(speedup=log(), error=error) for _ in range(200))).deviations
    held = 0
    for _ in range(1000):
        new, old = (stats.Estimate(log(), error, 8, math.inf) for _ in range(2))
        low, high = stats.quotient(new, old, known.speedup, known.degrees).interval()
        held += low <= 1 <= high
    assert held >= 980


def test_sessions_are_never_taken_to_agree_entirely():
    five = [run() for _ in range(5)]
    assert file(*five).deviations.speedup == TWO_RUNS * LEAST_DEVIATION
    assert file(*five[1:]).deviations is None


# The file


def test_a_file_reads_back_as_it_was_saved(tmp_path):
    saved = file(run(trial("holds"), trial("regressed", injected=0.05)), run(trial("unreliable")))
    save(tmp_path / "noise.json", saved)
    assert load(tmp_path / "noise.json") == saved


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(schema="convbench-noise/9"), "found schema 'convbench-noise/9'"),
        (lambda d: d["runs"][0].pop("seconds"), "runs.0.seconds"),
        (lambda d: d["runs"][0]["trials"][0].update(outcome="fine"), "runs.0.trials.0.outcome"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, change, said):
    path = tmp_path / "noise.json"
    save(path, file(run(trial("holds"))))
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(ResultError, match=said):
        load(path)


def test_a_gate_takes_deviations_from_enough_runs_on_the_same_machine(tmp_path):
    path = tmp_path / "noise.json"
    save(path, file(run(), run()))
    with pytest.raises(ResultError, match="2 runs do not tell"):
        deviations_of(path, MACHINE, 2)
    save(path, file(*(run() for _ in range(5))))
    assert deviations_of(path, MACHINE, 2).source == str(path)
    for machine, threads in ((replace(MACHINE, cpu="Z80"), 2), (MACHINE, 1)):
        with pytest.raises(ResultError, match="another machine or other threads") as raised:
            deviations_of(path, machine, threads)
        assert raised.value.exit_code is ExitCode.INCOMPARABLE


def test_sessions_without_a_figure_in_common_tell_nothing(tmp_path):
    others = replace(run(), speedups=(Level("b/forward/im2col/loop", 0.0, 0.01),))
    four = [run() for _ in range(4)]
    assert file(*four, run()).deviations is not None
    assert file(*four, others).deviations is None


def test_files_of_different_jobs_add_up():
    """One job is `--each`; the next has all rules and another slowdown. No group is made up."""
    found = figures(
        file(
            run(trial("holds"), trial("regressed", injected=0.05)),
            run(trial("holds"), trial("holds", rules=2), trial("regressed", injected=0.1, rules=2)),
        )
    )
    assert [(p.injected, p.rules) for p in found.power] == [(0.05, 1), (0.1, 2)]


GOLDEN = Path(__file__).parent / "golden" / "noise"


def _typical():
    """Make runs as most are on a machine that is good enough."""
    clean = [trial("holds", layer=str(i)) for i in range(30)]
    slowed = [trial("regressed", injected=0.05, layer=str(i)) for i in range(9)]
    missed = [
        trial("holds", injected=0.05, faster=True, layer="9"),
        trial("unreliable", injected=0.02),
        trial("inconclusive", rules=2),
        trial("regressed", rules=2, layer="b"),
    ]
    return file(run(*clean, *slowed), run(*missed, speedup=0.03), run(time=0.2), run(), run())


@pytest.mark.parametrize("how", ["80", "txt", "md", "csv"])
@pytest.mark.parametrize("name", ["typical", "one"])
def test_reports_match_their_golden_files(name, how, monkeypatch):
    for variable in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS"):
        monkeypatch.delenv(variable, raising=False)
    told = report(_typical() if name == "typical" else file(run(trial("inconclusive"))))
    if how == "80":
        stream = io.StringIO()
        print_report(told, Console(file=stream, force_terminal=True, width=80, color_system=None))
        shown = re.sub(r"\x1b\[[\d;]*m", "", stream.getvalue())
        assert max(map(len, shown.splitlines())) <= 80
    else:
        shown = render(told, format_of(f"noise.{how}"))
    golden = GOLDEN / f"{name}.{'at80.txt' if how == '80' else how}"
    if os.environ.get("CONVBENCH_REWRITE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(shown, encoding="utf-8")
    assert shown == golden.read_text(encoding="utf-8")


# The command


@pytest.mark.slow
def test_a_campaign_measures_and_goes_on_with_its_file(tmp_path):
    path = tmp_path / "noise.json"
    options = ("--effort", "quick", "--layer", "a", "--pass", "forward", "--quiet", "-o", path)
    memory = tmp_path / "runs.json"
    remembering = {MEMORY_VARIABLE: str(memory)}
    done = convbench("noise", TINY, "--runs", 2, "--inject", "50%", *options, **remembering)
    assert done.returncode == 0, done.stderr
    (runs,) = json.loads(memory.read_text())["runs"].values()
    assert len(runs) == 2
    kept = [name for of in runs[0]["figures"].values() for names in of.values() for name in names]
    assert {name.partition(": ")[2] for name in kept} == {"im2col", "im2col over loop"}
    assert "slowed by" in done.stdout
    document = json.loads(path.read_text())
    assert len(document["runs"]) == 2
    slowed = [t for r in document["runs"] for t in r["trials"] if t["injected"]]
    assert {t["injected"] for t in slowed} == {0.5}
    assert all(0.48 < t["seen"] < 0.6 for t in slowed)
    assert document["runs"][0]["speedups"]  # speedups over loop tell how sessions differ
    document["runs"] += [{**run, "trials": []} for run in document["runs"]]
    path.write_text(json.dumps(document))
    more = convbench("noise", TINY, "--runs", 1, "--inject", "", *options)
    assert more.returncode == 0, more.stderr
    assert len(json.loads(path.read_text())["runs"]) == 5
    assert "two sessions differ in speedups by" in more.stdout
    other = convbench("noise", TINY, "--runs", 1, "--impl", "loop", *options)
    assert other.returncode == 4
    assert "implementation: im2col then, loop now" in other.stderr
    saved = tmp_path / "saved.json"
    assert run_tiny(saved, *options[2:6], "--force")[0].returncode == 0
    used = convbench("gate", saved, "--baseline", saved, "--noise", path)
    assert str(path) in used.stdout, used.stderr
    old = ROOT / "results" / "mnist.json"
    refused = convbench("gate", old, "--baseline", old, "--noise", path)
    assert refused.returncode == 4
    assert "another machine or other threads" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--inject", "5"), "expected a percentage such as 3%"),
        (("--impl", "im2cool"), "did you mean 'im2col'?"),
        (("-o", "noise.txt"), "a noise file ends in .json"),
        (("--runs", "0"), "--runs"),
    ],
)
def test_bad_arguments_are_usage_errors(tmp_path, arguments, said):
    done = convbench("noise", "noise", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_subject_that_cannot_compute_all_is_tried_on_the_rest(tmp_path):
    """This f(x, kernel) has no gradients and takes no padding, so that only the rest is tried."""
    done = convbench(
        *("noise", TINY, "--runs", 1, "--impl", "examples/my_conv.py:convolve", "--inject", "20%"),
        *("--effort", "smoke", "--quiet", "-o", tmp_path / "noise.json"),
    )
    assert done.returncode == 0, done.stderr
    trials = json.loads((tmp_path / "noise.json").read_text())["runs"][0]["trials"]
    assert {(t["layer"], t["pass"], t["rules"]) for t in trials} == {("a", "forward", 1)}


@pytest.mark.slow
def test_a_budget_ends_the_campaign(tmp_path):
    done = convbench(
        *("noise", TINY, "--runs", 50, "--effort", "smoke", "--layer", "a", "--pass", "forward"),
        *("--budget", 8, "--quiet", "-o", tmp_path / "noise.json"),
    )
    assert done.returncode == 0, done.stderr
    assert 1 <= len(json.loads((tmp_path / "noise.json").read_text())["runs"]) < 50
    assert "the budget allowed" in done.stderr
