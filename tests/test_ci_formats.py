"""Test the formats for CI: GitHub Actions, JUnit XML, and benchmark-action's JSON.

CONVBENCH_REWRITE_GOLDEN=1 pytest tests/test_ci_formats.py writes the golden files anew: read the
diff.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from convbench.report import format_of, render
from convbench.report.formats import benchmark_action, github, junit, markdown
from convbench.report.views.run_tables import report
from convbench.report.views.table import Check, Outcome, Point, Report, Table
from tests.cli import ROOT, convbench
from tests.report_fixture import MINE, RUNS, full_run, small_run
from tests.systems import linux

GOLDEN = Path(__file__).parent / "golden" / "ci"
VIEWS = {
    "github": "full.github.md",
    "junit": "full.xml",
    "customSmallerIsBetter": "full.bench.json",
}
MNIST = ROOT / "results" / "mnist.json"
NOT_IN_ACTIONS = {"GITHUB_ACTIONS": "", "GITHUB_STEP_SUMMARY": ""}


def reported(*checks: Check, points: tuple[Point, ...] = ()) -> Report:
    return Report("a title", (), (), (), Table("", (), ()), None, checks, points)


def many(count: int, outcome: Outcome = "failed") -> list[Check]:
    return [Check(f"{outcome} {i}", outcome, f"message {i}") for i in range(count)]


@pytest.mark.parametrize("format", VIEWS)
def test_reports_match_their_golden_files(format: str) -> None:
    golden = GOLDEN / VIEWS[format]
    shown = render(report(full_run()), format)
    if os.environ.get("CONVBENCH_REWRITE_GOLDEN") == "1":
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(shown, encoding="utf-8")
    assert shown == golden.read_text(encoding="utf-8")


def test_no_golden_file_is_left_over() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == set(VIEWS.values())


@pytest.mark.parametrize("format", VIEWS)
@pytest.mark.parametrize("run", RUNS)
def test_every_run_is_rendered_and_so_is_a_report_without_checks(run: str, format: str) -> None:
    full = report(RUNS[run]())
    for shown in (full, replace(full, checks=(), points=())):
        assert render(shown, format).endswith("\n")


def test_the_suffix_chooses_the_format() -> None:
    assert format_of("checks.xml") == "junit"
    assert format_of("checks.md") == "markdown"
    assert format_of("checks.json") == "json"


# The checks and points of a run


@pytest.mark.parametrize("run", RUNS)
def test_every_cell_is_a_check_under_a_name_of_its_own(run: str) -> None:
    result = RUNS[run]()
    checks = report(result).checks
    doubtful = [twin for twin in result.duplicates if not twin.reliable]
    assert len({check.name for check in checks}) == len(checks)
    assert len(checks) == len(result.cells) + len(doubtful)
    assert all(check.message and "\n" not in check.message for check in checks)


def test_a_check_has_the_outcome_and_the_message_of_its_cell() -> None:
    found = {check.name: check for check in report(full_run()).checks}

    def said(name: str) -> tuple[str, str]:
        return found[name].outcome, found[name].message

    assert said("conv1 forward loop") == (
        "passed",
        "integers exact, floats within their rounding bound (0.40 % of it)",
    )
    assert said("conv1 forward im2col") == (
        "passed",
        "floats within their rounding bound (4.1 % of it)",
    )
    assert said("conv1 forward keras-xla") == (
        "left-out",
        "unsupported: XLA is not built into TensorFlow",
    )
    wrong = f"conv1 forward {MINE.replace('forward_fast', 'forward')}"
    assert said(wrong) == (
        "failed",
        "wrong: the kernel is flipped: that is a convolution, not a correlation",
    )
    assert found[wrong].evidence == "largest error 3.75; largest error over its bound 41300"
    stem = "stem [bold] | 3×3, größer forward"
    assert said(f"{stem} im2col") == ("failed", "failed: killed by signal 9, out of memory")
    assert said(f"{stem} keras") == ("left-out", "pending")
    assert said("畳み込み kernel-gradient keras")[0] == "left-out"
    assert "memory not metered" in found["conv2 input-gradient im2col"].evidence
    assert said("conv2 input-gradient im2col twin") == (
        "inconclusive",
        "the same code ran twice, and the second one took 0.932 [0.921, 0.943] times as long; "
        "the run claims to tell 5.0 % apart",
    )
    assert "conv1 forward im2col twin" not in found  # it is reliable, so that it is no check


def test_points_are_the_times_of_the_right_cells_in_ms() -> None:
    result = full_run()
    points = {point.name: point for point in report(result).points}
    right = [cell for cell in result.cells if cell.status == "ok"]
    assert list(points) == [f"{c.layer} {c.pass_} {c.implementation}" for c in right]
    loop = points["conv1 forward loop"]
    assert (loop.unit, loop.value) == ("ms", pytest.approx(62.13))
    assert loop.interval == pytest.approx((62.13 / 1.0118, 62.13 * 1.0118))
    assert loop.extra == "8 rounds, 4 threads, AMD EPYC 7763 64-Core Processor"
    assert report(small_run()).points[0].interval is None
    assert report(RUNS["checked"]()).points == ()


# GitHub: annotations


def parsed(line: str) -> tuple[str, str, str]:
    """Return command, title and message, as actions/runner's ActionCommand.TryParseV2 reads it."""
    assert line.startswith("::")
    info, data = line[2:].split("::", 1)
    command, _, properties = info.partition(" ")
    (title,) = [p.partition("=")[2] for p in properties.split(",") if p.startswith("title=")]
    assert properties.count(",") == 0
    escapes = {"%0D": "\r", "%0A": "\n", "%3A": ":", "%2C": ",", "%25": "%"}  # % must come last
    for escape, token in escapes.items():
        title = title.replace(escape, token)
        if token not in ":,":
            data = data.replace(escape, token)
    return command, title, data


