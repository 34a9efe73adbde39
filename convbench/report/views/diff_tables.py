"""Report a diff: saved results side by side, as neutral tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import takewhile
from pathlib import PurePath

from convbench.compare import CellRow, Change, Compared, Diff, Figure, Quantity
from convbench.report.typeset import shorten
from convbench.report.views import scale
from convbench.report.views.diff_flat import flat_table
from convbench.report.views.diff_notes import ABOUT, About, facts, grouped, name_of, notes
from convbench.report.views.run_tables import PASS_HEADINGS, TONE_OF_STATUS
from convbench.report.views.scale import figures
from convbench.report.views.table import (
    MISSING,
    Column,
    Kind,
    Report,
    Row,
    Section,
    Table,
    Tone,
    Value,
    text,
)
from convbench.results.stats import MARGIN

_TONES: dict[str, Tone] = {
    **dict.fromkeys(("faster", "less", "higher"), "good"),
    **dict.fromkeys(("slower", "more", "lower"), "bad"),
}
_IMPLEMENTATION = Column("implementation", "implementation", short="", fit="shorten")

# Characters of a file's name that head a narrow column.
_NARROW_NAME = 11


def report(diff: Diff) -> Report:
    """Return the report of a diff. It calls the files by what tells their names apart."""
    names = names_of([session.path for session in diff.files])
    tables = [_table(compared, names) for compared in diff.compared]
    if any(compared.means for compared in diff.compared):
        tables.append(_means_table(diff.compared, names))
    return Report(
        title=f"convbench: {', '.join(names[1:])} against {names[0]}",
        facts=tuple(facts(diff, names)),
        tables=tuple(tables),
        notes=tuple(notes(diff, names)),
        flat=partial(flat_table, diff),
        document=diff,
    )


def names_of(paths: Sequence[str]) -> tuple[str, ...]:
    """Return what tells the paths apart: the ends that differ, without a common beginning."""
    parts = [PurePath(path.removesuffix(".json")).parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        ends = ["/".join(part[-depth:]) for part in parts]
        if len(set(ends)) == len(ends):
            shared = len(
                list(takewhile(lambda same: len(set(same)) == 1, zip(*ends, strict=False)))
            )
            start = max(ends[0].rfind(mark, 0, shared) for mark in "-_./") + 1
            return tuple(end[start:] or end for end in ends)
    return tuple(f"{part[-1]} ({number})" for number, part in enumerate(parts, 1))


def _title(compared: Compared) -> str:
    up = ABOUT[compared.quantity].up
    return name_of(compared) + (f" (+ is {up})" if up else "")


def _table(compared: Compared, names: tuple[str, ...]) -> Table:
    about = ABOUT[compared.quantity]
    groups = grouped({row: (row.layer, row.pass_) for row in compared.rows})
    sections = tuple(
        Section(tuple(_row(row, about) for row in rows), heading=f"{layer} {pass_}")
        for (layer, pass_), rows in groups.items()
    )
    columns = (_IMPLEMENTATION, *_columns(compared.quantity, names))
    return Table(_title(compared), columns, sections).without_empty_columns()


def _columns(quantity: Quantity, names: tuple[str, ...]) -> Iterator[Column]:
    """Yield a column of figures for each file and, for a new file, a column of changes.

    With three files or more, a column of changes carries the file's name, since the column of
    figures may be left out where space is short.
    """
    kind, are_many = ABOUT[quantity].kind, len(names) > 2
    narrow = [shorten(name, _NARROW_NAME) for name in names]
    shorts = narrow if len(set(narrow)) == len(names) else names
    for index, (name, short) in enumerate(zip(names, shorts, strict=True)):
        gives_way = index if are_many else 0
        yield figures(f"file_{index}", kind, name, short, optional=gives_way)
        if index and are_many:
            yield Column(f"change_{index}", name, "change", "right", short)
        elif index:
            yield Column(f"change_{index}", "change", align="right")


def _row(row: CellRow, about: About) -> Row:
    values = [_figure(row.figures[0], about.kind)]
    for figure, change in zip(row.figures[1:], row.changes, strict=True):
        values += [_figure(figure, about.kind), _change(change, about)]
    return Row((text(row.implementation), *values))


def _figure(figure: Figure | None, kind: Kind) -> Value:
    if figure is None:
        return MISSING
    if figure.status != "ok":
        return Value(Kind.STATUS, figure.status, tone=TONE_OF_STATUS[figure.status])
    if figure.value is None:
        return text("fastest", "strong") if figure.chosen else MISSING
    return Value(
        kind,
        figure.value,
        figure.ci99,
        before="" if figure.exact else "~",
        after="" if figure.reliable else "?",
    )


def _change(change: Change | None, about: About) -> Value:
    """Write `+12% ±3.1% slower`, `~ (14 rounds)` or `=`. The shorter text has no words."""
    if change is None:
        return MISSING
    doubt = "" if change.reliable else "?"
    ratio = scale.change(change.ratio, change.ci99)
    match change.verdict:
        case "equal":
            return text("=", "dim")
        case "estimated":
            return text("~" if change.ratio == 1 else f"~{ratio}", "dim")
        case "no_interval":
            return text(ratio + doubt)
        case "unclear" if change.rounds_to_show:
            rounds = change.rounds_to_show
            return text(f"~{doubt} ({rounds} rounds)", "dim", short=f"~{doubt} ({rounds})")
        case "unclear":
            return text("~" + doubt, "dim")
    word = about.word(change.verdict)
    is_slight = not change.ci99 and abs(math.log(change.ratio)) <= MARGIN
    tone = "plain" if is_slight or not change.reliable else _TONES[word]
    return text(f"{ratio}{doubt} {word}", tone, short=ratio + doubt)


def _means_table(all_compared: Iterable[Compared], names: tuple[str, ...]) -> Table:
    columns = (
        _IMPLEMENTATION,
        *(
            Column(str(pass_ or "all"), heading, align="right", short=short)
            for pass_, (heading, short) in PASS_HEADINGS.items()
        ),
    )
    sections = tuple(
        Section(
            tuple(_means_rows(compared, index)),
            heading=_title(compared),
            details=name if len(names) > 2 else "",
        )
        for compared in all_compared
        if compared.means
        for index, name in enumerate(names[1:])
    )
    return Table("Geometric means of the changes", columns, sections).without_empty_columns()


def _means_rows(compared: Compared, index: int) -> Iterator[Row]:
    about = ABOUT[compared.quantity]
    changes = {(mean.implementation, mean.pass_): mean.changes[index] for mean in compared.means}
    for implementation in dict.fromkeys(key[0] for key in changes):
        means = [_change(changes.get((implementation, p)), about) for p in PASS_HEADINGS]
        yield Row((text(implementation), *means))
