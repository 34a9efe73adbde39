"""Test `convbench gate` through the real command line: exit codes, kinds of rules, bad input."""

import json
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import time
import xml.etree.ElementTree as ET

import pytest

from convbench.results import file as result_file
from tests.cli import ROOT, TINY, USERS, cells, convbench, launched, run_tiny
from tests.diff_fixture import saved as saved_by_hand

QUICK = ("--effort", "quick", "--quiet")
ONE = ("--layer", "a", "--pass", "forward")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("gate")


@pytest.fixture(scope="module")
def saved(folder):
    """Run the tiny suite with enough rounds for intervals, and return the document."""
    done, document = run_tiny(folder / "saved.json", *QUICK, "--layer", "a")
    assert done.returncode in (0, 3), done.stderr
    return document


@pytest.fixture
def result(folder, saved, tmp_path):
    """Write that run without its twins, so that it is reliable whatever the machine did."""
    kept = [b for b in saved["benchmarks"] if not b["metadata"]["name"].endswith("#twin")]
    part = {**saved["convbench"], "duplicates": []}
    return _write(tmp_path / "result.json", {**saved, "benchmarks": kept, "convbench": part})


def _write(path, document):
    path.write_text(json.dumps(document))
    return path


def every_other_round(path, times):
    """Return a file's document with im2col `times` times slower in every other round."""
    document = json.loads(path.read_text())
    for benchmark in document["benchmarks"]:
        if benchmark["metadata"]["name"].endswith("im2col"):
            for run in benchmark["runs"][::2]:
                run["values"] = [value * times for value in run["values"]]
    return document


def rules(folder, *written):
    path = folder / "rules.yaml"
    path.write_text("gate:\n" + "".join(f"  - {{{rule}}}\n" for rule in written))
    return path


def floor(at_least, **more):
    keys = {"implementation": "im2col", "versus": "loop", "at_least": at_least, **more}
    return ", ".join(f"{key}: {value}" for key, value in keys.items())


# Exit codes


@pytest.fixture(scope="module")
def by_hand(folder):
    """Save a result file of drawn samples, whose figures for floors are known."""
    return result_file.save(folder / "by_hand.json", saved_by_hand())


def rounds_of(document, layer, implementation):
    """Return the samples of each round of a forward call, in seconds."""
    name = f"{layer}/forward/{implementation}"
    (runs,) = (b["runs"] for b in document["benchmarks"] if b["metadata"]["name"] == name)
    return [run["values"] for run in runs]


def speedup(document, layer):
    """Return im2col's speedup over the loop.

    It is the mean over rounds of the median ratio of paired samples, both in logarithms.
    """
    pairs = zip(*(rounds_of(document, layer, name) for name in ("loop", "im2col")), strict=True)
    medians = [
        statistics.median(math.log(t / o) for t, o in zip(theirs, ours, strict=True))
        for theirs, ours in pairs
    ]
    return math.exp(statistics.fmean(medians))


def mean_speedup(document):
    layers = [layer["name"] for layer in document["convbench"]["suite"]["layers"]]
    return statistics.geometric_mean(speedup(document, layer) for layer in layers)


def cell_of(document, implementation):
    return cells(document)["conv1", "forward", implementation]


def part_of_peak(document):
    part = document["convbench"]
    peak = part["machine"]["calibration"]["sgemm"][str(part["threads"])]
    work = cell_of(document, "im2col")["work"]
    time = statistics.geometric_mean(map(statistics.median, rounds_of(document, "conv1", "im2col")))
    return work["flops"] / time / peak


def bytes_of(document, implementation):
    return cell_of(document, implementation)["memory"]["peak_bytes"]


