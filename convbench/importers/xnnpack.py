"""Read XNNPACK's lists of shapes (bench/models/*_conv.txt and *_dwconv.txt).

    conv:    H W KH KW PH PW S D GCin GCout
    dwconv:  H W KH KW PH PW S D G

PH and PW are the pads of both sides together. An odd row goes to the bottom, an odd column to the
right. A dense convolution has D = 1. The two kinds are told apart by how many numbers a line has.
"""

from __future__ import annotations

from collections.abc import Iterator

from convbench.errors import LayerError
from convbench.importers.contract import Found, LeftOut, Reading, Source
from convbench.importers.padding import written
from convbench.importers.tables import RowError, number
from convbench.importers.text import lines, shown
from convbench.problem.layer import Layer

SHARED = ("H", "W", "KH", "KW", "PH", "PW", "S", "D")
CONV = (*SHARED, "GCin", "GCout")
DWCONV = (*SHARED, "G")
BY_LENGTH = {len(CONV): CONV, len(DWCONV): DWCONV}

BATCH_SIZE = 1
"""Batch size that XNNPACK's own benchmarks run."""


def claims(source: Source) -> bool:
    """Return whether the first entry of a file has as many numbers as one of the two kinds."""
    if source.head is None:
        return False
    for line in source.head.decode("utf-8-sig", "replace").splitlines():
        if words := _words(line):
            return len(words) in BY_LENGTH and all(word.isdecimal() for word in words)
    return False


def read(source: Source) -> Reading:
    return Reading.of(_entries(source))


def _entries(source: Source) -> Iterator[Found | LeftOut]:
    for line, text in lines(source.path):
        if words := _words(text):
            place = f"{source.path.name}:{line}"
            try:
                yield Found(_layer(f"{source.path.stem}:{line}", words), place)
            except (RowError, LayerError) as problem:
                yield LeftOut(place, f"{shown(text)}: {problem}")


def _words(line: str) -> list[str]:
    return line.partition("#")[0].split()


def _layer(name: str, words: list[str]) -> Layer:
    columns = BY_LENGTH.get(len(words))
    if columns is None:
        raise RowError(
            f"found {len(words)} numbers, expected {len(CONV)} ({' '.join(CONV)}) or "
            f"{len(DWCONV)} ({' '.join(DWCONV)})"
        )
    row = dict(zip(columns, words, strict=True))
    height, width, kh, kw, ph, pw, stride, dilation = (number(row, column) for column in SHARED)
    channels = groups = filters = number(row, "G") if columns is DWCONV else 1
    if columns is CONV:
        channels, filters = number(row, "GCin"), number(row, "GCout")
    return Layer(
        name=name,
        input_shape=(height, width, channels),
        filters=filters,
        kernel_size=(kh, kw),
        strides=(stride, stride),
        padding=written(((ph // 2, ph - ph // 2), (pw // 2, pw - pw // 2))),
        dilation_rate=(dilation, dilation),
        groups=groups,
        batch_size=BATCH_SIZE,
    )
