"""Test the benchmark of precision: verdicts, tables and resuming, on answers made by hand.

CONVBENCH_REWRITE_GOLDEN=1 pytest tests/test_precision_benchmark.py writes the golden file anew:
read the diff. Nothing is timed.
"""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from convbench.agreement.check.oracle import expected
from convbench.errors import ExitCode, ResultError
from convbench.machine import description as machine
from convbench.problem.layer import Pass
from convbench.problem.operands import exact_integers
from convbench.results import stats
from convbench.suites.file import read_suite

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden" / "precision" / "campaign.txt"
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "benchmarks" / "pairs")]

import loop  # noqa: E402
import precision  # noqa: E402
import precision_tables as tables  # noqa: E402
import precision_tools as tools  # noqa: E402
from precision_answers import (  # noqa: E402
    PAIRS,
    PRECISIONS,
    Answer,
    Campaign,
    Finding,
    Question,
    Setting,
    load,
    questions,
    save,
)

SETTING = Setting(
    cpu="AMD EPYC 7763 64-Core Processor",
    cores=2,
    logical_cpus=2,
    isa=("avx2", "fma"),
    threads=2,
    ceilings_s={"numpy": 60.0, "keras": 180.0, "numpy-keras": 180.0},
    versions={"convbench": "0.1.0", "python": "3.11.7", "numpy": "2.4.6", "pyperf": "2.10.0"},
)


def answer(
    tool: str,
    seconds: float,
    ratio: float | None = 1.0,
    half_width: float = 0.02,
    precision: float = 0.02,
    repetition: int = 0,
    pair: str = "numpy",
) -> Answer:
    """Make an answer with an interval symmetric in logs, or without one if `ratio` is None."""
    finding = None if ratio is None else Finding.of_logs(math.log(ratio), half_width, "")
    question = Question(pair, tool, precision, repetition)
    return Answer(question, seconds, finding, "2026-11-27T12:00:00+00:00")


def answers(
    tool: str, seconds: float, count: int = 20, wrong: int = 0, pair: str = "numpy", **of: float
) -> Iterator[Answer]:
    """Yield answers to 5, 3 and 2 %; narrower ones take longer.

    The first `wrong` answers of each precision are wrong by a factor `off`, by default 1.1.
    """
    centre = of.get("ratio", 1.0)
    for half_width in PRECISIONS:
        for repetition in range(count):
            off = of.get("off", 1.1) if repetition < wrong else 1.001
            takes_s = seconds * 0.05 / half_width * (1 + repetition / 100)
            yield answer(
                tool, takes_s, centre * off, half_width * 0.9, half_width, repetition, pair
            )


def standing(tool: str, given: Sequence[Answer], pair: str = "numpy") -> tables.Standing:
    """Return the standing of one tool among all that answered."""
    (found,) = [s for s in tables.standings(PAIRS[pair], given, 60.0) if s.tool == tool]
    return found


# Answers


def test_an_answer_is_there_when_its_interval_is_narrow_enough_in_time() -> None:
    assert answer("pyperf", 59, half_width=0.02).is_there(60)
    assert not answer("pyperf", 61, half_width=0.02).is_there(60)
    assert not answer("pyperf", 59, half_width=0.0201).is_there(60)
    assert not answer("pyperf", 1, None).is_there(60)


def test_every_way_to_stop_at_a_half_width_counts_as_there() -> None:
    for low, high in ((0.97, 1.03), (1 / 1.03, 1.03), (math.exp(-0.03), math.exp(0.03))):
        finding = Finding(1.0, low, high)
        assert Answer(Question("numpy", "pyperf", 0.03, 0), 1.0, finding, "").is_there(60)


def test_an_interval_misses_a_ratio_that_lies_outside_it() -> None:
    assert not Finding(1.01, 0.99, 1.03).misses(1.0)
    assert Finding(1.02, 1.001, 1.04).misses(1.0)
    assert Finding(0.98, 0.96, 0.999).misses(1.0)


# Verdicts


def test_wrong_answers_are_counted_whatever_their_width() -> None:
    given = [
        answer("pyperf", 5, 1.01),
        answer("pyperf", 5, 1.03),
        answer("pyperf", 70, 1.3, half_width=0.1),  # neither narrow enough in time nor right
        answer("pyperf", 70, None),
    ]
    found = standing("pyperf", given)
    assert (found.asked, found.there, found.judged, found.wrong) == (4, 2, 3, 2)
    assert found.wrong_at_most == stats.proportion_upper(2, 3)
    assert found.off == pytest.approx(0.3)


