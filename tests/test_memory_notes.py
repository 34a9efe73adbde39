"""Test what is said below the tables about memory that calls leave behind."""

from __future__ import annotations

from dataclasses import replace

from convbench.report.views.memory_notes import memory_notes
from tests.report_fixture import full_run

MIB = 2**20


def _run(**left: int):
    """Return a run whose first cell with memory leaves these bytes behind."""
    result = full_run()
    index = next(i for i, cell in enumerate(result.cells) if cell.memory)
    cells = list(result.cells)
    cells[index] = replace(cells[index], memory=replace(cells[index].memory, **left))
    cell = cells[index]
    return replace(result, cells=tuple(cells)), f"{cell.implementation} ({cell.layer} {cell.pass_})"


def _said(result) -> list[str]:
    return [note.text for note in memory_notes(result)]


def test_growth_and_garbage_are_told_with_their_cell():
    result, what = _run(grows_bytes=int(1.2 * MIB))
    assert _said(result) == [f"{what}: it keeps 1.20 MiB more after every call"]
    result, what = _run(garbage_bytes=3 * MIB)
    (said,) = _said(result)
    assert said.startswith(f"{what}: every call leaves 3.00 MiB to Python's garbage collector")


def test_bookkeeping_is_not_told():
    assert _said(full_run()) == []
    assert _said(_run(grows_bytes=1000)[0]) == []


def test_the_cell_with_the_most_is_named():
    result = full_run()
    cells = [
        replace(cell, memory=replace(cell.memory, grows_bytes=MIB * (1 + number)))
        for number, cell in enumerate(result.cells)
        if cell.memory
    ]
    for said in _said(replace(result, cells=tuple(cells))):
        name = said.partition(" (")[0]
        most = [cell for cell in cells if cell.implementation == name][-1]
        assert said.startswith(f"{name} ({most.layer} {most.pass_}): ")
