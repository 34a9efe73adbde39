"""Test the commands beside `run`: show, machine, schema, and what holds for all of them."""

import csv
import io
import json
import os
import re
import struct
import subprocess
import sys
import tomllib
from xml.etree import ElementTree

import jsonschema
import pytest

from tests.cli import ROOT, command, convbench, run_tiny


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    output = tmp_path_factory.mktemp("tiny") / "tiny.json"
    done, document = run_tiny(output)
    assert done.returncode == 0, done.stderr
    return done, document, output


def test_help_names_every_command_and_loads_nothing_heavy():
    program = (
        "import sys; sys.argv = ['convbench', '--help']\n"
        "from convbench.cli import main\n"
        "try: main()\n"
        "except SystemExit as done: assert done.code == 0\n"
        "heavy = {'numpy', 'tensorflow', 'pydantic', 'rich', 'pyperf', 'yaml', 'psutil'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    for name in ("run", "show", "machine", "schema"):
        assert re.search(rf"^  {name} ", done.stdout, re.MULTILINE)


def test_the_version_is_the_declared_one():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert convbench("--version").stdout == f"convbench {declared}\n"


def test_show_prints_what_run_printed(tiny):
    done, _, output = tiny
    assert convbench("show", output).stdout == done.stdout


@pytest.mark.parametrize("format_", ["markdown", "csv", "json"])
def test_show_writes_every_format(tiny, format_, tmp_path):
    _, document, output = tiny
    done = convbench("show", output, "--format", format_)
    assert done.returncode == 0, done.stderr
    if format_ == "json":
        assert json.loads(done.stdout) == document["convbench"]
    elif format_ == "csv":
        rows = list(csv.DictReader(io.StringIO(done.stdout)))
        assert len(rows) == len(document["convbench"]["cells"])
        assert float(rows[0]["time_s"]) == document["convbench"]["cells"][0]["time"]["time_s"]
    else:
        assert "| im2col" in done.stdout
    suffix = {"markdown": "md"}.get(format_, format_)
    file = tmp_path / f"out.{suffix}"
    assert convbench("show", output, "-o", file).returncode == 0
    assert file.read_text() == done.stdout


def test_show_draws_a_picture(tiny, tmp_path):
    picture = tmp_path / "picture.svg"
    assert convbench("show", tiny[2], "-o", picture).returncode == 0
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")
    assert "im2col" in picture.read_text()


@pytest.mark.parametrize("suffix", ["", ".xyz"])
def test_an_unknown_suffix_is_a_usage_error(tiny, tmp_path, suffix):
    done = convbench("show", tiny[2], "-o", tmp_path / f"x{suffix}")
    assert done.returncode == 2
    assert ".svg" in done.stderr


def test_piped_output_has_no_box_no_colour_and_whole_numbers(tiny):
    done = convbench("show", tiny[2], COLUMNS="40")
    assert "\x1b" not in done.stdout
    assert "…" not in done.stdout
    assert "│" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) > 80


def _in_a_terminal(columns, *arguments, **environment):
    """Return what a command prints in a real terminal of `columns` columns."""
    pty = pytest.importorskip("pty", reason="Windows has no pseudo-terminals")
    import fcntl
    import termios

    parent, child = pty.openpty()
    size = struct.pack("HHHH", 60, columns, 0, 0)
    fcntl.ioctl(child, termios.TIOCSWINSZ, size)
    process = subprocess.Popen(
        command(*arguments),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **environment},
        stdin=child,
        stdout=child,
        stderr=child,
        close_fds=True,
    )
    os.close(child)
    chunks = []
    while True:
        try:
            chunk = os.read(parent, 65536)
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
        chunks.append(chunk)
    os.close(parent)
    assert process.wait() == 0
    return b"".join(chunks).decode().replace("\r\n", "\n")


ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def test_a_terminal_of_80_columns_is_not_overrun(tiny):
    printed = _in_a_terminal(80, "show", tiny[2])
    assert "\x1b[" in printed, "there is no colour in a terminal"
    plain = ESCAPES.sub("", printed)
    assert max(map(len, plain.splitlines())) <= 80
    assert "│" in plain
    # Every figure of the wide output is in the narrow one: nothing was cut.
    times = [row["time"]["time_s"] * 1e3 for row in tiny[1]["convbench"]["cells"]]
    assert all(f"{time:.3g}"[:4].rstrip("0") in plain for time in times)


