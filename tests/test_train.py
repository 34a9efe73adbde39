"""Test `convbench train` with real workers, real TensorFlow and real files."""

import json
import signal
import subprocess
import textwrap
import time

import numpy as np
import pytest

from convbench.training import drawing
from tests.cli import command, convbench, launched

NETWORK = """
    name: little
    input_shape: [12, 12, 1]
    batch_size: 20
    layers:
      - conv2d: {filters: 4, kernel_size: 3}
      - relu
      - max_pooling2d
      - conv2d: {filters: 6, kernel_size: 3, padding: same}
      - relu
      - flatten
      - dense: {units: 10}
"""

OWN = """
    import numpy as np
    from convbench import conv2d, conv2d_input_gradient, conv2d_kernel_gradient

    def image(x):
        return np.ascontiguousarray(x.transpose(0, 2, 3, 1))

    def taps(kernel):
        return np.ascontiguousarray(kernel.transpose(2, 3, 1, 0))

    def forward(x, kernel, padding="valid"):
        return conv2d(image(x), taps(kernel), padding=padding).transpose(0, 3, 1, 2)

    def input_gradient(output_gradient, kernel, input_shape, padding="valid"):
        n, c, h, w = input_shape
        given = image(output_gradient), taps(kernel), (n, h, w, c)
        return conv2d_input_gradient(*given, padding=padding).transpose(0, 3, 1, 2)

    def kernel_gradient(x, output_gradient, kernel_size, padding="valid"):
        given = image(x), image(output_gradient)FLIPPED, kernel_size
        return conv2d_kernel_gradient(*given, padding=padding).transpose(3, 2, 0, 1)
"""

CHANNELS_LAST = """
    from convbench import conv2d, conv2d_input_gradient, conv2d_kernel_gradient

    def forward(x, kernel, padding="valid"):
        return conv2d(x, kernel, padding=padding)

    def input_gradient(output_gradient, kernel, input_shape, padding="valid"):
        return conv2d_input_gradient(output_gradient, kernel, input_shape, padding=padding)

    def kernel_gradient(x, output_gradient, kernel_size, padding="valid"):
        return conv2d_kernel_gradient(x, output_gradient, kernel_size, padding=padding)
"""

SMOKE = ("--data", "images.npz", "--effort", "smoke", "--threads", "1")


def _filled(folder):
    """Write the network, right code of a user, and a few drawn images into a folder."""
    (folder / "little.yaml").write_text(textwrap.dedent(NETWORK))
    (folder / "own.py").write_text(textwrap.dedent(OWN).replace("FLIPPED", ""))
    _write_images(folder / "images.npz", seed=1)
    return folder


def _write_images(path, seed, size=12):
    """Write a file like mnist.npz with 210 images to train on and 60 held out."""
    arrays = {}
    for part, count in (("train", 210), ("test", 60)):
        images, labels = drawing.draw(count, (size, size, 1), 10, (seed, count))
        arrays[f"x_{part}"] = np.round(images[..., 0] * 255).astype(np.uint8)
        arrays[f"y_{part}"] = labels.astype(np.uint8)
    np.savez(path, **arrays)


@pytest.fixture
def folder(tmp_path):
    _filled(tmp_path)
    flipped = textwrap.dedent(OWN).replace("FLIPPED", "[:, ::-1, ::-1].copy()")
    (tmp_path / "flipped.py").write_text(flipped)
    return tmp_path


def _train(folder, *arguments, **keywords):
    return convbench("train", "little.yaml", *SMOKE, *arguments, cwd=folder, **keywords)


