"""Report a diff as one flat table, for spreadsheets."""

from __future__ import annotations

from collections.abc import Iterator

from convbench.compare import CellRow, Change, Compared, Diff, Figure, MeanRow, Session
from convbench.report.views.run_flat import Field, bounded, field, truth
from convbench.report.views.table import Kind, Row, Section, Table


def flat_table(diff: Diff) -> Table:
    """Return a row for each cell or mean and new file. A mean has no layer and may have no pass."""
    fields = [
        [
            *_fields_of_place(compared, row),
            *_fields_of_figure("old", diff.files[0].path, old),
            *_fields_of_figure("new", session.path, new),
            *_fields_of_change(change),
        ]
        for compared in diff.compared
        for row in rows_of(compared)
        for session, old, new, change in _pairs(diff, row)
    ]
    columns = tuple(column for column, _ in fields[0]) if fields else ()
    rows = tuple(Row(tuple(value for _, value in row)) for row in fields)
    return Table("changes", columns, (Section(rows),))


def rows_of(compared: Compared) -> tuple[CellRow | MeanRow, ...]:
    return (*compared.rows, *compared.means)


def _pairs(
    diff: Diff, row: CellRow | MeanRow
) -> Iterator[tuple[Session, Figure | None, Figure | None, Change | None]]:
    """Yield each new file with the old and new figures (None for means) and the change."""
    none = (None,) * len(diff.files)
    old, *news = row.figures if isinstance(row, CellRow) else none
    for session, new, change in zip(diff.files[1:], news, row.changes, strict=True):
        yield session, old, new, change


def _fields_of_place(compared: Compared, row: CellRow | MeanRow) -> Iterator[Field]:
    yield field("quantity", compared.quantity, Kind.TEXT)
    yield field("versus", compared.versus, Kind.TEXT)
    yield field("layer", row.layer if isinstance(row, CellRow) else None, Kind.TEXT)
    yield field("pass", row.pass_ and str(row.pass_), Kind.TEXT)
    yield field("implementation", row.implementation, Kind.TEXT)


def _fields_of_figure(which: str, path: str, figure: Figure | None) -> Iterator[Field]:
    yield field(f"{which}_file", path, Kind.TEXT)
    f = figure
    yield field(f"{which}_status", f.status if f else None, Kind.STATUS)
    yield bounded(which, Kind.NUMBER, f.value if f else None, f.ci99 if f else None)
    undisturbed, ci99 = (f.undisturbed, f.undisturbed_ci99) if f else (None, None)
    yield bounded(f"{which}_undisturbed", Kind.NUMBER, undisturbed, ci99)
    yield field(f"{which}_rounds", f.rounds if f else None)
    yield field(f"{which}_chosen", f.chosen if f else None, Kind.TEXT)


def _fields_of_change(change: Change | None) -> Iterator[Field]:
    c = change
    yield bounded("change", Kind.RATIO, c.ratio if c else None, c.ci99 if c else None)
    yield field("verdict", c.verdict if c else None, Kind.TEXT)
    yield field("rounds_to_show", c.rounds_to_show if c else None)
    yield field("reliable", truth(c.reliable) if c else None, Kind.TEXT)
    yield field("cells", c.cells if c else None)
