"""Write a report as CSV: the flat table with raw numbers, for spreadsheets."""

from __future__ import annotations

import csv
from io import StringIO

from convbench.report.views.table import Column, Report, Value


def render(report: Report) -> str:
    stream = StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    flat = report.flat()
    columns = flat.columns
    writer.writerow([key for column in columns for key in _keys(column)])
    for row in flat.rows:
        writer.writerow(
            [
                field
                for column, value in zip(columns, row.values, strict=True)
                for field in _fields(column, value)
            ]
        )
    return stream.getvalue()


def _keys(column: Column) -> list[str]:
    key = column.key
    return [key, f"{key}_lo", f"{key}_hi"] if column.has_interval else [key]


def _fields(column: Column, value: Value) -> list[float | str | None]:
    return [value.raw, *(value.interval or (None, None))] if column.has_interval else [value.raw]