def _result(folder, name="result.json"):
    return json.loads((folder / name).read_text())["convbench"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Run a training with a built-in implementation, own code and Keras to its end."""
    folder = _filled(tmp_path_factory.mktemp("trained"))
    done = _train(folder, "--impl", "im2col", "--impl", "own.py", "-o", "result.json")
    return folder, done


def test_a_training_is_followed_timed_and_told(trained):
    folder, done = trained
    assert done.returncode == 0, done.stderr
    result = _result(folder)
    cells = {cell["implementation"]: cell for cell in result["cells"]}
    assert list(cells) == ["im2col", "own.py", "keras", "keras-xla"]
    assert {cell["pass"] for cell in cells.values()} == {"training-step"}
    assert {cell["status"] for cell in cells.values()} == {"ok"}
    assert all(cell["time"]["time_s"] > 0 for cell in cells.values())
    arms = {arm["implementation"]: arm for arm in result["training"]["arms"]}
    for name in ("im2col", "own.py"):
        assert arms[name]["followed"] == 10
        assert arms[name]["followed_in"] == "float32"
        assert 0 < arms[name]["over_bound"] < 1
        assert set(arms[name]["phases"]) > {"conv forward", "input gradient", "optimiser"}
    assert arms["im2col"]["steps"] == result["training"]["steps_an_epoch"] == 11
    assert len(arms["im2col"]["losses"]) == 11
    assert 0 < arms["im2col"]["accuracies"][0] < 1
    # All arms have the same weights and batches, so the losses of ours differ by rounding only.
    assert arms["own.py"]["losses"] == pytest.approx(arms["im2col"]["losses"], rel=1e-4)
    assert arms["keras"]["phases"] is None
    assert arms["keras"]["accuracies"][0] == pytest.approx(arms["im2col"]["accuracies"][0], abs=0.3)
    assert "10 steps" in done.stdout
    assert "the fastest Keras" in done.stdout
    assert "images of images.npz: 210 to train on, 60 held out" in done.stdout


def test_the_phases_of_a_step_make_up_its_time(trained):
    result = _result(trained[0])
    cells = {cell["implementation"]: cell["time"]["time_s"] for cell in result["cells"]}
    for arm in result["training"]["arms"]:
        if arm["phases"]:
            whole = sum(arm["phases"].values())
            assert 0.5 < whole / cells[arm["implementation"]] <= 1.001


def test_the_result_can_be_shown_diffed_and_gated(trained):
    folder, done = trained
    shown = convbench("show", "result.json", cwd=folder)
    assert shown.stdout.splitlines() == done.stdout.splitlines()
    picture = convbench("show", "result.json", "-o", "x.svg", cwd=folder)
    assert picture.returncode == 0
    assert "█" in (folder / "x.svg").read_text()
    diff = convbench("diff", "result.json", "result.json", cwd=folder)
    assert diff.returncode == 0
    assert "little training-step" in diff.stdout
    rule = "gate: [{implementation: im2col, versus: fastest-keras, at_least: 0.1}]"
    (folder / "rules.yaml").write_text(rule)
    gate = convbench("gate", "result.json", "--rules", "rules.yaml", cwd=folder)
    assert gate.returncode == 3, gate.stderr  # one round is no evidence
    assert "inconclusive" in gate.stdout
    baseline = convbench("gate", "result.json", "--baseline", "result.json", cwd=folder)
    assert baseline.returncode == 0, baseline.stderr
    assert "little training-step" in baseline.stdout
    pyperf = [*command()[:1], "-m", "pyperf", "show", "result.json"]
    found = subprocess.run(pyperf, cwd=folder, capture_output=True, text=True)
    assert "little/training-step/im2col#twin" in found.stdout


def test_a_training_cannot_be_resumed_by_run_nor_shown_by_layer(trained):
    done = convbench("run", "--resume", "result.json", cwd=trained[0])
    assert done.returncode == 2
    assert "is the result of a training" in done.stderr
    done = convbench("show", "result.json", "--layer", "conv1", cwd=trained[0])
    assert done.returncode == 2
    assert "has no layers" in done.stderr


@pytest.mark.slow
def test_wrong_code_is_timed_on_request(folder):
    done = _train(folder, "--impl", "flipped.py", "--time-wrong", "-o", "result.json")
    assert done.returncode == 5, done.stderr
    result = _result(folder)
    assert result["cells"][0]["time"]["time_s"] > 0
    assert "flipped.py" not in {speedup["implementation"] for speedup in result["speedups"]}


@pytest.mark.slow
def test_wrong_code_and_code_that_raises_cost_only_their_own_arms(folder):
    text = (folder / "own.py").read_text().replace("return conv2d(image", "return missing(image")
    (folder / "raises.py").write_text(text)
    names = ("raises.py", "flipped.py", "im2col")
    given = [word for name in names for word in ("--impl", name)]
    done = _train(folder, *given, "-o", "result.json")
    assert done.returncode == 5, done.stderr
    cells = {cell["implementation"]: cell for cell in _result(folder)["cells"]}
    assert cells["raises.py"]["status"] == "failed"
    assert "missing" in cells["raises.py"]["reason"]
    wrong = cells["flipped.py"]
    assert (wrong["status"], wrong["time"]) == ("wrong", None)
    assert "departs from Keras at step 1, in conv2d_" in wrong["agreement"]["diagnosis"]
    assert "departs from Keras at step 1" in done.stdout
    assert cells["im2col"]["status"] == "ok"
    assert "Traceback" not in done.stderr


def test_an_epoch_is_extrapolated_from_fewer_steps(folder):
    done = _train(folder, "--versus", "none", "--steps", "4", "-o", "result.json")
    assert done.returncode == 0, done.stderr
    assert "the epoch of auto is extrapolated from 4 steps" in done.stdout
    assert {arm["steps"] for arm in _result(folder)["training"]["arms"]} == {4}


def test_own_code_is_called_in_the_named_layout(folder):
    (folder / "last.py").write_text(textwrap.dedent(CHANNELS_LAST))
    layouts = ("--layout", "NHWC", "--kernel-layout", "HWIO")
    given = (*layouts, "--versus", "none", "--steps", "2", "-o", "result.json")
    done = _train(folder, "--impl", "last.py", *given)
    assert done.returncode == 0, done.stdout
    assert _result(folder)["suite"]["own"][0]["layout"] == "NHWC"


# Saving


ALONE = ("--versus", "none", "--impl", "im2col")


@pytest.mark.slow
def test_a_training_of_one_implementation_is_saved_and_loaded(folder):
    done = _train(folder, *ALONE, "--epochs", "2", "--save", "w.npz", "--export-keras", "w.keras")
    assert done.returncode == 0, done.stderr
    assert "im2col took 22 steps" in done.stdout
    again = _train(folder, *ALONE, "--load", "w.keras", "--steps", "1", "--save", "a.npz")
    assert again.returncode == 0, again.stderr
    other = _train(folder, *ALONE, "--load", "w.npz", "--steps", "1", "--save", "b.npz")
    assert other.returncode == 0, other.stderr
    a, b, w = (np.load(folder / name) for name in ("a.npz", "b.npz", "w.npz"))
    assert a["losses"][0] == b["losses"][0]
    for name in a.files:
        if name.startswith("weights/"):
            assert np.array_equal(a[name], b[name])
            assert not np.array_equal(a[name], w[name])


EPOCHS = "600"


@pytest.mark.slow
def test_an_interrupted_training_goes_on_to_the_same_end(folder):
    whole = ("--epochs", EPOCHS, *ALONE)
    process = launched(
        *("train", "little.yaml", *SMOKE, *whole, "--save", "cut.npz"),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    for line in process.stderr:
        if "training" in line:
            break
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "--resume cut.npz" in errors
    assert f"--epochs {EPOCHS}" in errors  # the hint repeats the whole command
    other = _train(folder, *whole, "--images", "64", "--resume", "cut.npz")
    assert other.returncode == 2, other.stderr
    assert "found 210 images in batches of 20, expected 64 images in batches" in other.stderr
    steps = len(np.load(folder / "cut.npz")["losses"])
    assert 0 < steps < int(EPOCHS) * 11
    resumed = _train(folder, *whole, "--resume", "cut.npz")
    assert resumed.returncode == 0, resumed.stderr
    straight = _train(folder, *whole, "--save", "straight.npz")
    assert straight.returncode == 0, straight.stderr
    cut, straight = np.load(folder / "cut.npz"), np.load(folder / "straight.npz")
    assert cut.files == straight.files
    assert len(cut["losses"]) == int(EPOCHS) * 11
    assert all(np.array_equal(cut[name], straight[name]) for name in cut.files)


def test_a_training_does_not_go_on_with_other_images(folder):
    given = ("train", "little.yaml", *SMOKE, *ALONE)
    first = convbench(*given, "--steps", "2", "--save", "w.npz", cwd=folder)
    assert first.returncode == 0, first.stderr
    for other in (("--images", "209"), ("--batch-size", "21")):
        done = convbench(*given, *other, "--resume", "w.npz", cwd=folder)
        assert done.returncode == 2, done.stderr
        assert "cannot go on: found 210 images in batches of 20, expected 2" in done.stderr
    _write_images(folder / "images.npz", seed=2)
    done = convbench(*given, "--resume", "w.npz", cwd=folder)
    assert done.returncode == 2, done.stderr
    assert "expected the 210 images that are given now, which are others" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--versus", "torch"), "Invalid value for '--versus'"),
        (("--impl", "keras"), "keras is what a training is compared with"),
        (("--impl", "im2cool"), "did you mean 'im2col'?"),
        (("--save", "w.txt"), "--save: found w.txt, expected a file that ends in .npz"),
        (("--save", "w.npz", "--impl", "loop", "--impl", "im2col"), "are for one implementation"),
        (("--load", "none.npz"), "none.npz cannot be read"),
        (("--load", "bad.keras"), "found no Keras model that can be loaded"),
        (("--resume", "bad.npz"), "found no whole .npz file"),
        (("--resume", "w.npz", "--load", "w.npz"), "--load cannot be given with it"),
        (("--data", "none.npz"), "none.npz"),
        (("--threads", "99"), "expected 'all' or a number"),
        (("--impl", "direct", "--versus", "none"), "direct cannot train this network: conv2d_1"),
        (("--layout", "NHWC"), "--layout is for --impl FILE.py:NAME"),
        (("-o", "result.txt"), "a result file ends in .json"),
    ],
)
def test_bad_requests_are_refused(folder, arguments, told):
    (folder / "bad.npz").write_bytes(b"PK\x03\x04 no zip")
    (folder / "bad.keras").write_bytes(b"PK\x03\x04 no zip")
    done = _train(folder, *arguments)
    assert done.returncode == 2, done.stdout
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_suite_is_refused_as_a_network(folder):
    done = convbench("train", "mnist", cwd=folder)
    assert done.returncode == 2
    assert "network" in done.stderr


def test_the_shipped_network_is_found_by_name(folder):
    drawn = ("--data", "synthetic", "--images", "64", *SMOKE[2:])
    done = convbench("train", "mnist_cnn", *drawn, *ALONE, "--steps", "2", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "synthetic digits drawn with seed 0: 64 to train on, 10,000 held out" in done.stdout
    assert "conv2d 8 3x3, relu, conv2d 16 3x3" in done.stdout