def test_annotations_escape_what_github_reads_as_its_own() -> None:
    name, message = "a: b, c::d %2C 100 %", "50 %0A is: not,\na line ::end"
    check = Check(name, "failed", message)
    shown = github.annotations(reported(check, replace(check, outcome="inconclusive")))
    error, warning = shown.splitlines()
    assert error == (
        "::error title=a%3A b%2C c%3A%3Ad %252C 100 %25::50 %250A is: not,%0Aa line ::end"
    )
    assert parsed(error) == ("error", name, message)
    assert parsed(warning) == ("warning", name, message)


def test_annotations_hold_no_control_characters_and_no_surrogates() -> None:
    check = Check("\x1b[31ma\r\nb\ud800", "failed", "c\x1b[0m\ud800\r\nd\x07")
    assert github.annotations(reported(check)) == "::error title=a b::c%0Ad\n"


@pytest.mark.parametrize("outcome", ["passed", "left-out"])
def test_checks_without_trouble_are_not_annotated(outcome: Outcome) -> None:
    assert github.annotations(reported(*many(3, outcome))) == ""


def test_ten_annotations_are_all_shown() -> None:
    lines = github.annotations(reported(*many(10))).splitlines()
    assert [parsed(line)[1] for line in lines] == [f"failed {i}" for i in range(10)]


def test_the_last_of_ten_annotations_names_the_rest_of_its_kind() -> None:
    shown = github.annotations(reported(*many(12, "inconclusive"), *many(16)))
    kinds = [parsed(line)[0] for line in shown.splitlines()]
    assert kinds == ["error"] * 10 + ["warning"] * 10
    rest = ", ".join(f"failed {i}" for i in range(9, 16))
    assert parsed(shown.splitlines()[9]) == ("error", "7 more", f"and 7 more: {rest}")
    assert parsed(shown.splitlines()[19])[2].startswith("and 3 more: inconclusive 9, ")


# GitHub: the summary


def test_the_summary_is_the_markdown_with_the_checks_first() -> None:
    whole, full = github.summary(report(full_run())), report(full_run())
    blocks = whole.split("\n\n")
    assert blocks[0] == "# convbench: every status"
    assert blocks[1].startswith("- checks: 3 failed, 1 inconclusive, 8 passed, 5 left out\n")
    assert blocks[2:4] == ["## Failed and inconclusive checks", "**failed**"]
    assert blocks[5] == "**inconclusive**"
    assert "8 passed" not in markdown.render(full)
    assert set(markdown.render(full).split("\n\n")[2:]) <= set(blocks)


def test_without_trouble_there_is_no_table_of_checks() -> None:
    shown = github.summary(report(small_run()))
    assert "- checks: 3 passed\n" in shown
    assert "Failed and inconclusive" not in shown
    assert "checks" not in github.summary(reported())


