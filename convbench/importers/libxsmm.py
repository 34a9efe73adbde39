"""Read libxsmm-dnn's list of layers (tests/conv/run_convs.sh), as CSV: several topologies."""

from __future__ import annotations

from convbench.importers import tables
from convbench.importers.contract import Reading, Source
from convbench.importers.padding import both_sides
from convbench.importers.tables import Row, number
from convbench.problem.layer import Layer

COLUMNS = ("topology", "ifw", "ifh", "nIfm", "nOfm", "kw", "kh", "padw", "padh", "stride")

BATCH_SIZE = 1
"""Batch size of layers for which the list has none."""


def claims(source: Source) -> bool:
    return tables.has_columns(source, COLUMNS)


def read(source: Source) -> Reading:
    return tables.read(source, COLUMNS, _layer)


def _layer(line: int, row: Row) -> Layer:
    """Make a layer of a row. `mb_if_fixed` and `multiplicity_comment` may be empty or missing."""
    stride = number(row, "stride")
    fixed, times = row.get("mb_if_fixed"), row.get("multiplicity_comment")
    return Layer(
        name=f"{row['topology']}:{line}",
        input_shape=(number(row, "ifh"), number(row, "ifw"), number(row, "nIfm")),
        filters=number(row, "nOfm"),
        kernel_size=(number(row, "kh"), number(row, "kw")),
        strides=(stride, stride),
        padding=both_sides(number(row, "padh"), number(row, "padw")),
        batch_size=number(row, "mb_if_fixed") if fixed else BATCH_SIZE,
        count=number(row, "multiplicity_comment") if times else 1,
    )
