"""Test the gate's decisions, what each kind of rule asks, and its false alarms in a simulation.

CONVBENCH_REWRITE_GOLDEN=1 pytest tests/test_gate.py writes the golden files anew: read the diff.
"""

import io
import itertools
import json
import math
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from convbench import gate
from convbench.compare import Deviations
from convbench.errors import ExitCode
from convbench.gate import Margins, Question, Subject, Terms, Verdict, decide
from convbench.problem.layer import Pass
from convbench.report import format_of, render
from convbench.report.formats.terminal import print_report
from convbench.report.views.gate_tables import report
from convbench.report.views.table import Kind
from convbench.results import stats, summary
from convbench.results.model import RoundSamples
from convbench.suites.suite import QUANTITIES, Quantity, Rule
from tests.diff_fixture import TIMES, again, saved, scaled, with_cells
from tests.gate_fixture import (
    NAMES,
    OLD_VERSION,
    judgement,
    slower,
    some_not_right,
    versions,
    with_twin,
)
from tests.report_fixture import CONV2, FORWARD, KERNEL, MINE

GOLDEN = Path(__file__).parent / "golden" / "gate"
VIEWS = {
    "floors": ("80", "txt", "md", "csv", "json", "github", "junit", "customSmallerIsBetter"),
    "not_right": ("80", "txt", "junit"),
    "baseline": ("80", "txt"),
    "measured": ("80", "txt", "github"),
    "incomparable": ("80", "txt", "github"),
    "version": ("80", "120", "txt", "csv", "customSmallerIsBetter"),
    "unreliable": ("80", "txt"),
    "few": ("80", "txt"),
    "calm": ("80", "txt"),
    "few_twins": ("80", "txt"),
}
SUBJECT = Subject("im2col", "loop", "conv1", Pass.FORWARD)


def question(log, error, *, rounds=8, fails_above=0.01, holds_under=0.05, against="version"):
    return Question(
        against,
        SUBJECT,
        "no slower",
        Margins(fails_above, holds_under),
        slowdown=stats.Estimate(log, error, rounds, rounds - 1),
    )


def outcome(*questions, alpha=0.005):
    return [verdict.outcome for verdict in decide(questions, alpha)]


# Decisions


@pytest.mark.parametrize(
    ("percent", "error", "expected"),
    [
        (0.0, 0.003, "holds"),
        (8.0, 0.003, "regressed"),
        (0.0, 0.020, "inconclusive"),
        (8.0, 0.030, "inconclusive"),
        (3.0, 0.0075, "inconclusive"),  # between the two margins
        (-20.0, 0.02, "holds"),  # much faster is not slower
        (0.9, 0.0, "holds"),
        (1.1, 0.0, "regressed"),
    ],
)
def test_a_slowdown_is_judged_by_two_margins(percent, error, expected):
    assert outcome(question(math.log1p(percent / 100), error)) == [expected]


def test_the_bounds_are_those_of_students_t():
    (verdict,) = decide([question(0.03, 0.01)], 0.005)
    t = stats.t_quantile(0.995, 7)
    assert math.log(verdict.evidence.lower_bound) == pytest.approx(0.03 - t * 0.01)
    assert math.log(verdict.evidence.upper_bound) == pytest.approx(0.03 + t * 0.01)
    assert verdict.evidence.alpha == 0.005


@given(st.lists(st.tuples(st.floats(-0.1, 0.2), st.floats(1e-3, 0.05)), min_size=1, max_size=30))
def test_regressions_are_those_that_holm_rejects(pairs):
    questions = [question(log, error) for log, error in pairs]
    p_values = [q.slowdown.p_above(math.log1p(0.01)) for q in questions]
    rejected = _rejected_by_holm(p_values, 0.005)
    verdicts = decide(questions, 0.005)
    for p, reject, verdict in zip(p_values, rejected, verdicts, strict=True):
        if all(abs(p - 0.005 / k) > 1e-9 for k in range(1, len(pairs) + 1)):
            assert (verdict.outcome == "regressed") == reject
            assert (verdict.evidence.lower_bound > 1.01) == reject


def _rejected_by_holm(p_values, alpha):
    """Reject as Holm's paper states it: in order of the p-values, until one is too large."""
    rejected = [False] * len(p_values)
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[index] > alpha / (len(p_values) - rank):
            break
        rejected[index] = True
    return rejected