OVER_LOOP = "{{implementation: im2col, versus: loop, pass: forward, {more}at_least: {limit}}}"
SPEEDUP = OVER_LOOP.replace("{more}", "layer: conv1, ")
MEAN = OVER_LOOP.replace("{more}", "of: geometric_mean, ")
PEAK = "{{implementation: im2col, layer: conv1, pass: forward, per_cent_of_peak: {limit}}}"
BYTES = "{{implementation: {name}, layer: conv1, pass: forward, at_most_bytes: {limit}}}"
EXACT, INEXACT = BYTES.replace("{name}", "im2col"), BYTES.replace("{name}", "keras")
CODES = {"holds": 0, "regressed": 1, "inconclusive": 3}
SCALES = {"x": 1, "%": 1 / 100, "MiB": 2**20}
FIGURES = {
    "speedup": (SPEEDUP, lambda of: speedup(of, "conv1"), 1, "x"),
    "geometric mean": (MEAN, mean_speedup, 1, "x"),
    "fraction of peak": (PEAK, part_of_peak, 100, "%"),
    "bytes": (EXACT, lambda of: bytes_of(of, "im2col"), 1, "MiB"),
    "inexact bytes": (INEXACT, lambda of: bytes_of(of, "keras"), 1, "MiB"),
}
"""For each quantity: the rule, the figure that the samples give, the ratio of the rule's number to
the figure, and the unit in which both are printed."""


@pytest.mark.parametrize(
    ("quantity", "factor", "verdict"),
    [
        *(("speedup", *case) for case in ((0.9, "holds"), (1.1, "regressed"))),
        *(("geometric mean", *case) for case in ((0.9, "holds"), (1.1, "regressed"))),
        *(("fraction of peak", *case) for case in ((0.9, "holds"), (1.1, "regressed"))),
        # A floor at the figure itself: half of all such runs would have found less.
        *((name, 1.0, "inconclusive") for name in ("speedup", "geometric mean")),
        ("fraction of peak", 1.0, "inconclusive"),
        *(("bytes", *case) for case in ((1.0, "holds"), (0.99, "regressed"))),
        *(("inexact bytes", factor, "inconclusive") for factor in (0.5, 2.0)),
    ],
)
def test_a_floor_of_a_result_file(by_hand, tmp_path, quantity, factor, verdict):
    """The table, JSON and JUnit have the right verdict, figures, units and exit code."""
    rule, figure, scale, unit = FIGURES[quantity]
    found = figure(json.loads(by_hand.read_text()))
    limit = found * factor if unit != "MiB" else int(found * factor)
    given = tmp_path / "rules.yaml"
    given.write_text(f"gate:\n  - {rule.format(limit=limit * scale)}\n")
    files = [tmp_path / "gate.json", tmp_path / "gate.xml"]
    options = [word for file in files for word in ("--report", file)]
    done = convbench("gate", by_hand, "--rules", given, *options)
    assert done.returncode == CODES[verdict], done.stdout + done.stderr
    verb = "is " if verdict == "inconclusive" else ""
    assert f"of 1 rule, 1 {verb}{verdict} (exit code {CODES[verdict]})" in done.stdout

    document = json.loads(files[0].read_text())
    (judged,) = document["verdicts"]
    assert (document["exit_code"], judged["outcome"]) == (CODES[verdict], verdict)
    question = judged["question"]
    assert (question["found"], question["limit"]) == pytest.approx((found, limit), rel=1e-12)

    where = "geometric mean" if quantity == "geometric mean" else "conv1"
    (row,) = re.findall(rf"^{where} forward {{2,}}(.+)$", done.stdout, re.M)
    told, *figures = re.split(" {2,}", row)[:3]
    assert told == verdict
    for printed, exact in zip(figures, (found, limit), strict=True):
        assert amount(printed, unit) == pytest.approx(exact, rel=0.02)

    suite = ET.parse(files[1]).getroot()
    counts = tuple(int(suite.attrib[name]) for name in ("tests", "failures", "skipped"))
    assert counts == (1, int(verdict != "holds"), 0)
    words = "".join(next(suite.iter("testcase")).itertext())
    (message,) = [each.attrib["message"] for each in suite.iter("failure")] or [words.strip()]
    assert message.startswith(verdict)
    if judged["evidence"]:
        assert f"found {figures[0]}, limit {figures[1]}; slowdown {limit / found:.4f}" in words
        assert judged["evidence"]["estimate"] == pytest.approx(limit / found)


def amount(printed, unit):
    """Return the value of a printed figure, which must end in `unit`."""
    assert printed.endswith(unit)
    return float(printed.removesuffix(unit)) * SCALES[unit]