@pytest.mark.parametrize("room", [2000, 3000, 4000, 5000, 5900])
def test_a_long_summary_is_cut_between_tables(room: int) -> None:
    full = report(full_run())
    blocks = github.summary(full).split("\n\n")
    shown = github.summary(full, room)
    kept = shown.split("\n\n")
    assert len(shown.encode()) <= room < len(github.summary(full).encode())
    (notice,) = [block for block in kept if block not in blocks]
    assert re.match(r"cut: \d tables? left out here, since GitHub takes at most 1\.00 MiB", notice)
    at = kept.index(notice)
    assert kept[:at] == blocks[:at]
    assert at == 2 or kept[at - 1].startswith("| ")
    left_out = sum(block.startswith("| ") for block in blocks[at:])
    assert notice.startswith(f"cut: {left_out} ")
    assert kept[-1] == blocks[-1]  # the answer stays


def test_the_summary_of_a_huge_suite_is_cut_to_what_github_takes() -> None:
    result = full_run()
    layers = [replace(result.suite.layers[0], name=f"größer {i}") for i in range(5000)]
    cells = tuple(replace(result.cells[0], layer=layer.name) for layer in layers)
    huge = replace(result, cells=cells, suite=replace(result.suite, layers=tuple(layers)))
    shown = github.summary(report(huge, everything=True))
    assert 2**20 - 600 < len(shown.encode()) <= 2**20


# JUnit


@pytest.mark.parametrize("run", RUNS)
def test_junit_has_the_structure_that_its_readers_share(run: str) -> None:
    full = report(RUNS[run]())
    root = ElementTree.fromstring(junit.render(full).encode())
    (suite,) = root
    assert (root.tag, suite.tag) == ("testsuites", "testsuite")
    cases = suite.findall("testcase")
    assert [child.tag for child in suite] == ["properties", *["testcase"] * len(cases)]
    for counted in (root, suite):
        assert counted.get("name")
        assert counted.get("tests") == str(len(cases))
        assert counted.get("failures") == str(len(suite.findall("testcase/failure")))
        assert counted.get("skipped") == str(len(suite.findall("testcase/skipped")))
        assert counted.get("errors") == "0"
    assert [case.get("name") for case in cases] == [check.name for check in full.checks]
    for case, check in zip(cases, full.checks, strict=True):
        assert case.get("classname")
        tags = [child.tag for child in case]
        if check.outcome == "passed":
            assert tags == ["system-out"]
        elif check.outcome == "failed":
            assert tags == ["failure"]
            assert case[0].get("message") == check.message
            assert case[0].get("type")
            assert case[0].text
        else:
            assert tags[0] == "skipped"
            assert str(case[0].get("message")).endswith(check.message)
            assert set(tags[1:]) <= {"system-out"}


def test_junit_tells_an_inconclusive_check_and_keeps_its_evidence() -> None:
    check = Check("a", "inconclusive", "b", "line 1\n  line 2")
    case = ElementTree.fromstring(junit.render(reported(check)))[0][0]
    assert case[0].attrib == {"message": "inconclusive: b"}
    assert case.findtext("system-out") == check.evidence
    case = ElementTree.fromstring(junit.render(reported(replace(check, outcome="failed"))))[0][0]
    assert case.findtext("failure") == check.evidence
    case = ElementTree.fromstring(junit.render(reported(replace(check, outcome="passed"))))[0][0]
    assert case.findtext("system-out") == f"b\n{check.evidence}"


@pytest.mark.parametrize("outcome", ["passed", "failed", "inconclusive", "left-out"])
def test_junit_is_xml_whatever_a_worker_said_last(outcome: Outcome) -> None:
    every = "".join(map(chr, range(0x100))) + "\ud800 \udfff \ufffe \uffff \U0001f600 <&>]]>\"'"
    words = f"\x1b[31mred\x1b[0m {every}"
    shown = junit.render(reported(Check(words, outcome, words, words)))
    root = ElementTree.fromstring(shown.encode())  # fails if a surrogate is left
    assert "red" in str(root[0][0].get("name"))
    assert "[31m" not in shown
    assert "\U0001f600 <&>]]>\"'" in "".join(root.itertext()) + str(root[0][0].attrib)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", shown)


# benchmark-action


def test_entries_are_as_the_action_reads_them() -> None:
    entries = json.loads(render(report(full_run()), "customSmallerIsBetter"))
    assert entries[0] == {
        "name": "conv1 forward loop",
        "unit": "ms",
        "value": pytest.approx(62.13),
        "range": "± 1.2%",
        "extra": "8 rounds, 4 threads, AMD EPYC 7763 64-Core Processor",
    }
    assert len(entries) == len(report(full_run()).points)
    without = json.loads(render(report(small_run()), "customSmallerIsBetter"))
    assert all(set(entry) == {"name", "unit", "value", "extra"} for entry in without)


