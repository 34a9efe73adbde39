"""The checks: what the model finds, in our words, and what spans several keys."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from convbench.errors import LayerError
from convbench.implementations import REGISTRY, is_user_code
from convbench.layer import Layer
from convbench.suite_file.document import REQUIRED_KEYS
from convbench.suite_file.messages import (
    EXPECTED,
    Keys,
    did_you_mean,
    quoted,
    shown,
    unknown_key,
    wrong_value,
)
from convbench.suite_file.places import Document

Items = list[tuple[int, str]]


def check_model(document: Document) -> None:
    """Notes what the document model finds: types, ranges, unknown and missing keys."""
    try:
        document.kind.model.validate_python(document.value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        # Unknown keys come first: one of them may be meant for the key that is missing.
        for details in sorted(found, key=lambda details: details["type"] == "missing"):
            _note(document, details["type"], details["loc"])


def _note(document: Document, kind: str, location: Keys) -> None:
    # A problem inside a field is told at the field: layers.0.strides, not layers.0.strides.1.
    keys = location[: {"layers": 3, "gate": 3, "threads": 1, "effort": 1}.get(str(location[0]), 2)]
    if kind == "extra_forbidden":
        text, meant = unknown_key(keys, document.kind)
        document.problem(keys, text, at=document.places[keys][0])
        if meant:
            document.wrong.add((*keys[:-1], meant))
    elif kind == "missing":  # not in a layer: what it needs can stand in the defaults
        if keys not in document.wrong:
            text = f"found no key {keys[-1]}, expected {EXPECTED[str(keys[-1])]}"
            document.problem(keys[:-1], text)
    elif location[-1] == "[key]":
        text = f"found {quoted(str(keys[-1]))}, expected {EXPECTED['environment key']}"
        document.problem(keys, text, at=document.places[keys][0])
    elif keys not in document.wrong:
        document.problem(keys, wrong_value(keys, document.places[keys][1]))


def check_unique(document: Document, key: str, items: Items) -> None:
    """Notes what occurs twice in a list."""
    first: dict[str, int] = {}
    for i, item in items:
        if first.setdefault(item, i) != i:
            line = document.line((key, first[item]))
            text = f"found {quoted(item)} again, expected it once; the first is on line {line}"
            document.problem((key, i), text)


def implementations(document: Document, folder: Path) -> dict[str, str]:
    """The names as seen from where convbench runs, each with how the file writes it."""
    names: Items = []
    written: dict[str, str] = {}
    for i, name in document.items("implementations", str):
        seen = seen_from_here(name, folder)
        names.append((i, seen))
        written[seen] = name
        expected, path = expected_name(name, REGISTRY), seen.rpartition(":")[0]
        if not expected and path and not os.path.isfile(path):
            expected = f"an existing file; there is no {shown(path)}"
        if expected:
            document.problem(("implementations", i), f"found {quoted(name)}, expected {expected}")
    check_unique(document, "implementations", names)
    return written


def expected_name(name: str, known: Collection[str]) -> str:
    """What stands for an implementation, if `name` cannot: it is neither known nor user code."""
    if not is_user_code(name):
        if name in known:
            return ""
        return f"one of {', '.join(known)}, or your own FILE.py:NAME{did_you_mean(name, known)}"
    file, _, function = name.rpartition(":")
    is_right = file and function.isidentifier()
    return "" if is_right else "FILE.py:NAME, NAME being a function of that file"


def seen_from_here(name: str, folder: Path) -> str:
    """The name of an implementation, the user's file seen from where convbench runs."""
    file, _, function = name.rpartition(":")
    return f"{os.path.normpath(folder / file)}:{function}" if is_user_code(name) else name


def layers(document: Document) -> list[Layer]:
    """The layers of the entries that nothing was found wrong with so far."""
    defaults = document.value.get("defaults", {})
    if not isinstance(defaults, dict):
        return []
    result: list[Layer] = []
    unfit: defaultdict[str, Items] = defaultdict(list)
    entries = document.items("layers", dict)
    for i, entry in entries:
        given = {**defaults, **entry}
        for key in REQUIRED_KEYS:
            if key not in given and not document.wrong & {("layers", i, key), ("defaults", key)}:
                text = f"found no key {key}, expected {EXPECTED[key]}, here or in defaults"
                document.problem(("layers", i), text)
        if document.wrong & {("layers", i), ("defaults",)}:
            continue
        try:
            result.append(_layer({"name": f"layer{i + 1}", **given}))
        except LayerError as error:
            key, _, text = error.message.partition(": ")
            if key in entry or key not in defaults:
                document.problem(("layers", i, key), text)
            else:
                unfit[key].append((i, text))
    for key, cases in unfit.items():
        i, text = cases[0]
        more = f" and {len(cases) - 1} more" if len(cases) > 1 else ""
        which = f"in layers.{i} on line {document.line(('layers', i))}{more}"
        document.problem(("defaults", key), f"{text} ({which})")
    _check_names(document, entries)
    return result


def _check_names(document: Document, entries: list[tuple[int, dict[str, Any]]]) -> None:
    first: dict[str, int] = {}
    for i, entry in entries:
        name = entry.get("name", f"layer{i + 1}")
        if isinstance(name, str) and first.setdefault(name, i) != i:
            found = quoted(name) + ("" if "name" in entry else ", the name by position")
            other = f"layers.{first[name]} on line {document.line(('layers', first[name]))}"
            text = f"found {found}, expected a unique name; {other} has it too"
            document.problem(("layers", i, "name"), text)


def _layer(given: dict[str, Any]) -> Layer:
    """The layer of checked keys. Raises LayerError when its numbers do not go together."""
    height, width, *channels = given["input_shape"]
    values = {**given, "input_shape": (height, width, *(channels or [1]))}
    for key in given.keys() & {"kernel_size", "strides", "dilation_rate"}:
        values[key] = _pair(given[key])
    padding = given.get("padding", "valid")
    named = isinstance(padding, str)
    values["padding"] = padding.lower() if named else tuple(map(_pair, _pair(padding)))
    return Layer(**values)


def _pair(value: Any) -> tuple[Any, Any]:
    first, second = (value, value) if isinstance(value, int) else value
    return first, second
