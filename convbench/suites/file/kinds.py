"""Name every kind of YAML file that convbench reads, for messages that tell one from another."""

from __future__ import annotations

from collections.abc import Iterator

from convbench import addons
from convbench.suites.file.document import SUITE, Kind


def others(kind: Kind) -> Iterator[Kind]:
    """Yield the kinds of files that a person can mean by mistake instead of `kind`."""
    known: list[Kind] = [SUITE, *(addons.found(place, Kind) for place in addons.kinds().values())]
    yield from (other for other in known if other is not kind)
