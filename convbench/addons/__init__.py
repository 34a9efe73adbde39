"""List the add-ons: what each adds to the commands, the YAML files and the results of the core.

To add one, write a room with its messages, its schedule and its views, write a command in `cli/`,
and add a line to ADD_ONS. The core imports no add-on: it names places as `module:attribute`, and
imports a place when somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class AddOn:
    """One add-on: the places of its command, of its kinds of YAML files, and of its report.

    `kinds` are the places of `suites.file.document.Kind`s, by name. `result` says in one word what
    the add-on saves. It is a key in the part `convbench` that only this add-on's result files have.
    `show` is the place of a function from the path of such a file to a `report.views.table.Report`.
    """

    command: str
    kinds: Mapping[str, str] = field(default_factory=dict)
    result: str = ""
    show: str = ""


ADD_ONS = {
    "train": AddOn(
        "convbench.cli.train:train",
        kinds={"network": "convbench.training.file.document:NETWORK"},
        result="training",
        show="convbench.training.tables:show",
    ),
    "profile": AddOn("convbench.cli.profile:profile"),
}
"""Add-ons by the names of their commands."""


def kinds() -> dict[str, str]:
    """Return the places of all kinds of YAML files that the add-ons read, by name."""
    return {name: place for each in ADD_ONS.values() for name, place in each.kinds.items()}


def writer(document: Mapping[str, Any]) -> str | None:
    """Return the name of the add-on that wrote a result file, or None if no add-on did."""
    part = document.get("convbench")
    keys = {key for key, value in part.items() if value} if isinstance(part, dict) else set()
    return next((name for name, each in ADD_ONS.items() if each.result in keys), None)


def found(place: str, kind: type[T]) -> T:
    """Import what stands at a place. Raises TypeError if it is not of that kind."""
    module, _, attribute = place.partition(":")
    value = getattr(import_module(module), attribute)
    if not isinstance(value, kind):
        raise TypeError(f"{place} is {type(value).__name__}, expected {kind.__name__}")
    return value
