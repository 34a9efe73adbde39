"""Test the benchmark of the kernels: its tables of results made by hand, and what it starts.

CONVBENCH_REWRITE_GOLDEN=1 pytest tests/test_kernels_benchmark.py writes the golden file anew: read
the diff. Nothing is timed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from convbench.agreement.check.oracle import expected
from convbench.implementations.registry import BUILT_IN
from convbench.problem.layer import Layer, Pass
from convbench.problem.operands import exact_integers
from convbench.report.formats.terminal import text
from convbench.results import file as result_file
from convbench.results.file import Saved
from convbench.results.model import Cell, ResultFile
from convbench.suites.file import read_suite
from convbench.suites.suite import KERAS_WAYS, shipped_suites
from tests.diff_fixture import saved, with_cells
from tests.gate_fixture import with_twin
from tests.report_fixture import WRONG

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden" / "kernels" / "small.txt"
sys.path.append(str(ROOT / "benchmarks"))  # last: its timeit.py must not hide Python's own

import blocks  # noqa: E402
import kernel_targets  # noqa: E402
import kernels  # noqa: E402
from kernel_tables import report  # noqa: E402
from kernel_targets import Finding, Run, Target  # noqa: E402

FORWARD, INPUT = Pass.FORWARD, Pass.INPUT_GRADIENT
CONV1 = Layer("conv1", (28, 28, 1), 8, (3, 3))
CONV2 = Layer("conv2", (26, 26, 8), 16, (3, 3))
DEPTHWISE = Layer("dw", (14, 14, 32), 32, (3, 3), padding="same", groups=32)
GROUPED = Layer("grouped", (14, 14, 32), 64, (3, 3), groups=4)


def run(
    suite: str = "mnist",
    layers: tuple[Layer, ...] = (CONV1, CONV2),
    passes: tuple[Pass, ...] = (FORWARD, INPUT),
    rounds: int = 8,
    mib: float = 0.661,
    **ms: float,
) -> Saved:
    """Make a run with one time for each implementation (`keras_graph` is keras-graph)."""
    times = {
        (layer.name, pass_, name.replace("_", "-")): seconds
        for layer, pass_, (name, seconds) in product(layers, passes, ms.items())
    }
    made = saved(times, layers=layers, rounds=rounds, noise=0.001, mib=mib)
    named = replace(made.result.suite, name=suite, passes=passes)
    return replace(made, result=replace(made.result, suite=named))


def found(of: Saved, what: str, *targets: Target) -> Finding:
    """Return the finding of that name; there must be exactly one."""
    all_found = kernel_targets.findings([Run.of(of)], targets or kernel_targets.TARGETS)
    (one,) = [finding for finding in all_found if finding.what == what]
    return one


def test_a_target_is_met_by_the_mean_over_the_fastest_of_the_keras_ways() -> None:
    of = run(auto=1.0, keras=3.0, keras_graph=1.5, keras_xla=2.0)
    mean = found(of, "auto: mean")
    assert mean.figure == pytest.approx(1.5, rel=0.01)
    assert mean.interval is not None
    assert mean.interval[0] < 1.5 < mean.interval[1]
    assert (mean.verdict, mean.suite, mean.threads) == ("met", "mnist", 4)


def test_a_mean_below_its_target_is_missed() -> None:
    assert found(run(auto=1.0, keras=1.2), "auto: mean").verdict == "MISSED"


def test_one_slow_cell_misses_its_target_where_the_mean_does_not() -> None:
    of = run(auto=1.0, keras=2.0)
    slow = tuple(
        replace(samples, values=tuple(value * 4 for value in samples.values))
        for samples in of.benchmarks["conv2/input-gradient/auto"]
    )
    of = with_cells(replace(of, benchmarks={**of.benchmarks, "conv2/input-gradient/auto": slow}))
    lowest = found(of, "auto: lowest cell")
    assert lowest.figure == pytest.approx(0.5, rel=0.01)
    assert (lowest.verdict, lowest.where) == ("MISSED", "conv2 input-gradient")
    assert found(of, "auto: mean").verdict == "met"


def test_a_wrong_cell_misses_the_target_and_is_ranked_nowhere() -> None:
    of = with_cells(
        run(auto=1.0, keras=2.0),
        Cell("conv1", FORWARD, "auto", "wrong", "flipped", agreement=WRONG),
    )
    assert found(of, "auto: mean").verdict == "MISSED: 1 wrong"
    shown = text(report([Run.of(of)]))
    assert "mnist, 4 threads: conv1 forward auto is wrong, and not ranked" in shown
    _, _, slowest = shown.partition("the slowest cells")
    assert "conv1 forward " not in slowest.partition("Targets")[0]


@pytest.mark.parametrize("status", ["unsupported", "skipped", "pending"])
def test_a_cell_that_was_not_measured_leaves_a_target_open(status: str) -> None:
    of = with_cells(run(auto=1.0, keras=2.0), Cell("conv1", FORWARD, "auto", status))
    assert found(of, "auto: mean").verdict == f"incomplete: 1 {status}"


def test_without_cells_nothing_is_met() -> None:
    of = run(im2col=1.0, keras=2.0)
    assert found(of, "auto: mean").verdict == "no cells"
    assert found(run(auto=1.0), "auto: mean").verdict == "no cells: 4 without a figure"
    assert not list(kernel_targets.findings([Run.of(run("deepbench", auto=1.0, keras=2.0))]))


def test_an_unreliable_run_is_reported_as_such() -> None:
    of = with_twin(run(im2col=1.0, auto=1.0, keras=2.0), 1.2)
    assert found(of, "auto: mean").verdict == "met, unreliable"
    assert "NOT RELIABLE" in text(report([Run.of(of)]))


def test_only_layers_that_keras_writes_as_depthwise_count_for_that_target() -> None:
    layers = (CONV1, DEPTHWISE, GROUPED)
    of = run("mobilenet", layers, auto=1.0, keras=0.3)
    slow = {
        name: tuple(replace(r, values=tuple(v * 100 for v in r.values)) for r in samples)
        if name.endswith("/auto") and not name.startswith("dw/")
        else samples
        for name, samples in of.benchmarks.items()
    }
    of = with_cells(replace(of, benchmarks=slow))
    mean = found(of, "auto, depthwise: mean")
    assert mean.figure == pytest.approx(0.3, rel=0.01)
    assert mean.verdict == "met"
    assert found(of, "auto, depthwise: lowest cell").where.startswith("dw ")


def test_memory_beyond_the_result_is_counted_for_each_thread() -> None:
    what = "im2col: peak memory beyond the result, a thread"
    target = Target(("mnist",), "im2col", beyond_result=2**20)
    of = run(im2col=1.0, keras=2.0, mib=4.5, layers=(CONV2,))
    memory = found(of, what, target)
    # The input gradient has the smaller result.
    assert memory.figure == (4.5 * 2**20 - 32 * 26 * 26 * 8 * 4) / 4
    assert (memory.where, memory.verdict) == ("conv2 input-gradient", "met")
    assert found(run(im2col=1.0, keras=2.0, mib=9), what, target).verdict == "MISSED"


def test_few_rounds_have_no_interval() -> None:
    mean = found(run(auto=1.0, keras=2.0, rounds=3), "auto: mean")
    assert mean.interval is None
    assert mean.verdict == "met"


def test_the_report_matches_its_golden_file() -> None:
    small = with_cells(
        run(auto=1.0, im2col=1.6, winograd=1.1, keras=1.5, keras_graph=1.4, keras_xla=2.0),
        Cell("conv1", FORWARD, "winograd", "wrong", "the kernel is flipped", agreement=WRONG),
        Cell("conv1", INPUT, "winograd", "unsupported", "one channel"),
    )
    depthwise = run("mobilenet", (CONV1, DEPTHWISE), auto=5.0, im2col=9.0, keras=1.0, mib=30)
    shown = text(report([Run.of(small), Run.of(depthwise)], ["PyTorch: not installed"]))
    if os.environ.get("CONVBENCH_REWRITE_GOLDEN"):
        GOLDEN.write_text(shown)
    assert shown == GOLDEN.read_text()


# The command


def test_saved_results_are_shown_without_running(tmp_path: Path) -> None:
    path = tmp_path / "mnist-4.json"
    result_file.save(path, run(auto=1.0, keras=2.0))
    command = [sys.executable, "benchmarks/kernels.py", "--from", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert "auto: mean" in done.stdout
    assert ("PyTorch: not installed" in done.stdout) == (find_spec("torch") is None)


def test_a_campaign_runs_every_suite_without_pins_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands: list[list[str]] = []

    def run_nothing(command: list[str], env: dict[str, str], **_: object) -> object:
        commands.append(command)
        assert "OPENBLAS_CORETYPE" not in env
        assert env["HOME"]
        if "--resume" not in command:
            words = {w: command[i + 1] for i, w in enumerate(command[:-1])}
            impls = [command[i + 1] for i, word in enumerate(command) if word == "--impl"]
            of = run(**dict.fromkeys((name.replace("-", "_") for name in impls), 1.0))
            threads = int(words["--threads"])
            result_file.save(
                Path(words["-o"]), replace(of, result=replace(of.result, threads=threads))
            )
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(subprocess, "run", run_nothing)
    options = ["--suites", "mnist", "--implementations", "im2col", "--passes", FORWARD, INPUT]
    monkeypatch.setattr(sys, "argv", ["kernels.py", *options, "-o", str(tmp_path)])
    kernels.main()
    assert [command[command.index("--threads") + 1] for command in commands] == ["1", "2"]
    assert [word for word in commands[0] if word in KERAS_WAYS] == list(KERAS_WAYS)
    kernels.main()
    assert [command[command.index("--resume") + 1] for command in commands[2:]] == [
        str(tmp_path / f"mnist-{threads}.json") for threads in (1, 2)
    ]
    monkeypatch.setattr(sys, "argv", ["kernels.py", *options[:-1], "-o", str(tmp_path)])
    with pytest.raises(SystemExit, match="was started with other passes"):
        kernels.main()


def test_a_run_that_fails_ends_the_campaign(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *a, **_: subprocess.CompletedProcess(a, 2))
    monkeypatch.setattr(sys, "argv", ["kernels.py", "--suites", "mnist", "-o", str(tmp_path)])
    with pytest.raises(SystemExit, match="exit code 2"):
        kernels.main()


def test_all_implementations_but_the_loop_are_run_and_frameworks_that_are_installed() -> None:
    names = kernels.implementations("mnist", None)
    assert set(BUILT_IN) - set(names) == {"loop"}
    others = [name for name in names if name.startswith("benchmarks/others")]
    assert others == [code for module, (_, code) in kernels.OTHERS.items() if find_spec(module)]
    assert kernels.implementations("resnet50", ["im2col"]) == ("im2col", *KERAS_WAYS)


def test_another_framework_is_run_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "find_spec", lambda module: module == "torch" or None)
    names = kernels.implementations("mnist", None)
    assert "benchmarks/others/torch_conv.py:Torch" in names
    assert kernels.remarks([], {}) == ["ONNX Runtime: not installed"]
    assert kernels.remarks([], {"OPENBLAS_CORETYPE": "Haswell"})[-1].endswith("CORETYPE=Haswell")


def test_a_result_whose_kernels_were_pinned_is_remarked_on() -> None:
    of = run(auto=1.0, keras=2.0)
    pinned: ResultFile = replace(of.result, environment={"OPENBLAS_CORETYPE": "Haswell"})
    (*_, last) = kernels.remarks([Run.of(replace(of, result=pinned))], {})
    assert last == (
        "mnist, 4 threads: run with OPENBLAS_CORETYPE=Haswell, so that kernels were not native"
    )


def test_the_suites_are_shipped_and_the_forecast_grows_with_them() -> None:
    assert {*kernels.SUITES, *kernels.NO_BENCHMARKS} <= shipped_suites().keys()
    assert {suite for target in kernel_targets.TARGETS for suite in target.suites} <= set(
        kernels.SUITES
    )
    small, large = (
        kernels.seconds(read_suite(name), KERAS_WAYS, tuple(Pass), 1, "quick")
        for name in ("mnist", "vgg16")
    )
    assert 10 < small < large


# Other frameworks


@pytest.mark.parametrize("code", [code for _, code in kernels.OTHERS.values()])
def test_other_frameworks_are_not_imported_before_a_cell_needs_them(code: str) -> None:
    program = (
        "import sys; from convbench.implementations.registry import REGISTRY\n"
        "from convbench.problem.layer import *\n"
        f"implementation = REGISTRY.get({code!r})\n"
        "layer = Layer('a', (5, 5, 2), 2, (3, 3), (2, 2), ((1, 0), (0, 1)), groups=2)\n"
        "print([implementation.unsupported(layer, p) for p in Pass])\n"
        "assert not {'torch', 'onnxruntime', 'onnx'} & sys.modules.keys()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lacking = done.stdout.count("it has no")
    assert lacking == (2 if "onnx" in code else 0), done.stdout
    assert done.stdout.count("None") == 3 - lacking


@pytest.mark.parametrize("use_bias", [False, True])
def test_the_onnx_model_computes_the_layer(use_bias: bool) -> None:
    pytest.importorskip("onnx")
    from onnx.checker import check_model
    from onnx.reference import ReferenceEvaluator

    sys.path.insert(0, str(ROOT / "benchmarks" / "others"))
    from onnxruntime_conv import model

    pads = ((2, 0), (1, 3))
    built = model((2, 1), pads, (1, 2), 2, use_bias, "float32")
    check_model(built, full_check=True)
    layer = Layer("a", (7, 9, 4), 6, (3, 2), (2, 1), pads, (1, 2), 2, use_bias, batch_size=2)
    drawn = exact_integers(layer, FORWARD, seed=0)
    assert drawn.input is not None
    assert drawn.kernel is not None
    x, kernel = drawn.input.transpose(0, 3, 1, 2), drawn.kernel.transpose(3, 2, 0, 1)
    given = {"x": x, "kernel": kernel, **({"bias": drawn.bias} if use_bias else {})}
    (result,) = ReferenceEvaluator(built).run(None, given)
    assert np.array_equal(result.transpose(0, 2, 3, 1), expected(layer, FORWARD, drawn))


# Blocks


def test_the_blocks_of_a_layer_have_all_of_its_flops() -> None:
    layers = [*read_suite("resnet50").layers, *read_suite("vgg16").layers]
    large = [layer for layer in layers if blocks.is_large(layer)]
    assert {"conv4_block1_2_conv", "block3_conv1"} <= {layer.name for layer in large}
    for layer, threads in product(large, (1, 2)):
        products = blocks.block_products(layer, threads)
        flops = sum(2 * m * k * n * count for (m, k, n), count in products)
        assert flops == layer.flops, layer.name


def test_the_product_of_a_1x1_layer_has_all_of_its_flops() -> None:
    layers = [layer for layer in read_suite("resnet50").layers if blocks.is_one_by_one(layer)]
    assert len(layers) == 15
    for layer in layers:
        m, k, n = blocks.whole_shape(layer)
        assert 2 * m * k * n == layer.flops, layer.name


@pytest.mark.parametrize("threads", [1, 2])
def test_every_product_is_made_once_by_one_blas_thread(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "matrix", lambda *shape: np.ones(shape, np.float32))
    arm = blocks.products_arm([((4, 3, 2), 5)] * 3 + [((1, 3, 2), 5)], threads)
    assert np.array_equal(arm.run(), np.full((13, 2), 3.0))  # of the last of five products
    assert (arm.flops, arm.spins) == (2 * 13 * 3 * 2 * 5, False)
