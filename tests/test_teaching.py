"""Test a teaching class that knows nothing of convbench, adapted by a few lines of a suite."""

import json

import numpy as np
import pytest

from convbench.suites.file import read_suite
from tests.cli import ROOT, cells, convbench
from tests.users.teaching import Convolution, Input

SUITE = ROOT / "tests" / "users" / "teaching.yaml"
RIGHT = ("forward", "input-gradient")
ALL = (*RIGHT, "kernel-gradient")
FLIPPED = "the output gradient is flipped in height and width"


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    """Document of a result whose run timed wrong cells, too."""
    output = tmp_path_factory.mktemp("teaching") / "result.json"
    arguments = ["--time-wrong", "--effort", "smoke", "-o", output]
    done = convbench("run", SUITE, *arguments)
    assert done.returncode == 5, done.stderr
    return json.loads(output.read_text())


def _row(output, heading, pass_):
    """Return a pass's numbers of layers and its agreement, below an implementation's heading."""
    lines = output.splitlines()
    below = lines[lines.index(heading) :]
    return next(line for line in below if line.startswith(f"{pass_} ")).split()[1:]


def test_two_passes_are_right_and_the_mistake_in_the_third_is_named():
    done = convbench("check", SUITE)
    assert done.returncode == 5, done.stderr
    columns = ["right", "wrong", "unsupported", "agreement"]
    assert ["pass", *columns] in [line.split() for line in done.stdout.splitlines()]
    for pass_ in ALL:
        for name in ("loop", "im2col"):
            assert _row(done.stdout, name, pass_) == ["2", "-", "-", "exact"]
    for pass_ in RIGHT:
        assert _row(done.stdout, "teaching", pass_) == ["2", "-", "-", "exact"]
        assert _row(done.stdout, "teaching-3d", pass_) == ["1", "-", "1", "exact"]
    assert _row(done.stdout, "teaching", "kernel-gradient") == ["-", "2", "-", "-"]
    assert _row(done.stdout, "teaching-3d", "kernel-gradient") == ["-", "1", "1", "-"]
    for name in ("teaching", "teaching-3d"):
        assert f"{name} is wrong in kernel-gradient: {FLIPPED}" in done.stdout


def test_the_adapter_is_short():
    _, entries = SUITE.read_text().split("implementations:\n")
    lines = [line for line in entries.splitlines() if not line.strip().startswith("#")]
    starts = [i for i, line in enumerate(lines) if line.startswith("  - ")]
    sizes = [end - start for start, end in zip(starts, [*starts[1:], len(lines)], strict=True)]
    assert len(sizes) == len(read_suite(SUITE).implementations) == 4
    assert sizes[:2] == [1, 1]  # the entries of loop and im2col
    assert max(sizes) <= 10


def test_a_wrong_cell_has_a_time_and_no_speedup(document):
    found = cells(document)
    assert {cell["layer"] for cell in found.values()} == {"grey", "colour"}
    over_loop = {
        (row["layer"], row["pass"], row["implementation"])
        for row in document["convbench"]["speedups"]
        if row["versus"] == "loop"
    }
    for key, cell in found.items():
        layer, pass_, implementation = key
        if (layer, implementation) == ("colour", "teaching-3d"):
            assert cell["status"] == "unsupported"
            continue
        is_own = implementation.startswith("teaching")
        is_wrong = is_own and pass_ not in RIGHT
        assert cell["status"] == ("wrong" if is_wrong else "ok")
        assert cell["time"]["time_s"] > 0
        assert ("output-gradient-flipped" in str(cell["agreement"])) == is_wrong
        assert (key in over_loop) == (implementation != "loop" and not is_wrong)


@pytest.mark.parametrize("shape", [(7, 6), (3, 7, 6)], ids=["grey", "colour"])
def test_the_class_trains_with_the_gradient_that_it_has(shape):
    """Convbench calls neither `connect` nor `backward`, which updates the kernel itself."""
    layer = Convolution(4, 3)
    layer.connect(Input(*shape))
    assert layer.output_shape == (4, 5, 4)
    random = np.random.default_rng(1)
    x = random.normal(size=(2, *shape))
    gradient = random.normal(size=(2, *layer.output_shape))
    before = layer.kernel
    assert layer.forward(x).shape == gradient.shape
    assert layer.backward(x, gradient, {"learning_rate": 0.5}).shape == x.shape
    change = layer.convolve(x, gradient, "backward_k")
    np.testing.assert_allclose(layer.kernel, before - 0.5 * change)
    right = layer.convolve(x, gradient[:, :, ::-1, ::-1], "backward_k")
    assert not np.allclose(change, right)
