"""Report a run as one flat table for spreadsheets: a row for each cell, a column for each field."""

from __future__ import annotations

import re
from collections.abc import Iterator

from convbench.report.typeset import clean
from convbench.report.views.table import Column, Interval, Kind, Row, Section, Table, Value
from convbench.results.model import Cell, ResultFile, Speedup
from convbench.suites.suite import FASTEST_KERAS, LOOP

Field = tuple[Column, Value]


def flat_table(result: ResultFile) -> Table:
    """Return raw numbers in seconds, bytes and FLOPs. Columns stay where nothing was measured."""
    others = [s.versus for s in result.speedups]
    versus = tuple(dict.fromkeys([LOOP, FASTEST_KERAS, *others]))
    speedups = {(s.layer, s.pass_, s.implementation, s.versus): s for s in result.speedups}
    fields = [
        [
            *_identity(cell),
            *_agreement(cell),
            *_time(cell),
            *(
                field
                for v in versus
                for field in _speedup(
                    v, speedups.get((cell.layer, cell.pass_, cell.implementation, v))
                )
            ),
            *_memory(cell),
            *_work(cell),
        ]
        for cell in result.cells
    ]
    columns = tuple(column for column, _ in fields[0]) if fields else ()
    rows = tuple(Row(tuple(value for _, value in row)) for row in fields)
    return Table("cells", columns, (Section(rows),))


def field(key: str, raw: float | str | None, kind: Kind = Kind.NUMBER) -> Field:
    return Column(key), Value(kind, raw)


def bounded(key: str, kind: Kind, raw: float | None, interval: Interval | None) -> Field:
    return Column(key, has_interval=True), Value(kind, raw, interval)


def truth(truth: bool | None) -> str | None:
    return None if truth is None else "true" if truth else "false"


def _line(words: str | None) -> str | None:
    """Return the words on one line. A reason may be a worker's last words, of several lines."""
    return None if words is None else clean(words)


def _identity(cell: Cell) -> Iterator[Field]:
    yield field("layer", cell.layer, Kind.TEXT)
    yield field("pass", str(cell.pass_), Kind.TEXT)
    yield field("implementation", cell.implementation, Kind.TEXT)
    yield field("status", cell.status, Kind.STATUS)
    yield field("reason", _line(cell.reason), Kind.TEXT)


def _agreement(cell: Cell) -> Iterator[Field]:
    a = cell.agreement
    yield field("verdict", a.verdict if a else None, Kind.TEXT)
    yield field("exact", truth(a.exact) if a else None, Kind.TEXT)
    yield field("error_over_bound", a.error_over_bound if a else None)
    yield field("max_abs_error", a.max_abs_error if a else None)
    yield field("diagnosis", _line(a.diagnosis) if a else None, Kind.TEXT)


def _time(cell: Cell) -> Iterator[Field]:
    t = cell.time
    yield bounded("time_s", Kind.TIME_S, t.time_s if t else None, t.ci99_s if t else None)
    undisturbed, ci99 = (t.undisturbed_s, t.undisturbed_ci99_s) if t else (None, None)
    yield bounded("undisturbed_s", Kind.TIME_S, undisturbed, ci99)
    yield field("confirmed_s", t.confirmed_s if t else None, Kind.TIME_S)
    yield field("rounds", t.rounds if t else None)
    yield field("samples", t.samples if t else None)


def _speedup(versus: str, s: Speedup | None) -> Iterator[Field]:
    key = "speedup_over_" + re.sub(r"\W+", "_", versus)
    yield bounded(key, Kind.RATIO, s.ratio if s else None, s.ci99 if s else None)
    undisturbed, ci99 = (s.undisturbed_ratio, s.undisturbed_ci99) if s else (None, None)
    yield bounded(f"{key}_undisturbed", Kind.RATIO, undisturbed, ci99)
    yield field(f"{key}_chosen", s.chosen if s else None, Kind.TEXT)
    yield field(f"{key}_reliable", truth(s.reliable) if s else None, Kind.TEXT)


def _memory(cell: Cell) -> Iterator[Field]:
    m = cell.memory
    yield field("peak_bytes", m.peak_bytes if m else None, Kind.BYTES)
    yield field("held_bytes", m.held_bytes if m else None, Kind.BYTES)
    yield field("call_peak_bytes", m.call_peak_bytes if m else None, Kind.BYTES)
    yield field("memory_exact", truth(m.exact) if m else None, Kind.TEXT)
    yield field("memory_method", m.method if m else None, Kind.TEXT)
    yield field("predicted_bytes", m.predicted_bytes if m else None, Kind.BYTES)
    yield field("naive_im2col_bytes", m.naive_im2col_bytes if m else None, Kind.BYTES)
    yield field("rss_peak_bytes", m.rss_peak_bytes if m else None, Kind.BYTES)


def _work(cell: Cell) -> Iterator[Field]:
    w = cell.work
    yield field("flops", w.flops if w else None)
    yield field("flops_in_bounds", w.flops_in_bounds if w else None)
    yield field("gflops_per_s", w.gflops_per_s if w else None)
    yield field("fraction_of_peak", w.fraction_of_peak if w else None, Kind.FRACTION)
