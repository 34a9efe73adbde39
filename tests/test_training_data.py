"""Test training data: they are the same everywhere, they can be learned, bad files are refused."""

import itertools
import os
import pickle
import subprocess
import sys
import zipfile
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convbench.errors import TrainingError
from convbench.training import drawing
from convbench.training.data import SYNTHETIC_HELD_OUT, batches, load

MNIST = (28, 28, 1)
KEY = (0, 1)


@pytest.fixture(autouse=True)
def keras_home(tmp_path, monkeypatch):
    """Give Keras an empty cache, whatever the user's has, and no access to the network."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    (tmp_path / "keras" / "datasets").mkdir(parents=True)
    return tmp_path / "keras"


@pytest.fixture
def no_sklearn(monkeypatch):
    for name in ("sklearn", "sklearn.datasets"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture(scope="module")
def synthetic():
    return load("synthetic", MNIST, 10, images=3000)


def arrays(count=4, size=(28, 28), **changed):
    """Return the arrays of a right file, with `changed` ones; None leaves an array out."""
    rng = np.random.default_rng(1)
    right = {
        "x_train": rng.integers(0, 256, (count, *size), np.uint8),
        "y_train": (np.arange(count) % 10).astype(np.uint8),
        "x_test": rng.integers(0, 256, (2, *size), np.uint8),
        "y_test": np.array([9, 0], np.uint8),
    }
    return {key: array for key, array in (right | changed).items() if array is not None}


def written(path, **changed):
    np.savez(path, **arrays(**changed))
    return path


def refusal(path, input_shape=MNIST, classes=10):
    with pytest.raises(TrainingError) as caught:
        load(str(path), input_shape, classes)
    assert caught.value.hint
    assert str(path) in caught.value.message
    return caught.value.message


# Batches


@given(st.integers(0, 300), st.integers(1, 70), st.integers(0, 5), st.integers(0, 2**32))
def test_an_epoch_has_every_index_once(count, batch_size, epoch, seed):
    epochs = [list(batches(count, batch_size, epoch, seed)) for _ in range(2)]
    first, again = (np.concatenate([*found, np.empty(0, np.int64)]) for found in epochs)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(np.sort(first), np.arange(count))
    sizes = [len(batch) for batch in epochs[0]]
    assert all(batch.dtype == np.int64 for batch in epochs[0])
    assert all(size == batch_size for size in sizes[:-1])
    assert all(0 < size <= batch_size for size in sizes)


def test_each_epoch_and_seed_has_its_own_order():
    keys = list(itertools.product((0, 1), repeat=3))
    orders = {tuple(next(batches(1000, 1000, *key))) for key in keys}
    assert len(orders) == len(keys)
    assert tuple(range(1000)) not in orders


def test_another_process_draws_the_same_images_and_orders():
    code = (
        "import zlib\nfrom convbench.training import drawing, data\n"
        "images, labels = drawing.draw(150, (9, 7, 2), 10, (5, 6))\n"
        "order = b''.join(batch.tobytes() for batch in data.batches(100, 30, 2, 3))\n"
        "print([zlib.crc32(each) for each in (images.tobytes(), labels.tobytes(), order)])"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=Path(__file__).parent.parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    images, labels = drawing.draw(150, (9, 7, 2), 10, (5, 6))
    order = b"".join(batch.tobytes() for batch in batches(100, 30, 2, 3))
    assert found == {
        f"{[zlib.crc32(each) for each in (images.tobytes(), labels.tobytes(), order)]}\n"
    }


# Synthetic digits


def test_synthetic_digits_have_the_declared_shapes_types_and_range(synthetic):
    assert synthetic.images.shape == (3000, *MNIST)
    assert synthetic.held_out_images.shape == (SYNTHETIC_HELD_OUT, *MNIST)
    assert synthetic.classes == 10
    for images, labels in (
        (synthetic.images, synthetic.labels),
        (synthetic.held_out_images, synthetic.held_out_labels),
    ):
        assert images.dtype == np.float32
        assert images.min() == 0
        assert 0.9 < images.max() <= 1
        assert labels.dtype == np.int64
        np.testing.assert_array_equal(np.bincount(labels), len(labels) // 10)
    assert synthetic.note == (
        "synthetic digits drawn with seed 0: 3,000 to train on, 10,000 held out"
    )


@pytest.mark.parametrize("count", [1, 99, 100, 101, 250])
def test_the_first_images_are_the_same_however_many_are_drawn(count, synthetic):
    few = load("synthetic", MNIST, 10, images=count)
    np.testing.assert_array_equal(few.images, synthetic.images[:count])
    np.testing.assert_array_equal(few.labels, synthetic.labels[:count])
    np.testing.assert_array_equal(few.held_out_images, synthetic.held_out_images)


def test_other_seeds_and_held_out_images_differ(synthetic):
    other = load("synthetic", MNIST, 10, seed=1, images=100)
    assert (other.images != synthetic.images[:100]).any(axis=(1, 2, 3)).all()
    assert (synthetic.held_out_images[:100] != synthetic.images[:100]).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("shape", [(1, 1, 1), (28, 28, 3), (20, 41, 2)])
@pytest.mark.parametrize("classes", [1, 3, 10])
def test_any_shape_and_number_of_classes_is_drawn(shape, classes):
    images, labels = drawing.draw(100, shape, classes, KEY)
    assert images.shape == (100, *shape)
    assert np.isfinite(images).all()
    assert (images == images[..., :1]).all()
    counts = np.bincount(labels)
    assert len(counts) == classes
    assert counts.max() - counts.min() <= 1


def test_glyphs_lie_inside_the_image():
    """Shift, scale and rotation push little ink out, so there is hardly any at the edges."""
    images, _ = drawing.draw(1000, MNIST, 10, KEY)
    ink = (images[..., 0] > 2 * drawing.NOISE).mean(axis=0)
    border = np.ones((28, 28), bool)
    border[1:-1, 1:-1] = False
    assert ink[border].max() < 0.02
    assert ink[8:20, 8:20].mean() > 0.2


def test_synthetic_digits_can_be_learned_but_not_too_easily(synthetic):
    """A softmax regression gets 60 to 95 % right. A network with convolutions gets more right."""
    mean = synthetic.images.mean(axis=0)
    x = (synthetic.images - mean).reshape(3000, -1)
    x_held_out = (synthetic.held_out_images[:2000] - mean).reshape(2000, -1)
    targets = np.eye(10, dtype=np.float32)[synthetic.labels]
    weights = np.zeros((784, 10), np.float32)
    for _ in range(100):
        logits = x @ weights
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        odds /= odds.sum(axis=1, keepdims=True)
        weights += 0.1 * x.T @ (targets - odds) / len(x)
    right = (x_held_out @ weights).argmax(axis=1) == synthetic.held_out_labels[:2000]
    assert 0.6 < right.mean() < 0.95


def test_more_than_ten_classes_are_refused():
    with pytest.raises(TrainingError, match="a network of 11 outputs, expected 10 or fewer"):
        load("synthetic", MNIST, 11)


def test_more_than_memory_should_hold_is_refused():
    with pytest.raises(TrainingError, match=r"70,000 images of 64×64×3, .* 3\.2 GiB"):
        load("synthetic", (64, 64, 3), 10)


def test_no_images_are_refused():
    with pytest.raises(TrainingError, match="images: found 0, expected 1 or more"):
        load("synthetic", MNIST, 10, images=0)


# scikit-learn's digits


def test_digits_are_split_by_class_and_fixed():
    digits, again = load("digits", MNIST, 10), load("digits", MNIST, 10, seed=7)
    assert digits.images.shape == (1497, *MNIST)
    assert digits.held_out_images.shape == (300, *MNIST)
    np.testing.assert_array_equal(np.bincount(digits.held_out_labels), 30)
    np.testing.assert_array_equal(digits.labels, again.labels)
    np.testing.assert_array_equal(digits.images, again.images)
    everything = np.concatenate([digits.images, digits.held_out_images])
    # No image is on both sides.
    assert len(np.unique(everything.reshape(1797, -1), axis=0)) == 1797
    assert everything.dtype == np.float32
    assert everything.min() == 0
    assert everything.max() == 1
    assert digits.classes == 10
    assert digits.note == (
        "handwritten digits of scikit-learn, 8×8 resized to 28×28: 1,497 to train on, 300 held out"
    )


def test_digits_of_their_own_size_are_not_changed():
    from sklearn.datasets import load_digits

    digits = load("digits", (8, 8, 2), 12, images=50)
    assert digits.images.shape == (50, 8, 8, 2)
    own = {
        image.tobytes(): label for image, label in zip(*load_digits(return_X_y=True), strict=True)
    }
    for image, label in zip(digits.images, digits.labels, strict=True):
        for channel in range(2):
            assert own[(image[..., channel] * 16).astype(np.float64).tobytes()] == label


def test_digits_are_resized_as_scipy_does_it():
    from scipy.ndimage import zoom

    small, large = (load("digits", (size, size, 1), 10, images=3).images for size in (8, 24))
    for before, after in zip(small, large, strict=True):
        wanted = zoom(before[..., 0], 3, order=1, mode="nearest", grid_mode=True)
        np.testing.assert_allclose(after[..., 0], wanted, atol=1e-6)


def test_digits_need_scikit_learn_and_ten_outputs(no_sklearn):
    with pytest.raises(TrainingError, match="9 outputs, expected 10"):
        load("digits", MNIST, 9)
    with pytest.raises(TrainingError, match="scikit-learn, which cannot be imported") as caught:
        load("digits", MNIST, 10)
    assert "pip install 'convbench[digits]'" in caught.value.hint


# MNIST, and the data that auto takes


def test_mnist_is_read_from_the_cache(keras_home):
    np.savez(keras_home / "datasets" / "mnist.npz", **(raw := arrays()))
    mnist = load("mnist", MNIST, 10, images=3)
    np.testing.assert_array_equal(mnist.images[..., 0] * 255, raw["x_train"][:3])
    np.testing.assert_array_equal(mnist.held_out_images[..., 0] * 255, raw["x_test"])
    np.testing.assert_array_equal(mnist.labels, raw["y_train"][:3])
    np.testing.assert_array_equal(mnist.held_out_labels, raw["y_test"])
    assert mnist.images.dtype == np.float32
    assert mnist.labels.dtype == mnist.held_out_labels.dtype == np.int64
    assert mnist.classes == 10
    assert mnist.name == "mnist"


def test_mnist_is_read_without_keras(keras_home):
    np.savez(keras_home / "datasets" / "mnist.npz", **arrays())
    program = (
        "import sys; from convbench.training.data import load; load('mnist', (28, 28, 1), 10); "
        "assert 'keras' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_mnist_that_is_not_cached_is_loaded_by_keras(keras_home, tmp_path, monkeypatch):
    (tmp_path / "keras.py").write_text(
        "import os, shutil, types\n"
        f"source = {str(tmp_path / 'source.npz')!r}\n"
        "target = os.environ['KERAS_HOME'] + '/datasets/mnist.npz'\n"
        "loader = types.SimpleNamespace(load_data=lambda: shutil.copy(source, target))\n"
        "datasets = types.SimpleNamespace(mnist=loader)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    np.savez(tmp_path / "source.npz", **arrays())
    assert len(load("mnist", MNIST, 10, images=3).images) == 3
    assert (keras_home / "datasets" / "mnist.npz").is_file()


def test_a_missing_mnist_comes_with_advice_how_to_get_it(keras_home):
    with pytest.raises(TrainingError, match=r"mnist\.npz") as caught:
        load("mnist", MNIST, 10)
    assert str(keras_home) in caught.value.message
    assert "could not download it: Exception: URL fetch failure" in caught.value.message
    for way in ("keras.datasets.mnist.load_data()", "mnist.npz", "digits", "synthetic"):
        assert way in caught.value.hint


@pytest.mark.slow
def test_keras_caches_in_the_home_folder_unless_told(tmp_path, monkeypatch):
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(TrainingError) as caught:
        load("mnist", MNIST, 10)
    assert str(tmp_path / ".keras" / "datasets" / "mnist.npz") in caught.value.message


def test_auto_takes_the_best_data_there_are_and_says_why(keras_home, request):
    digits = load("auto", MNIST, 10, images=5)
    assert digits.name == "digits"
    assert len(digits.images) == 5
    assert digits.note.startswith("MNIST is not in Keras's cache; handwritten digits")

    written(keras_home / "datasets" / "mnist.npz")
    assert load("auto", MNIST, 10).name == "mnist"
    assert load("auto", MNIST, 10).note.startswith("MNIST is in Keras's cache; ")
    other = load("auto", (10, 10, 3), 10)
    assert other.name == "digits"
    assert other.note.startswith("MNIST is 28×28×1, but the network reads 10×10×3; ")
    few = load("auto", MNIST, 4, images=9)
    assert few.name == "synthetic"
    assert few.note.startswith("real digits need 10 outputs, but the network has 4; ")

    (keras_home / "datasets" / "mnist.npz").unlink()
    request.getfixturevalue("no_sklearn")
    drawn = load("auto", MNIST, 10, images=9)
    assert drawn.name == "synthetic"
    assert drawn.note.startswith(
        "MNIST is not in Keras's cache, and scikit-learn is not installed; "
    )


# Files


@pytest.mark.parametrize("size", [(28, 28), (28, 28, 1), (5, 4, 3)])
def test_a_file_is_read(size, tmp_path):
    path = written(tmp_path / "own.npz", size=size, y_test=np.array([1, 2], ">i8"))
    shape = (*size, 1)[:3]
    own = load(str(path), shape, 10)
    assert own.images.shape == (4, *shape)
    assert own.name == "file"
    assert own.note == f"images of {path}: 4 to train on, 2 held out"
    np.testing.assert_array_equal(own.held_out_labels, [1, 2])
    assert own.held_out_labels.dtype == np.dtype(np.int64)


def test_a_compressed_file_is_read(tmp_path):
    np.savez_compressed(tmp_path / "own.npz", **arrays())
    assert len(load(str(tmp_path / "own.npz"), MNIST, 10).images) == 4


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert "found no file, expected an .npz file" in refusal(tmp_path / "none.npz")
    assert "found no file" in refusal(tmp_path / "nul\0.npz")
    assert "found a folder, expected an .npz file" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK", b"\x93NUMPY", b"x_train,y_train\n"])
def test_a_file_that_is_no_zip_file_is_refused(content, tmp_path):
    (tmp_path / "own.npz").write_bytes(content)
    assert "cannot be read: File is not a zip file" in refusal(tmp_path / "own.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_files_are_refused(save, tmp_path):
    """A file that is cut anywhere is refused. So is one with a changed byte, unless the images and
    labels do not depend on that byte."""
    path = tmp_path / "own.npz"
    save(path, **arrays())
    whole, right = path.read_bytes(), load(str(path), MNIST, 10)
    places = range(0, len(whole), len(whole) // 60)
    for place in places:
        path.write_bytes(whole[:place])
        refusal(path)
    refused = 0
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            read = load(str(path), MNIST, 10)
        except TrainingError:
            refused += 1
            continue
        np.testing.assert_array_equal(read.images, right.images)
        np.testing.assert_array_equal(read.labels, right.labels)
    assert refused > len(places) / 2


def test_a_file_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    path = written(tmp_path / "own.npz")

    def denied(*_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(zipfile, "ZipFile", denied)
    assert "cannot be read: Permission denied" in refusal(path)


class Evil:
    """An object that writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_is_unpickled(tmp_path):
    ran = tmp_path / "ran"
    pickled = np.empty(4, object)
    pickled[:] = [Evil(ran)] * 4
    path = written(tmp_path / "own.npz", x_train=pickled)
    assert "x_train: found object of shape (4,), expected uint8" in refusal(path)
    path = written(tmp_path / "own.npz", y_test=pickled[:2])
    assert "y_test: found object of shape (2,), expected integers" in refusal(path)
    bare = tmp_path / "bare.npz"
    bare.write_bytes(pickle.dumps(Evil(ran)))
    assert "not a zip file" in refusal(bare)
    assert not ran.exists()

    np.load(path, allow_pickle=True)["y_test"]
    assert ran.exists()  # unpickling would have written the file