def test_more_rules_need_more_evidence():
    one = question(math.log(1.05), 0.010)
    clean = [question(0.0, 0.003)] * 26
    assert outcome(one) == ["regressed"]
    assert outcome(one, *clean)[0] == "inconclusive"


def test_too_few_rounds_claim_nothing():
    (verdict,) = decide([question(1.0, 0.001, rounds=4)], 0.005)
    assert (verdict.outcome, verdict.evidence) == ("inconclusive", None)
    assert "4 of at least 5 rounds" in verdict.reason
    assert not gate.is_open(verdict)  # more rounds of the same effort would not help


def test_an_unreliable_run_judges_no_time():
    timed = replace(question(1.0, 0.001), distrust="twins")
    counted = Question("floor", SUBJECT, "at most", Margins(0, 0), settled="regressed")
    assert outcome(timed, replace(counted, distrust="twins")) == ["unreliable", "regressed"]


def test_the_minimum_detectable_effect_is_detected_nine_times_of_ten():
    draw = np.random.default_rng(5)
    s, rounds = 0.012, 8
    base = decide([question(0.0, s / math.sqrt(rounds), rounds=rounds)], 0.005)
    effect = math.log(base[0].evidence.minimum_detectable)
    found = 0
    for _ in range(2000):
        estimate = stats.estimate(draw.normal(effect, s, rounds).tolist())
        found += outcome(replace(question(0, 0), slowdown=estimate)) == ["regressed"]
    # Each run estimates its error anew, which costs a little power.
    assert 0.84 < found / 2000 < 0.95


# Looks


def _verdict(found, evidence=True):
    made = decide([question(0.0, 0.01)], 0.005)[0]
    return replace(made, outcome=found, evidence=made.evidence if evidence else None)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("holds", "inconclusive", "holds"),
        ("holds", "regressed", "regressed"),
        ("regressed", "holds", "regressed"),
        ("inconclusive", "holds", "holds"),
        ("inconclusive", "inconclusive", "inconclusive"),
        ("holds", "unreliable", "unreliable"),
        ("incomparable", "incomparable", "incomparable"),
    ],
)
def test_the_verdict_after_two_looks_follows_from_both(first, second, expected):
    (verdict,) = gate.after_second_look([_verdict(first)], [_verdict(second)])
    assert verdict.outcome == expected


def test_the_looks_share_the_false_alarms():
    assert gate.look_alpha(gate.LOOKS) * gate.LOOKS == gate.ALPHA == 0.01


# Exit codes

OUTCOMES = ("regressed", "holds", "inconclusive", "unreliable", "incomparable")


@pytest.mark.parametrize("pair", list(itertools.product(OUTCOMES, OUTCOMES)))
@pytest.mark.parametrize("policy", [None, "pass", "fail"])
@pytest.mark.parametrize("against", ["floor", "baseline", "version"])
def test_all_verdicts_together_give_one_exit_code(pair, policy, against):
    verdicts = [Verdict(question(0, 0, against=against), o) for o in pair]
    fails_if_open = policy == "fail" or (policy is None and against == "floor")
    expected = (
        ExitCode.INCOMPARABLE
        if "incomparable" in pair
        else ExitCode.GATE_FAILED
        if "regressed" in pair
        else ExitCode.INCONCLUSIVE
        if "unreliable" in pair or ("inconclusive" in pair and fails_if_open)
        else ExitCode.FINE
    )
    assert gate.exit_code(verdicts, policy, any_wrong=False) is expected
    assert gate.exit_code(verdicts, policy, any_wrong=True) is ExitCode.WRONG


# The questions


def verdict_of(saved_, terms, layer="conv1", pass_=FORWARD, versus="loop"):
    (found,) = [
        v
        for v in terms.verdicts(saved_, 0.01)
        if v.question.subject == Subject("im2col", versus, layer, pass_)
    ]
    return found


def test_every_quantity_has_words_and_a_unit():
    assert [*QUANTITIES] == [*get_args(Quantity)]
    assert all(Kind(said.written) for said in QUANTITIES.values())


@pytest.mark.parametrize(("at_least", "expected"), [(100, "holds"), (300, "regressed")])
def test_a_floor_judges_each_cell(at_least, expected):
    terms = Terms(rules=(Rule("im2col", "loop", FORWARD, "conv1", at_least=float(at_least)),))
    found = verdict_of(saved(), terms)
    assert found.outcome == expected
    ratio = summary.speedup_over(
        saved().result, saved().benchmarks, ("conv1", FORWARD, "im2col", "loop")
    )
    assert found.question.found == pytest.approx(ratio.estimate.value)
    assert found.evidence.estimate == pytest.approx(at_least / ratio.estimate.value)


