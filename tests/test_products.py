"""Test that products in parts equal those of np.matmul, in every order of memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convbench.implementations.numpy.shared import products
from convbench.implementations.numpy.shared.products import (
    SumOfProducts,
    multiply,
    multiply_wide,
    part_rows,
)
from convbench.implementations.numpy.shared.scratch import Scratch

DTYPES = st.sampled_from(["float32", "float64"])
EXAMPLES = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # it always sets the same
)
STACK = st.lists(st.integers(1, 3), max_size=2).map(tuple)


def whole(draw, *shape, dtype):
    """Draw small whole numbers, whose sums in any order are equal to the last bit."""
    seed = draw(st.integers(0, 2**16))
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(dtype)


def in_some_order(draw, matrix):
    """Return the matrix with its last axes in either order of memory, or as part of wider lines."""
    kind = draw(st.sampled_from(["C", "F", "wider"]))
    if kind == "F":
        return np.ascontiguousarray(matrix.swapaxes(-1, -2)).swapaxes(-1, -2)
    if kind == "wider":
        wide = np.full((*matrix.shape[:-1], matrix.shape[-1] + 3), np.nan, matrix.dtype)
        wide[..., : matrix.shape[-1]] = matrix
        return wide[..., : matrix.shape[-1]]
    return matrix


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    """Limit parts to 40 products, so that drawn matrices have several parts, and a remainder."""
    monkeypatch.setattr(products, "AT_MOST", 40)
    monkeypatch.setattr(products, "LEAST_ROWS", 2)
    monkeypatch.setattr(products, "LEAST_ROWS_OF_NARROW", 2)
    monkeypatch.setattr(products, "SUMMED_BYTES", 200)


@EXAMPLES
@given(st.data(), STACK, st.integers(1, 60), st.integers(1, 5), st.integers(1, 5), DTYPES)
def test_the_parts_of_a_tall_product_give_the_whole_product(
    data, stack, rows, terms, filters, dtype
):
    left = in_some_order(data.draw, whole(data.draw, *stack, rows, terms, dtype=dtype))
    right = in_some_order(data.draw, whole(data.draw, *stack, terms, filters, dtype=dtype))
    out = in_some_order(data.draw, np.full((*stack, rows, filters), np.nan, dtype))
    multiply(left, right, out=out)
    np.testing.assert_array_equal(out, left @ right)


@EXAMPLES
@given(st.data(), st.integers(1, 5), st.integers(1, 5), st.integers(1, 60), DTYPES)
def test_the_parts_of_a_wide_product_give_the_whole_product(data, rows, terms, columns, dtype):
    left = in_some_order(data.draw, whole(data.draw, rows, terms, dtype=dtype))
    right = in_some_order(data.draw, whole(data.draw, terms, columns, dtype=dtype))
    out = in_some_order(data.draw, np.full((rows, columns), np.nan, dtype))
    multiply_wide(left, right, out=out)
    np.testing.assert_array_equal(out, left @ right)


@EXAMPLES
@given(
    st.data(),
    st.lists(st.integers(1, 60), min_size=1, max_size=3),
    st.integers(1, 6),
    st.integers(1, 6),
    DTYPES,
)
def test_products_summed_over_stretches_of_rows_add_up(data, lengths, terms, filters, dtype):
    """Several stretches of rows are summed, into memory and a total that hold anything at first."""
    sums, scratch = SumOfProducts(terms, filters, np.dtype(dtype).itemsize), Scratch(dtype)
    sums.reserve(scratch).fill(np.nan)
    (memory,) = scratch.buffers
    assert memory.size == sums.elements
    total, expected = np.full((terms, filters), np.nan, dtype), np.zeros((terms, filters), dtype)
    for index, length in enumerate(lengths):
        left = in_some_order(data.draw, whole(data.draw, length, terms, dtype=dtype))
        right = in_some_order(data.draw, whole(data.draw, length, filters, dtype=dtype))
        sums.add(left, right, total, scratch, is_first=index == 0)
        expected += left.T @ right
    np.testing.assert_array_equal(total, expected)
    assert scratch.buffers == (memory,)  # nothing more was allocated


def test_a_large_right_operand_is_multiplied_whole(monkeypatch):
    monkeypatch.undo()
    assert part_rows(27, 64) == 1_000_000 // (27 * 64)
    assert part_rows(147, 64) == 106
    assert part_rows(576, 32) == 54  # with few filters, parts pay for more terms
    assert part_rows(256, 64) is None
    assert part_rows(512, 512) is None
