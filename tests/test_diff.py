"""Test `convbench diff`: golden files of every format, what holds in all, and the command.

CONVBENCH_REWRITE_GOLDEN=1 pytest tests/test_diff.py writes the golden files anew: read the diff.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from convbench.report import FORMATS, format_of, render
from convbench.report.formats.terminal import print_report
from convbench.report.views import scale
from convbench.report.views.diff_tables import names_of, report
from convbench.results.file import save
from tests.cli import ROOT, convbench
from tests.diff_fixture import DIFFS, diff_of, few_rounds, new, old, other

GOLDEN = Path(__file__).parent / "golden" / "diff"
VIEWS = {
    "typical": ("80", "txt", "md"),
    "measured": ("80", "txt"),
    "other": ("80", "txt", "md", "csv", "json"),
    "few": ("80", "txt"),
    "three": ("80", "120", "txt", "md"),
    "nothing": ("80", "txt", "csv"),
}
MNIST, CONV2 = ROOT / "results" / "mnist.json", ROOT / "results" / "mnist-conv2.json"


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def on_terminal(name: str, columns: int, **console: object) -> str:
    stream = io.StringIO()
    console = {"color_system": None, **console}
    print_report(
        report(diff_of(name)),
        Console(file=stream, force_terminal=True, width=columns, **console),
    )
    return stream.getvalue()


def view(name: str, how: str) -> str:
    if how.isdigit():
        return re.sub(r"\x1b\[[\d;]*m", "", on_terminal(name, int(how)))
    return render(report(diff_of(name)), format_of(f"diff.{how}"))


def rounded(shown: str) -> str:
    """Round raw numbers to ten digits: further digits depend on the mathematics library."""
    return re.sub(r"\d+\.\d{9,}(?:e-\d+)?", lambda number: f"{float(number[0]):.10g}", shown)


@pytest.mark.parametrize(
    ("name", "how"), [(name, how) for name, hows in VIEWS.items() for how in hows]
)
def test_reports_match_their_golden_files(name: str, how: str) -> None:
    golden = GOLDEN / (f"{name}.at{how}.txt" if how.isdigit() else f"{name}.{how}")
    shown = rounded(view(name, how)) if how in ("csv", "json") else view(name, how)
    if os.environ.get("CONVBENCH_REWRITE_GOLDEN") == "1":
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(shown, encoding="utf-8")
    assert shown == golden.read_text(encoding="utf-8")


def test_no_golden_file_is_left_over() -> None:
    names = {
        f"{name}.at{how}.txt" if how.isdigit() else f"{name}.{how}"
        for name, hows in VIEWS.items()
        for how in hows
    }
    assert {path.name for path in GOLDEN.iterdir()} == names


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", DIFFS)
def test_every_format_renders_every_diff(name: str, format: str) -> None:
    assert render(report(diff_of(name)), format).endswith("\n")


@pytest.mark.parametrize("name", DIFFS)
@pytest.mark.parametrize("columns", [80, 100, 120])
def test_no_line_is_wider_than_the_terminal(name: str, columns: int) -> None:
    shown = view(name, str(columns))
    assert max(cell_len(line) for line in shown.splitlines()) <= columns


@pytest.mark.parametrize("columns", [40, 80])
def test_no_change_is_cut(columns: int) -> None:
    shown = view("typical", str(columns))
    assert re.search(r"-30% ±23% ", shown)
    assert re.search(r"\+44% ±\d\.\d% ", shown)
    assert not re.search(r"[\d%]…", shown)


# The words of a report


def line_of(shown: str, start: str) -> str:
    return next(line for line in shown.splitlines() if line.startswith(start))


def test_faster_and_slower_are_said_in_words() -> None:
    shown = view("other", "txt")
    time, speedup = shown.split("Speedup over loop")[:2]
    assert line_of(time, "loop").endswith("×19.6 ±31% slower")
    assert line_of(speedup, "im2col").endswith("×15.4 ±5.9% faster")
    assert "Time (+ is slower)" in shown
    assert "Speedup over loop (+ is faster)" in shown


def test_colours_mark_what_shows_and_nothing_else() -> None:
    shown = on_terminal("other", 200, color_system="standard")
    assert re.search(r"\x1b\[31m *×19\.6 ±31% slower", shown)
    assert re.search(r"\x1b\[32m *×15\.4 ±\d\.\d% faster", shown)
    assert re.search(r"\x1b\[31m *\+5\.9% more", shown)
    assert not re.search(r"\x1b\[3[12]m[ ~]*~", shown)
    without_interval = on_terminal("few", 200, color_system="standard")
    assert not re.search(r"\x1b\[3[12]m", without_interval)


def test_what_sets_files_apart_stands_on_top_and_is_warned_of() -> None:
    head, _, rest = view("other", "txt").partition("\n\n")
    for words in (
        "CPU: AMD EPYC 7763 64-Core Processor then, Intel Xeon Platinum 8481C now",
        "threads: 4 then, 2 now",
        "numpy: 2.4.6 then, 2.4.7 now",
        "conv2: 26x26x8 -> 26x26x16, kernel 3x3, batch 32, padding same then; 26x26x8 -> ",
        "only in old: conv1 (kernel-gradient: examples/my_convolution.py:forward_fast)",
        "only in other: conv1 (forward: mine)",
    ):
        assert words in head
    warnings = [line for line in rest.splitlines() if line.startswith("warning: ")]
    assert "not the same CPU, logical CPUs, BLAS, threads" in warnings[0]
    assert "not compared, since the convolutions differ: conv2" in warnings[1]
    assert warnings[2].endswith("conv1 forward keras was ok and now is failed")
    assert "warning" not in view("typical", "txt")


def test_a_report_says_whether_deviations_are_assumed_or_measured() -> None:
    assert "2 % (speedups) and 10 % (times), assumed" in view("typical", "txt")
    assert "0.4 % (speedups) and 0.8 % (times), from noise.json" in view("measured", "txt")


def test_where_no_number_of_rounds_helps_the_gate_is_advised() -> None:
    assert "convbench gate --against" in view("typical", "txt")
    assert "rounds)" not in view("typical", "txt")
    measured = view("measured", "txt")
    assert "convbench gate --against" not in measured
    assert "~ (5 rounds)" in measured
    assert "(rounds): this many in both files would show 5 %" in measured


def test_without_intervals_no_change_is_claimed() -> None:
    shown = view("few", "txt")
    assert "fewer than 5 rounds give no interval" in shown
    assert not re.search(r"faster$|slower$", shown, re.MULTILINE)
    assert "time 20 without interval" in shown


def test_a_report_says_that_nothing_can_be_compared() -> None:
    assert view("nothing", "txt").endswith("nothing_shared against old: no cell can be compared.\n")
    assert view("nothing", "csv") == "\n"


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["results/mnist.json", "results/mnist-conv2.json"], ("mnist", "mnist-conv2")),
        (["a/mnist.json", "b/mnist.json"], ("a/mnist", "b/mnist")),
        (["mnist-before.json", "mnist-after.json"], ("before", "after")),
        (["x/a.json", "x/a.json"], ("a (1)", "a (2)")),
        (["a.json", "./a.json", "/tmp/a.json"], ("a (1)", "a (2)", "a (3)")),
        (
            ["mnist-20261123T093144Z.json", "mnist-20261124T1.json"],
            ("20261123T093144Z", "20261124T1"),
        ),
        (["a-.json", "a-b.json"], ("a-", "b")),
    ],
)
def test_files_are_called_by_what_tells_them_apart(paths, names) -> None:
    assert names_of(paths) == names


@pytest.mark.parametrize(
    ("ratio", "interval", "shown"),
    [
        (1.124, None, "+12%"),
        (0.966, None, "-3.4%"),
        (1.0, None, "+0.00%"),
        (1.00001, None, "+<0.01%"),
        (5.0, None, "+400%"),
        (0.11, None, "-89%"),
        (25.0, None, "×25.0"),
        (0.04, None, "×0.0400"),
        (1.2, (1.16, 1.241), "+20% ±4.0%"),
        (0.7, (0.53, 0.925), "-30% ±23%"),
        (25.0, (24.7, 25.3), "×25.0 ±1.3%"),
    ],
)
def test_changes_are_written_as_people_read_them(ratio: float, interval, shown: str) -> None:
    assert scale.change(ratio, interval) == shown


# For machines


def test_csv_has_a_row_of_raw_numbers_for_each_change() -> None:
    rows = list(csv.DictReader(io.StringIO(view("other", "csv"))))
    found = diff_of("other")
    assert len(rows) == sum(len(c.rows) + len(c.means) for c in found.compared)
    first, change = found.compared[0].rows[0], found.compared[0].rows[0].changes[0]
    assert rows[0]["layer"] == first.layer
    assert float(rows[0]["old"]) == first.figures[0].value
    assert (float(rows[0]["change_lo"]), float(rows[0]["change_hi"])) == change.ci99
    assert rows[0]["verdict"] == "up"
    failed = next(row for row in rows if row["new_status"] == "failed")
    assert (failed["new"], failed["change"]) == ("", "")
    of_all = [row for row in rows if not row["layer"] and not row["pass"]]
    quantities = {"time", "speedup", "peak_memory", "fraction_of_peak"}
    assert {row["quantity"] for row in of_all} == quantities


def test_csv_of_three_files_names_each_pair() -> None:
    rows = list(csv.DictReader(io.StringIO(render(report(diff_of("three")), "csv"))))
    assert {(row["old_file"], row["new_file"]) for row in rows} == {
        ("results/old.json", "results/new.json"),
        ("results/old.json", "results/few_rounds.json"),
    }


def test_json_has_only_numbers_that_json_allows() -> None:
    data = json.loads(view("typical", "json"), parse_constant=pytest.fail)
    assumed = {"speedup": 0.02, "time": 0.1, "degrees": None, "source": None, "learnt": []}
    assert data["deviations"] == assumed
    assert [one["quantity"] for one in data["compared"]] == [
        *("time", "speedup", "speedup", "peak_memory", "fraction_of_peak")
    ]


# The command


def test_two_files_of_the_repository_are_compared() -> None:
    done = convbench("diff", MNIST, CONV2)
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        "only in mnist: conv1, conv5x5 (every pass: loop, im2col, keras, keras-graph)"
        in done.stdout
    )
    assert "conv2 kernel-gradient" in done.stdout
    assert "conv5x5 forward\n" not in done.stdout


def test_a_file_compared_with_itself_shows_nothing() -> None:
    done = convbench("diff", MNIST, MNIST, "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    verdicts = {
        change["verdict"]
        for one in json.loads(done.stdout)["compared"]
        for row in (*one["rows"], *one["means"])
        for change in row["changes"]
        if change
    }
    assert verdicts == {"unclear", "equal"}


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    makers = {"old": old, "new": new, "other": other, "few": few_rounds}
    return [save(tmp_path / f"{name}.json", make()) for name, make in makers.items()]


def test_several_files_are_compared_with_the_first(files: list[Path]) -> None:
    done = convbench("diff", *files)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("convbench: new, other, few against old\n")


@pytest.mark.parametrize("suffix", ["txt", "md", "csv", "json", "svg"])
def test_the_suffix_of_the_output_chooses_the_format(files: list[Path], suffix: str) -> None:
    output = files[0].parent / f"diff.{suffix}"
    done = convbench("diff", *files[:2], "-o", output)
    assert (done.returncode, done.stdout) == (0, "")
    assert output.stat().st_size > 100


def test_saved_files_are_compared_as_results_in_memory_are(files: list[Path]) -> None:
    done = convbench("diff", *files[:2], cwd=files[0].parent)
    assert done.returncode == 0
    tables = done.stdout.partition("\n\n")[2]
    assert tables == view("typical", "txt").partition("\n\n")[2]


@pytest.mark.parametrize("damaged_first", [True, False])
def test_a_damaged_file_is_refused(tmp_path: Path, damaged_first: bool) -> None:
    damaged = tmp_path / "damaged.json"
    damaged.write_text(MNIST.read_text()[:5000])
    pair = [damaged, MNIST] if damaged_first else [MNIST, damaged]
    done = convbench("diff", *pair)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{damaged}:1:" in done.stderr
    assert "this is not JSON" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    done = convbench("diff", MNIST, tmp_path / "nowhere.json")
    assert done.returncode == 2
    assert "No such file" in done.stderr


def test_one_file_alone_is_refused() -> None:
    done = convbench("diff", MNIST)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Missing argument 'NEW.json'" in done.stderr
