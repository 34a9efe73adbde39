"""Lay a report out in lines of characters: columns fitted to a width, no number ever cut.

Rich's own tables cut cells where space is short, and have no rows that run over the whole width.
Therefore this module lays out the lines, and terminal.py only colours them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from convbench.report.formats.columns import Line, Plan, plan
from convbench.report.typeset import clean, left, printable, width, wrap
from convbench.report.views.table import Report, Row, Section, Table, Tone

# Headings and remarks wrap at this width, in characters, rather than widen a narrow table.
_COMFORTABLE = 76
_INDENT = "  "


@dataclass(frozen=True)
class Frame:
    """The space for a report: `width` in characters (None: never wrap), tables `boxed` or not."""

    width: int | None
    boxed: bool

    @property
    def inner(self) -> int | None:
        return None if self.width is None else self.width - (4 if self.boxed else 0)


def lines(report: Report, frame: Frame) -> Iterator[Line]:
    """Yield every line of the report, in order, without line ends."""
    yield ((clean(report.title), "strong"),)
    yield from _facts(report, frame.width)
    for table in report.tables:
        yield ()
        yield ((clean(table.title), "strong"),)
        yield from _table(table, frame)
    if report.notes:
        yield ()
    for note in report.notes:
        yield from _hanging(note.text, note.tone, "", frame.width)
        if note.details:
            yield from _hanging(note.details, "dim", _INDENT, frame.width)
        for point in note.points:
            yield from _hanging(point, "plain", _INDENT, frame.width)
        for words in note.verbatim:
            yield ((2 * _INDENT + printable(words), "plain"),)


def _facts(report: Report, limit: int | None) -> Iterator[Line]:
    margin = max((width(fact.label) for fact in report.facts), default=0) + 2
    for fact in report.facts:
        label = left(fact.label, margin)
        for part in wrap(fact.text, limit and limit - margin):
            yield ((label, "dim"), (part, "plain"))
            label = " " * margin


def _hanging(words: str, tone: Tone, indent: str, limit: int | None) -> Iterator[Line]:
    first, *rest = wrap(words, limit and limit - len(indent) - len(_INDENT))
    yield ((indent + first, tone),)
    for part in rest:
        yield ((indent + _INDENT + part, tone),)


def _table(table: Table, frame: Frame) -> Iterator[Line]:
    cells = plan(table, frame.inner)
    body = _width_of_body(table, cells, frame)
    if frame.boxed:
        yield _rule("╭", "╮", body)
    for line in cells.headings:
        yield _framed(line, body, frame)
    for section in table.sections:
        if frame.boxed:
            yield _rule("├", "┤", body)
        elif section.heading and len(table.sections) > 1:
            yield ()
        for line in _section(section, cells, body):
            yield _framed(line, body, frame)
    if frame.boxed:
        yield _rule("╰", "╯", body)


def _width_of_body(table: Table, cells: Plan, frame: Frame) -> int | None:
    """Return the width between the frame's sides, which wide headings and remarks may extend."""
    if frame.inner is None:
        return None
    over = [width(clean(_whole_heading(section))) for section in table.sections]
    over += [cells.indent + width(clean(str(row.remark.raw))) for row in table.rows if row.remark]
    comfortable = min([frame.inner, _COMFORTABLE, max(over, default=0)])
    return max(cells.width, comfortable)


def _section(section: Section, cells: Plan, body: int | None) -> Iterator[Line]:
    if section.heading:
        yield from _heading(section, body)
    for row in section.rows:
        yield from _row(row, cells, body)


def _whole_heading(section: Section) -> str:
    return f"{section.heading}  {section.details}" if section.details else section.heading


def _heading(section: Section, body: int | None) -> Iterator[Line]:
    heading, details = clean(section.heading), clean(section.details)
    needed = width(heading) + (2 + width(details) if details else 0)
    if body is None or needed <= body:
        yield ((heading, "strong"), (f"  {details}" if details else "", "dim"))
        return
    for part in wrap(heading, body):
        yield ((part, "strong"),)
    for part in wrap(details, body - len(_INDENT)) if details else ():
        yield ((_INDENT + part, "dim"),)


def _row(row: Row, cells: Plan, body: int | None) -> Iterator[Line]:
    beside = row.remark is not None and len(row.values) == 1
    if not beside:
        yield from cells.row(row)
    if row.remark is None:
        return
    start: Line = cells.first(row) if beside else ((" " * cells.indent, "plain"),)
    for part in wrap(str(row.remark.raw), None if body is None else body - cells.indent):
        yield (*start, (part, row.remark.tone))
        start = ((" " * cells.indent, "plain"),)


def _framed(line: Line, body: int | None, frame: Frame) -> Line:
    if not frame.boxed or body is None:
        return line
    used = sum(width(words) for words, _ in line)
    return (("│ ", "dim"), *line, (" " * (body - used) + " │", "dim"))


def _rule(start: str, end: str, body: int | None) -> Line:
    return ((start + "─" * ((body or 0) + 2) + end, "dim"),)
