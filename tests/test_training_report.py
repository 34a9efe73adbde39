"""Test what `convbench train` prints, by golden files of made-up trainings.

CONVBENCH_REWRITE_GOLDEN=1 pytest tests/test_training_report.py writes the files. Read the diff.
"""

import dataclasses
import io
import os
import re
from pathlib import Path

import pytest
from rich.console import Console

from convbench.report import format_of, render
from convbench.report.formats.terminal import print_report
from convbench.results.model import (
    SCHEMA,
    Agreement,
    ArmTraining,
    Cell,
    Duplicate,
    Phases,
    ResultFile,
    Speedup,
    Step,
    Time,
    TimeState,
    Training,
)
from convbench.suites.suite import Suite
from convbench.training.network import Conv2D, Dense, Flatten, MaxPooling2D, Network, ReLU
from convbench.training.tables import BARS, curve, report
from convbench.training.weights_file import described
from tests.report_fixture import MACHINE, SOFTWARE

GOLDEN = Path(__file__).parent / "golden" / "train"
MINE = "examples/my_convolution.py:Convolution"
NETWORK = Network(
    "mnist_cnn",
    (28, 28, 1),
    (Conv2D(8, (3, 3)), ReLU(), MaxPooling2D(), Conv2D(16, (3, 3)), ReLU(), Flatten(), Dense(10)),
)
STEPS = 1875
PHASES = {
    "data": 2e-5,
    "conv forward": 7e-4,
    "input gradient": 6e-4,
    "kernel gradient": 6.5e-4,
    "layout": 3e-5,
    "other layers": 7.5e-4,
    "optimiser": 1.4e-4,
}
LOSSES = tuple(2.3 / (1 + i / 10) for i in range(200))


def _cell(name, time_s, status="ok", rounds=8, reason=None, bound=0.03):
    time = None
    if time_s is not None:
        interval = (time_s * 0.98, time_s * 1.03) if rounds >= 5 else None
        time = Time(time_s, interval, rounds, rounds, f"mnist_cnn/training-step/{name}")
    agreement = None
    if not name.startswith("keras"):
        verdict = "wrong" if status == "wrong" else "agrees"
        agreement = Agreement(None, bound, 1e-6, verdict, reason)
    return Cell("mnist_cnn", Step.TRAINING, name, status, reason, agreement, time)


def _arm(name, steps, followed=100, dtype="float32", slow=1.0, took=None):
    if name.startswith("keras"):
        return ArmTraining(name, steps, 0, "float32", None, None, (), (0.981, 0.983, 0.982))
    phases = {key: value * slow for key, value in PHASES.items()}
    accuracies = (0.982, 0.984) if steps >= STEPS else ()
    losses = LOSSES if steps >= STEPS else LOSSES[:7]
    return ArmTraining(name, steps, followed, dtype, 0.03, phases, losses, accuracies, took or {})


def _speedup(name, versus, chosen, ratio, rounds=8):
    interval = (ratio * 0.95, ratio * 1.06) if rounds >= 5 else None
    part = Step.TRAINING
    return Speedup("mnist_cnn", part, name, versus, chosen, ratio, interval, rounds, True)


def _result(cells, arms, speedups, duplicates=(), rounds=8):
    names = tuple(cell.implementation for cell in cells)
    training = Training(
        described(NETWORK),
        "mnist",
        "MNIST is in Keras's cache; images of mnist.npz: 60,000 to train on, 10,000 held out",
        60_000,
        10_000,
        1,
        STEPS,
        tuple(arms),
    )
    return ResultFile(
        schema_=SCHEMA,
        suite=Suite("mnist_cnn", (), names, ()),
        machine=MACHINE,
        software=SOFTWARE,
        environment={},
        warnings=(),
        threads=2,
        effort="standard" if rounds > 1 else "smoke",
        seed=0,
        rounds=rounds,
        cells=tuple(cells),
        speedups=tuple(speedups),
        duplicates=duplicates,
        training=training,
    )


def whole():
    took = {"conv2d_1 forward": "shift-gemm", "conv2d_2 forward": "winograd"}
    return _result(
        [
            _cell("auto", 2.89e-3),
            _cell("loop", 0.106),
            _cell("keras", 2.8e-3),
            _cell("keras-xla", 5e-3),
        ],
        [
            _arm("auto", STEPS, dtype="float64", took=took),
            _arm("loop", 188, slow=40),
            _arm("keras", STEPS),
            _arm("keras-xla", STEPS),
        ],
        [
            _speedup("auto", "loop", "loop", 36.7),
            _speedup("auto", "fastest-keras", "keras", 0.97),
            _speedup("loop", "fastest-keras", "keras", 0.026),
            _speedup("keras", "loop", "loop", 37.8),
            _speedup("keras-xla", "loop", "loop", 21.2),
            _speedup("keras-xla", "fastest-keras", "keras", 0.56),
        ],
        (Duplicate("mnist_cnn", Step.TRAINING, "auto", 1.004, (0.99, 1.02)),),
    )