def test_a_floor_leaves_no_room_below_it():
    """A speedup 3 % under the floor fails unless a tolerance is given. A baseline lets it pass."""
    speedup = summary.speedups(saved().result, saved().benchmarks)[
        "conv1", FORWARD, "im2col", "loop"
    ].estimate.value
    rule = Rule("im2col", "loop", FORWARD, "conv1", at_least=speedup * 1.03)
    assert verdict_of(saved(noise=0.001), Terms(rules=(rule,))).outcome == "regressed"
    assert verdict_of(saved(noise=0.001), Terms(rules=(rule,), tolerance=0.1)).outcome == "holds"


def test_a_floor_can_be_over_any_implementation():
    rule = Rule("im2col", "keras-graph", FORWARD, "conv1", at_least=0.5)
    assert verdict_of(saved(), Terms(rules=(rule,)), versus="keras-graph").outcome == "holds"


def test_a_floor_of_the_geometric_mean_is_one_question():
    rule = Rule("im2col", "loop", of="geometric_mean", at_least=100.0)
    (found,) = Terms(rules=(rule,)).verdicts(saved(), 0.01)
    logs = [
        math.log(r.estimate.value)
        for key, r in summary.speedups(saved().result, saved().benchmarks).items()
        if key[2:] == ("im2col", "loop")
    ]
    assert math.log(found.question.found) == pytest.approx(sum(logs) / len(logs))


def test_a_mean_that_lacks_a_cell_of_its_rule_is_inconclusive():
    rule = Rule("im2col", "loop", of="geometric_mean", at_least=1.0)
    (found,) = Terms(rules=(rule,)).verdicts(some_not_right(), 0.01)
    assert found.outcome == "inconclusive"
    assert found.reason == "1 of 3 speedups were not measured"


def test_unsupported_cells_are_not_asked_about():
    rule = Rule("im2col", "loop", FORWARD, at_least=1.0)
    layers = {v.question.subject.layer for v in Terms(rules=(rule,)).verdicts(some_not_right(), 1)}
    assert "conv2" not in layers
    only = Rule("im2col", "loop", FORWARD, "conv2", at_least=1.0)
    (found,) = Terms(rules=(only,)).verdicts(some_not_right(), 0.01)
    assert (found.outcome, found.reason) == (
        "inconclusive",
        "nothing of this run matches the rule",
    )


def test_a_skipped_cell_leaves_its_floor_open():
    rule = Rule("im2col", "loop", KERNEL, at_least=1.0)
    (found,) = Terms(rules=(rule,)).verdicts(some_not_right(), 0.01)
    assert found.outcome == "inconclusive"
    assert found.reason == "the cell is skipped: the budget of 9 s"


@pytest.mark.parametrize(("limit", "expected"), [(2**20, "holds"), (1000, "regressed")])
def test_memory_is_judged_by_counting_even_in_an_unreliable_run(limit, expected):
    rule = Rule("im2col", layer="conv1", pass_=FORWARD, at_most_bytes=limit)
    (found,) = Terms(rules=(rule,)).verdicts(with_twin(saved(), 2.0), 0.01)
    assert (found.outcome, found.evidence) == (expected, None)


def test_a_floor_can_be_a_percentage_of_the_peak():
    rule = Rule("im2col", layer="conv1", pass_=FORWARD, per_cent_of_peak=50)
    (found,) = Terms(rules=(rule,)).verdicts(saved(), 0.01)
    cell = next(c for c in saved().result.cells if c.implementation == "im2col")
    assert found.question.found == pytest.approx(cell.work.fraction_of_peak)
    assert found.outcome == "regressed"


def test_a_baseline_takes_the_deviation_between_sessions_into_account():
    old, new = saved(), slower()
    for deviation, expected in ((0.02, "regressed"), (0.2, "inconclusive")):
        terms = Terms(baseline=old, deviations=Deviations(speedup=deviation))
        found = verdict_of(new, terms)
        assert found.outcome == expected
        before = summary.speedups(old.result, old.benchmarks)
        now = summary.speedups(new.result, new.benchmarks)
        key = ("conv1", FORWARD, "im2col", "loop")
        errors = (before[key].estimate.error, now[key].estimate.error, deviation)
        assert found.question.slowdown.error == pytest.approx(math.hypot(*errors))
        assert found.evidence.estimate == pytest.approx(
            before[key].estimate.value / now[key].estimate.value
        )