def test_the_median_is_beyond_the_ceiling_where_half_do_not_get_there() -> None:
    there, not_there = answer("pyperf", 5), answer("pyperf", 70)
    assert standing("pyperf", [there, there, not_there]).seconds == {0.02: 5}
    assert standing("pyperf", [there, not_there]).seconds == {0.02: math.inf}


@pytest.mark.parametrize(
    ("tool", "wrong", "is_right"),
    [
        ("pyperf", 5, True),  # 5 of 100 are what 95 % allows
        ("pyperf", 9, True),  # chance does this once in 16 times
        ("pyperf", 10, False),
        ("convbench", 1, True),
        ("convbench", 3, True),
        ("convbench", 4, False),
    ],
)
def test_a_tool_is_right_if_chance_can_explain_its_wrong_answers(
    tool: str, wrong: int, is_right: bool
) -> None:
    given = [answer(tool, 5, 1.1 if i < wrong else 1.0, repetition=i) for i in range(100)]
    assert standing(tool, given).is_right is is_right
    allowed = 1 - tools.TOOLS[tool].confidence
    by_chance = sum(
        math.comb(100, k) * allowed**k * (1 - allowed) ** (100 - k) for k in range(wrong, 101)
    )
    assert (by_chance >= tables.ALPHA) is is_right


def test_places_go_by_time_among_the_tools_that_are_right() -> None:
    given = [
        *answers("pytest-benchmark", 1, wrong=15),
        *answers("convbench", 9),
        *answers("pyperf", 25),  # takes 62 s to 2 %, beyond the ceiling
        *answers("plain loop", 5),
    ]
    found = tables.standings(PAIRS["numpy"], given, 60.0)
    assert [(s.tool, s.place) for s in found] == [
        ("plain loop", 1),
        ("convbench", 2),
        ("pyperf", 3),
        ("pytest-benchmark", None),
    ]
    assert found[2].seconds[0.02] == math.inf
    assert found[3].order < found[0].order


def test_a_tool_that_never_gets_there_or_has_few_answers_has_no_place() -> None:
    given = [*answers("pyperf", 70), *answers("convbench", 9, count=6)]
    assert [s.place for s in tables.standings(PAIRS["numpy"], given, 60.0)] == [None, None]
    words = tables.as_text(tables.report(Campaign(SETTING, tuple(given))))
    assert "too few answers of convbench to tell (18)" in words


def test_each_tool_is_held_against_the_others_where_the_ratio_is_unknown() -> None:
    pair = "numpy-keras"
    given = [
        answer("convbench", 9, 2.0, pair=pair),
        answer("pyperf", 9, 2.02, pair=pair),
        answer("pyperf", 9, 2.06, pair=pair),
        answer("plain loop", 9, 3.0, pair=pair),
        answer("plain loop", 9, None, pair=pair),
    ]
    without_pyperf = tables.consensus(given, without="pyperf")
    assert without_pyperf == pytest.approx(math.sqrt(2.0 * 3.0))
    assert tables.consensus(given, without="plain loop") == pytest.approx(
        math.sqrt(2.0 * math.sqrt(2.02 * 2.06))
    )
    assert standing("plain loop", given, pair).wrong == 1
    # The interval of convbench misses the consensus of pyperf and the plain loop.
    assert standing("convbench", given, pair).wrong == 1
    (alone,) = tables.standings(PAIRS[pair], given[:1], 60.0)
    assert (alone.judged, alone.wrong, alone.off) == (0, 0, None)


# The table


def test_the_report_matches_its_golden_file() -> None:
    given = (
        *answers("convbench", 9.2),
        *answers("pyperf", 26.5, wrong=2),
        *answers("pytest-benchmark", 3.4, wrong=14, off=0.82),
        *answers("plain loop", 4.1, wrong=6),
        *answers("loop in turns", 2.3, count=6),
        *answers("convbench", 41, pair="numpy-keras", ratio=0.74),
        *answers("pyperf", 90, pair="numpy-keras", ratio=0.76),
        *answers("plain loop", 12, pair="numpy-keras", ratio=0.745),
        answer("plain loop", 360, None, pair="numpy-keras", repetition=20),
    )
    given = (*given, replace(given[-1], started="2026-11-29T01:00:00+00:00"))
    remarks = ["left out: pytest-benchmark: not installed (pip install '.[benchmarks]')"]
    shown = tables.as_text(tables.report(Campaign(SETTING, given), remarks))
    assert max(map(len, shown.splitlines())) <= tables.WIDTH
    if os.environ.get("CONVBENCH_REWRITE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(shown)
    assert shown == GOLDEN.read_text()


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        ([*answers("convbench", 9)], [*answers("plain loop", 12)], "is in first place: met"),
        ([*answers("convbench", 9)], [*answers("plain loop", 5)], "2, behind plain loop: MISSED"),
        ([*answers("convbench", 9, wrong=9)], [], "convbench is not right: MISSED"),
        ([*answers("convbench", 99)], [], "convbench does not get there: MISSED"),
        ([], [*answers("plain loop", 12)], "convbench was not asked"),
    ],
)
def test_the_report_says_whether_the_goal_is_met_or_missed(
    ours: list[Answer], theirs: list[Answer], words: str
) -> None:
    campaign = Campaign(SETTING, (*ours, *theirs))
    assert words in tables.as_text(tables.report(campaign))


