"""Make a suite of what was read: merge equal convolutions, make names unique, note the source."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from convbench.importers.contract import Found, ImportSourceError, Reading
from convbench.importers.padding import written
from convbench.machine.version import __version__
from convbench.problem.layer import Layer
from convbench.suites.suite import Provenance, Suite

MAX_LISTED = 200
"""Number of left-out entries that a suite names."""

IMPLEMENTATIONS = ("im2col", "keras", "keras-graph")
"""Implementations that an imported suite runs unless others are named. The loop is not one of them:
it takes minutes on layers of real networks."""


@dataclass(frozen=True)
class Merged:
    """A layer that stands for all equal ones; `others` are the names of those."""

    layer: Layer
    others: tuple[str, ...]


def merged(found: Iterable[Found]) -> tuple[Merged, ...]:
    """Merge equal convolutions into one, with the first one's name and the sum of their counts."""
    same: dict[Layer, list[Layer]] = {}
    for entry in found:
        same.setdefault(_nameless(entry.layer), []).append(entry.layer)
    used: dict[str, int] = {}
    result = []
    for first, *rest in same.values():
        others = dict.fromkeys(layer.name for layer in rest if layer.name != first.name)
        total = sum(layer.count for layer in (first, *rest))
        layer = replace(first, name=_unique(first.name, used), count=total)
        result.append(Merged(layer, tuple(others)))
    return tuple(result)


def suite_of(
    name: str,
    source: str,
    format_: str,
    reading: Reading,
    batch_size: int | None = None,
    implementations: tuple[str, ...] = IMPLEMENTATIONS,
) -> tuple[Suite, tuple[Merged, ...]]:
    """Return the suite, and what its layers stand for.

    `batch_size` replaces that of every layer, and the suite's provenance says so. Raises
    ImportSourceError if there is no layer.
    """
    notes = list(reading.notes)
    found = reading.found
    if batch_size is not None:
        found = tuple(Found(replace(f.layer, batch_size=batch_size), f.place) for f in found)
        before = sorted({f.layer.batch_size for f in reading.found} - {batch_size})
        if before:
            notes.append(f"batch_size set to {batch_size}, from {_listed(before)}")
    if not found:
        raise ImportSourceError(
            f"{source}: found no convolution that convbench can measure; left out "
            f"{len(reading.left_out)}",
            hint="the list of what was left out says why" if reading.left_out else None,
        )
    layers = merged(found)
    left_out = [str(entry) for entry in reading.left_out]
    more = len(left_out) - MAX_LISTED
    provenance = Provenance(
        source=source,
        format=format_,
        read=len(found),
        merged=len(found) - len(layers),
        tools=(f"convbench {__version__}", *reading.tools),
        notes=tuple(notes),
        left_out=(*left_out[:MAX_LISTED], *([f"and {more} more"] if more > 0 else [])),
    )
    suite = Suite(
        name=name,
        layers=tuple(one.layer for one in layers),
        implementations=implementations,
        provenance=provenance,
    )
    return suite, layers


def suite_name(source: str, is_file: bool, lower: bool = True) -> str:
    """Name a suite after its source: `resnet50` for keras:ResNet50, `model` for a/model.onnx."""
    last = Path(source).stem if is_file else source.rpartition(":")[2]
    last = last.lower() if lower else last
    kept = "".join(c if c.isalnum() or c in "._-" else "_" for c in last)
    return kept.strip("._")[:100] or "imported"


def _nameless(layer: Layer) -> Layer:
    """Return a layer that is equal for equal convolutions, however their padding is written."""
    return replace(layer, name="", count=1, padding=written(layer.pads))


def _unique(name: str, used: dict[str, int]) -> str:
    """Return the name in printable characters, with a number if another layer has it already.

    `used` has every name that was given out, with the last number that was tried for it.
    """
    printable = "".join(c if c.isprintable() else "_" for c in name) or "layer"
    chosen = printable
    while chosen in used:
        used[printable] += 1
        chosen = f"{printable}-{used[printable]}"
    used[chosen] = 1
    return chosen


def _listed(numbers: list[int]) -> str:
    words = [str(number) for number in numbers]
    return ", ".join(words) if len(words) <= 8 else f"{words[0]} to {words[-1]}"