def test_a_baseline_judges_own_code_and_not_the_yardsticks():
    subjects = {v.question.subject.implementation for v in _against(saved())}
    assert subjects == {"im2col", MINE}
    only_keras = {key: ms for key, ms in TIMES.items() if "keras" in key[2]}
    subjects = {v.question.subject.implementation for v in _against(saved(only_keras))}
    assert subjects == {"keras", "keras-graph"} or subjects == {"keras"}


def _against(old, new=None, **terms):
    return Terms(baseline=old, **terms).verdicts(new or old, 0.01)


def test_another_machine_is_incomparable_unless_allowed():
    moved = saved(threads=2)
    assert {v.outcome for v in _against(saved(), moved)} == {"incomparable"}
    assert {v.reason for v in _against(saved(), moved)} == {"threads: 4 then, 2 now"}
    allowed = _against(saved(), moved, allow_different_machine=True)
    assert {v.outcome for v in allowed} == {"inconclusive"}  # the wider bounds tell nothing
    assert min(v.question.slowdown.error for v in allowed) > 0.1


def test_another_convolution_of_the_same_name_is_incomparable():
    changed = (*saved().result.suite.layers[:1], replace(CONV2, filters=32))
    layers = (*changed, saved().result.suite.layers[2])
    found = _against(saved(), saved(layers=layers))
    outcomes = {v.question.subject.layer: v.outcome for v in found}
    assert outcomes["conv2"] == "incomparable"
    assert outcomes["conv1"] != "incomparable"


def test_a_cell_that_was_not_measured_again_is_open_with_its_reason():
    found = _against(saved(), some_not_right())
    (skipped,) = [
        v
        for v in found
        if v.question.subject == Subject("im2col", "loop", "conv1", Pass.KERNEL_GRADIENT)
    ]
    assert skipped.outcome == "inconclusive"
    assert skipped.reason == "the cell is skipped now: the budget of 9 s"


def test_an_unreliable_baseline_makes_all_unreliable():
    found = _against(with_twin(saved(), 1.5), saved())
    assert {v.outcome for v in found} == {"unreliable"}
    assert "in the baseline" in found[0].reason


def test_a_twin_that_differs_makes_all_unreliable():
    rules = (Rule("im2col", "loop", FORWARD, at_least=1.0),)
    assert {v.outcome for v in Terms(rules=rules).verdicts(saved(), 0.01)} == {"holds"}
    found = Terms(rules=rules).verdicts(with_twin(saved(), 1.5), 0.01)
    assert {v.outcome for v in found} == {"unreliable"}
    assert "conv1/forward/im2col (1.500)" in found[0].reason


@pytest.mark.parametrize(("factor", "expected"), [(1.0, "holds"), (1.1, "regressed")])
def test_another_version_regresses_only_where_it_is_slower(factor, expected):
    found = Terms(versions=(MINE, OLD_VERSION)).verdicts(versions(factor, noise=0.004), 0.005)
    outcomes = {(v.question.subject.layer, v.question.subject.pass_): v.outcome for v in found}
    assert outcomes["conv1", FORWARD] == expected
    assert outcomes["conv2", FORWARD] == "holds"


def test_versions_are_compared_by_their_quickest_samples():
    """A neighbour that slows three quarters of an arm's samples does not make the arm slower."""
    both = versions(1.0, noise=0.002)
    name = f"conv1/forward/{MINE}"
    disturbed = tuple(
        replace(run, values=(*(v * 1.6 for v in run.values[:-1]), run.values[-1]))
        for run in both.benchmarks[name]
    )
    both = again(replace(both, benchmarks={**both.benchmarks, name: disturbed}))
    found = Terms(versions=(MINE, OLD_VERSION)).verdicts(both, 0.005)
    assert {v.outcome for v in found} == {"holds"}


def test_a_version_that_is_wrong_is_not_judged():
    both = with_cells(
        versions(1.0),
        replace(versions(1.0).result.cells[1], status="wrong", reason="all zeros"),
    )
    found = Terms(versions=(MINE, OLD_VERSION)).verdicts(both, 0.005)
    assert found[0].outcome == "inconclusive"
    assert found[0].reason == f"{OLD_VERSION} is wrong: all zeros"
    assert gate.exit_code(found, None, any_wrong=False) is ExitCode.FINE
    # A gate that passes where nothing at all can be compared would pass for ever.
    assert gate.exit_code(found[:1], None, any_wrong=False) is ExitCode.INCONCLUSIVE