def test_a_campaign_without_answers_is_shown_as_such() -> None:
    shown = tables.as_text(tables.report(Campaign(SETTING)))
    assert "no answers yet" in shown


# The campaign


def test_questions_come_in_a_random_order_that_is_the_same_each_time() -> None:
    of = (["numpy", "keras"], list(tools.TOOLS), PRECISIONS, {"numpy": 3, "keras": 1})
    asked = list(questions(*of))
    assert asked == list(questions(*of))
    assert len(asked) == len(set(asked)) == (3 + 1) * 15
    assert [q.repetition for q in asked] == sorted(q.repetition for q in asked)
    first, second = (
        [(q.tool, q.precision) for q in asked if (q.pair, q.repetition) == ("numpy", repetition)]
        for repetition in (0, 1)
    )
    assert first != second
    assert sorted(first) == sorted(second)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Question]:
    """Every question that a tool was asked. The fixture makes each tool answer at once."""
    found: list[Question] = []

    def ask(question: Question, setting: Setting) -> Answer:
        found.append(question)
        return Answer(question, 1.0, Finding(1.0, 0.99, 1.01, "made up"), "2026-11-27T12:00:00")

    monkeypatch.setattr(precision, "ask", ask)
    monkeypatch.setattr(precision, "missing", lambda names: {})
    return found


