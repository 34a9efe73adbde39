"""Load the images that a network is trained on, and order them for each epoch."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convbench.errors import TrainingError
from convbench.training import drawing, mnist_file

Shape = tuple[int, int, int]
Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

MNIST_SHAPE = (28, 28, 1)
"""Height, width and channels of an image of MNIST."""

DIGITS = 10
"""Number of classes of MNIST, and of scikit-learn's digits."""

DIGITS_HELD_OUT = 30
"""Number of scikit-learn's digits that are held out of each class: 300 of 1,797 in all."""

DOWNLOAD_S = 240.0
"""Seconds that the download of MNIST (11 MB) may take. An answer of a worker may take longer."""

SYNTHETIC, SYNTHETIC_HELD_OUT = 60_000, 10_000
"""Numbers of synthetic images to train on, and held out: those of MNIST."""


@dataclass(frozen=True)
class Dataset:
    """Images, float32 (n, height, width, channels) in [0, 1], and their labels, int64 (n,).

    `note` tells in a sentence what the images are, where they come from, and how many they are.
    """

    name: str
    note: str
    images: Floats
    labels: Integers
    held_out_images: Floats
    held_out_labels: Integers

    @functools.cached_property
    def checksum(self) -> int:
        """CRC-32 of the images to train on and of their labels, in their order."""
        return zlib.crc32(self.labels.tobytes(), zlib.crc32(self.images.tobytes()))

    @property
    def classes(self) -> int:
        """Number of classes: the largest label and one more."""
        return int(max(self.labels.max(), self.held_out_labels.max())) + 1


def load(
    which: str, input_shape: Shape, classes: int, seed: int = 0, images: int | None = None
) -> Dataset:
    """Return the data `which`: auto, mnist, digits, synthetic, or a path to a file like mnist.npz.

    At most `images` images are used to train on; all that are held out are used. `seed` draws the
    synthetic ones. Raises TrainingError if the data cannot be had, or does not fit a network with
    this `input_shape` (height, width, channels) and this many `classes`.
    """
    if images is not None and images < 1:
        raise TrainingError(f"images: found {images}, expected 1 or more")
    if which == "auto":
        which, why = _choice(input_shape, classes)
        chosen = load(which, input_shape, classes, seed, images)
        return replace(chosen, note=f"{why}; {chosen.note}")
    if which == "synthetic":
        return _synthetic(input_shape, classes, seed, images)
    if which == "digits":
        return _digits(input_shape, classes, images)
    if which != "mnist":
        return _file("file", Path(which), input_shape, classes, images)
    path = _cached_mnist()
    if not path.is_file():
        _download(path)
    return _file("mnist", path, input_shape, classes, images)


def batches(
    count: int, batch_size: int, epoch: int, seed: int, shuffle: int = 0
) -> Iterator[Integers]:
    """Yield the indices (batch_size,) of one epoch's batches of `count` images.

    The last batch may be smaller. Each `shuffle` gives another order of the same images.
    """
    order = np.random.default_rng([seed, epoch, shuffle]).permutation(count)
    for start in range(0, count, batch_size):
        yield order[start : start + batch_size]


def _choice(input_shape: Shape, classes: int) -> tuple[str, str]:
    """Choose data that need no download, real digits first. Return its name and the reason."""
    if classes < DIGITS:
        return "synthetic", f"real digits need {DIGITS} outputs, but the network has {classes}"
    if input_shape != MNIST_SHAPE:
        why = f"MNIST is {_size(MNIST_SHAPE)}, but the network reads {_size(input_shape)}"
    elif _cached_mnist().is_file():
        return "mnist", "MNIST is in Keras's cache"
    else:
        why = "MNIST is not in Keras's cache"
    if find_spec("sklearn"):
        return "digits", why
    return "synthetic", f"{why}, and scikit-learn is not installed"


def _synthetic(input_shape: Shape, classes: int, seed: int, images: int | None) -> Dataset:
    if classes > drawing.CLASSES:
        raise TrainingError(
            f"synthetic: found a network of {classes} outputs, expected {drawing.CLASSES} or fewer",
            hint="there are ten digits; give the last layer ten units, or take --data FILE.npz",
        )
    count = min(images or SYNTHETIC, SYNTHETIC)
    _refuse_large("synthetic", count + SYNTHETIC_HELD_OUT, input_shape)
    return _dataset(
        "synthetic",
        f"synthetic digits drawn with seed {seed}",
        *drawing.draw(count, input_shape, classes, (seed, zlib.crc32(b"training"))),
        *drawing.draw(SYNTHETIC_HELD_OUT, input_shape, classes, (seed, zlib.crc32(b"held out"))),
    )


