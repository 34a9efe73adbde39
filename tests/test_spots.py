"""Test the check of timed results: right ones pass, and results of earlier operands do not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convbench.agreement.check import oracle
from convbench.agreement.check.spots import SPOTS, Spots
from convbench.problem.layer import Layer, Pass
from convbench.problem.values import READS
from tests.layers import layers

LAYER = Layer("plain", (12, 10, 8), 6, (3, 3), padding="same", strides=(2, 1), batch_size=3)


@given(layers(), st.sampled_from(list(Pass)), st.integers(0, 3))
def test_right_results_have_no_problem(layer, pass_, seed):
    spots = Spots(layer, pass_, seed)
    for _ in range(3):
        right = oracle.expected(layer, pass_, spots.fresh())
        assert spots.problem(right.astype(layer.dtype)) is None


@pytest.mark.parametrize("pass_", Pass)
def test_results_of_the_operands_before_are_found(pass_):
    spots = Spots(LAYER, pass_, 0)
    earlier = oracle.expected(LAYER, pass_, spots.fresh())
    for _ in range(2 * SPOTS):
        right = oracle.expected(LAYER, pass_, spots.fresh())
        assert spots.problem(right) is None
        assert "the result of a timed call is wrong at" in (spots.problem(earlier) or "")
        earlier = right


@pytest.mark.parametrize("pass_", Pass)
def test_two_visits_differ_in_few_elements_and_take_turns(pass_):
    spots = Spots(LAYER, pass_, 0)
    changed = []
    before = spots.fresh()
    before = {name: getattr(before, name).copy() for name in READS[pass_]}
    for _ in range(6):
        now = spots.fresh()
        differ = {name: np.count_nonzero(before[name] != getattr(now, name)) for name in before}
        assert sum(differ.values()) == 2  # one is new, and one is as it was
        changed.append([name for name in before if np.abs(getattr(now, name)).max() > 1])
        before = {name: getattr(now, name).copy() for name in READS[pass_]}
    first, second = READS[pass_]
    assert changed == [[second], [first]] * 3


def test_a_result_that_is_not_finite_is_a_problem():
    spots = Spots(LAYER, Pass.FORWARD, 0)
    right = oracle.expected(LAYER, Pass.FORWARD, spots.fresh())
    assert spots.problem(np.full_like(right, np.nan)) is not None
