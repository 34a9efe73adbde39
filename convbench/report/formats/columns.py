"""Fit the columns of one table: how wide each must be, and what gives way where space is short."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from convbench.report.typeset import clean, left, right, shorten, width, wrap
from convbench.report.views import scale
from convbench.report.views.table import Column, Row, Table, Tone, Value

Segment = tuple[str, Tone]
Line = tuple[Segment, ...]

_NOTHING = "-"
_WIDE_GAP, _NARROW_GAP = 2, 1
_LEAST_TEXT = 14  # smallest width of a column of texts, in characters


@dataclass(frozen=True)
class Slot:
    """One column's place. A number fills `whole` + `fraction` characters, its interval `tail` more.

    `fraction` is 0 where numbers are aligned at their right ends and not at the decimal point.
    """

    column: Column
    width: int
    whole: int = 0
    fraction: int = 0
    tail: int = 0


@dataclass(frozen=True)
class Plan:
    """The layout of a table: the columns that stay, their slots and the gaps between them."""

    indices: tuple[int, ...]
    slots: tuple[Slot, ...]
    gaps: tuple[int, ...]
    short: bool

    @property
    def width(self) -> int:
        return sum(slot.width for slot in self.slots) + sum(self.gaps)

    @property
    def indent(self) -> int:
        """Number of characters before the second column."""
        return self.slots[0].width + (self.gaps[0] if self.gaps else _WIDE_GAP)

    @property
    def headings(self) -> list[Line]:
        """One line of headings, and one of units where any column has one."""
        headings = [self._fitting_heading(slot) for slot in self.slots]
        units = [slot.column.unit for slot in self.slots]
        lines = [self._joined([_header(headings[i], s, "strong") for i, s in self._numbered()])]
        if any(units):
            lines.append(self._joined([_header(units[i], s, "dim") for i, s in self._numbered()]))
        return lines

    def first(self, row: Row) -> Line:
        """Return the first value alone, filled up to the start of the second column."""
        value, slot = row.values[0], self.slots[0]
        return ((left(shorten(_words(value, self.short), slot.width), self.indent), value.tone),)

    def row(self, row: Row) -> list[Line]:
        """Return a row's lines: one, or more where a text had to be wrapped."""
        cells = [_cell(row.values[self.indices[i]], s, self.short) for i, s in self._numbered()]
        return [
            self._joined([part or _blank(self.slots[i]) for i, part in enumerate(parts)])
            for parts in zip_longest(*cells)
        ]

    def _fitting_heading(self, slot: Slot) -> str:
        whole = _heading(slot.column, short=False)
        fits = slot.column.align == "left" and width(whole) <= slot.width
        return whole if fits else _heading(slot.column, self.short)

    def _numbered(self) -> Sequence[tuple[int, Slot]]:
        return list(enumerate(self.slots))

    def _joined(self, cells: Sequence[Line]) -> Line:
        line = cells[0]
        for gap, cell in zip(self.gaps, cells[1:], strict=True):
            line = (*line, (" " * gap, "plain"), *cell)
        return line


def plan(table: Table, limit: int | None) -> Plan:
    """Return the roomiest plan that fits `limit` columns (None: no limit).

    Where space is short, these give way in this order: decimal alignment, long wordings, gaps, long
    texts, optional columns. Numbers never do, so a table may come out wider than the limit.
    """
    everything = tuple(range(len(table.columns)))
    roomiest = _plan(table, everything, short=False, decimal=True)
    if limit is None or roomiest.width <= limit:
        return roomiest
    undecimal = _plan(table, everything, short=False, decimal=False)
    if undecimal.width <= limit:
        return undecimal
    droppable = sorted(
        (i for i in everything if table.columns[i].optional),
        key=lambda i: table.columns[i].optional,
    )
    kept = list(everything)
    while True:
        found = _squeezed(table, _plan(table, tuple(kept), short=True, decimal=False), limit)
        if found.width <= limit or not droppable:
            return found
        kept.remove(droppable.pop())


def _plan(table: Table, indices: tuple[int, ...], short: bool, decimal: bool) -> Plan:
    slots = tuple(
        _slot(
            table.columns[index],
            [row.values[index] for row in table.rows if index < len(row.values)],
            short,
            decimal,
        )
        for index in indices
    )
    return Plan(indices, slots, (_WIDE_GAP,) * (len(slots) - 1), short)