def test_the_worst_of_several_floors_decides(by_hand, tmp_path):
    found = speedup(json.loads(by_hand.read_text()), "conv1")
    several = [SPEEDUP.format(limit=found * factor) for factor in (0.9, 1.0, 1.1)]
    for count, code in ((1, 0), (2, 3), (3, 1)):
        given = tmp_path / "rules.yaml"
        given.write_text("gate:\n" + "".join(f"  - {rule}\n" for rule in several[:count]))
        done = convbench("gate", by_hand, "--rules", given)
        assert done.returncode == code, done.stdout + done.stderr


def test_a_suite_is_run_and_judged_by_its_own_floors(tmp_path):
    """One round is no evidence, even if its figure is far from the floor."""
    suite = tmp_path / "suite.yaml"
    suite.write_text(TINY.read_text() + f"gate:\n  - {{{floor(0.01)}}}\n")
    done = convbench("gate", suite, "--effort", "smoke", *ONE, "-o", tmp_path / "new.json")
    assert done.returncode == 3, done.stderr
    document = json.loads((tmp_path / "new.json").read_text())
    assert document["convbench"]["suite"]["gate"][0]["at_least"] == 0.01
    (row,) = re.findall(r"^a forward {2,}(.+)$", done.stdout, re.M)
    told, found, limit = re.split(" {2,}", row)[:3]
    (ratio,) = (
        each["ratio"]
        for each in document["convbench"]["speedups"]
        if (each["implementation"], each["versus"]) == ("im2col", "loop")
    )
    assert (told, limit) == ("inconclusive", "0.0100x")
    assert amount(found, "x") == pytest.approx(ratio, rel=0.01)
    # The result file keeps the suite's floors.
    again = convbench("gate", tmp_path / "new.json")
    assert (again.returncode, row in again.stdout) == (3, True)


@pytest.mark.parametrize(("policy", "code"), [((), 3), (("--inconclusive", "pass"), 0)])
def test_too_few_rounds_are_inconclusive(tmp_path, policy, code):
    given = rules(tmp_path, floor(0.01))
    done = convbench(
        *("gate", TINY, "--rules", given, "--effort", "smoke", *ONE, *policy, "--quiet"),
        *("-o", tmp_path / "new.json"),
    )
    assert done.returncode == code, done.stderr
    assert "1 of at least 5 rounds" in done.stdout


def test_an_inconclusive_baseline_passes_unless_told_otherwise(result, tmp_path):
    restless = _write(tmp_path / "restless.json", every_other_round(result, times=3))
    done = convbench("gate", restless, "--baseline", restless)
    assert done.returncode == 0, done.stderr
    assert "2 % is assumed" in done.stdout
    assert "inconclusive" in done.stdout
    failing = convbench("gate", restless, "--baseline", restless, "--inconclusive", "fail")
    assert failing.returncode == 3


def test_a_speedup_that_fell(result, tmp_path):
    document = json.loads(result.read_text())
    for benchmark in document["benchmarks"]:
        if benchmark["metadata"]["name"].endswith("im2col"):
            for run in benchmark["runs"]:
                run["values"] = [value * 50 for value in run["values"]]
    slow = _write(tmp_path / "slow.json", document)
    done = convbench("gate", slow, "--baseline", result)
    assert done.returncode == 1, done.stderr
    assert re.search(r"^a forward {2,}regressed ", done.stdout, re.M)
    reverse = convbench("gate", result, "--baseline", slow)
    assert reverse.returncode == 0, reverse.stdout
    assert re.search(r"^a forward {2,}holds ", reverse.stdout, re.M)


def test_twins_that_differ_make_the_run_unreliable(saved, result, tmp_path):
    part = json.loads(result.read_text())
    twins = [b for b in saved["benchmarks"] if b["metadata"]["name"].endswith("#twin")]
    for benchmark in twins:
        name = benchmark["metadata"]["name"].removesuffix("#twin")
        arm = next(b for b in part["benchmarks"] if b["metadata"]["name"] == name)
        for twin, run in zip(benchmark["runs"], arm["runs"], strict=True):
            twin["values"] = [value * 3 for value in run["values"]]
            twin["metadata"]["visits"] = run["metadata"]["visits"]
    part["benchmarks"] += twins
    part["convbench"]["duplicates"] = [
        {
            "layer": "a",
            "pass": "forward",
            "implementation": "im2col",
            "ratio": 3.0,
            "ci99": [2.9, 3.1],
            "reliable": False,
        }
    ]
    unreliable = _write(tmp_path / "unreliable.json", part)
    given = rules(tmp_path, floor(1e6))
    done = convbench("gate", unreliable, "--rules", given)
    assert done.returncode == 3, done.stderr
    assert "the same code, timed twice, differed: a/forward/im2col (3.000)" in done.stdout


