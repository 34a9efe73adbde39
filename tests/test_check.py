"""Test `convbench check` as a user runs it: what it prints, saves and returns, and its report.

CONVBENCH_REWRITE_GOLDEN=1 pytest tests/test_check.py writes the golden files anew: read the diff.
"""

import io
import json
import os
import re
import shlex
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from convbench.problem.layer import Layer, Pass
from convbench.problem.unsupported import Unsupported
from convbench.report import render
from convbench.report.formats.terminal import print_report
from convbench.report.views.check_tables import report
from convbench.results.model import Agreement, Cell, Example, Explanation, MistakeKind, RemarkKind
from convbench.suites.suite import Suite
from tests.cli import ROOT, TINY, USERS, command, convbench, launched
from tests.report_fixture import empty_run
from tests.systems import linux

GOLDEN = Path(__file__).parent / "golden" / "check"
VIEWS = ("80", "txt", "md", "csv")
EXAMPLE = "examples/my_conv.py"
OWN = "my_conv.py:Conv"
TAKES_NO_BIAS = Unsupported("Conv.forward does not accept bias", ("bias",), "Conv.forward")
LAYERS = tuple(
    Layer(name, (9, 8, 3), 4, (3, 2), batch_size=2, use_bias=name == "bias")
    for name in ("plain", "bias", "wide", "[bold]", "last")
)


# The report


def checked():
    """Make a result with every status and every kind of explanation."""
    agrees = Agreement(True, 0.3, 1e-7, "agrees").remarked(
        RemarkKind.LIKE_A_TRANSFORM, "it rounds 3 times as much"
    )
    rounds = Agreement(False, 0.04, 1e-4, "agrees")
    small = replace(LAYERS[0], input_shape=(1, 2, 1), filters=1, kernel_size=(1, 2), batch_size=1)
    example = Example(
        small,
        "image 0, filter 0, row 0, column 0",
        -348.0,
        -621.0,
        "image 0, filter 1 of 6x7x3 -> 4x6x4, kernel 3x2, batch 2",
        ("..##", ".###", "####"),
    )
    flipped = replace(
        Explanation.of(
            [MistakeKind("kernel-flipped", "height")], "the kernel is flipped in height", True
        ),
        example=example,
    )
    kept = Explanation.of(
        [MistakeKind("depends-on-previous-call", "earlier result")],
        "it returns an earlier result",
        False,
    )
    nothing = Explanation.of(
        [MistakeKind("")], "no mistake that convbench knows explains it", False
    )

    def wrong(explanation):
        return Agreement(
            False, 9.0, 3.0, "wrong", "3 of 9 elements differ", explanation=explanation
        )

    def cell(layer, pass_, status, agreement=None, reason=None, said=(), name=OWN):
        return Cell(layer.name, pass_, name, status, reason, agreement, said=said)

    f, i, k = Pass
    plain, bias, wide, bold, last = LAYERS
    cells = [
        cell(plain, f, "ok", agrees, said=("my_conv.py:3: printed: hello",)),
        replace(cell(bias, f, "unsupported", reason=TAKES_NO_BIAS.why), unsupported=TAKES_NO_BIAS),
        cell(wide, f, "wrong", wrong(flipped), "the kernel is flipped"),
        cell(bold, f, "wrong", wrong(replace(flipped, example=None)), "the kernel is flipped"),
        cell(last, f, "wrong", wrong(nothing), "3 of 9 elements differ"),
        cell(plain, i, "failed", None, "ValueError: no (c.py:7, in f)", ("c.py:7, in f: g(3)",)),
        cell(bias, i, "failed", None, "ValueError: no (c.py:7, in f)"),
        *(cell(layer, i, "ok", rounds) for layer in LAYERS[2:]),
        cell(plain, k, "wrong", wrong(kept), "it returns an earlier result"),
        cell(bias, k, "skipped", Agreement(True, 0, 0, "mistrusted", "all is zero"), "all is zero"),
        *(
            cell(layer, k, "unsupported", reason="it has no kernel_gradient")
            for layer in LAYERS[2:]
        ),
        *(cell(layer, p, "ok", agrees, name="im2col") for p in Pass for layer in LAYERS),
    ]
    suite = Suite("mine", LAYERS, (OWN, "im2col"))
    return replace(empty_run(), suite=suite, cells=tuple(cells), threads=2)


def rendered(how):
    if how != "80":
        return render(report(checked()), {"txt": "table", "md": "markdown", "csv": "csv"}[how])
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80, color_system=None)
    print_report(report(checked()), console)
    return re.sub(r"\x1b\[[\d;]*m", "", stream.getvalue())