def test_missing_arrays_are_named(tmp_path):
    path = written(tmp_path / "own.npz", x_test=None, y_test=None)
    assert "found x_train, y_train, expected x_train, y_train, x_test, y_test" in refusal(path)
    np.savez(tmp_path / "empty.npz")
    assert "found nothing" in refusal(tmp_path / "empty.npz")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"x_train": np.zeros((4, 28, 28))}, "x_train: found float64 of shape (4, 28, 28)"),
        ({"x_train": np.zeros((4, 28, 28), np.int8)}, "x_train: found int8"),
        ({"x_train": np.uint8(3)}, "x_train: found uint8 of shape ()"),
        ({"x_train": np.zeros((0, 28, 28), np.uint8)}, "x_train: found uint8 of shape (0, 28, 28)"),
        ({"x_test": np.zeros((2, 27, 28), np.uint8)}, "expected uint8 of shape (n, 28, 28)"),
        ({"x_test": np.zeros((2, 28, 28, 3), np.uint8)}, "x_test: found uint8"),
        ({"x_test": np.zeros((2, 784), np.uint8)}, "x_test: found uint8 of shape (2, 784)"),
        ({"y_train": np.zeros(4)}, "y_train: found float64 of shape (4,), expected integers"),
        ({"y_train": np.zeros(4, bool)}, "y_train: found bool"),
        ({"y_train": np.zeros(3, int)}, "(3,), expected integers of shape (4,)"),
        ({"y_test": np.zeros((2, 10), int)}, "y_test: found int64 of shape (2, 10)"),
        ({"y_test": np.array([3, -1])}, "y_test: found labels -1, expected 0 to 9"),
        ({"y_test": np.array([2**64 - 1, 3], np.uint64)}, "found labels 18446744073709551615"),
        ({"y_train": np.array([10, 1, 11, 10])}, "y_train: found labels 10, 11, expected 0 to 9"),
    ],
)
def test_arrays_that_do_not_fit_are_named(changed, said, tmp_path):
    assert said in refusal(written(tmp_path / "own.npz", **changed))


def test_all_problems_are_told_at_once(tmp_path):
    path = written(tmp_path / "own.npz", x_train=np.zeros((4, 9, 9)), y_test=np.zeros(2))
    assert [line.split(": ")[1] for line in refusal(path).splitlines()] == ["x_train", "y_test"]


def test_a_file_must_have_the_networks_input_shape_and_outputs(tmp_path):
    path = written(tmp_path / "own.npz")
    said = refusal(path, (32, 32, 3))
    assert "expected uint8 of shape (n, 32, 32, 3), like the network's input_shape" in said
    assert "y_test: found labels 9, expected 0 to 4, the network's outputs" in refusal(
        path, classes=5
    )


def test_a_false_header_makes_nothing_allocate_its_size(tmp_path):
    """Headers of a few bytes claim images of 80 GB and labels of 40 GB."""
    path = tmp_path / "own.npz"
    for key, shape in (("x_train", (10**8, 28, 28)), ("y_train", (4 * 10**10,))):
        header = BytesIO()
        descr = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, descr)
        written(path, **{key: None})
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(f"{key}.npy", header.getvalue())
        assert f"{key}: found " in (said := refusal(path))
    assert "expected integers of shape (4,)" in said