# A simulation of a bad machine


class Simulation:
    """Two versions and a twin on a machine with drift, bursts and layout effects.

    Every round has processes of its own, whose layout makes each a little slower or faster; the
    whole machine drifts; a neighbour comes and goes, and slows whatever runs meanwhile.
    """

    BLOCKS = 32
    ARMS = (MINE, OLD_VERSION, f"{MINE}#twin")

    def __init__(self, seed, *, slowdown=0.0, busy=0.25, layout=0.008):
        self.draw = np.random.default_rng(seed)
        self.factors = np.array([1 + slowdown, 1.0, 1 + slowdown])
        self.busy, self.layout = busy, layout
        self.template = versions(1.0)
        layer = self.template.result.suite.layers[0]
        suite = replace(self.template.result.suite, layers=(layer,))
        cells = tuple(
            c for c in self.template.result.cells if (c.layer, c.pass_) == (layer.name, FORWARD)
        )
        result = replace(self.template.result, suite=suite, cells=cells)
        self.template = replace(self.template, result=result)

    def round(self, number):
        draw, shape = self.draw, (self.BLOCKS, len(self.ARMS))
        layout = draw.normal(0, self.layout, len(self.ARMS))
        drift = np.cumsum(draw.normal(0, 0.004, self.BLOCKS))[:, None]
        jitter = np.abs(draw.normal(0, 0.01, shape))
        disturbed = self._bursts(self.BLOCKS * len(self.ARMS)).reshape(shape)
        logs = layout + drift + jitter + disturbed
        times = 3e-4 * self.factors * np.exp(logs)
        return {
            f"conv1/forward/{arm}": RoundSamples(
                number, (0,) * self.BLOCKS, 8, tuple(times[:, i].tolist()), (), {}
            )
            for i, arm in enumerate(self.ARMS)
        }

    def _bursts(self, samples):
        """Draw slow phases of about ten samples, in which everything takes up to twice as long."""
        slow = np.zeros(samples)
        at = 0
        while at < samples:
            quiet = self.draw.exponential(10 * (1 - self.busy) / self.busy)
            length = self.draw.exponential(10)
            begin, at = int(at + quiet), int(at + quiet + length) + 1
            slow[begin:at] = self.draw.uniform(0.1, 0.7)
        return slow

    def verdict(self):
        """Return what the gate says after one look or two, as schedule.run_and_judge takes them."""
        first, second = (gate.decide([q], gate.look_alpha()) for q in self.questions())
        last = gate.after_second_look(first, second) if any(map(gate.is_open, first)) else first
        return last[0].outcome

    def questions(self):
        """Return the questions asked after 8 rounds and after 24."""
        rounds = [self.round(number) for number in range(1, 8 * gate.SECOND_LOOK + 1)]
        return [self._asked(rounds[:8]), self._asked(rounds)]

    def _asked(self, rounds):
        benchmarks = {name: tuple(r[name] for r in rounds) for name in rounds[0]}
        at_look = again(replace(self.template, benchmarks=benchmarks))
        (question,) = Terms(versions=(MINE, OLD_VERSION)).questions(at_look)
        return question


def _outcomes(number, **machine):
    simulation = Simulation(11, **machine)
    found = [simulation.verdict() for _ in range(number)]
    return {o: found.count(o) / number for o in OUTCOMES}


def test_false_alarms_of_a_bad_machine_are_rare():
    found = _outcomes(150)
    assert found["regressed"] <= 0.01
    assert found["holds"] > 0.93


@pytest.mark.slow
def test_false_alarms_of_a_bad_machine_stay_below_one_per_cent():
    found = _outcomes(4000)
    assert stats.proportion_upper(round(found["regressed"] * 4000), 4000) < 0.01
    assert found["holds"] > 0.95


@pytest.mark.parametrize("runs", [125, pytest.param(500, marks=pytest.mark.slow)])
def test_false_alarms_beside_a_busy_neighbour_are_rare(runs):
    found = _outcomes(runs, busy=0.6, layout=0.015)
    assert found["regressed"] <= 2 / runs


@pytest.mark.slow
@pytest.mark.parametrize(("slowdown", "power"), [(0.05, 0.95), (0.10, 0.99)])
def test_slowdowns_are_found(slowdown, power):
    found = _outcomes(400, slowdown=slowdown)
    assert found["regressed"] >= power
    assert found["holds"] == 0


