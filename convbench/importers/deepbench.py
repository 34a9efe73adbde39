"""Baidu's DeepBench: the problems of code/kernels/conv_problems.h, as they stand there or as CSV.

Width comes before height throughout; a pad is of both sides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from convbench.errors import LayerError
from convbench.importers import tables
from convbench.importers.contract import Found, LeftOut, Reading, Source
from convbench.importers.padding import both_sides
from convbench.importers.tables import Row, RowError, number
from convbench.importers.text import lines, shown
from convbench.layer import Layer

COLUMNS = (
    *("w", "h", "c", "n", "k", "filter_w", "filter_h", "pad_w", "pad_h", "wstride", "hstride"),
)

_SET = re.compile(r"(\w+_set)\b")
_TUPLE = re.compile(r"make_tuple\s*\(([^()]*)\)")


def claims(source: Source) -> bool:
    return _is_header(source) or tables.has_columns(source, COLUMNS)


def read(source: Source) -> Reading:
    if _is_header(source):
        return Reading.of(_problems(source))
    return tables.read(source, COLUMNS, _layer)


def _is_header(source: Source) -> bool:
    return source.head is not None and b"make_tuple" in source.head


def _problems(source: Source) -> Iterator[Found | LeftOut]:
    """The tuples of the C++ source, under the name of the array that they stand in."""
    name = source.path.stem
    for line, text in lines(source.path):
        if named := _SET.search(text):
            name = named[1]
        for problem in _TUPLE.finditer(text.partition("//")[0]):
            place = f"{source.path.name}:{line}"
            values = [value.strip() for value in problem[1].split(",")]
            try:
                if len(values) != len(COLUMNS):
                    raise RowError(f"found {len(values)} numbers, expected {len(COLUMNS)}")
                row = {"set": name, **dict(zip(COLUMNS, values, strict=True))}
                yield Found(_layer(line, row), place)
            except (RowError, LayerError) as reason:
                yield LeftOut(place, f"{shown(problem[0])}: {reason}")


def _layer(line: int, row: Row) -> Layer:
    return Layer(
        name=f"{row.get('set') or 'deepbench'}:{line}",
        input_shape=(number(row, "h"), number(row, "w"), number(row, "c")),
        filters=number(row, "k"),
        kernel_size=(number(row, "filter_h"), number(row, "filter_w")),
        strides=(number(row, "hstride"), number(row, "wstride")),
        padding=both_sides(number(row, "pad_h"), number(row, "pad_w")),
        batch_size=number(row, "n"),
    )
