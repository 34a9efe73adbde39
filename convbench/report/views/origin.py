"""Say in a line of a report's head where a suite's layers come from."""

from __future__ import annotations

from collections.abc import Iterator

from convbench.report.views.table import Fact
from convbench.suites.suite import Suite


def origin(suite: Suite) -> Iterator[Fact]:
    """Yield `layers`: `keras:ResNet50 (53 convolutions, 33 merged into equal ones)`, and notes."""
    found = suite.provenance
    if found is None:
        return
    counts = [f"{found.read} convolutions"]
    if found.merged:
        counts.append(f"{found.merged} merged into equal ones")
    if found.left_out:
        counts.append(f"{len(found.left_out)} left out")
    parts = [f"{found.source} ({', '.join(counts)})", *found.notes]
    yield Fact("layers", "; ".join(parts))
