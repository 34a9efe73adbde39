"""Make a network of a checked document: its layers and its optimiser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from convbench.errors import NetworkError
from convbench.suites.file.places import Document
from convbench.suites.file.values import image, layer_values
from convbench.training.file import document as network_document
from convbench.training.network import Kind, Network, Optimizer


def network(document: Document, path: Path) -> Network:
    """Return the network of a document.

    Raises SuiteError with every problem of the file, among them layers that do not fit each other.
    """
    for i, entry in document.items("layers", dict):
        if len(entry) != 1 and ("layers", i) not in document.wrong:
            what = " and ".join(entry) or "an empty mapping"
            text = f"found {what}, expected one layer: write each layer as an item of the list"
            document.problem(("layers", i), text)
    value = document.value
    made = None
    if {"layers", "input_shape"} <= {key for key in value if (key,) not in document.wrong}:
        try:
            made = Network(
                value.get("name", path.stem),
                image(value["input_shape"]),
                tuple(map(_layer, value["layers"])),
                source=str(path),
                **_settings(document),
            )
        except NetworkError as error:
            document.problem(error.keys, error.text)
    document.raise_problems()
    if made is None:
        raise AssertionError("a network without problems is made")
    return made


def _layer(entry: str | dict[str, Any]) -> Kind:
    ((name, keys),) = [(entry, {})] if isinstance(entry, str) else entry.items()
    return network_document.LAYERS[name](**layer_values(keys))


def _settings(document: Document) -> dict[str, Any]:
    """Return the settings that are given and right. Network's defaults stand for the others."""
    keys = ("description", "batch_size", "epochs", "dtype", "optimizer")
    right = [key for key in keys if key in document.value and (key,) not in document.wrong]
    found = {key: document.value[key] for key in right}
    if "optimizer" in found:
        found["optimizer"] = _optimizer(found["optimizer"])
    return found


def _optimizer(entry: str | dict[str, Any]) -> Optimizer:
    given = {"name": entry} if isinstance(entry, str) else entry
    settings: dict[str, Any] = {
        key: value if isinstance(value, bool) else float(value)
        for key, value in given.items()
        if key != "name"
    }
    return network_document.OPTIMIZERS[given["name"]](**settings)
