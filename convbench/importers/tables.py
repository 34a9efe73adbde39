"""Read tables with a heading line (CSV), for every format of that kind.

Each format names its columns and makes a layer of a row. A row in which anything is wrong is left
out.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from convbench.errors import LayerError
from convbench.importers.contract import Found, ImportSourceError, LeftOut, Reading, Source
from convbench.importers.text import lines, shown
from convbench.problem.layer import Layer

MAX_DIGITS = 9
"""Most digits of a number in a table."""

Row = Mapping[str, str]


class RowError(ValueError):
    """A row that is not a layer; the text says why."""


def has_columns(source: Source, needed: Sequence[str]) -> bool:
    """Return whether the first line of a file names these columns."""
    return set(needed) <= set(columns_of(source))


def columns_of(source: Source) -> list[str]:
    """Return the columns that the first line of a file names."""
    head = (source.head or b"").decode("utf-8-sig", "replace")
    return _columns((head.splitlines() or [""])[0])


def read(source: Source, needed: Sequence[str], layer_of: Callable[[int, Row], Layer]) -> Reading:
    """Read the layers of a table.

    `layer_of` takes a line's number and its values by column; it may raise RowError or LayerError.
    Raises ImportSourceError if a column of `needed` is missing, or if a column occurs twice.
    """
    return Reading.of(_entries(source, needed, layer_of))


def _entries(
    source: Source, needed: Sequence[str], layer_of: Callable[[int, Row], Layer]
) -> Iterator[Found | LeftOut]:
    table = lines(source.path)
    _, heading = next(table, (1, ""))
    columns = _columns(heading)
    if missing := [column for column in needed if column not in columns]:
        raise ImportSourceError(
            f"{source.path}:1: found no column {', '.join(missing)}, expected {', '.join(needed)}"
        )
    if twice := [column for column, n in Counter(columns).items() if n > 1]:
        raise ImportSourceError(f"{source.path}:1: found the column {', '.join(twice)} twice")
    for line, text in table:
        if not text.strip():
            continue
        place = f"{source.path.name}:{line}"
        try:
            yield Found(layer_of(line, _row(columns, text)), place)
        except (RowError, LayerError) as problem:
            yield LeftOut(place, f"{shown(text)}: {problem}")


def _columns(heading: str) -> list[str]:
    return [column.strip() for column in next(csv.reader([heading]), [])]


def _row(columns: list[str], text: str) -> Row:
    try:
        values = next(csv.reader([text], strict=True))
    except csv.Error as error:
        raise RowError(str(error)) from None
    if len(values) != len(columns):
        raise RowError(f"found {len(values)} values, expected {len(columns)}")
    return dict(zip(columns, (value.strip() for value in values), strict=True))


def number(row: Row, column: str) -> int:
    """Return a whole number of a row. Raises RowError for anything else."""
    text = row[column]
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > MAX_DIGITS:
        raise RowError(f"{column}: found {shown(text)!r}, expected a whole number")
    return int(text)


def expect_output(layer: Layer, height: int, width: int) -> Layer:
    """Return the layer if its output is what the source says. Raises RowError otherwise."""
    if layer.output_size != (height, width):
        found, computed = (f"{h}x{w}" for h, w in ((height, width), layer.output_size))
        raise RowError(f"its output is {found}, but its sizes give {computed}")
    return layer
