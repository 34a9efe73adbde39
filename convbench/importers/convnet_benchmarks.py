"""Read convnet-benchmarks' layers L1 to L5 (soumith/convnet-benchmarks), as CSV."""

from __future__ import annotations

from convbench.importers import tables
from convbench.importers.contract import Reading, Source
from convbench.importers.padding import both_sides
from convbench.importers.tables import Row, number
from convbench.problem.layer import Layer

COLUMNS = ("layer", "input_hw", "batch", "c_in", "c_out", "k", "stride", "pad")


def claims(source: Source) -> bool:
    return tables.has_columns(source, COLUMNS)


def read(source: Source) -> Reading:
    return tables.read(source, COLUMNS, _layer)


def _layer(line: int, row: Row) -> Layer:
    size, kernel, stride = number(row, "input_hw"), number(row, "k"), number(row, "stride")
    pad = number(row, "pad")
    return Layer(
        name=row["layer"] or f"line {line}",
        input_shape=(size, size, number(row, "c_in")),
        filters=number(row, "c_out"),
        kernel_size=(kernel, kernel),
        strides=(stride, stride),
        padding=both_sides(pad, pad),
        batch_size=number(row, "batch"),
    )