def start(monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    """Run the command, with one pair and two tools unless the options say otherwise."""
    few = ["--pairs", "numpy", "--tools", "pyperf,plain loop", "--repetitions", "2"]
    monkeypatch.setattr(sys, "argv", ["precision.py", *few, *options])
    precision.main()


def test_a_campaign_goes_on_where_it_was_stopped(
    asked: list[Question], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "precision.json"
    start(monkeypatch, "-o", str(path), "--minutes", "1e-9")
    assert asked == []
    start(monkeypatch, "--resume", str(path), "--precisions", "5%")
    assert {(q.tool, q.precision) for q in asked} == {("pyperf", 0.05), ("plain loop", 0.05)}
    assert len(asked) == 4
    start(monkeypatch, "--resume", str(path))
    assert len(asked) == len(set(asked)) == 12
    assert [each.question for each in load(path).answers] == asked


def test_answers_from_before_a_tool_fails_are_kept(
    asked: list[Question], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "precision.json"
    answering = precision.ask

    def fail_at_third(question: Question, setting: Setting) -> Answer:
        if len(asked) == 2:
            raise tools.ToolError("python -m pyperf: exit code 1")
        return answering(question, setting)

    monkeypatch.setattr(precision, "ask", fail_at_third)
    with pytest.raises(SystemExit, match="pyperf: exit code 1"):
        start(monkeypatch, "-o", str(path))
    assert len(load(path).answers) == 2


def test_an_existing_file_is_not_overwritten(
    asked: list[Question], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "precision.json"
    start(monkeypatch, "-o", str(path))
    with pytest.raises(SystemExit, match="exists: go on with it by --resume"):
        start(monkeypatch, "-o", str(path))
    assert len(asked) == 12


def test_answers_of_two_cpus_are_not_mixed(
    asked: list[Question], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "precision.json"
    start(monkeypatch, "-o", str(path), "--minutes", "1e-9")
    here = machine.fingerprint()
    monkeypatch.setattr(machine, "fingerprint", lambda: replace(here, cpu="another"))
    with pytest.raises(ResultError, match=f"cpu: {here.cpu} then, another now") as error:
        load(path).check_here()
    assert error.value.exit_code is ExitCode.INCOMPARABLE
    with pytest.raises(SystemExit, match="cannot go on here"):
        start(monkeypatch, "--resume", str(path))
    assert asked == []


def test_a_file_keeps_its_threads_and_ceilings(
    asked: list[Question], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "precision.json"
    start(monkeypatch, "-o", str(path), "--threads", "1", "--ceiling", "20")
    campaign = load(path)
    assert campaign.setting.threads == 1
    assert set(campaign.setting.ceilings_s.values()) == {20.0}
    campaign.check_here()
    with pytest.raises(SystemExit, match="2"):
        start(monkeypatch, "--resume", str(path), "--threads", "2")


def test_a_file_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    campaign = Campaign(SETTING, (*answers("pyperf", 7), answer("plain loop", 9, None)))
    path = tmp_path / "precision.json"
    save(path, campaign)
    assert load(path) == campaign
    path.write_text('{"schema": "convbench-noise/1"}')
    with pytest.raises(ResultError, match=r"is no campaign of precision\.py: setting"):
        load(path)
    with pytest.raises(ResultError, match="cannot be read"):
        load(tmp_path / "none.json")
    save(path, replace(campaign, schema="convbench-precision/2"))
    with pytest.raises(ResultError, match="expected 'convbench-precision/1'"):
        load(path)


def test_saved_answers_are_shown_without_asking(tmp_path: Path) -> None:
    path = tmp_path / "precision.json"
    save(path, Campaign(SETTING, tuple(answers("pyperf", 7))))
    command = [sys.executable, "benchmarks/precision.py", "--from", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert "numpy_conv.py against a copy of itself" in done.stdout


@pytest.mark.parametrize("option", ["--pairs", "--tools", "--precisions"])
def test_unknown_names_are_refused(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="2"):
        start(monkeypatch, option, "nonsense")


def test_tools_that_are_not_installed_are_left_out_with_a_remark(
    asked: list[Question],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tools, "find_spec", lambda module: None)
    monkeypatch.setattr(tools, "_has_precision", lambda: False)
    found = tools.missing(["convbench", "pyperf", "plain loop"])
    assert set(found) == {"convbench", "pyperf"}
    monkeypatch.setattr(precision, "missing", lambda names: {"pyperf": "not installed"})
    start(monkeypatch, "-o", str(tmp_path / "precision.json"))
    assert {question.tool for question in asked} == {"plain loop"}
    assert "left out: pyperf: not installed" in capsys.readouterr().out


# The tools


def request(folder: Path, ceiling_s: float = 60.0) -> tools.Request:
    """Make a request whose processes have this process's environment variables."""
    return tools.Request(folder, 0.03, ceiling_s, 2, tools.environment(os.environ, 2))


def test_convbench_is_asked_for_the_precision_within_the_ceiling(tmp_path: Path) -> None:
    words = tools.convbench_command(request(tmp_path), tmp_path / "result.json")
    assert words[:4] == ["-m", "convbench", "run", "pair.yaml"]
    options = dict(zip(words[5::2], words[6::2], strict=True))
    assert options == {
        "--precision": "3%",
        "--budget": "60",
        "--threads": "2",
        "-o": str(tmp_path / "result.json"),
    }


def test_the_speedup_of_a_result_file_is_read() -> None:
    entry = {
        "layer": "conv2",
        "pass": "forward",
        "implementation": "b.py:conv",
        "versus": "a.py:conv",
        "chosen": "a.py:conv",
        "ratio": 1.01,
        "ci99": [0.99, 1.03],
        "rounds": 8,
        "reliable": True,
    }

    def read(**changes: object) -> Finding | None:
        return tools.convbench_finding({"convbench": {"speedups": [{**entry, **changes}]}})

    assert read() == Finding(1.01, 0.99, 1.03, "8 rounds")
    unreliable = read(reliable=False)
    assert unreliable is not None
    assert unreliable.said == "8 rounds, not reliable"
    assert read(ci99=None) is None
    assert read(implementation="/tmp/folder/b.py:conv") == read()
    with pytest.raises(tools.ToolError, match=r"compares b\.py with nothing"):
        read(implementation="a.py:conv")


def test_the_interval_of_pyperf_is_that_of_its_own_test() -> None:
    from pyperf._utils import is_significant

    draw = np.random.default_rng(1)
    verdicts = []
    for _ in range(200):
        a, b = draw.normal(1.0, 0.05, (2, 15))
        found = tools.pyperf_finding(a.tolist(), b.tolist())
        assert found.ratio == pytest.approx(a.mean() / b.mean())
        verdicts.append(found.misses(1.0) == is_significant(a.tolist(), b.tolist())[0])
    assert statistics.fmean(verdicts) >= 0.99


def test_values_and_loops_of_a_pyperf_file_are_read(tmp_path: Path) -> None:
    import pyperf

    metadata = {"name": "conv", "loops": 64}
    runs = [
        pyperf.Run([1e-3, 2e-3], warmups=[(64, 9e-3)], metadata=metadata, collect_metadata=False),
        pyperf.Run([3e-3], metadata=metadata, collect_metadata=False),
    ]
    pyperf.Benchmark(runs).dump(str(tmp_path / "a.json"))
    assert tools.pyperf_values(tmp_path / "a.json") == ((1e-3, 2e-3, 3e-3), "64")


def test_the_interval_of_pytest_benchmark_comes_from_its_standard_deviations() -> None:
    def entry(name: str, median: float, stddev: float) -> dict[str, object]:
        stats_ = {"mean": 2.0, "median": median, "stddev": stddev, "rounds": 400}
        return {"name": name, "stats": stats_}

    document = {"benchmarks": [entry("test_b", 1.0, 0.4), entry("test_a", 1.5, 0.3)]}
    found = tools.pytest_finding(document, "max-time 1 s")
    assert found.ratio == pytest.approx(1.5)
    # The standard errors are 0.3 / 20 / 2 and 0.4 / 20 / 2.
    assert found.half_width == pytest.approx(1.963 * 0.0125, rel=1e-3)


def test_more_is_measured_until_the_half_width_is_reached() -> None:
    assert tools.further(12, 0.03, 0.03) == 0
    assert tools.further(12, 0.036, 0.03) == pytest.approx((1.1 * 1.2**2 - 1) * 12)
    assert tools.further(12, 0.30, 0.03) == pytest.approx((tools.LARGEST_STEP - 1) * 12)


def test_the_interval_of_the_median_holds_it_as_often_as_it_says() -> None:
    draw = np.random.default_rng(2)
    held = 0
    for figures in draw.exponential(1.0, (1000, 61)):
        ordered = sorted(figures)
        median, half = loop.median_and_half_width(figures.tolist())
        assert median == ordered[30]
        assert half == max(median - ordered[22], ordered[38] - median)
        held += abs(median - math.log(2)) <= half
    # The interval takes its longer half on both sides, so that it holds the median more often.
    assert 950 <= held <= 990


def test_a_loop_goes_on_until_it_is_narrow_or_the_time_is_over() -> None:
    figures = iter([0.0, 1.0] * 1000)
    assert len(loop.until_narrow(lambda: 0.0, 0.01, 60)) == loop.LEAST_BATCHES
    assert len(loop.until_narrow(lambda: next(figures), 0.01, 0)) == loop.CHECKED_EVERY


def test_a_tool_that_fails_or_does_not_end_raises_an_error(tmp_path: Path) -> None:
    with pytest.raises(tools.ToolError, match=r"exit code 3\nwhy"):
        request(tmp_path).python("-c", "import sys; print('why', file=sys.stderr); sys.exit(3)")
    with pytest.raises(tools.OutOfTimeError):
        request(tmp_path, ceiling_s=0.0).python("-c", "import time; time.sleep(60)")


def test_processes_have_no_pins_and_the_threads_asked_for() -> None:
    given = {"OPENBLAS_CORETYPE": "Haswell", "HOME": "/home", "PYTHONPATH": "/somewhere"}
    found = tools.environment(given, 2)
    assert "OPENBLAS_CORETYPE" not in found
    assert found["HOME"] == "/home"
    assert {found[name] for name in tools.THREAD_CAPS} == {"2"}
    assert found["PYTHONPATH"] == f"{ROOT}:/somewhere"


# The pairs


def test_the_functions_compute_the_layer_of_the_suite(tmp_path: Path) -> None:
    import numpy_conv
    import operands

    tools.prepare(PAIRS["numpy"], tmp_path)
    (layer,) = read_suite(tmp_path / "pair.yaml").layers
    assert operands.x.shape == (layer.batch_size, *layer.input_shape)
    assert operands.kernel.shape == layer.kernel_shape
    assert operands.x.dtype == operands.kernel.dtype == layer.dtype
    drawn = exact_integers(layer, Pass.FORWARD, seed=0)
    found = numpy_conv.conv(drawn.input, drawn.kernel)
    assert np.array_equal(found, expected(layer, Pass.FORWARD, drawn))


def test_every_pair_is_copied_as_a_and_b(tmp_path: Path) -> None:
    for pair in PAIRS.values():
        tools.prepare(pair, tmp_path)
        texts = [(tmp_path / name).read_text() for name in ("a.py", "b.py")]
        assert (texts[0] == texts[1]) == (pair.ratio == 1.0)
    suite = read_suite(tmp_path / "pair.yaml")
    assert suite.implementations == tuple(f"{tmp_path}/{name}.py:conv" for name in "ab")
