"""Read suites and rules from YAML: find the file, check it, raise all of its problems together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from convbench.errors import SuiteError
from convbench.problem.layer import Pass
from convbench.suites.file.checks import check_model, check_unique, implementations, layers
from convbench.suites.file.document import RULES, SUITE, TOP, Kind, json_schema
from convbench.suites.file.kinds import others
from convbench.suites.file.places import Document
from convbench.suites.file.rules import Lists, lists_of, rules
from convbench.suites.file.source import MAX_BYTES, decode, find
from convbench.suites.suite import DEFAULT_IMPLEMENTATIONS, Provenance, Rule, Suite

__all__ = [
    "MAX_BYTES",
    "json_schema",
    "read_document",
    "read_rules",
    "read_suite",
]


def read_suite(target: str | Path) -> Suite:
    """Read the suite that a file or the name of a shipped suite stands for. A file wins.

    Raises SuiteError with every problem of the file, each on a line with its line and column.
    """
    path, document = read_document(target, SUITE)
    found_layers = layers(document)
    found_implementations, own = implementations(document, path.parent)
    check_unique(document, "passes", document.items("passes", str))
    gate = rules(document, path.parent, lists_of(document, found_layers, found_implementations))
    document.raise_problems()
    value = document.value
    return Suite(
        name=value.get("name", path.stem),
        layers=tuple(found_layers),
        implementations=tuple(found_implementations) or DEFAULT_IMPLEMENTATIONS,
        passes=tuple(Pass(p) for p in value.get("passes", Pass)),
        threads=value.get("threads", "all"),
        effort=value.get("effort", "standard"),
        environment=_environment(document),
        description=value.get("description", ""),
        source=str(path),
        gate=gate,
        own=own,
        provenance=_provenance(value.get("provenance")),
    )


def read_rules(path: str | Path) -> tuple[Rule, ...]:
    """Read a file that has nothing but rules, under `gate`, for runs of any suite.

    Raises SuiteError as `read_suite` does. Whatever depends on a suite is not checked, such as
    whether it has the implementation that a rule names. Nor is it checked that the user's files
    exist.
    """
    file, document = read_document(path, RULES)
    found = rules(document, file.parent, Lists())
    document.raise_problems()
    return found


def read_document(target: str | Path, kind: Kind) -> tuple[Path, Document]:
    """Read a file of that kind, and check its types, ranges and keys.

    Raises SuiteError if it cannot be read or is a file of another kind. Returns its path and the
    document, in which other problems are noted.
    """
    path, data = find(target, kind)
    document = Document(str(path), decode(str(path), data, kind), kind)
    for other in others(kind):
        if _is_other(document.value, kind, other):
            raise SuiteError(
                f"{path}:1:1: found a {other.name}, expected a {kind.name}",
                hint=f"{other.command} {path}",
            )
    check_model(document)
    return path, document


def _is_other(value: dict[str, Any], kind: Kind, other: Kind) -> bool:
    """Tell whether layers are written as in another kind of file, and nothing is as in ours."""
    layers = value.get("layers")
    if kind is other or kind is RULES or not isinstance(layers, list):
        return False
    words = {
        word
        for entry in layers
        for word in (entry if isinstance(entry, dict) else [entry])
        if isinstance(word, str)
    }
    own = {*kind.homes[TOP]} - {*other.homes[TOP]}
    ours = words & {*kind.places.get("layers", ())} or value.keys() & own
    return bool(words & {*other.places.get("layers", ())}) and not ours


def _provenance(found: dict[str, Any] | None) -> Provenance | None:
    if found is None:
        return None
    lists = {key: tuple(found.get(key, ())) for key in ("tools", "notes", "left_out")}
    return Provenance(found["source"], found["format"], found["read"], found["merged"], **lists)


def _environment(document: Document) -> dict[str, str | None]:
    """Return the variables with their values as they were written: 010 stays 010."""
    variables = document.value.get("environment", {})
    return {
        name: None if value is None else str(document.places["environment", name][1].value)
        for name, value in variables.items()
    }
