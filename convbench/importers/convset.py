"""Read ConvBench's convSet: the convolutions of 1,017 models (LucasFernando-aes/ConvBench), as CSV.

`n_uses` is the number of layers of those models that are this convolution; it becomes the `count`.
Where `torch_pad_consistent` is 0, the recorded pads are 0 and the output is ceil(input / strides):
those models pad as TensorFlow's `same` does.
"""

from __future__ import annotations

from dataclasses import replace

from convbench.importers import tables
from convbench.importers.contract import Reading, Source
from convbench.importers.padding import NO_PADS, written
from convbench.importers.tables import Row, RowError, expect_output, number
from convbench.problem.layer import Layer

COLUMNS = (
    *("N", "C_in", "H_in", "W_in", "C_out", "H_out", "W_out", "kh", "kw"),
    *("pad_left", "pad_right", "pad_top", "pad_bottom", "sh", "sw", "dh", "dw"),
    *("groups", "transposed", "bias", "n_uses", "first_use"),
)


def claims(source: Source) -> bool:
    return tables.has_columns(source, COLUMNS)


def read(source: Source) -> Reading:
    return tables.read(source, COLUMNS, _layer)


def _layer(line: int, row: Row) -> Layer:
    if number(row, "transposed"):
        raise RowError("found a transposed convolution, expected a convolution")
    pads = (
        (number(row, "pad_top"), number(row, "pad_bottom")),
        (number(row, "pad_left"), number(row, "pad_right")),
    )
    layer = Layer(
        name=row["first_use"] or f"line {line}",
        input_shape=(number(row, "H_in"), number(row, "W_in"), number(row, "C_in")),
        filters=number(row, "C_out"),
        kernel_size=(number(row, "kh"), number(row, "kw")),
        strides=(number(row, "sh"), number(row, "sw")),
        padding=written(pads),
        dilation_rate=(number(row, "dh"), number(row, "dw")),
        groups=number(row, "groups"),
        use_bias=bool(number(row, "bias")),
        batch_size=number(row, "N"),
        count=number(row, "n_uses"),
    )
    if row.get("torch_pad_consistent") == "0" and pads == NO_PADS:
        layer = replace(layer, padding="same")
    return expect_output(layer, number(row, "H_out"), number(row, "W_out"))
