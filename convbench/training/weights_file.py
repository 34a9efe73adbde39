"""Save weights and checkpoints: one .npz with an array for each parameter and the rest as JSON.

Weights are arrays with names like `weights/conv2d_1/kernel`, in the network's dtype and in Keras's
shapes. The optimiser's state has names like `optimizer/momentum/conv2d_1/kernel`. `losses` is
float64. `convbench` is a text of JSON: the name of the schema, the network, the seed, the shuffle,
the epoch, the batch, and what the batches are drawn from. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.errors import TrainingError
from convbench.training.network import NAMES, Network
from convbench.training.trainer import Source, State

Array = NDArray[np.floating[Any]]

SCHEMA = "convbench-weights/1"
"""Name of the file's format. A file of another format is refused."""

MAX_BYTES = 2**31
"""Largest file that is read, in bytes, compressed or not."""


def save(path: Path, network: Network, state: State) -> None:
    """Save a state, and replace an older file at once.

    A process that is killed meanwhile leaves the old file or the new one, and never a part.
    Raises TrainingError if the file cannot be written.
    """
    about = {
        "schema": SCHEMA,
        "network": described(network),
        "seed": state.seed,
        "shuffle": state.shuffle,
        "epoch": state.epoch,
        "batch": state.batch,
        "source": asdict(state.source) if state.source else None,
    }
    arrays: dict[str, Any] = {"convbench": np.array(json.dumps(about))}
    arrays |= {f"weights/{name}": array for name, array in state.weights.items()}
    for kind, vectors in state.optimizer.items():
        arrays |= {f"optimizer/{kind}/{name}": array for name, array in vectors.items()}
    arrays["losses"] = np.array(state.losses, np.float64)
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                np.savez(file, **arrays)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise TrainingError(
            f"{path} cannot be written: {error.strerror}", hint="name another file"
        ) from None


def load(path: Path, network: Network) -> State:
    """Return a saved state. Raises TrainingError if the file is truncated or another network's.

    The layers, the input's shape and the dtype must be equal; the name, the batch size and the
    optimiser's settings may differ.
    """
    arrays = _arrays(path)
    about = _about(path, arrays)
    expected, found = _shape(described(network)), _shape(about["network"])
    if found != expected:
        raise TrainingError(
            f"{path}: found weights of {found}, expected weights of {expected}",
            hint="name the network that the weights were saved from",
        )
    weights = {
        name: _checked(path, arrays, f"weights/{name}", shape, network.dtype)
        for name, shape in network.parameters.items()
    }
    optimizer: dict[str, dict[str, Array]] = defaultdict(dict)
    for key in arrays:
        if key.startswith("optimizer/"):
            _, kind, name = key.split("/", 2)
            shape = network.parameters.get(name)
            optimizer[kind][name] = _checked(path, arrays, key, shape, network.dtype)
    for kind, vectors in optimizer.items():
        if vectors.keys() != weights.keys():
            raise TrainingError(f"{path}: optimizer/{kind}: some parameters are missing")
    losses = _checked(path, arrays, "losses", None, "float64")
    return State(
        weights,
        dict(optimizer),
        about["seed"],
        about["epoch"],
        about["batch"],
        tuple(map(float, losses.ravel())),
        about["shuffle"],
        Source(**about["source"]) if about.get("source") else None,
    )


def described(network: Network) -> dict[str, Any]:
    """Return the network as a value of JSON, in the words of its YAML file."""
    optimizer = {"name": type(network.optimizer).__name__.lower(), **asdict(network.optimizer)}
    layers = [{NAMES[type(kind)]: asdict(kind)} for kind in network.layers]
    about = {
        "name": network.name,
        "input_shape": network.input_shape,
        "batch_size": network.batch_size,
        "dtype": network.dtype,
        "optimizer": optimizer,
        "layers": layers,
    }
    converted: dict[str, Any] = json.loads(json.dumps(about))
    return converted


def _shape(about: Mapping[str, Any]) -> str:
    """Return what decides whether weights fit a network, as one line."""
    layers = []
    for layer in about["layers"]:
        ((name, values),) = layer.items()
        settings = ", ".join(f"{key} {value}" for key, value in values.items())
        layers.append(f"{name}({settings})" if settings else name)
    return f"{about['input_shape']} {about['dtype']}: {', '.join(layers)}"


def _arrays(path: Path) -> dict[str, Array]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise TrainingError(f"{path}: found more than {MAX_BYTES} bytes, expected weights")
        with zipfile.ZipFile(path) as archive:
            names = [info.filename for info in archive.infolist()]
            size = sum(info.file_size for info in archive.infolist())
        if size > MAX_BYTES or len(set(names)) != len(names):
            raise _foreign(path)
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except OSError as error:
        raise TrainingError(
            f"{path} cannot be read: {error.strerror or error}", hint="check the path"
        ) from None
    except (zipfile.BadZipFile, ValueError, EOFError, KeyError, MemoryError) as error:
        raise TrainingError(
            f"{path}: found no whole .npz file of plain arrays ({error}), expected weights that "
            "convbench train saved",
            hint="the file may be cut short; nothing in it was run",
        ) from None


def _about(path: Path, arrays: Mapping[str, Array]) -> dict[str, Any]:
    try:
        about = json.loads(str(arrays["convbench"][()]))
        schema = about["schema"]
        known = isinstance(about["network"]["layers"], list)
        numbers = [about[key] for key in ("seed", "shuffle", "epoch", "batch")]
        if source := about.get("source"):
            known &= source.keys() == {field.name for field in fields(Source)}
            numbers += source.values()
        known &= all(type(number) is int and number >= 0 for number in numbers)
        _shape(about["network"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        raise _foreign(path) from None
    if schema != SCHEMA:
        raise TrainingError(
            f"{path}: found the schema {schema!r}, expected {SCHEMA}",
            hint="another version of convbench wrote the file",
        )
    if not known:
        raise _foreign(path)
    checked: dict[str, Any] = about
    return checked


def _foreign(path: Path) -> TrainingError:
    return TrainingError(
        f"{path}: found another kind of file, expected weights that convbench train saved",
        hint="convbench train --save FILE writes them",
    )


def _checked(
    path: Path, arrays: Mapping[str, Array], key: str, shape: tuple[int, ...] | None, dtype: str
) -> Array:
    array = arrays.get(key)
    if array is None or array.dtype != dtype or (shape is not None and array.shape != shape):
        found = "nothing" if array is None else f"{array.dtype} {array.shape}"
        raise TrainingError(f"{path}: {key}: found {found}, expected {dtype} {shape or ''}".strip())
    if not np.isfinite(array).all():
        raise TrainingError(f"{path}: {key}: found values that are not finite")
    return array
