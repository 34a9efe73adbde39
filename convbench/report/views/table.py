"""Define neutral tables: what a report says, as raw numbers and plain text, before any format."""

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
    """The quantity that a value measures. Renderers choose the unit by the kind (see scale.py)."""

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
    """One entry of a table. `raw` is None where there is no value.

    `before` and `after` are marks that belong to the number (`~` estimated, `?` not reliable).
    `short` is a shorter text for a narrow terminal.
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
    """A column of a table. `key` names the column for machines (CSV).

    With `has_interval`, CSV has a `_lo` and a `_hi` as well. `fit` says how a text gives way where
    space is short. A terminal that is too narrow leaves `optional` columns out, the highest number
    first, and never a column whose number is 0.
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
    """Values, one for each column. A `remark` stands below them, or beside a row's only value."""

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
        """Return the table without the columns that are empty in every row. The first one stays."""
        kept = [
            index
            for index in range(len(self.columns))
            if index == 0
            or any(row.values[index].raw is not None for row in self.rows if len(row.values) > 1)
        ]
        return self.selected(kept)

    def selected(self, indices: list[int]) -> Table:
        """Return the table with these columns only. Index 0 must be among them."""
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
    """A paragraph below the tables. Indented `details` follow it, such as a warning's remedy.

    Then come `points`, one a line, and `verbatim` lines, whose spaces are kept.
    """

    text: str
    tone: Tone = "plain"
    details: str = ""
    points: tuple[str, ...] = ()
    verbatim: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bar:
    """A bar of a chart, from `low` to `high`. The text `value` is written beside the bar."""

    label: str
    low: float
    high: float
    value: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Chart:
    """Bars below each other on a logarithmic scale, on which equal factors have equal lengths."""

    title: str
    kind: Kind
    bars: tuple[Bar, ...]
    caption: str = ""


Outcome = Literal["passed", "failed", "inconclusive", "left-out"]


@dataclass(frozen=True)
class Check:
    """One thing that a command checked, for tools of continuous integration to count.

    `name` is unique in the report; `message` is one line, `evidence` may have several.
    """

    name: str
    outcome: Outcome
    message: str
    evidence: str = ""


@dataclass(frozen=True)
class Point:
    """One figure of a chart over time: `conv1 forward im2col`, 1.2 ms. Smaller is better."""

    name: str
    unit: str
    value: float
    interval: Interval | None = None
    extra: str = ""


@dataclass(frozen=True)
class Report:
    """Everything that one command reports, before any format.

    `flat` returns the content as one table for spreadsheets: raw values, one column for each field.
    `document` is the dataclass from which the report was made; JSON shows that one. `checks` and
    `points` hold the content for continuous integration, `charts` for pictures and pages.
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
