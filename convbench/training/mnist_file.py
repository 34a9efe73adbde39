"""Read a file in the format of Keras's mnist.npz without trusting it: nothing is unpickled."""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from convbench.errors import TrainingError

KEYS = ("x_train", "y_train", "x_test", "y_test")
"""Names of the arrays in the file: images and labels to train on, and those that are held out."""

MAX_BYTES = 2**31
"""Largest size of a set of images in bytes, as float32. All of them are held in memory."""

UNREADABLE = (
    OSError,
    EOFError,
    MemoryError,
    NotImplementedError,  # a compression that this Python does not know
    RuntimeError,  # a password
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)
"""Errors that reading a damaged or foreign file raises."""

Arrays = dict[str, NDArray[np.integer[Any]]]


def read(path: Path, input_shape: tuple[int, int, int], classes: int) -> Arrays:
    """Return the arrays of KEYS: images, uint8 (n, height, width[, channels]), and labels (n,).

    Raises TrainingError, with everything that is wrong, if the file cannot be read, or if its
    arrays do not fit a network with this `input_shape` (height, width, channels) and number of
    `classes`.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no file"
        raise TrainingError(
            f"{path}: found {found}, expected an .npz file",
            hint="name a file like Keras's mnist.npz, or one of auto, mnist, digits, synthetic",
        )
    try:
        with zipfile.ZipFile(path) as archive:
            # The headers alone tell whether the arrays fit, before any memory is allocated.
            _refuse(path, _misfits(archive, input_shape))
            arrays = {key: _array(archive, key) for key in KEYS}
    except PermissionError as error:
        raise TrainingError(
            f"{path}: cannot be read: {error.strerror}", hint="check its permissions"
        ) from None
    except UNREADABLE as error:
        raise TrainingError(
            f"{path}: cannot be read: {error or type(error).__name__}; expected a whole .npz file",
            hint="the file is cut short, damaged, or of another kind: delete it and get it again",
        ) from None
    _refuse(path, [_strangers(key, arrays[key], classes) for key in ("y_train", "y_test")])
    return arrays


def too_large(count: int, input_shape: tuple[int, int, int]) -> str:
    """Return what is wrong with `count` images of this shape, or "" if they fit into memory."""
    needed = 4 * count * math.prod(input_shape)
    if needed <= MAX_BYTES:
        return ""
    size = "×".join(map(str, input_shape))
    return (
        f"found {count:,} images of {size}, which take {needed / 2**30:.1f} GiB as float32, "
        f"expected {MAX_BYTES / 2**30:.0f} GiB or less"
    )


def _refuse(path: Path, problems: list[str]) -> None:
    if any(problems):
        raise TrainingError(
            "\n".join(f"{path}: {problem}" for problem in problems if problem),
            hint="a file is taken as it is: nothing is resized, converted or unpickled",
        )


def _misfits(archive: zipfile.ZipFile, input_shape: tuple[int, int, int]) -> list[str]:
    missing = [key for key in KEYS if f"{key}.npy" not in archive.namelist()]
    if missing:
        there = ", ".join(name.removesuffix(".npy") for name in archive.namelist()[:8]) or "nothing"
        return [f"found {there}, expected {', '.join(KEYS)}"]
    problems = []
    height, width, channels = input_shape
    image_shapes = [input_shape, (height, width)] if channels == 1 else [input_shape]
    for x, y in (KEYS[:2], KEYS[2:]):
        (shape, dtype), (label_shape, label_dtype) = (_header(archive, key) for key in (x, y))
        count = shape[0] if shape else 0
        if dtype != np.uint8 or shape[1:] not in image_shapes or count < 1:
            expected = str(("n", *image_shapes[-1])).replace("'", "")
            problems.append(
                f"{x}: found {dtype} of shape {shape}, expected uint8 of shape {expected}, "
                "like the network's input_shape"
            )
        elif large := too_large(count, input_shape):
            problems.append(f"{x}: {large}")
        if label_dtype.kind not in "iu" or label_shape != (count,):
            problems.append(
                f"{y}: found {label_dtype} of shape {label_shape}, expected integers of shape "
                f"({count},): a label for each image of {x}"
            )
    return problems


def _header(archive: zipfile.ZipFile, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    with archive.open(f"{key}.npy") as member:
        version = npy.read_magic(member)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read_header(member)
        return shape, dtype


def _array(archive: zipfile.ZipFile, key: str) -> NDArray[np.integer[Any]]:
    with archive.open(f"{key}.npy") as member:
        array: NDArray[np.integer[Any]] = npy.read_array(member, allow_pickle=False)
        return array


def _strangers(key: str, labels: NDArray[np.integer[Any]], classes: int) -> str:
    strange = np.unique(labels[(labels < 0) | (labels >= classes)])
    if not len(strange):
        return ""
    found = ", ".join(map(str, strange[:5])) + (", ..." if len(strange) > 5 else "")
    return f"{key}: found labels {found}, expected 0 to {classes - 1}, the network's outputs"
