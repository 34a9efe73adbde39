"""Say which implementations leave memory behind after every call."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from convbench.report.views.scale import amount
from convbench.report.views.table import Kind, Note
from convbench.results.model import Cell, Memory, ResultFile

LEAST_BYTES = 4096
"""Fewest bytes after every call that are told. Python's own bookkeeping takes less."""


def memory_notes(result: ResultFile) -> Iterator[Note]:
    """Yield one note for each implementation that keeps more after every call, and one for each
    that leaves work to the garbage collector. The cell with the most is named."""
    for left, sentence in (
        (_grows, "it keeps {} more after every call"),
        (
            _garbage,
            "every call leaves {} to Python's garbage collector, since arrays are in reference "
            "cycles; the peak does not include them",
        ),
    ):
        most: dict[str, Cell] = {}
        for cell in result.cells:
            known = most.get(cell.implementation)
            if left(cell) >= max(LEAST_BYTES, left(known) + 1 if known else 0):
                most[cell.implementation] = cell
        for name, cell in most.items():
            told = sentence.format(amount(Kind.BYTES, left(cell)))
            yield Note(f"{name} ({cell.layer} {cell.pass_}): {told}", "warning")


def _grows(cell: Cell) -> int:
    return _of(cell, lambda memory: memory.grows_bytes)


def _garbage(cell: Cell) -> int:
    return _of(cell, lambda memory: memory.garbage_bytes)


def _of(cell: Cell, figure: Callable[[Memory], int]) -> int:
    return figure(cell.memory) if cell.memory is not None else 0
