"""Read Baidu's DeepBench: the problems of code/kernels/conv_problems.h, as they are or as CSV.

Width comes before height throughout, and a pad stands for both sides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from convbench.errors import LayerError
from convbench.importers import tables
from convbench.importers.contract import Found, LeftOut, Reading, Source
from convbench.importers.padding import both_sides
from convbench.importers.tables import Row, RowError, number
from convbench.importers.text import read as read_text
from convbench.importers.text import shown
from convbench.problem.layer import Layer

COLUMNS = (
    *("w", "h", "c", "n", "k", "filter_w", "filter_h", "pad_w", "pad_h", "wstride", "hstride"),
)

_PROBLEM = re.compile(r"(?P<set>\w+_set)\b|make_tuple\s*\((?P<numbers>[^()]*)\)")
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)


def claims(source: Source) -> bool:
    return _is_header(source) or tables.has_columns(source, COLUMNS)


def read(source: Source) -> Reading:
    if _is_header(source):
        return Reading.of(_problems(source))
    return tables.read(source, COLUMNS, _layer)


def _is_header(source: Source) -> bool:
    return source.head is not None and b"make_tuple" in source.head


def _problems(source: Source) -> Iterator[Found | LeftOut]:
    """Yield the tuples of the C++ source, named after the array that they stand in."""
    text, name = _without_comments(read_text(source.path)), source.path.stem
    for match in _PROBLEM.finditer(text):
        if match["set"]:
            name = match["set"]
            continue
        line = text.count("\n", 0, match.start()) + 1
        place = f"{source.path.name}:{line}"
        values = [value.strip() for value in match["numbers"].split(",")]
        try:
            if len(values) != len(COLUMNS):
                raise RowError(f"found {len(values)} numbers, expected {len(COLUMNS)}")
            row = {"set": name, **dict(zip(COLUMNS, values, strict=True))}
            yield Found(_layer(line, row), place)
        except (RowError, LayerError) as reason:
            yield LeftOut(place, f"{shown(match[0])}: {reason}")


def _without_comments(text: str) -> str:
    """Return C++ without its comments; every line keeps its number."""
    return _COMMENT.sub(lambda match: "\n" * match[0].count("\n"), text)


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
