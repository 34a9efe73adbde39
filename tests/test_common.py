"""Test what wrong layers have in common: the words are true of all wrong layers and of no other."""

from __future__ import annotations

import zlib

import pytest

from convbench.agreement.diagnosis.common import common
from convbench.problem.layer import Layer
from convbench.suites.file import read_suite

LAYERS = read_suite("configs/coverage.yaml").layers


def _found(is_wrong) -> str | None:
    wrong = [layer for layer in LAYERS if is_wrong(layer)]
    return common(wrong, [layer for layer in LAYERS if not is_wrong(layer)])


@pytest.mark.parametrize(
    ("is_wrong", "told"),
    [
        (lambda layer: layer.groups > 1, "there are groups"),
        (lambda layer: layer.batch_size >= 17, "there are 17 or more images"),
        (
            lambda layer: layer.batch_size > 16 and layer.batch_size % 16,
            "there are 17 or more images and the number of images is no multiple of 16",
        ),
        (
            lambda layer: layer.dtype == "float64" and layer.pads != ((0, 0), (0, 0)),
            "there are pads and the dtype is float64",
        ),
        (lambda layer: layer.input_size[1] > 64, "there are 65 or more columns"),
        (lambda layer: layer.kernel_size[0] >= 7, "there are 7 or more kernel rows"),
    ],
)
def test_conditions_are_found(is_wrong, told):
    assert sorted((_found(is_wrong) or "").split(" and ")) == sorted(told.split(" and "))


def test_one_size_is_told_rather_than_two():
    def layers(*sizes):
        return [Layer("any", (9, columns, 1), 1, (1, kernel)) for columns, kernel in sizes]

    wrong, right = layers((33, 1), (40, 1), (65, 1), (37, 3)), layers((64, 1), (34, 3), (8, 1))
    assert common(wrong, right) == (
        "there are 33 or more output columns and the number of output columns is no multiple of 32"
    )


def test_nothing_is_told_of_layers_without_anything_in_common():
    assert _found(lambda layer: zlib.crc32(layer.name.encode()) % 2) is None
    assert _found(lambda layer: False) is None
    assert _found(lambda layer: True) is None


def test_one_wrong_layer_has_nothing_in_common():
    right = [Layer("a", (8, 8, 1), 1, (3, 3)), Layer("b", (8, 8, 2), 1, (3, 3))]
    assert common([Layer("c", (8, 8, 3), 1, (3, 3))], right) is None
