"""Test operands: a seed always draws the same ones, and sums of integers cannot round."""

import numpy as np
import pytest
from hypothesis import given

from convbench.agreement.check import oracle
from convbench.problem import operands
from convbench.problem.layer import Layer, Pass
from tests.layers import layers

LONG = Layer("long", (200, 200, 2), 4, (3, 3), batch_size=16, groups=2)
WIDE = Layer("wide", (6, 6, 512), 512, (5, 5), batch_size=1, groups=2, use_bias=True)


@pytest.mark.parametrize("draw", [operands.floats, operands.exact_integers])
def test_the_same_seed_draws_the_same_operands(draw):
    first, again, other = (draw(WIDE, Pass.FORWARD, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.kernel, again.kernel)
    assert (first.kernel != other.kernel).any()


def test_a_pass_gets_only_what_it_reads():
    drawn = operands.floats(WIDE, Pass.INPUT_GRADIENT, 0)
    assert drawn.input is None
    assert drawn.bias is None
    assert drawn.output_gradient.shape == (1, 2, 2, 512)
    assert drawn.kernel.dtype == np.float32
    assert drawn.nbytes == WIDE.operand_bytes(Pass.INPUT_GRADIENT)


@pytest.mark.parametrize("layer", [LONG, WIDE])
@pytest.mark.parametrize("pass_", Pass)
def test_no_sum_of_integers_can_round(layer, pass_):
    drawn = operands.exact_integers(layer, pass_, 5)
    largest = oracle.magnitude(layer, pass_, drawn).max()
    assert largest <= 2**24
    if layer.terms(pass_) > 2**14:  # there the density rule uses the room that it has
        assert largest > 2**20


@given(layers())
def test_small_layers_need_no_zeros(layer):
    for pass_ in Pass:
        drawn = operands.exact_integers(layer, pass_, 0)
        arrays = (drawn.input, drawn.kernel, drawn.bias, drawn.output_gradient)
        assert all((array != 0).all() for array in arrays if array is not None)
        assert all((array == np.rint(array)).all() for array in arrays if array is not None)


def test_thinning_limits_sums_where_the_density_rule_fails():
    values = np.full((3, 3, 2, 8), 32, np.int8)
    layer = Layer("x", (9, 9, 4), 8, (3, 3), groups=2)
    for pass_, axes in ((Pass.FORWARD, (0, 1, 2)), (Pass.INPUT_GRADIENT, None)):
        thinned = values.copy()
        operands._thin(thinned, layer, pass_, 100)
        if axes:
            sums = np.abs(thinned.astype(int)).sum(axis=axes)
        else:  # each channel sums over the taps and the filters of its group
            sums = np.abs(thinned.astype(int)).reshape(3, 3, 2, 2, 4).sum(axis=(0, 1, 4))
        assert sums.max() == 96
