"""Write a report in GitHub's Markdown: a table for each section, intervals as two bounds."""

from __future__ import annotations

import re

from convbench.report.typeset import clean, printable
from convbench.report.views import scale
from convbench.report.views.table import Column, Report, Row, Section, Table, Value

# An underscore inside a word is harmless, and names are full of them.
_SPECIAL = re.compile(r"[\\`*\[\]|~]|<(?=[A-Za-z/!?])|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def render(report: Report) -> str:
    blocks = [f"# {escape(report.title)}"]
    if report.facts:
        blocks.append("\n".join(f"- {escape(f.label)}: {escape(f.text)}" for f in report.facts))
    for table in report.tables:
        blocks += [f"## {escape(table.title)}", *_table(table)]
    for note in report.notes:
        words = escape(note.text) + (f" — {escape(note.details)}" if note.details else "")
        blocks.append(f"**{words}**" if note.tone == "strong" else words)
        if note.points:
            blocks.append("\n".join(f"- {escape(point)}" for point in note.points))
        if note.verbatim:
            blocks.append("\n".join(f"    {printable(line)}" for line in note.verbatim))
    return "\n\n".join(blocks) + "\n"


def escape(words: str) -> str:
    """Return one line of text that Markdown shows as it is, in a table too."""
    return _SPECIAL.sub(lambda match: "\\" + match[0], clean(words))


def _table(table: Table) -> list[str]:
    return [block for section in table.sections for block in _section(section, table.columns)]


def _section(section: Section, columns: tuple[Column, ...]) -> list[str]:
    head = [
        _line([_heading(column) for column in columns]),
        _line(["---" if column.align == "left" else "---:" for column in columns]),
    ]
    rows = [line for row in section.rows for line in _row(row, len(columns))]
    grid = "\n".join([*head, *rows])
    if not section.heading:
        return [grid]
    heading = f"**{escape(section.heading)}** {escape(section.details)}".rstrip()
    return [heading, grid]


def _row(row: Row, columns: int) -> list[str]:
    values = [_value(value) for value in row.values]
    if row.remark is None:
        return [_line(values)]
    remark = escape(str(row.remark.raw))
    # Markdown has no cells over several columns: a remark goes into the second one.
    if len(values) == 1:
        return [_line([*values, remark, *[""] * (columns - 2)])]
    return [_line(values), _line(["", remark, *[""] * (columns - 2)])]


def _heading(column: Column) -> str:
    unit = f" ({column.unit})" if column.unit else ""
    return escape(column.heading + unit)


def _value(value: Value) -> str:
    if value.raw is None:
        return "-"
    return scale.bounded(value) if value.is_number else escape(str(value.raw))


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