def test_numbers_that_json_lacks_are_left_out() -> None:
    points = (Point("nan", "ms", float("nan")), Point("a\x1b[31m\nb", "ms", 1.5, (1.0, 2.25)))
    shown = benchmark_action.render(reported(points=points))
    entries = json.loads(shown, parse_constant=pytest.fail)
    assert entries == [{"name": "a b", "unit": "ms", "value": 1.5, "range": "± 50%"}]
    assert benchmark_action.render(reported()) == "[]\n"


# The command line


def test_show_prints_junit_and_writes_it_by_its_suffix(tmp_path: Path) -> None:
    done = convbench("show", MNIST, "--format", "junit")
    assert (done.returncode, done.stderr) == (0, "")
    cells = json.loads(MNIST.read_text())["convbench"]["cells"]
    assert ElementTree.fromstring(done.stdout.encode()).get("tests") == str(len(cells))
    assert convbench("show", MNIST, "-o", tmp_path / "checks.xml").returncode == 0
    assert (tmp_path / "checks.xml").read_text(encoding="utf-8") == done.stdout


def test_show_prints_entries_for_a_chart() -> None:
    done = convbench("show", MNIST, "--format", "customSmallerIsBetter")
    assert (done.returncode, done.stderr) == (0, "")
    assert "conv1 forward im2col" in {entry["name"] for entry in json.loads(done.stdout)}


@pytest.mark.parametrize(
    "environment",
    [NOT_IN_ACTIONS, {**NOT_IN_ACTIONS, "GITHUB_ACTIONS": "true"}, {"GITHUB_ACTIONS": "false"}],
)
@pytest.mark.parametrize("output", [(), ("-o", "-")])
def test_outside_actions_both_parts_are_printed(
    environment: dict[str, str], output: tuple[str, ...], tmp_path: Path
) -> None:
    environment = {"GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"), **environment}
    done = convbench("show", failing(tmp_path), "--format", "github", *output, **environment)
    assert done.returncode == 0
    assert done.stderr.count("not a step of GitHub Actions") == 1
    assert done.stdout.startswith("# convbench: mnist\n\n- checks: 1 failed, ")
    assert done.stdout.splitlines()[-1].startswith("::error title=conv1 forward ")
    assert not (tmp_path / "summary.md").exists()


def test_in_a_step_the_summary_is_appended_and_only_annotations_are_printed(tmp_path: Path) -> None:
    summary, file = tmp_path / "summary.md", failing(tmp_path)
    summary.write_text("of another command\n")
    environment = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    done = convbench("show", file, "--format", "github", **environment)
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    assert parsed(line)[:2] == ("error", "conv1 forward loop")
    whole = convbench("show", file, "--format", "github", **NOT_IN_ACTIONS).stdout
    assert f"{summary.read_text(encoding='utf-8')}\n{line}\n" == f"of another command\n{whole}"


def test_what_other_commands_wrote_counts_towards_the_limit(tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("x" * (2**20 - 2500) + "\n")
    environment = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    done = convbench("show", MNIST, "--format", "github", **environment)
    assert (done.returncode, done.stdout) == (0, "")
    assert summary.stat().st_size <= 2**20
    assert "cut: " in summary.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "place", ["no/such/folder/summary.md", "", pytest.param("/dev/full", marks=linux)]
)
def test_a_summary_that_cannot_be_written_is_printed(place: str, tmp_path: Path) -> None:
    environment = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(tmp_path / place)}
    file = failing(tmp_path)
    done = convbench("show", file, "--format", "github", **environment)
    assert done.returncode == 0
    assert done.stderr.startswith(f"convbench: warning: the step summary {tmp_path / place} cannot")
    assert len(done.stderr.splitlines()) == 1
    whole = convbench("show", file, "--format", "github", **NOT_IN_ACTIONS)
    assert done.stdout == whole.stdout


def failing(folder: Path) -> Path:
    """Write a copy of a real result file in which one cell failed; return its path."""
    document = json.loads(MNIST.read_text())
    document["convbench"]["cells"][0] |= {"status": "failed", "reason": "killed:\nsignal 9, 100 %"}
    file = folder / "failing.json"
    file.write_text(json.dumps(document))
    return file