def wrong():
    why = (
        "departs from Keras at step 3, in conv2d_2/kernel: it is off by 0.0012, but rounding "
        "explains only 4e-08"
    )
    return _result(
        [
            _cell(MINE, None, "wrong", reason=why, bound=3e4),
            _cell("im2col", None, "failed", reason="MemoryError: out of memory"),
            _cell("keras", 2.8e-3, rounds=1),
            _cell("keras-xla", 5e-3, rounds=1),
        ],
        [
            _arm(MINE, 0, followed=3),
            _arm("im2col", 0, followed=0),
            _arm("keras", 340),
            _arm("keras-xla", 200),
        ],
        [_speedup("keras-xla", "fastest-keras", "keras", 0.56, rounds=1)],
        rounds=1,
    )


def noisy():
    """Make a training with a neighbour, a wide twin, an arm of two speeds, and a verdict that
    undisturbed times would turn."""
    calm = whole()
    auto_over_keras = dataclasses.replace(
        calm.speedups[1], undisturbed_ratio=1.2, undisturbed_ci99=(1.15, 1.25)
    )
    states = (TimeState(2.4e-3, 0.7), TimeState(3.2e-3, 0.3))
    first = dataclasses.replace(
        calm.cells[0], time=dataclasses.replace(calm.cells[0].time, states=states)
    )
    return dataclasses.replace(
        calm,
        cells=(first, *calm.cells[1:]),
        speedups=(calm.speedups[0], auto_over_keras, *calm.speedups[2:]),
        duplicates=(
            Duplicate("mnist_cnn", Step.TRAINING, "auto", 1.03, (0.9, 1.18), claimed=0.12),
        ),
        phases=Phases(visits=48, disturbed=16, set_aside=0, load=2.0),
    )


def once():
    arms = [_arm("im2col", STEPS, followed=0)]
    return _result([_cell("im2col", None)], arms, [], rounds=0)


RUNS = {"whole": whole, "wrong": wrong, "once": once, "noisy": noisy}
BOX = set("╭╮╰╯├┤─│")


def view(result, how):
    if not how.isdigit():
        return render(report(result), format_of(f"report.{how}"))
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=int(how), color_system=None)
    print_report(report(result), console)
    return re.sub(r"\x1b\[[\d;]*m", "", stream.getvalue())


@pytest.mark.parametrize("how", ["80", "txt", "md", "csv", "json"])
@pytest.mark.parametrize("run", RUNS)
def test_reports_are_as_in_the_golden_files(run, how, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    golden = GOLDEN / (f"{run}.at{how}.txt" if how.isdigit() else f"{run}.{how}")
    found = view(RUNS[run](), how)
    if os.environ.get("CONVBENCH_REWRITE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(found)
    assert found == golden.read_text()


@pytest.mark.parametrize("run", RUNS)
def test_no_line_is_wider_than_the_terminal(run, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    assert max(map(len, view(RUNS[run](), "80").splitlines())) <= 80


def test_an_extrapolated_epoch_is_marked_and_told():
    found = view(whole(), "txt")
    assert re.search(r"^loop .*~199 ", found, re.MULTILINE)
    assert "the epoch of loop is extrapolated from 188 steps" in found
    assert "~5.42" not in found


def test_a_wrong_arm_is_told_with_the_step_at_which_it_departs():
    found = view(wrong(), "txt")
    assert f"{MINE} is wrong in training-step: departs from Keras at step 3" in found


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ((1.0,), "█"),
        ((0.0, 0.0), "▁▁"),
        ((8.0, 4.0, 0.0), "█▅▁"),
        (tuple(range(80)), None),
    ],
)
def test_a_curve_goes_from_the_largest_mean_to_zero(losses, expected):
    drawn = curve(losses)
    assert set(drawn) <= set(BARS)
    if expected is None:
        assert len(drawn) == 40
        assert list(drawn) == sorted(drawn)
    else:
        assert drawn == expected


def test_the_json_document_is_the_result():
    assert report(whole()).document == whole()
    assert [check.outcome for check in report(wrong()).checks] == [
        "failed",
        "failed",
        "passed",
        "passed",
    ]
    assert dataclasses.replace(whole()).training.arms[0].took
