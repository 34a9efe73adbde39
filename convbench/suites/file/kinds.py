"""Name every kind of YAML file that convbench knows, for messages that tell one from another."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from convbench.suites.file.document import Kind

KINDS = {
    "suite": "convbench.suites.file.document:SUITE",
    "network": "convbench.training.file.document:NETWORK",
}
"""Module and attribute that describe each kind. An add-on's kind is imported only when it is needed
for a message."""


def others(kind: Kind) -> Iterator[Kind]:
    """Yield the kinds of files that a person can mean by mistake instead of `kind`."""
    for name, place in KINDS.items():
        if name != kind.name:
            module, _, attribute = place.partition(":")
            yield getattr(import_module(module), attribute)