def _digits(input_shape: Shape, classes: int, images: int | None) -> Dataset:
    """Return scikit-learn's digits, split and ordered alike for all seeds.

    Trainings with different seeds can thus be compared.
    """
    if classes < DIGITS:
        raise TrainingError(
            f"digits: found a network of {classes} outputs, expected {DIGITS} or more",
            hint=f"give the last layer {DIGITS} units, or take --data synthetic",
        )
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise TrainingError(
            f"digits: they come with scikit-learn, which cannot be imported: {error}",
            hint="pip install 'convbench[digits]', or take --data synthetic",
        ) from None
    digits = load_digits()
    _refuse_large("digits", len(digits.target), input_shape)
    order = np.random.default_rng(0).permutation(len(digits.target))
    labels = digits.target[order].astype(np.int64)
    pixels = _resized(digits.images[order] / 16, input_shape)
    held_out = np.zeros(len(labels), bool)
    for digit in range(DIGITS):
        held_out[np.flatnonzero(labels == digit)[:DIGITS_HELD_OUT]] = True
    training = np.flatnonzero(~held_out)[:images]
    return _dataset(
        "digits",
        f"handwritten digits of scikit-learn, 8×8 resized to {_size(input_shape[:2])}",
        pixels[training],
        labels[training],
        pixels[held_out],
        labels[held_out],
    )


def _file(name: str, path: Path, input_shape: Shape, classes: int, images: int | None) -> Dataset:
    arrays = mnist_file.read(path, input_shape, classes)
    x, x_held_out = (
        np.divide(pixels, 255, dtype=np.float32).reshape(-1, *input_shape)
        for pixels in (arrays["x_train"][:images], arrays["x_test"])
    )
    y, y_held_out = (
        labels.astype(np.int64) for labels in (arrays["y_train"][:images], arrays["y_test"])
    )
    return _dataset(name, f"images of {path}", x, y, x_held_out, y_held_out)


def _dataset(
    name: str, what: str, x: Floats, y: Integers, x_held_out: Floats, y_held_out: Integers
) -> Dataset:
    note = f"{what}: {len(x):,} to train on, {len(x_held_out):,} held out"
    return Dataset(name, note, x, y, x_held_out, y_held_out)


def _resized(images: NDArray[np.float64], shape: Shape) -> Floats:
    """Resize images (n, h, w) to (n, *shape) by bilinear interpolation, with equal channels.

    Pixels are areas, as in OpenCV and Keras: the corners of an image stay its corners.
    """
    rows, columns = (_hats(*sizes) for sizes in zip(images.shape[1:], shape[:2], strict=True))
    resized = (rows @ images @ columns.T).astype(np.float32)
    return np.repeat(resized[..., None], shape[2], axis=3)


def _hats(old: int, new: int) -> NDArray[np.float64]:
    """Return weights (new, old) of linear interpolation. The outermost samples reach the edges."""
    places = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    weights: NDArray[np.float64] = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(old)))
    return weights


def _refuse_large(name: str, count: int, input_shape: Shape) -> None:
    if large := mnist_file.too_large(count, input_shape):
        raise TrainingError(
            f"{name}: {large}", hint="train on fewer images, or on a smaller input_shape"
        )


def _download(path: Path) -> None:
    """Let Keras's loader put MNIST into its cache, in a process of its own."""
    command = [sys.executable, "-c", "import keras; keras.datasets.mnist.load_data()"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_S)
        said = done.stderr.strip().rpartition("\n")[2] if done.returncode else "it left no file"
    except subprocess.TimeoutExpired:
        said = f"no answer in {DOWNLOAD_S:.0f} s"
    if not path.is_file():
        raise TrainingError(
            f"mnist: found no file {path}, and Keras's loader could not download it: {said}",
            hint='download it where there is a network, with python -c "import keras; '
            'keras.datasets.mnist.load_data()", or take --data PATH/mnist.npz, --data digits or '
            "--data synthetic",
        )


def _cached_mnist() -> Path:
    """Return the path of MNIST in Keras's cache, without importing Keras."""
    home = os.environ.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras") / "datasets" / "mnist.npz"


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
