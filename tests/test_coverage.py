"""Test the layers that `check` asks: everything that Conv2D can vary occurs together in them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import combinations, islice, product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convbench.problem.layer import Layer
from convbench.suites import coverage
from convbench.suites.coverage import BLOCKS, FACTORS, TRIPLES, impossible, left_over, levels_of
from convbench.suites.file import read_suite
from convbench.suites.file.writing import write_suite

FILE = Path(__file__).parents[1] / "configs" / "coverage.yaml"

MOST_FLOPS = 50_000_000
"""Work of the largest layer: a thousandth of what these machines do in a second."""


@pytest.fixture(scope="module")
def layers() -> tuple[Layer, ...]:
    return read_suite(str(FILE)).layers


def test_the_file_is_what_the_program_makes() -> None:
    written = FILE.read_text()
    head = written.splitlines()[1].removeprefix("# ")
    assert written == write_suite(coverage.coverage(), head)
    assert "python -m convbench.suites.coverage" in head


def _together(layers: tuple[Layer, ...], names: tuple[str, ...]) -> set[tuple[str, ...]]:
    found = (levels_of(layer) for layer in layers)
    return {tuple(levels[name] for name in names) for levels in found}


GROUPS = [*combinations(FACTORS, 2), *combinations(TRIPLES, 3)]


@pytest.mark.parametrize("names", GROUPS, ids="-".join)
def test_each_combination_of_levels_that_is_possible_occurs(layers, names) -> None:
    possible = {
        levels
        for levels in product(*(FACTORS[name] for name in names))
        if impossible(dict(zip(names, levels, strict=True))) is None
    }
    assert possible <= _together(layers, names)


def test_few_combinations_are_impossible() -> None:
    excluded = {
        frozenset(zip(names, levels, strict=True))
        for names in combinations(FACTORS, 2)
        for levels in product(*(FACTORS[name] for name in names))
        if impossible(dict(zip(names, levels, strict=True)))
    }
    rest = ("rest", "rows or columns left over")
    assert excluded == {frozenset({rest, ("strides", "1")}), frozenset({rest, ("pads", "same")})}


@st.composite
def drawn_rows(draw: st.DrawFn) -> dict[str, str]:
    row = {name: draw(st.sampled_from(levels)) for name, levels in FACTORS.items()}
    if impossible(row):
        row["rest"] = FACTORS["rest"][0]
    return row


@given(drawn_rows(), st.integers(0, 1000))
def test_every_row_that_is_possible_has_a_layer(row, seed) -> None:
    assert levels_of(coverage.layer_of(row, random.Random(seed))) == row


@given(drawn_rows(), st.integers(0, 1000))
def test_what_is_called_impossible_is(row, seed) -> None:
    layer = coverage.layer_of(row, random.Random(seed))
    if layer.strides == (1, 1):
        assert left_over(layer) == (0, 0)
    if layer.padding == "same":
        spans = zip(layer.effective_kernel_size, layer.strides, left_over(layer), strict=True)
        assert all(left == 0 for span, stride, left in spans if span >= stride)


def _sizes(layer: Layer) -> dict[str, int]:
    return {
        "channels": layer.channels,
        "filters": layer.filters,
        "batch": layer.batch_size,
        "rows": layer.input_size[0],
        "columns": layer.input_size[1],
    }


@pytest.mark.parametrize("what", ["channels", "filters", "batch", "rows", "columns"])
def test_each_size_is_below_at_and_above_each_block(layers, what) -> None:
    found = {_sizes(layer)[what] for layer in layers}
    assert {block + more for block in BLOCKS for more in (-1, 0, 1)} <= found
    assert max(found) > 256


@pytest.mark.parametrize("pair", [("channels", "filters"), ("batch", "rows")])
def test_two_sizes_are_below_at_and_above_blocks_together(layers, pair) -> None:
    """A size is below a block, a multiple of it, or leaves a rest beside full blocks."""

    def kind(size: int, block: int) -> str:
        return "below" if size < block else "full" if size % block == 0 else "with a rest"

    kinds = ("below", "full", "with a rest")
    for one, other in product(BLOCKS, BLOCKS):
        sizes = [[_sizes(layer)[what] for what in pair] for layer in layers]
        found = {(kind(a, one), kind(b, other)) for a, b in sizes}
        assert set(product(kinds, kinds)) <= found, (one, other)


def test_layers_are_small(layers) -> None:
    assert max(layer.flops for layer in layers) < MOST_FLOPS
    assert len(layers) == len({layer.name for layer in layers})


def test_random_layers_are_the_same_for_a_seed() -> None:
    def some(seed: int) -> Iterator[Layer]:
        return islice(coverage.random_layers(seed), 20)

    assert list(some(3)) == list(some(3)) != list(some(4))