@pytest.mark.parametrize(
    ("jobs", "least_found"), [(8, 6), pytest.param(150, 143, marks=pytest.mark.slow)]
)
def test_a_job_of_27_rules_finds_one_slowdown_without_false_alarms(jobs, least_found):
    """The whole job raises no false alarm, and yet a slowdown of one rule is found."""
    clean, slowed = Simulation(5), Simulation(6, slowdown=0.05)
    alarms = found = 0
    for _ in range(jobs):
        first, second = zip(*(sim.questions() for sim in [slowed] + [clean] * 27), strict=True)
        for job, counts in ((slice(1, 28), "alarms"), (slice(0, 27), "found")):
            looks = [gate.decide(q[job], gate.look_alpha()) for q in (first, second)]
            outcomes = [v.outcome for v in gate.after_second_look(*looks)]
            if counts == "alarms":
                alarms += "regressed" in outcomes
            else:
                found += outcomes[0] == "regressed"
    assert alarms == 0
    assert found >= least_found


def test_a_fixed_threshold_fails_in_the_simulation():
    """Comparing medians with a fixed threshold of 2 % cries wolf on this machine."""
    simulation = Simulation(11)
    alarms = 0
    for number in range(200):
        new, old = (
            np.median(simulation.round(number)[f"conv1/forward/{arm}"].values)
            for arm in (MINE, OLD_VERSION)
        )
        alarms += new / old > 1.02
    assert alarms > 20


# The report


def view(name, how):
    made, saved_ = judgement(name)
    told = report(made, saved_.result)
    if how.isdigit():
        stream = io.StringIO()
        console = Console(file=stream, force_terminal=True, width=int(how), color_system=None)
        print_report(told, console)
        return re.sub(r"\x1b\[[\d;]*m", "", stream.getvalue())
    return render(told, how if how in FORMAT_NAMES else format_of(f"gate.{how}"))


FORMAT_NAMES = ("github", "junit", "customSmallerIsBetter")
SUFFIXES = {"github": "github.md", "junit": "xml", "customSmallerIsBetter": "smaller.json"}


def golden(name, how):
    suffix = f"at{how}.txt" if how.isdigit() else SUFFIXES.get(how, how)
    return GOLDEN / f"{name}.{suffix}"


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.mark.parametrize(("name", "how"), [(n, how) for n in NAMES for how in VIEWS[n]])
def test_reports_match_their_golden_files(name, how):
    found, file = view(name, how), golden(name, how)
    if os.environ.get("CONVBENCH_REWRITE_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(found, encoding="utf-8")
    assert found == file.read_text(encoding="utf-8")


def test_no_golden_file_is_left_over():
    expected = {golden(name, how) for name, hows in VIEWS.items() for how in hows}
    assert set(GOLDEN.iterdir()) == expected


@pytest.mark.parametrize("name", NAMES)
def test_a_terminal_of_80_columns_is_enough(name):
    assert max(map(len, view(name, "80").splitlines())) <= 80


@pytest.mark.parametrize("name", NAMES)
def test_every_verdict_is_in_every_format(name):
    made, saved_ = judgement(name)
    number = len(made.verdicts)
    wrong = sum(cell.status in ("wrong", "failed") for cell in saved_.result.cells)
    assert len(json.loads(view(name, "json"))["verdicts"]) == number
    assert len(view(name, "csv").splitlines()) == number + 1
    assert view(name, "junit").count("<testcase") == number + wrong
    for found in {v.outcome for v in made.verdicts}:
        assert found in view(name, "txt")


@settings(max_examples=15, deadline=None)
@given(st.floats(0.5, 2.0))
def test_a_faster_machine_changes_no_verdict(factor):
    """Speedups are ratios, which one factor on all times leaves unchanged."""
    old = saved()
    new = saved(
        scaled(TIMES, **dict.fromkeys(("loop", "im2col", "keras", "keras_graph"), factor)), seed=2
    )
    same = saved(seed=2)
    tight = Deviations(speedup=0.004, time=0.008, degrees=20)
    outcomes = [
        [
            v.outcome
            for v in Terms(baseline=old, deviations=tight).verdicts(n, 0.01)
            if v.question.subject.implementation == "im2col"
        ]
        for n in (new, same)
    ]
    assert outcomes[0] == outcomes[1]