def test_another_machine_is_incomparable(result, tmp_path):
    document = json.loads(result.read_text())
    document["convbench"]["machine"]["cpu"] = "Z80"
    other = _write(tmp_path / "other.json", document)
    done = convbench("gate", result, "--baseline", other)
    assert done.returncode == 4, done.stderr
    assert "CPU: Z80 then" in done.stdout
    allowed = convbench("gate", result, "--baseline", other, "--allow-different-machine")
    assert allowed.returncode == 0, allowed.stderr
    assert "10 % between the two sessions (chosen for two machines, not measured)" in allowed.stdout
    assert "note: CPU: Z80 then" in allowed.stdout


def test_a_wrong_cell_comes_before_any_verdict(tmp_path):
    given = rules(tmp_path, floor(0.01))
    done = convbench(
        *("gate", TINY, "--rules", given, "--effort", "smoke", *ONE, "--quiet"),
        *(
            "--impl",
            "loop",
            "--impl",
            "im2col",
            "--impl",
            f"{USERS}:flipped",
            "-o",
            tmp_path / "new.json",
        ),
    )
    assert done.returncode == 5, done.stdout + done.stderr
    assert "is wrong" in done.stdout


@pytest.mark.slow
def test_ctrl_c_saves_the_results_so_far(tmp_path):
    given = rules(tmp_path, floor(0.01))
    process = launched(
        *("gate", TINY, "--rules", given, "--effort", "rigorous", "-o", tmp_path / "n.json"),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "n.json").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "nothing was judged" in said
    assert json.loads((tmp_path / "n.json").read_text())["convbench"]["cells"]


# Against another version


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """Make a repository whose first commit has no convolution, and whose last makes one slower."""
    folder = tmp_path_factory.mktemp("repository")

    def git(*arguments):
        who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)

    git("init", "--quiet", "--initial-branch=main")
    (folder / "README").write_text("empty\n")
    git("add", ".")
    git("commit", "--quiet", "-m", "nothing yet")
    git("tag", "empty")
    package = folder / "src" / "mine"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "times.py").write_text("TIMES = 1\n")
    (package / "conv.py").write_text(
        "from mine.times import TIMES\n\n"
        "from numpy.lib.stride_tricks import sliding_window_view\n"
        "import numpy as np\n\n\n"
        "def conv(x, kernel):\n"
        "    windows = sliding_window_view(x, kernel.shape[2:], (2, 3))\n"
        "    for _ in range(TIMES):\n"
        "        result = np.einsum('bcijpq,fcpq->bfij', windows, kernel)\n"
        "    return result\n"
    )
    git("add", ".")
    git("commit", "--quiet", "-m", "a convolution")
    git("tag", "fast")
    (package / "times.py").write_text("TIMES = 3\n")
    git("commit", "--quiet", "-am", "slower")
    return folder


def against(repository, ref, tmp_path, *more):
    return convbench(
        *("gate", TINY, *ONE, *QUICK, "--impl", "src/mine/conv.py:conv", "--against", ref),
        *("-o", tmp_path / "new.json", *more),
        cwd=repository,
    )