def _slot(column: Column, values: Sequence[Value], short: bool, decimal: bool) -> Slot:
    figures = [scale.compact(value) for value in values if value.is_number]
    texts = [_words(value, short) for value in values if not value.is_number]
    numbers = [figure.number.partition(".") for figure in figures]
    whole, fraction = max((width("".join(parts)) for parts in numbers), default=0), 0
    if decimal and column.align == "decimal":
        whole = max((len(head) for head, _, _ in numbers), default=0)
        fraction = max((len(dot + rest) for _, dot, rest in numbers), default=0)
    tail = max((width(figure.tail) for figure in figures), default=0)
    tail += 1 if tail else 0
    heading = max(width(_heading(column, short)), width(column.unit))
    longest = max((width(words) for words in texts), default=0)
    return Slot(column, max(whole + fraction + tail, heading, longest), whole, fraction, tail)


def _squeezed(table: Table, found: Plan, limit: int) -> Plan:
    """Return the plan with narrower gaps, then narrower texts, as far as `limit` asks for."""
    over = found.width - limit
    if over <= 0:
        return found
    # The last gaps go first: columns without intervals stand there, and need less air.
    spare = _WIDE_GAP - _NARROW_GAP
    narrowed = min(over // spare, len(found.gaps))
    wide = len(found.gaps) - narrowed
    found = replace(found, gaps=(_WIDE_GAP,) * wide + (_NARROW_GAP,) * narrowed)
    slots = list(found.slots)
    for index, slot in enumerate(slots):
        over = sum(s.width for s in slots) + sum(found.gaps) - limit
        if over > 0 and slot.column.fit != "keep":
            least = min(_least(table, found.indices[index], slot), slot.width)
            slots[index] = replace(slot, width=max(slot.width - over, least))
    return replace(found, slots=tuple(slots))


def _least(table: Table, index: int, slot: Slot) -> int:
    """Return the smallest width of a column of texts. Shortened texts must still differ."""
    least = max(_LEAST_TEXT, width(_heading(slot.column, short=True)))
    if slot.column.fit == "wrap":
        return least
    texts = {_words(row.values[index], True) for row in table.rows if index < len(row.values)}
    while least < slot.width and len({shorten(words, least) for words in texts}) < len(texts):
        least += 1
    return least


def _heading(column: Column, short: bool) -> str:
    return clean(column.short if short and column.short is not None else column.heading)


def _words(value: Value, short: bool) -> str:
    if value.raw is None:
        return _NOTHING
    return clean(value.short if short and value.short is not None else str(value.raw))


def _blank(slot: Slot) -> Line:
    return ((" " * slot.width, "plain"),)


def _header(words: str, slot: Slot, tone: Tone) -> Line:
    if slot.column.align == "left":
        return ((left(words, slot.width), tone),)
    # A heading that fits there stands over the numbers, not over their intervals.
    body = slot.whole + slot.fraction
    room = slot.width - slot.tail if width(words) <= body else slot.width
    return ((left(right(words, room), slot.width), tone),)


def _cell(value: Value, slot: Slot, short: bool) -> list[Line]:
    if value.is_number:
        return [_number(value, slot)]
    words = _words(value, short)
    if slot.column.align == "left":
        fit = slot.column.fit
        parts = wrap(words, slot.width) if fit == "wrap" else [shorten(words, slot.width)]
        return [((left(part, slot.width), value.tone),) for part in parts]
    # A dash stands where the units digit would.
    room = slot.width - slot.fraction - slot.tail
    aligned = right(words, room) if width(words) <= room else right(words, slot.width)
    return [((left(aligned, slot.width), value.tone),)]


def _number(value: Value, slot: Slot) -> Line:
    number, tail = scale.compact(value)
    if slot.fraction:
        head, dot, rest = number.partition(".")
        number = right(head, slot.whole) + left(dot + rest, slot.fraction)
    number = right(number, slot.width - slot.tail)
    marked: Tone = "warning" if value.after else "dim"
    return ((number, value.tone), (left(f" {tail}" if tail else "", slot.tail), marked))
