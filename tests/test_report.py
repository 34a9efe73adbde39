"""Test reports: golden files of every format, and what holds whatever is reported.

CONVBENCH_REWRITE_GOLDEN=1 pytest tests/test_report.py writes the golden files anew: read the diff.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from pydantic import TypeAdapter
from rich.cells import cell_len
from rich.console import Console

from convbench.errors import ConvbenchError
from convbench.report import FORMATS, format_of, render
from convbench.report.formats.markdown import escape
from convbench.report.formats.terminal import print_report
from convbench.report.typeset import clean, shorten, width, wrap
from convbench.report.views import scale
from convbench.report.views.run_tables import report
from convbench.report.views.table import Kind, Value
from convbench.results.model import Agreement, ResultFile
from tests.report_fixture import (
    MINE,
    RUNS,
    confirmed_run,
    crowded_run,
    empty_run,
    full_run,
    pair_run,
    small_run,
    typical_run,
    undisturbed_run,
)

GOLDEN = Path(__file__).parent / "golden"
VIEWS = {
    "typical": ("80", "120", "txt", "md"),
    "full": ("80", "120", "txt", "md", "csv", "json"),
    "large": ("80", "120", "txt", "md"),
    "small": ("80", "txt", "md", "csv"),
    "empty": ("80", "txt", "md", "csv", "json"),
    "checked": ("80", "txt", "md"),
    "undisturbed": ("80", "txt", "md", "csv"),
    "crowded": ("80", "txt", "md"),
    "busy": ("80", "txt", "md"),
    "confirmed": ("80", "120", "txt", "md", "csv"),
    "pair": ("80", "txt", "md", "csv"),
}
BOX = set("╭╮╰╯├┤─│")
ESCAPE = "\x1b"


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def on_terminal(result: ResultFile, columns: int) -> str:
    stream = io.StringIO()
    print_report(
        report(result),
        Console(file=stream, force_terminal=True, width=columns, color_system=None),
    )
    # Bold and dim remain without colours.
    return re.sub(r"\x1b\[[\d;]*m", "", stream.getvalue())


def piped(result: ResultFile) -> str:
    stream = io.StringIO()
    print_report(report(result), Console(file=stream))
    return stream.getvalue()


def view(result: ResultFile, how: str) -> str:
    if how.isdigit():
        return on_terminal(result, int(how))
    return render(report(result), format_of(f"report.{how}"))


@pytest.mark.parametrize(
    ("run", "how"), [(run, how) for run, hows in VIEWS.items() for how in hows]
)
def test_reports_match_their_golden_files(run: str, how: str) -> None:
    golden = GOLDEN / (f"{run}.at{how}.txt" if how.isdigit() else f"{run}.{how}")
    shown = view(RUNS[run](), how)
    if os.environ.get("CONVBENCH_REWRITE_GOLDEN") == "1":
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(shown, encoding="utf-8")
    assert shown == golden.read_text(encoding="utf-8")


def test_no_golden_file_is_left_over() -> None:
    names = {
        f"{run}.at{how}.txt" if how.isdigit() else f"{run}.{how}"
        for run, hows in VIEWS.items()
        for how in hows
    }
    assert {path.name for path in GOLDEN.iterdir() if path.is_file()} == names


# The registry


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("run", RUNS)
def test_every_format_renders_every_run(run: str, format: str) -> None:
    shown = report(RUNS[run]())
    rendered = render(shown, format)
    assert rendered.endswith("\n")
    if format == "customSmallerIsBetter" and not shown.points:
        assert rendered == "[]\n"  # its entries are times, but nothing was timed
    else:
        assert RUNS[run]().cells[0].implementation in rendered


@pytest.mark.parametrize(
    ("path", "format"),
    [
        ("a.md", "markdown"),
        ("a/b.csv", "csv"),
        ("a.JSON", "json"),
        ("a.svg", "svg"),
        ("x.txt", "table"),
    ],
)
def test_the_suffix_chooses_the_format(path: str, format: str) -> None:
    assert format_of(path) == format_of(Path(path)) == format


@pytest.mark.parametrize(("path", "found"), [("out.xlsx", "'.xlsx'"), ("out", "no suffix")])
def test_an_unknown_suffix_is_refused_with_the_known_ones(path: str, found: str) -> None:
    with pytest.raises(ConvbenchError, match=found) as caught:
        format_of(path)
    assert caught.value.hint is not None
    assert all(suffix in caught.value.hint for suffix in (".md", ".csv", ".json", ".svg", ".txt"))


def test_an_unknown_format_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConvbenchError, match="'pdf'") as caught:
        render(report(small_run()), "pdf")
    assert "markdown" in (caught.value.hint or "")


def test_building_a_report_loads_no_heavy_module() -> None:
    code = (
        "import sys, convbench.report.views.run_tables, convbench.report.formats.markdown, "
        "convbench.report.formats.csv_, convbench.report.formats.json_; "
        "print(sorted({'rich', 'pydantic', 'numpy', 'tensorflow'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


# On a terminal


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("columns", [80, 81, 97, 100, 120, 200])
def test_no_line_is_wider_than_the_terminal(run: str, columns: int) -> None:
    assert max(cell_len(line) for line in on_terminal(RUNS[run](), columns).splitlines()) <= columns


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("columns", [40, 80, 100])
def test_boxes_are_closed(run: str, columns: int) -> None:
    boxed = [line for line in on_terminal(RUNS[run](), columns).splitlines() if line[:1] in BOX]
    assert boxed
    while boxed:
        assert boxed[0][0] == "╭"
        end = next(i for i, line in enumerate(boxed) if line[0] == "╰") + 1
        assert len({cell_len(line) for line in boxed[:end]}) == 1
        assert all(line[-1] in "╮╯┤│" for line in boxed[:end])
        boxed = boxed[end:]


def test_every_column_and_number_of_a_typical_run_fits_80_columns() -> None:
    shown = on_terminal(typical_run(), 80)
    assert "ms" in shown
    assert "MiB GFLOP/s    %" in shown
    row = next(line for line in shown.splitlines() if line.startswith("│ im2col "))
    assert row.split() == [
        *("│", "im2col", "exact", "0.339", "±1.2%", "183", "±2.2%", "0.920", "±2.5%"),
        *("6.19", "9.19", "2.8", "│"),
    ]


@pytest.mark.parametrize("columns", [30, 60, 80, 90, 120])
def test_numbers_are_never_cut(columns: int) -> None:
    shown = on_terminal(full_run(), columns)
    for figure in ("62.1 ±1.2%", "183 ±2.1%", "0.00502 ±2.0%", "0.00614 ±5.0%?", "0.000170 ±13%"):
        assert figure in shown
    assert not re.search(r"\d…", shown)


def test_shortened_names_still_differ() -> None:
    other = MINE.replace("forward", "backwards_forward")
    twins = replace(
        full_run(),
        cells=tuple(
            replace(cell, implementation=name)
            for cell in full_run().cells[:1]
            for name in (MINE, other, "a/" * 30 + MINE)
        ),
        speedups=(),
    )
    rows = [line for line in on_terminal(twins, 60).splitlines() if "62.1" in line]
    assert len({row.split()[1] for row in rows}) == 3


# Off a terminal


@pytest.mark.parametrize("run", RUNS)
def test_piped_output_is_plain_and_unwrapped(run: str) -> None:
    shown = piped(RUNS[run]())
    assert shown == render(report(RUNS[run]()), "table")
    assert ESCAPE not in shown
    assert not BOX & set(shown)
    assert all(line == line.rstrip() for line in shown.splitlines())


def test_piped_reasons_stay_on_one_line_beyond_80_columns() -> None:
    reason = full_run().cells[10].reason
    assert reason is not None
    assert len(reason) > 80
    assert any(reason in line for line in piped(full_run()).splitlines())


# Colour


def test_colours_mark_speedups_faults_and_what_was_left_out() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80, color_system="standard")
    print_report(report(full_run()), console)
    shown = stream.getvalue()
    assert re.search(r"\x1b\[32m +183\x1b", shown)  # a speedup over 1
    assert not re.search(r"\x1b\[32m +0\.920\x1b", shown)
    assert re.search(r" 163\x1b", shown)
    assert not re.search(r"\x1b\[32m +163\x1b", shown)  # it is not reliable
    assert re.search(r"\x1b\[31mwrong: ", shown)
    assert re.search(r"\x1b\[31mfailed: ", shown)
    assert re.search(r"\x1b\[2munsupported: ", shown)
    assert re.search(r"\x1b\[2mskipped: ", shown)


def test_no_color_leaves_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = io.StringIO()
    print_report(report(full_run()), Console(file=stream, force_terminal=True, width=80))
    codes = {
        code
        for found in re.findall(r"\x1b\[([\d;]*)m", stream.getvalue())
        for code in found.split(";")
    }
    assert codes <= {"0", "1", "2"}


def test_force_color_colours_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert re.search(r"\x1b\[3\dm", piped(full_run()))
    assert ESCAPE not in render(report(full_run()), "table")


def test_a_terminal_without_utf8_gets_ascii() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    print_report(report(full_run()), Console(file=stream, force_terminal=True, width=80))
    stream.flush()
    assert b"+----" in raw.getvalue()


# Names and words that others wrote


def test_names_are_not_read_as_markup_or_control() -> None:
    for shown in (on_terminal(full_run(), 80), piped(full_run()), view(full_run(), "csv")):
        assert "stem [bold] | 3×3, größer" in shown
        assert "[dim]not[/dim]" in shown
        assert "killed by signal 9, out of memory" in shown
        assert "畳み込み" in shown


def test_markdown_escapes_pipes_and_brackets() -> None:
    shown = view(full_run(), "md")
    assert r"stem \[bold\] \| 3×3" in shown
    tables = re.findall(r"(?:^\|.*\n)+", shown, re.MULTILINE)
    assert tables
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_escape_leaves_plain_names_alone() -> None:
    assert escape("my_conv.py:forward_fast 3x3 -> 5 < 6") == "my_conv.py:forward_fast 3x3 -> 5 < 6"
    assert escape("__init__ a*b <b>") == r"\_\_init\_\_ a\*b \<b>"


# Claims


def test_without_intervals_the_report_shows_none() -> None:
    for how in ("80", "txt", "md"):
        shown = view(small_run(), how)
        assert "±" not in shown
        assert "no interval: 3 rounds" in " ".join(shown.split())
        assert "Nothing can be told apart yet: 3 rounds give no interval, 5 do." in shown


def test_unreliable_speedups_are_marked_and_their_passes_named() -> None:
    shown = piped(full_run())
    assert "1 of 2 twins agrees" in shown
    assert "conv2 input-gradient: im2col and its twin differ by 7.4 %; the claim is 5.0 %" in shown
    section = shown[shown.index("conv2 input-gradient  ") :].split("\n\n")[0]
    assert section.count("%?") == 4
    assert "%?" not in shown[: shown.index("conv2 input-gradient  ")]


def test_a_wrong_cell_has_its_time_marked_and_no_speedup() -> None:
    row = next(line for line in piped(full_run()).splitlines() if "12.3 " in line)
    assert row.split()[1:5] == ["wrong", "12.3", "wrong", "-"]
    # A wrong cell is never ranked, not even where the file has a speedup of it.
    result = full_run()
    stray = replace(result.speedups[1], implementation=result.cells[6].implementation)
    assert row in piped(replace(result, speedups=(*result.speedups, stray)))


def test_the_fastest_keras_is_named_in_its_own_row() -> None:
    rows = [line for line in piped(full_run()).splitlines() if "fastest " in line and "±" in line]
    assert [row.split()[0] for row in rows] == ["keras-graph", "keras-graph"]


def test_a_report_without_twins_says_so() -> None:
    shown = piped(replace(full_run(), duplicates=()))
    assert "; without twins nothing says whether the machine was calm." in shown


@pytest.mark.parametrize("run", RUNS)
def test_nothing_is_called_reliable_beside_its_deviation(run: str) -> None:
    """Earlier versions could say this: `largest deviation 33 %; reliable`."""
    shown = piped(RUNS[run]())
    assert "A/A check" not in shown
    assert not re.search(r"(?<!not )reliable$", shown, re.MULTILINE)


def test_an_unusual_state_stands_in_the_head_of_the_report() -> None:
    words = "measured  the first call after a pause of 0.15 s, not calls in a tight loop"
    head = piped(confirmed_run()).split("\n\n")[0]
    assert words in head.splitlines()
    assert "measured" not in piped(typical_run()).split("\n\n")[0]


def test_the_mark_of_an_undisturbed_verdict_stands_where_notes_name_it() -> None:
    lines = piped(undisturbed_run()).splitlines()
    marked = [line.split()[0] for line in lines if re.search(r"±[\d.]+%!", line)]
    assert marked == ["im2col", "im2col", "im2col"]  # two cells, and the mean of all passes
    assert "!" not in piped(typical_run())
    unreliable = tuple(replace(s, reliable=False) for s in undisturbed_run().speedups)
    shown = piped(replace(undisturbed_run(), speedups=unreliable, summary=()))
    assert "%?" in shown
    assert "!" not in shown  # an unreliable speedup claims nothing that could be turned


def test_at_most_six_of_anything_are_named() -> None:
    lines = piped(crowded_run()).splitlines()
    assert sum(" has two speeds: " in line for line in lines) == 6
    assert "2 more cells have two speeds." in lines
    assert sum(line.endswith(" undisturbed") for line in lines) == 6
    assert sum(bool(re.search(r": (im2col|keras), ±1\d %$", line)) for line in lines) == 6
    assert lines.count("  and 2 more") == 2
    assert lines.count("  and 3 more") == 1


def test_warnings_give_factor_and_hint() -> None:
    lines = piped(full_run()).splitlines()
    at = next(i for i, line in enumerate(lines) if "OPENBLAS_CORETYPE" in line)
    assert lines[at].startswith("warning: ")
    assert lines[at].endswith("(1.84 times as fast without this)")
    assert "unset OPENBLAS_CORETYPE" in lines[at + 1]
    assert "times as fast without" not in lines[at + 2]


def test_the_answer_closes_the_report() -> None:
    assert piped(typical_run()).splitlines()[-1] == (
        "im2col is 213 times as fast as loop, and 0.876 times as fast as the fastest Keras "
        "(geometric means over 4 layer passes, 99 % intervals [209, 218] and [0.858, 0.895])."
    )
    # The user's own code comes first, however slow.
    assert piped(full_run()).splitlines()[-1].startswith(f"{MINE} takes 29.5 times as long as loop")
    assert piped(empty_run()).splitlines()[-1] == "Nothing was timed: 3 pending."
    # Without loop and Keras, the suite's first implementation is the yardstick.
    assert (
        piped(pair_run())
        .splitlines()[-1]
        .startswith(
            "examples/my_convolution.py:forward_fast is 1.02 times as fast as "
            "examples/my_convolution.py:forward (1 layer pass, 99 % interval"
        )
    )
    assert (
        piped(undisturbed_run())
        .splitlines()[-1]
        .endswith("; undisturbed it is 1.02 [1.00, 1.03] times as fast as the fastest Keras.")
    )


# For machines


def test_csv_has_a_row_of_raw_numbers_for_each_cell() -> None:
    result = full_run()
    rows = list(csv.DictReader(io.StringIO(view(result, "csv"))))
    assert len(rows) == len(result.cells)
    im2col = next(row for row in rows if row["implementation"] == "im2col")
    time = result.cells[1].time
    assert time is not None
    assert time.ci99_s is not None
    assert float(im2col["time_s"]) == time.time_s
    assert (float(im2col["time_s_lo"]), float(im2col["time_s_hi"])) == time.ci99_s
    assert float(im2col["speedup_over_loop"]) == 183.2
    assert float(im2col["undisturbed_s"]) == time.undisturbed_s
    assert float(im2col["speedup_over_loop_undisturbed"]) == 1.003 * 183.2
    assert im2col["speedup_over_fastest_keras_chosen"] == "keras-graph"
    assert im2col["speedup_over_fastest_keras_reliable"] == "true"
    failed = next(row for row in rows if row["status"] == "failed")
    assert failed["reason"] == "killed by signal 9, out of memory"
    assert failed["time_s"] == ""


@pytest.mark.parametrize("run", RUNS)
def test_json_is_the_document_of_the_result(run: str) -> None:
    result = RUNS[run]()
    shown = view(result, "json")
    data = json.loads(shown)
    assert data["schema"] == result.schema_
    assert data["cells"][0]["pass"] == "forward"
    assert "pass_" not in shown
    assert "schema_" not in shown
    assert TypeAdapter(ResultFile).validate_json(shown) == result


def test_json_has_only_numbers_that_json_allows() -> None:
    result = full_run()
    infinite = Agreement(False, float("inf"), float("nan"), "wrong", "NaN")
    cells = (replace(result.cells[0], agreement=infinite),)
    data = json.loads(view(replace(result, cells=cells), "json"), parse_constant=pytest.fail)
    assert data["cells"][0]["agreement"]["error_over_bound"] is None


@pytest.mark.parametrize("run", RUNS)
def test_svg_is_well_formed_and_complete(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    coloured = view(RUNS[run](), "svg")
    words = "".join(ElementTree.fromstring(coloured).itertext()).replace("\xa0", " ")
    assert RUNS[run]().cells[-1].implementation in words
    assert "╰" in words
    monkeypatch.setenv("NO_COLOR", "1")
    assert view(RUNS[run](), "svg") == coloured


# Numbers


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (62.13, "62.1"),
        (183.2, "183"),
        (0.9201, "0.920"),
        (9.996, "10.0"),
        (9.994, "9.99"),
        (99.96, "100"),
        (999.6, "1000"),
        (1234.5, "1230"),
        (12345678.0, "12300000"),
        (0.00502, "0.00502"),
        (0.0, "0"),
        (-0.5, "-0.500"),
        (1.5e-7, "1.50e-07"),
        (3e12, "3.00e+12"),
        (float("inf"), "inf"),
    ],
)
def test_numbers_have_three_significant_digits(number: float, shown: str) -> None:
    assert scale.significant(number) == shown


@pytest.mark.parametrize(
    ("fraction", "shown"),
    [
        (0.54, "54"),
        (0.0995, "10"),
        (0.0453, "4.5"),
        (0.0012, "0.12"),
        (0.00001, "<0.01"),
        (0, "0.00"),
    ],
)
def test_a_percentage_has_two_digits(fraction: float, shown: str) -> None:
    assert scale.percent(fraction) == shown


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (100 / 1.012, 100 * 1.012, "±1.2%"),
        (100 / 1.0121, 100 * 1.0121, "±1.3%"),
        (1.0, 1.0, "±0.1%"),
        (1 / 1.098, 1.098, "±9.8%"),
        (1 / 1.0995, 1.0995, "±10%"),
        (0.5, 2.0, "±100%"),
        (0.0, 2.0, "±?"),
    ],
)
def test_a_half_width_is_rounded_up(low: float, high: float, shown: str) -> None:
    assert scale.half_width((low, high)) == shown


def test_each_kind_of_value_has_one_unit() -> None:
    assert scale.scaled(Kind.TIME_S, 0.0621) == "62.1"
    assert scale.scaled(Kind.BYTES, 5305600) == "5.06"
    assert scale.scaled(Kind.RATE, 1.23e11) == "123"
    assert scale.bounded(Value(Kind.TIME_S, 0.0621, (0.0614, 0.0629))) == "62.1 [61.4, 62.9]"
    assert scale.amount_of_flops(10.6e6) == "10.6 MFLOP"
    assert scale.amount_of_flops(640) == "640 FLOP"


# Words on a grid


def test_wrapping_keeps_numbers_with_their_units() -> None:
    assert wrap("naive im2col 5.06 MiB", 17) == ["naive im2col", "5.06 MiB"]
    assert wrap("between [1.02, 1.04] now", 14) == ["between", "[1.02, 1.04]", "now"]
    assert wrap("a" * 7, 3) == ["aaa", "aaa", "a"]
    assert wrap("畳み込み", 4) == ["畳み", "込み"]
    assert wrap("any width at all", None) == ["any width at all"]


def test_shortening_keeps_the_end() -> None:
    assert shorten("examples/conv.py:fast", 10) == "…v.py:fast"
    assert width(shorten("畳み込み畳み込み", 6)) <= 6
    assert shorten("short", 10) == "short"


def test_cleaning_removes_what_moves_a_cursor() -> None:
    assert clean("a\x1b[2Jb\nc\td\r\x07e\u202ef") == "ab c d e f"