@pytest.mark.slow
def test_a_slower_version_fails(repository, tmp_path):
    """The change is in a module that the file imports, and each version imports its own module."""
    done = against(repository, "fast", tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "src/mine/conv.py:conv@fast, in the same run" in done.stdout
    document = json.loads((tmp_path / "new.json").read_text())
    names = document["convbench"]["suite"]["implementations"]
    assert names == ["src/mine/conv.py:conv", "src/mine/conv.py:conv@fast"]
    listed = subprocess.run(
        ["git", "worktree", "list"], cwd=repository, capture_output=True, text=True, check=True
    )
    assert len(listed.stdout.splitlines()) == 1  # the gate's work tree is gone again


def test_an_old_version_that_cannot_run_does_not_pass_for_ever(repository, tmp_path):
    old = tmp_path / "old.py"
    old.write_text("import no_such_module\n")
    done = against(repository, old, tmp_path, "--effort", "smoke")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "no_such_module" in done.stdout


def test_a_new_version_that_cannot_compute_the_pass_is_an_error(repository, tmp_path):
    done = convbench(
        *("gate", TINY, "--pass", "kernel-gradient", "--impl", "src/mine/conv.py:conv"),
        *("--against", "fast", "-o", tmp_path / "new.json"),
        cwd=repository,
    )
    assert done.returncode == 2
    assert "computes nothing of tiny as selected" in done.stderr


@pytest.mark.slow
def test_the_same_version_does_not_fail(repository, tmp_path):
    done = against(repository, "HEAD", tmp_path)
    assert done.returncode in (0, 3), done.stdout + done.stderr
    assert "regressed" not in done.stdout


@pytest.mark.slow
def test_the_old_version_may_be_another_file(repository, tmp_path):
    old = tmp_path / "old.py"
    code = (repository / "src/mine/conv.py").read_text()
    old.write_text(code.replace("from mine.times import TIMES\n", "TIMES = 1\n"))
    done = against(repository, old, tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("ref", "said"),
    [
        ("nowhere", "neither a path nor a git ref"),
        ("empty", "src/mine/conv.py does not exist there"),
        ("src/mine/conv.py", "this is src/mine/conv.py:conv itself"),
        (".git", "that folder has no"),
        ("--upload-pack=x", "neither a path nor a git ref"),
    ],
)
def test_a_version_that_does_not_exist_is_refused(repository, tmp_path, ref, said):
    done = convbench(
        *("gate", TINY, *ONE, *QUICK, "--impl", "src/mine/conv.py:conv", f"--against={ref}"),
        *("-o", tmp_path / "new.json"),
        cwd=repository,
    )
    assert done.returncode == 2, done.stdout
    assert said in done.stderr
    assert "Traceback" not in done.stderr


# Bad input


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("RESULT",), "there is nothing to hold tiny to"),
        (("RESULT", "--effort", "quick"), "is judged and not run: --effort cannot be given"),
        (("RESULT", "--against", "main"), "is judged and not run: --against cannot be given"),
        (("RESULT", "--baseline", "none.json"), "No such file"),
        (
            ("RESULT", "--baseline", "RESULT", "--tolerance", "3"),
            "expected a percentage such as 3%",
        ),
        (("RESULT", "--baseline", "RESULT", "--tolerance", "-3%"), "expected a percentage"),
        (("RESULT", "--baseline", "RESULT", "--noise", "RESULT"), "found schema None"),
        (("RESULT", "--baseline", "RESULT", "--report", "x.doc"), "not the suffix of a report"),
        (("tiny.yaml", "--against", "main"), "name it with one --impl FILE.py:NAME"),
        (("tiny.yaml", "--impl", "im2col", "--against", "main"), "one --impl FILE.py:NAME"),
        (("tiny.yaml",), "there is nothing to hold tiny to"),
        (("tiny.yaml", "--pass", "forward", "--baseline", "OTHER"), "has no speedup of any cell"),
        (("RESULT", "--noise", "x.json"), "need a --baseline"),
        (("RESULT", "--baseline", "RESULT", "--report", "/proc/none/x.md"), "cannot be saved in"),
    ],
)
def test_arguments_that_make_no_gate_are_refused(result, tmp_path, arguments, said):
    (tmp_path / "tiny.yaml").write_text(TINY.read_text())
    files = {"RESULT": str(result), "OTHER": str(ROOT / "results" / "mnist.json")}
    words = [files.get(word, word) for word in arguments]
    done = convbench("gate", *words, cwd=tmp_path)
    assert done.returncode == 2, done.stdout
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_rule_that_nothing_matches_is_an_error(result, tmp_path):
    done = convbench("gate", result, "--rules", rules(tmp_path, floor(1, layer="zz*")))
    assert done.returncode == 2
    assert "no layer matches zz*" in done.stderr


def test_floors_of_layers_that_were_not_selected_are_left_out_and_counted(tmp_path):
    given = rules(tmp_path, floor(0.01, layer="a"), floor(0.01, layer="b"))
    done = convbench(
        *("gate", TINY, "--rules", given, "--effort", "smoke", *ONE, "--quiet"),
        *("-o", tmp_path / "new.json", "--inconclusive", "pass"),
    )
    assert done.returncode == 0, done.stderr
    assert "1 of 2 floors concern cells that were not selected" in done.stdout