@pytest.mark.parametrize("name", ["mnist", "mnist-conv2"])
def test_a_real_standard_run_fits_80_columns(name):
    """Intervals, three passes and speedups of a hundredth make this run wider than a smoke run."""
    plain = ESCAPES.sub("", _in_a_terminal(80, "show", f"results/{name}.json"))
    assert max(map(len, plain.splitlines())) <= 80


def test_no_color_is_honoured_in_a_terminal(tiny):
    printed = _in_a_terminal(80, "show", tiny[2], NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", printed)


@pytest.mark.parametrize("document", ["suite", "network", "result"])
def test_the_schema_that_is_printed_is_valid(document, tiny):
    done = convbench("schema", document)
    assert done.returncode == 0
    schema = json.loads(done.stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    if document == "result":
        jsonschema.validate(tiny[1]["convbench"], schema)
        broken = {**tiny[1]["convbench"], "rounds": "many"}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema)


def test_machine_shows_what_was_measured(tmp_path):
    output = tmp_path / "machine.json"
    done = convbench("machine", "-o", output)
    assert done.returncode == 0, done.stderr
    found = json.loads(output.read_text())
    calibration = found["machine"]["calibration"]
    assert set(calibration["sgemm"]) == set(calibration["dgemm"])
    assert calibration["sgemm"]["1"] > 1e9
    assert calibration["copy_bytes_per_s"] > 1e8
    assert 1e-8 < calibration["small_call_s"] < 1e-4
    assert 1e-9 < calibration["fresh_page_s"] < 1e-4
    assert found["software"]["versions"]["numpy"]
    assert found["software"]["blas"]


def _edited(tiny, tmp_path, change):
    document = json.loads(tiny[2].read_text())
    change(document)
    file = tmp_path / "edited.json"
    file.write_text(json.dumps(document))
    return file


def _set(document, value, *keys):
    for key in keys[:-1]:
        document = document[key]
    if value is None:
        del document[keys[-1]]
    else:
        document[keys[-1]] = value


EDITS = {
    "no convbench key": ((None, "convbench"), "there is no key 'convbench'"),
    "a newer schema": (
        ("convbench-result/2", "convbench", "schema"),
        "written as convbench-result/2, but this convbench reads up to convbench-result/1",
    ),
    "another schema": (("x", "convbench", "schema"), "found 'x', expected 'convbench-result/1'"),
    "a missing key": ((None, "convbench", "cells", 0, "layer"), "convbench.cells.0.layer: Field"),
    "a bad status": (("good", "convbench", "cells", 1, "status"), "convbench.cells.1.status: "),
    "a sample of zero": ((0.0, "benchmarks", 0, "runs", 0, "values", 1), "must be positive"),
    "a sample of NaN": (
        (float("nan"), "benchmarks", 0, "runs", 0, "values", 0),
        "samples must be positive seconds",
    ),
    "no samples": (([], "benchmarks", 0, "runs", 0, "values"), "samples must be positive"),
    "a run without its round": (
        (None, "benchmarks", 0, "runs", 0, "metadata", "round"),
        "benchmarks: these are not as convbench writes them (KeyError: 'round')",
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_file_is_refused(tiny, tmp_path, edit):
    (value, *keys), message = EDITS[edit]
    file = _edited(tiny, tmp_path, lambda document: _set(document, value, *keys))
    done = convbench("show", file)
    assert done.returncode == 2
    assert str(file) in done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "this is not JSON"),
        (b'{"convbench": {', "this is not JSON"),
        (b"[1]", "expected an object at the top, found a list"),
        (b"\xff\xfe\x00", "this is not text"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_file_that_is_no_result_is_refused(tmp_path, content, message):
    file = tmp_path / "bad.json"
    file.write_bytes(content)
    done = convbench("show", file)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_truncated_file_says_where(tiny, tmp_path):
    file = tmp_path / "cut.json"
    file.write_text(tiny[2].read_text()[:5000])
    done = convbench("show", file)
    assert done.returncode == 2
    assert f"{file}:1:" in done.stderr


def test_missing_files_are_named(tmp_path):
    for file in (tmp_path / "none.json", tmp_path):
        done = convbench("show", file)
        assert done.returncode == 2
        assert str(file) in done.stderr
        assert "Traceback" not in done.stderr
