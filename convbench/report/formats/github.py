"""Write a report for GitHub Actions: Markdown for a step's summary, and annotations.

An annotation is a workflow command, a line `::error title=...::message` on stdout. Its escapes are
those of actions/runner's ActionCommand.cs. The limits are those that GitHub documents.
"""

# No `from __future__ import annotations` here: it would take the name of the function.

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from convbench.report.formats import markdown
from convbench.report.typeset import clean
from convbench.report.views import scale
from convbench.report.views.table import (
    Check,
    Column,
    Fact,
    Note,
    Outcome,
    Report,
    Row,
    Section,
    Table,
    text,
)

MAX_ANNOTATIONS = 10
"""Number of errors that GitHub shows for a step, and of warnings. Others are in the log only."""

SUMMARY_BYTES = 2**20
"""Largest summary of a step in bytes. GitHub drops a larger one as a whole."""

_COMMANDS: dict[Outcome, str] = {"failed": "error", "inconclusive": "warning"}
_COUNTED: tuple[Outcome, ...] = ("failed", "inconclusive", "passed", "left-out")


def render(report: Report) -> str:
    """Return the summary and then the annotations, for use where GitHub does not separate them."""
    return "\n".join(filter(None, (summary(report), annotations(report))))


def annotations(report: Report) -> str:
    """Return a line for each failed or inconclusive check, or an empty text if there is none.

    With more than MAX_ANNOTATIONS of a kind, the last line names all remaining checks.
    """
    lines = (
        line
        for outcome, command in _COMMANDS.items()
        for line in _annotations(command, _having(report, outcome))
    )
    return "".join(f"{line}\n" for line in lines)


def summary(report: Report, room: int = SUMMARY_BYTES) -> str:
    """Return the report in Markdown, checks first, cut after a table to at most `room` bytes."""
    whole = _with_checks(report)
    shown = markdown.render(whole)
    if _bytes(shown) <= room:
        return shown
    grids = range(sum(len(table.sections) for table in whole.tables))
    fitting = bisect_right(grids, room, key=lambda kept: _bytes(markdown.render(_cut(whole, kept))))
    cut = _cut(whole, max(fitting - 1, 0))
    if fitting == 0 and len(cut.notes) > 2:  # not even the notes fit: keep the answer, the last one
        cut = replace(cut, notes=(cut.notes[0], cut.notes[-1]))
    return markdown.render(cut)


# Annotations


def _having(report: Report, outcome: Outcome) -> list[Check]:
    return [check for check in report.checks if check.outcome == outcome]


def _annotations(command: str, checks: Sequence[Check]) -> Iterator[str]:
    shown = len(checks) if len(checks) <= MAX_ANNOTATIONS else MAX_ANNOTATIONS - 1
    for check in checks[:shown]:
        yield _annotation(command, check.name, check.message)
    rest = [check.name for check in checks[shown:]]
    if rest:
        more = f"{len(rest)} more"
        yield _annotation(command, more, f"and {more}: {', '.join(rest)}")


def _annotation(command: str, title: str, message: str) -> str:
    lines = "\n".join(map(clean, message.splitlines()))
    return f"::{command} title={_property(clean(title))}::{_data(lines)}"


def _data(words: str) -> str:
    return words.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(words: str) -> str:
    return _data(words).replace(":", "%3A").replace(",", "%2C")


# The summary


def _with_checks(report: Report) -> Report:
    """Add the counts of the checks to the report's head, and a first table of those to look at."""
    if not report.checks:
        return report
    counts = Counter(check.outcome for check in report.checks)
    counted = ", ".join(
        f"{counts[outcome]} {outcome.replace('-', ' ')}" for outcome in _COUNTED if counts[outcome]
    )
    sections = tuple(
        Section(tuple(map(_row, checks)), outcome)
        for outcome in _COMMANDS
        if (checks := _having(report, outcome))
    )
    columns = (Column("check", "check"), Column("message", "message"))
    found = (Table("Failed and inconclusive checks", columns, sections),) if sections else ()
    return replace(
        report,
        facts=(Fact("checks", counted), *report.facts),
        tables=(*found, *report.tables),
    )


def _row(check: Check) -> Row:
    evidence = text(check.evidence) if check.evidence else None
    return Row((text(check.name), text(check.message)), evidence)


def _cut(report: Report, kept: int) -> Report:
    """Keep the report's first `kept` sections only, and add a note on those that are left out."""
    tables, left_out = [], 0
    for table in report.tables:
        sections = table.sections[:kept]
        kept -= len(sections)
        left_out += len(table.sections) - len(sections)
        if sections:
            tables.append(replace(table, sections=sections))
    note = Note(
        f"cut: {scale.counted(left_out, 'table')} left out here, since GitHub takes at most "
        f"{scale.mebibytes(SUMMARY_BYTES)} of summary for a step",
        "warning",
    )
    return replace(report, tables=tuple(tables), notes=(note, *report.notes))


def _bytes(words: str) -> int:
    return len(words.encode())