EDITS = {
    "a missing key": (lambda d: d["convbench"].pop("threads"), "convbench.threads"),
    "a newer schema": (
        lambda d: d["convbench"].update(schema="convbench-result/9"),
        "reads up to convbench-result/1",
    ),
    "a sample of zero": (
        lambda d: d["benchmarks"][0]["runs"][0].update(values=[0.0]),
        "samples must be positive",
    ),
    "a sample that is no number": (
        lambda d: d["benchmarks"][0]["runs"][0].update(values=[float("nan")]),
        "samples must be positive",
    ),
    "a cell of no layer": (
        lambda d: d["convbench"]["cells"][0].update(layer="zz"),
        "the suite has no layer 'zz'",
    ),
    "an order that is none": (
        lambda d: d["benchmarks"][0]["runs"][0]["metadata"].update(order=3),
        "not as convbench writes them",
    ),
    "a benchmark without rounds": (
        lambda d: d["benchmarks"][0].update(runs=[]),
        "has no rounds",
    ),
    "a sample of a billion years": (
        lambda d: d["benchmarks"][0]["runs"][0].update(values=[1e300]),
        "samples must be positive",
    ),
    "a floor of nothing": (
        lambda d: d["convbench"]["suite"].update(gate=[{"implementation": "im2col"}]),
        "a rule has one positive at_least",
    ),
    "a time of no benchmark": (
        lambda d: d["convbench"]["cells"][0]["time"].update(benchmark="zz"),
        "there is no benchmark 'zz'",
    ),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("how", ["target", "baseline", "diff"])
def test_a_file_edited_by_hand_is_refused(result, tmp_path, edit, how):
    change, said = EDITS[edit]
    document = json.loads(result.read_text())
    change(document)
    edited = _write(tmp_path / "edited.json", document)
    words = {
        "target": ("gate", edited, "--rules", rules(tmp_path, floor(0.01))),
        "baseline": ("gate", result, "--baseline", edited),
        "diff": ("diff", result, edited),
    }[how]
    done = convbench(*words)
    assert done.returncode == 2, done.stdout
    assert "edited.json" in done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_truncated_file_is_refused(result, tmp_path):
    cut = tmp_path / "cut.json"
    cut.write_text(result.read_text()[:-200])
    done = convbench("gate", result, "--baseline", cut)
    assert done.returncode == 2
    assert "this is not JSON" in done.stderr


# For continuous integration


def test_reports_are_written_beside_the_printed_one(result, tmp_path):
    files = [tmp_path / f"gate.{suffix}" for suffix in ("xml", "md", "json", "csv", "txt", "svg")]
    options = [word for file in files for word in ("--report", file)]
    given = rules(tmp_path, floor(1e6), floor(0.01, layer="a"))
    done = convbench("gate", result, "--rules", given, *options, "--format", "junit")
    assert done.returncode == 1, done.stderr
    suite = ET.fromstring(done.stdout)
    assert len(list(suite.iter("failure"))) == 2
    assert len(list(suite.iter("testcase"))) == 4
    assert files[0].read_text() == done.stdout
    assert json.loads(files[2].read_text())["exit_code"] == 1
    assert all(file.stat().st_size for file in files)


def test_github_actions_gets_annotations_and_a_summary(result, tmp_path):
    summary = tmp_path / "summary.md"
    summary.touch()
    environment = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    done = convbench(
        *("gate", result, "--rules", rules(tmp_path, floor(1e6)), "--format", "github"),
        **environment,
    )
    assert done.returncode == 1
    assert done.stdout.count("::error title=") == 2
    assert "regressed" in summary.read_text()


def test_benchmark_action_gets_points(result, tmp_path):
    done = convbench(
        *("gate", result, "--rules", rules(tmp_path, floor(0.01))),
        *("--format", "customSmallerIsBetter"),
    )
    points = json.loads(done.stdout)
    assert {point["unit"] for point in points} == {"time of loop"}
    assert all(point["value"] > 0 for point in points)


def test_help_loads_nothing_heavy():
    program = (
        "import sys; sys.argv = ['convbench', 'gate', '--help']\n"
        "from convbench.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('LOADED', *[m for m in ('numpy', 'tensorflow') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.stdout.rstrip().endswith("LOADED")
