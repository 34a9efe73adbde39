"""Check a suite's file: word what the model finds, and check what spans several keys."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from convbench.errors import LayerError
from convbench.implementations.registry import BUILT_IN
from convbench.own_code.description import (
    ACTIVATION_AXES,
    KERNEL_AXES,
    OwnCode,
    expression_problem,
    layout_problem,
    spelled,
)
from convbench.problem.layer import Layer, Pass
from convbench.suites.file.document import REQUIRED_KEYS, Keys
from convbench.suites.file.messages import (
    EXPECTED,
    did_you_mean,
    expected,
    field_of,
    quoted,
    shown,
    unknown_key,
    wrong_value,
)
from convbench.suites.file.places import Document
from convbench.suites.file.values import image, layer_values
from convbench.suites.suite import COMPOSITES, REPETITIONS

Items = list[tuple[int, str]]


def check_model(document: Document) -> None:
    """Note what the document's model finds: wrong types and ranges, unknown and missing keys."""
    try:
        document.kind.model.validate_python(document.value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        # Unknown keys come first: one of them may be meant for the key that is missing.
        for details in sorted(found, key=lambda details: details["type"] == "missing"):
            _note(document, details["type"], details["loc"])


def _note(document: Document, kind: str, location: Keys) -> None:
    keys = document.kind.keys_of(location)
    if kind == "extra_forbidden":
        text, meant = unknown_key(location, document.kind)
        document.problem(keys, text, at=document.places[keys][0])
        if meant:
            document.wrong.add((*keys[:-1], meant))
    elif kind == "missing":  # `layers` finds missing keys of a layer, which defaults may have
        if keys not in document.wrong:
            wanted = expected(field_of(keys, document.kind), document.kind)
            text = f"found no key {keys[-1]}, expected {wanted}"
            document.problem(keys[:-1], text)
    elif location[-1] == "[key]" and location[0] == "environment":
        text = f"found {quoted(str(keys[-1]))}, expected {EXPECTED['environment key']}"
        document.problem(keys, text, at=document.places[keys][0])
    elif keys not in document.wrong:
        document.problem(keys, wrong_value(keys, document.places[keys][1], document.kind))


def check_unique(document: Document, key: str, items: Items) -> None:
    """Note items that occur again in a list."""
    first: dict[str, int] = {}
    for i, item in items:
        if first.setdefault(item, i) != i:
            line = document.line((key, first[item]))
            text = f"found {quoted(item)} again, expected it once; the first is on line {line}"
            document.problem((key, i), text)


def implementations(document: Document, folder: Path) -> tuple[dict[str, str], tuple[OwnCode, ...]]:
    """Return the implementations, and how the user's own code among them is called.

    A dictionary maps each name, relative to where convbench runs, to how the file writes it.
    """
    names: Items = []
    written: dict[str, str] = {}
    own: list[OwnCode] = []
    for i, name in document.items("implementations", str):
        seen = seen_from_here(name, folder)
        names.append((i, seen))
        written[seen] = name
        if OwnCode.is_spelled(name):
            own.append(OwnCode.of(seen))
        if lacking := _expected_here(name, seen):
            document.problem(("implementations", i), f"found {quoted(name)}, expected {lacking}")
    for i, entry in document.items("implementations", dict):
        if ("implementations", i) in document.wrong:
            continue
        code = _own_code(document, i, entry, folder)
        names.append((i, code.name))
        written[code.name] = str(entry.get("name", entry["code"]))
        own.append(code)
    check_unique(document, "implementations", sorted(names))
    return {name: written[name] for _, name in sorted(names)}, tuple(own)


def _own_code(document: Document, i: int, entry: dict[str, Any], folder: Path) -> OwnCode:
    """Return the own code of an entry whose types are right, and note its other problems."""
    keys = ("implementations", i)
    code = seen_from_here(entry["code"], folder)
    name = entry.get("name", code)
    expected = "" if OwnCode.is_spelled(code) else "FILE.py:NAME or package.module:NAME"
    if expected := expected or _expected_here(entry["code"], code):
        text = f"found {quoted(entry['code'])}, expected {expected}"
        document.problem((*keys, "code"), text)
    if "name" in entry and (taken := _taken(name)):
        text = f"found {quoted(name)}, which is {taken}, expected another name"
        document.problem((*keys, "name"), text)
    for key in ("layout", "output_layout", "kernel_layout"):
        axes = KERNEL_AXES if key == "kernel_layout" else ACTIVATION_AXES
        if key in entry and (problem := layout_problem(entry[key], axes)):
            document.problem((*keys, key), f"found {quoted(entry[key])}, expected {problem}")
    for pass_, text in entry.get("passes", {}).items():
        if problem := expression_problem(text):
            found = f"found {quoted(text)}, expected a Python expression: {problem}"
            document.problem((*keys, "passes", pass_), found)
    return OwnCode(
        name=name,
        code=code,
        layout=entry.get("layout", ""),
        kernel_layout=entry.get("kernel_layout", ""),
        output_layout=entry.get("output_layout", ""),
        passes={Pass(pass_): text.strip() for pass_, text in entry.get("passes", {}).items()},
    )


def _taken(name: str) -> str:
    """Return what a name already stands for, or nothing if the user's own code can have it."""
    if name in BUILT_IN:
        return "an implementation of convbench"
    if name in COMPOSITES:
        return "convbench's name for several implementations together"
    if name.endswith(REPETITIONS):
        return "convbench's name for the repetition of an implementation"
    return ""


def _expected_here(name: str, seen: str) -> str:
    """Say what should stand in place of a name that is no implementation or whose file does not
    exist. The answer is empty if the name is right."""
    expected = expected_name(name, BUILT_IN)
    code = OwnCode.of(seen)
    if not expected and OwnCode.is_spelled(name) and code.source is None:
        expected = f"an existing {code.place_kind}; there is no {shown(code.where)}"
    return expected


def expected_name(name: str, known: Collection[str]) -> str:
    """Say what should stand in place of a name that is neither known nor own code. The answer is
    empty if the name is right."""
    if not OwnCode.is_spelled(name):
        if name in known:
            return ""
        return f"one of {', '.join(known)}, or your own FILE.py:NAME{did_you_mean(name, known)}"
    problem = OwnCode.of(name).spelling_problem
    return f"FILE.py:NAME or package.module:NAME; {problem}" if problem else ""


def seen_from_here(name: str, folder: Path) -> str:
    """Return the name of an implementation. A file is made relative to where convbench runs."""
    code = OwnCode.of(name)
    if not OwnCode.is_spelled(name) or not code.is_file:
        return name
    return spelled(os.path.normpath(folder / code.where), code.attribute)


def layers(document: Document) -> list[Layer]:
    """Return the layers of entries without problems, and note the problems of the others."""
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
            key, text = error.key, error.problem
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
    """Make a layer of checked keys. Raises LayerError if its numbers do not go together."""
    return Layer(**{**layer_values(given), "input_shape": image(given["input_shape"])})
