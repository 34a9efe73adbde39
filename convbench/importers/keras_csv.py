"""Read a plain table (CSV) whose columns have Keras's names, as a spreadsheet exports it.

`input_shape` (or `height`, `width`, `channels`), `filters` and `kernel_size` are needed. `name`,
`strides`, `padding`, `dilation_rate`, `groups`, `use_bias`, `batch_size`, `dtype` and `count` may
be there too. Sizes are written 28x28x1 or "28, 28, 1"; one number stands for both of a pair.
`padding` is valid, same, one number, or four: top, bottom, left, right.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Literal, cast

from convbench.importers import tables
from convbench.importers.contract import ImportSourceError, Reading, Source
from convbench.importers.padding import both_sides, written
from convbench.importers.tables import MAX_DIGITS, Row, RowError, number
from convbench.importers.text import shown
from convbench.problem.layer import ITEMSIZE, Dtype, Layer, Padding, Pair

NEEDED = ("filters", "kernel_size")
SIZES = ("height", "width", "channels")
OPTIONAL = (
    *("name", "strides", "padding", "dilation_rate", "groups", "use_bias", "batch_size"),
    *("dtype", "count"),
)

_BOOLEANS = {
    **dict.fromkeys(("true", "1", "yes"), True),
    **dict.fromkeys(("false", "0", "no", ""), False),
}


def claims(source: Source) -> bool:
    shapes = (("input_shape",), SIZES)
    return any(tables.has_columns(source, (*NEEDED, *shape)) for shape in shapes)


def read(source: Source) -> Reading:
    """Read a table. Raises ImportSourceError for an unknown column, with the name it may mean."""
    shape = SIZES if tables.has_columns(source, SIZES) else ("input_shape",)
    known = (*NEEDED, *SIZES, "input_shape", *OPTIONAL)
    unknown = [column for column in tables.columns_of(source) if column not in known]
    if tables.has_columns(source, (*NEEDED, *shape)) and unknown:
        close = get_close_matches(unknown[0], known, n=1)
        raise ImportSourceError(
            f"{source.path}:1: found the column {shown(unknown[0])!r}, expected one of "
            f"{', '.join(known)}",
            hint=f"did you mean {close[0]}?" if close else "remove the column",
        )
    return tables.read(source, (*NEEDED, *shape), _layer)


def _layer(line: int, row: Row) -> Layer:
    if "input_shape" in row:
        height, width, *channels = _numbers(row, "input_shape", (2, 3))
        shape = (height, width, *(channels or [1]))
    else:
        shape = tuple(number(row, column) for column in SIZES)
    return Layer(
        name=row.get("name") or f"line {line}",
        input_shape=cast(tuple[int, int, int], shape),
        filters=number(row, "filters"),
        kernel_size=_pair(row, "kernel_size"),
        strides=_pair(row, "strides"),
        padding=_padding(row),
        dilation_rate=_pair(row, "dilation_rate"),
        groups=_one(row, "groups", 1),
        use_bias=_boolean(row, "use_bias"),
        batch_size=_one(row, "batch_size", 1),
        dtype=_dtype(row),
        count=_one(row, "count", 1),
    )


def _numbers(row: Row, column: str, counts: tuple[int, ...]) -> list[int]:
    words = [word for word in re.split(r"[x×,;\s()\[\]]+", row[column]) if word]
    if len(words) not in counts or not all(
        word.isascii() and word.isdecimal() and len(word) <= MAX_DIGITS for word in words
    ):
        expected = " or ".join(map(str, counts))
        raise RowError(f"{column}: found {shown(row[column])!r}, expected {expected} numbers")
    return [int(word) for word in words]


def _pair(row: Row, column: str) -> Pair:
    """Return a pair. One number stands for both, and an empty value for (1, 1)."""
    if not row.get(column):
        return 1, 1
    first, *second = _numbers(row, column, (1, 2))
    return first, second[0] if second else first


def _one(row: Row, column: str, otherwise: int) -> int:
    return number(row, column) if row.get(column) else otherwise


def _padding(row: Row) -> Padding:
    word = row.get("padding", "").lower()
    if word in ("", "valid", "same"):
        return cast(Literal["valid", "same"], word or "valid")
    found = _numbers(row, "padding", (1, 4))
    if len(found) == 1:
        return both_sides(found[0], found[0])
    top, bottom, left, right = found
    return written(((top, bottom), (left, right)))


def _boolean(row: Row, column: str) -> bool:
    word = row.get(column, "").lower()
    if word not in _BOOLEANS:
        raise RowError(f"{column}: found {shown(word)!r}, expected true or false")
    return _BOOLEANS[word]


def _dtype(row: Row) -> Dtype:
    word = row.get("dtype") or "float32"
    if word not in ITEMSIZE:
        raise RowError(f"dtype: found {shown(word)!r}, expected {' or '.join(ITEMSIZE)}")
    return cast(Dtype, word)