@pytest.mark.parametrize("how", VIEWS)
def test_reports_match_their_golden_files(how, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    golden = GOLDEN / ("mine.at80.txt" if how == "80" else f"mine.{how}")
    text = rendered(how)
    if os.environ.get("CONVBENCH_REWRITE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert golden.read_text() == text
    if how == "80":
        assert max(map(len, text.splitlines())) <= 80


# The command


def test_wrong_code_is_explained_on_the_smallest_layer(tmp_path):
    saved = tmp_path / "check.json"
    done = convbench("check", f"{EXAMPLE}:convolve_flipped", "geometry", "-o", saved)
    assert done.returncode == 5
    assert "the kernel is flipped in height and width" in done.stdout
    assert "kernel 1x2, batch 1" in done.stdout or "kernel 2x1, batch 1" in done.stdout
    document = json.loads(saved.read_text())
    assert "benchmarks" not in document
    wrong = [c for c in document["convbench"]["cells"] if c["status"] == "wrong"]
    assert {tuple(c["agreement"]["explanation"]["causes"]) for c in wrong} == {("kernel-flipped",)}
    assert all(c["agreement"]["explanation"]["reproduces"] for c in wrong)
    shown = convbench("show", saved)
    assert shown.returncode == 0
    assert shown.stdout == done.stdout


def test_a_suite_alone_has_its_own_implementations_checked():
    done = convbench("check", TINY)
    assert done.returncode == 0, done.stderr
    assert "loop is right in forward" in done.stdout


def test_beside_own_code_a_suite_gives_the_layers_only():
    done = convbench("check", f"{USERS}:right", TINY, "--layer", "a", "--format", "csv")
    assert done.returncode == 0, done.stderr
    rows = [row.split(",")[:4] for row in done.stdout.splitlines()[1:]]
    assert rows == [
        ["a", "forward", f"{USERS}:right", "ok"],
        ["a", "kernel-gradient", f"{USERS}:right", "unsupported"],
    ]


def test_junit_has_the_sentence_that_explains():
    done = convbench("check", f"{USERS}:flipped", TINY, "--format", "junit")
    assert done.returncode == 5
    assert "the kernel is flipped" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name what to check"),
        (("nope.py:f",), "there is no file nope.py"),
        (("no.such.module:f",), "there is no module no.such.module"),
        ((f"{EXAMPLE}:convolv",), "did you mean convolve?"),
        ((EXAMPLE,), "name the one that is meant"),
        ((f"{EXAMPLE}:np",), "the module numpy has none of forward, input_gradient and"),
        ((f"{EXAMPLE}:__name__",), "__name__ is a value of type str, which cannot be called"),
        ((f"{EXAMPLE}:not-a-name",), "is not the name of a function"),
        (("smoke", "mnist"), "found 2 suites"),
        ((f"{EXAMPLE}:convolve", "--layout", "NNHW"), "--layout: found 'NNHW'"),
        (("smoke", "--layout", "NHWC"), "--layout is for --impl"),
        ((f"{USERS}:right", "-o", "x.txt"), "a result file ends in .json"),
    ],
)
def test_bad_arguments_are_usage_errors(arguments, message):
    done = convbench("check", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


MODULE = """
print("imported")
import warnings

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def windows(x, kernel):
    return sliding_window_view(x, kernel.shape[2:], axis=(2, 3))


def says(x, kernel):
    print("called")
    warnings.warn("careful")
    return np.einsum("bchwij,fcij->bfhw", windows(x, kernel), kernel)


def raises(x, kernel):
    print("before")
    return windows(x, kernel) @ 3


def ends(x, kernel):
    raise SystemExit(3)


def nhwc(x, kernel):
    w = sliding_window_view(x, kernel.shape[:2], axis=(1, 2))
    return np.einsum("bhwcij,ijcf->bhwf", w, kernel)


def none(x, kernel):
    pass
"""


@pytest.fixture
def module(tmp_path):
    (tmp_path / "mine.py").write_text(MODULE)
    return tmp_path


def test_what_code_prints_is_shown_with_its_lines(module):
    done = convbench("check", "mine.py:says", "geometry", cwd=module)
    assert done.returncode == 0, done.stderr
    for line in (
        "mine.py:2: printed: imported",
        "mine.py:14: printed: called",
        "mine.py:15: UserWarning: careful",
    ):
        assert line in done.stdout


STREAMS = r"""
import faulthandler, subprocess, sys, warnings

import numpy as np

sys.stdout.reconfigure(line_buffering=True)
sys.stdout.buffer.write(b"b\xc3\xa4h\xff\n")
sys.stdout.close()
assert sys.stderr.encoding == "utf-8" and not sys.stdout.isatty()
faulthandler.enable()
subprocess.run(["true"], stdout=sys.stdout, check=True)
print("half \ud83d")
print("be", end="")
print("gun")
"""


def test_what_code_prints_to_is_a_text_stream(module):
    (module / "streams.py").write_text(STREAMS + MODULE)
    done = convbench("check", "streams.py:says", "geometry", "--layer", "plain", cwd=module)
    assert done.returncode == 0, done.stdout + done.stderr
    for line in (
        "streams.py:7: printed: b\u00e4h\\xff",
        "streams.py:12: printed: half \\ud83d",
        "streams.py:13: printed: begun",
    ):
        assert line in done.stdout


def test_lines_that_are_not_kept_are_counted(module):
    (module / "loud.py").write_text(
        "def f(x, kernel):\n    for i in range(1000):\n        print('line', i)\n"
        "    return says(x, kernel)\n" + MODULE
    )
    done = convbench("check", "loud.py:f", "geometry", "--layer", "plain", cwd=module)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "loud.py:3: printed: line 0" in done.stdout
    more = re.search(r"^ *\.\.\. and (\d+) more lines?$", done.stdout, re.MULTILINE)
    assert int(more[1]) > 1000


def test_an_exception_shows_the_users_frames_only(module):
    done = convbench("check", "mine.py:raises", "geometry", cwd=module)
    assert done.returncode == 5
    assert "(mine.py:21, in raises)" in done.stdout
    assert "mine.py:20: printed: before" in done.stdout
    assert "convbench/" not in done.stdout


@pytest.mark.parametrize("code", ["fails.py:f", "fails:f"])
def test_a_file_that_raises_runs_once_for_each_cell_and_what_it_printed_is_shown(module, code):
    (module / "fails.py").write_text(
        "open('ran', 'a').write('x')\nprint('loading weights')\nraise FileNotFoundError('/w.npy')\n"
    )
    done = convbench("check", code, "geometry", "--layer", "plain", "--pass", "forward", cwd=module)
    assert done.returncode == 5
    assert "crashes in forward: FileNotFoundError: /w.npy (fails.py:3, in <module>)" in done.stdout
    assert "fails.py:2: printed: loading weights" in done.stdout
    assert (module / "ran").read_text() == "x"


def test_an_exit_costs_its_cell_only(module):
    done = convbench("check", "mine.py:ends", "geometry", cwd=module)
    assert done.returncode == 5
    assert "SystemExit: 3 (mine.py:25, in ends)" in done.stdout


def test_a_result_that_is_no_array_is_reported_as_such(module):
    done = convbench("check", "mine.py:none", "geometry", cwd=module)
    assert done.returncode == 5
    assert "none returns None, expected one array of shape (" in done.stdout


def test_other_axes_are_recognised_and_can_be_given(module):
    done = convbench("check", "mine.py:nhwc", "geometry", cwd=module)
    assert done.returncode == 5
    options = ("--layout", "NHWC", "--kernel-layout", "HWIO")
    assert " ".join(options) in done.stdout
    assert convbench("check", "mine.py:nhwc", "geometry", *options, cwd=module).returncode == 0


def test_a_module_with_relative_imports_is_found_by_its_name_and_its_path(module):
    package = module / "package"
    package.mkdir()
    (package / "__init__.py").write_text("raise_if_run_in_parent = __name__\n")
    (package / "inner.py").write_text(MODULE)
    (package / "outer.py").write_text("from .inner import says as convolve\n")
    for code in ("package.outer:convolve", "package/outer.py:convolve"):
        done = convbench("check", code, "geometry", "--layer", "plain", cwd=module)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("code", ["away.py:says", "away:says"])
def test_a_file_that_changes_the_folder_is_found_again(module, code):
    (module / "away.py").write_text(MODULE + "\nimport os\nos.chdir('/')\n")
    done = convbench(
        "check", code, "geometry", "--layer", "plain", "--layer", "strides-2", cwd=module
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_file_never_runs_in_the_parent(module):
    (module / "where.py").write_text(
        "import os\nopen('ran', 'a').write(f'{os.getpid()}\\n')\n" + MODULE
    )
    process = subprocess.Popen(
        command("check", "where.py:says", "geometry", "--layer", "plain"),
        cwd=module,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )
    assert process.wait(60) == 0
    assert str(process.pid) not in (module / "ran").read_text().split()


def test_ctrl_c_shows_the_cells_so_far():
    process = launched("check", f"{USERS}:hangs", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "pending" in out
    assert "interrupted" in err
    assert "Traceback" not in err


def test_a_hang_costs_its_cell_only():
    done = convbench(
        "check",
        f"{USERS}:hangs",
        "--timeout",
        "2",
        "geometry",
        "--layer",
        "plain",
        "--pass",
        "forward",
    )
    assert done.returncode == 5
    assert "no answer for 2 s" in done.stdout


def test_an_existing_file_is_kept_and_the_hint_names_options_of_this_command(tmp_path):
    saved = tmp_path / "saved.json"
    saved.write_text("mine")
    hints = {
        "check": "--force overwrites it, -o chooses another name",
        "run": "--force overwrites it, --resume goes on with it, -o chooses another name",
    }
    for name, hint in hints.items():
        done = convbench(name, TINY, "-o", saved)
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1] == f"convbench: hint: {hint}"
    assert saved.read_text() == "mine"


SAYS_LITTLE = """
import signal, threading

import numpy as np


def memory(x, kernel):
    return np.zeros((1 << 50,))


def compiled(x, kernel):
    return np.random.default_rng(0).integers(-1, -5)


def main_thread_only(x, kernel):
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    return says(x, kernel)


def infinite(x, kernel):
    out = says(x, kernel)
    out[:, 0] = np.inf
    out[:, 1] = np.nan
    return out
"""


@pytest.mark.parametrize(
    ("name", "told", "untold"),
    [
        ("memory", ("out of memory: Unable to allocate", "(little.py:8, in memory)"), "_core"),
        ("compiled", ("ValueError", "(little.py:12, in compiled)"), ".pyx"),
        ("main_thread_only", ("is right in forward",), "share a workspace"),
        ("infinite", ("is wrong in forward",), "RuntimeWarning"),
    ],
)
def test_what_is_not_the_fault_of_the_code_is_not_reported_of_it(module, name, told, untold):
    (module / "little.py").write_text(SAYS_LITTLE + MODULE)
    layer = ("geometry", "--layer", "plain", "--pass", "forward")
    done = convbench("check", f"little.py:{name}", *layer, cwd=module)
    assert all(words in done.stdout for words in told), done.stdout
    assert untold not in done.stdout


def test_an_expression_of_a_suite_has_a_place_in_a_report(module):
    (module / "s.yaml").write_text(
        "layers: [{name: plain, input_shape: [6, 6, 1], filters: 1, kernel_size: 3}]\n"
        "implementations: [{name: m, code: mine.py:says, passes: {forward: none(x) @ kernel}}]\n"
    )
    done = convbench("check", "s.yaml", cwd=module)
    assert done.returncode == 5, done.stderr
    assert "(<forward>:1, in <lambda>)" in done.stdout


def test_json_can_hold_half_a_character(module):
    (module / "half.py").write_text("def f(x, kernel):\n    raise ValueError('half \\ud83d')\n")
    layer = ("geometry", "--layer", "plain", "--pass", "forward", "--format", "json")
    done = convbench("check", "half.py", *layer, cwd=module)
    assert done.returncode == 5, done.stderr
    (cell,) = json.loads(done.stdout)["cells"]
    assert "half \ud83d" in cell["reason"]


def test_what_stdout_cannot_encode_is_replaced(module):
    (module / "snow.py").write_text(
        "def f(x, kernel):\n    raise ValueError('snow \u2603')\n", encoding="utf-8"
    )
    for format_ in ("table", "csv"):
        layer = ("geometry", "--layer", "plain", "--format", format_)
        done = convbench("check", "snow.py", *layer, cwd=module, PYTHONIOENCODING="ascii")
        assert done.returncode == 5, done.stderr
        assert "snow ?" in done.stdout


@pytest.mark.parametrize(
    ("name", "format_"),
    [
        ("right", "json"),
        ("flipped", "table"),
        pytest.param("right", "table", marks=pytest.mark.slow),
        pytest.param("flipped", "json", marks=pytest.mark.slow),
    ],
)
def test_a_reader_that_goes_away_changes_no_exit_code(name, format_):
    line = shlex.join(command("check", f"{USERS}:{name}", TINY, "--format", format_))
    done = subprocess.run(
        ["bash", "-c", f"{line} | true; exit ${{PIPESTATUS[0]}}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == (0 if name == "right" else 5)
    assert "Traceback" not in done.stderr
    assert "Broken pipe" not in done.stderr


@linux
@pytest.mark.parametrize("format_", ["table", "json"])
def test_a_full_disk_behind_stdout_is_reported(format_):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command("check", f"{USERS}:right", TINY, "--format", format_),
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "convbench: error: stdout cannot be written: No space left on device"
    )


def test_the_output_fits_a_terminal_of_80_columns():
    pty = pytest.importorskip("pty", reason="Windows has no pseudo-terminals")
    outer, inner = pty.openpty()
    os.system(f"stty cols 80 rows 24 < {os.ttyname(inner)}")
    process = subprocess.Popen(
        command("check", "-q", f"{EXAMPLE}:convolve_flipped", "geometry", "--layer", "kernel-*"),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "NO_COLOR": "1"},
        stdout=inner,
        stderr=inner,
    )
    os.close(inner)
    seen = b""
    while True:
        try:
            chunk = os.read(outer, 4096)
        except OSError:
            break
        if not chunk:
            break
        seen += chunk
    assert process.wait(60) == 5
    lines = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", seen.decode()).splitlines()
    assert max(map(len, lines)) <= 80
    assert any("#" in line for line in lines)
