"""Define neutral tables: what a report says before any format. Raw numbers, no markup."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

Interval = tuple[float, float]
Tone = Literal["plain", "strong", "dim", "good", "bad", "warning"]
Align = Literal["left", "right", "decimal"]
Fit = Literal["keep", "shorten", "wrap"]


class Kind(StrEnum):
    """What a value is a number of; the renderers choose its unit by it (see scale.py)."""

    TIME_S = "time_s"
    RATIO = "ratio"
    BYTES = "bytes"
    RATE = "rate"  # FLOP/s
    FRACTION = "fraction"
    NUMBER = "number"  # a count, or a figure without a unit
    TEXT = "text"
    STATUS = "status"


@dataclass(frozen=True)
class Value:
    """One entry of a table. `raw` None is a value that does not exist.

    `before` and `after` are marks that belong to the number (`~` estimated, `?` not reliable);
    `short` says a text in fewer characters, for a narrow terminal.
    """

    kind: Kind
    raw: float | str | None
    interval: Interval | None = None
    before: str = ""
    after: str = ""
    tone: Tone = "plain"
    short: str | None = None

    @property
    def is_number(self) -> bool:
        return isinstance(self.raw, (int, float)) and not isinstance(self.raw, bool)


MISSING = Value(Kind.TEXT, None, tone="dim")


def text(words: str, tone: Tone = "plain", short: str | None = None) -> Value:
    return Value(Kind.TEXT, words, tone=tone, short=short)


@dataclass(frozen=True)
class Column:
    """`key` names the column for machines (CSV). `has_interval`: CSV has `_lo` and `_hi` as well.

    `fit` says what becomes of its text where space is short. `optional` columns are left out of a
    terminal that is too narrow, the highest number first; 0 never.
    """

    key: str
    heading: str = ""
    unit: str = ""
    align: Align = "left"
    short: str | None = None
    fit: Fit = "keep"
    optional: int = 0
    has_interval: bool = False


@dataclass(frozen=True)
class Row:
    """Values by column. A `remark` stands below them; beside, where only the first is given."""

    values: tuple[Value, ...]
    remark: Value | None = None


@dataclass(frozen=True)
class Section:
    """Rows under a heading; `details` continues the heading, less prominently."""

    rows: tuple[Row, ...]
    heading: str = ""
    details: str = ""


@dataclass(frozen=True)
class Table:
    title: str
    columns: tuple[Column, ...]
    sections: tuple[Section, ...]

    @property
    def rows(self) -> tuple[Row, ...]:
        return tuple(row for section in self.sections for row in section.rows)

    def without_empty_columns(self) -> Table:
        """The table without columns that have no value in any row (the first always stays)."""
        kept = [
            index
            for index in range(len(self.columns))
            if index == 0
            or any(row.values[index].raw is not None for row in self.rows if len(row.values) > 1)
        ]
        return self.selected(kept)

    def selected(self, indices: list[int]) -> Table:
        """The table with these columns only; index 0 must be among them."""
        return replace(
            self,
            columns=tuple(self.columns[index] for index in indices),
            sections=tuple(
                replace(
                    section,
                    rows=tuple(
                        replace(row, values=tuple(row.values[index] for index in indices))
                        if len(row.values) > 1
                        else row
                        for row in section.rows
                    ),
                )
                for section in self.sections
            ),
        )


@dataclass(frozen=True)
class Fact:
    """One line of a report's head: `machine   AMD EPYC 7763, ...`."""

    label: str
    text: str


@dataclass(frozen=True)
class Note:
    """A line of its own below the tables; `details` follow it, set in (a warning's remedy).

    `points` follow, a line each, then `verbatim` lines whose spaces count.
    """

    text: str
    tone: Tone = "plain"
    details: str = ""
    points: tuple[str, ...] = ()
    verbatim: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bar:
    """A bar of a chart from `low` to `high`, in the chart's kind; `value` is written beside it."""

    label: str
    low: float
    high: float
    value: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Chart:
    """Bars below each other, on a logarithmic scale: what differs by factors is read by length."""

    title: str
    kind: Kind
    bars: tuple[Bar, ...]
    caption: str = ""


Outcome = Literal["passed", "failed", "inconclusive", "left-out"]


@dataclass(frozen=True)
class Check:
    """One thing that a command checked, as continuous integration counts them.

    `name` is unique in the report; `message` is one line, `evidence` may have several.
    """

    name: str
    outcome: Outcome
    message: str
    evidence: str = ""


@dataclass(frozen=True)
class Point:
    """One figure for a chart over time, where smaller is better: `conv1 forward im2col`, 1.2 ms."""

    name: str
    unit: str
    value: float
    interval: Interval | None = None
    extra: str = ""


@dataclass(frozen=True)
class Report:
    """What one command has to say.

    `flat` makes the same as one table for spreadsheets (a column a field, raw values), `document`
    is the dataclass that it all came from, for JSON. `checks` and `points` are the same again for
    what stands on the other side of continuous integration. `charts` are for pictures and pages.
    """

    title: str
    facts: tuple[Fact, ...]
    tables: tuple[Table, ...]
    notes: tuple[Note, ...]
    flat: Callable[[], Table]
    document: object
    checks: tuple[Check, ...] = ()
    points: tuple[Point, ...] = ()
    charts: tuple[Chart, ...] = ()
