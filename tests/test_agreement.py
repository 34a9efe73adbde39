"""Test the oracle against explicit sums, the bound against rounding, and verdicts on mistakes."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from convbench.agreement.check import oracle
from convbench.agreement.check.bound import MAX_TERMS, cut, direct_factor
from convbench.agreement.check.case import Case
from convbench.agreement.check.checker import check
from convbench.implementations.numpy.im2col import Im2col
from convbench.implementations.registry import REGISTRY
from convbench.problem import operands
from convbench.problem.layer import Layer, Pass
from tests.layers import layers

USERS = Path(__file__).parent / "users" / "convolutions.py"
LAYER = Layer("plain", (9, 8, 3), 4, (3, 2), batch_size=2)


def explicit(layer, pass_, drawn):
    """Compute a pass as one sum over every index: slowly, and with no code of convbench."""
    shape = layer.result_shape(pass_)
    result = np.zeros(shape)
    (top, _), (left, _) = layer.pads
    per_c, per_f = layer.channels // layer.groups, layer.filters // layer.groups
    ranges = (*layer.output_size, *layer.kernel_size, per_c, layer.filters)
    for b, (i, j, p, q, c, f) in product(
        range(layer.batch_size), product(*(range(n) for n in ranges))
    ):
        row = i * layer.strides[0] + p * layer.dilation_rate[0] - top
        column = j * layer.strides[1] + q * layer.dilation_rate[1] - left
        if not (0 <= row < layer.input_shape[0] and 0 <= column < layer.input_shape[1]):
            continue
        channel = (f // per_f) * per_c + c
        if pass_ is Pass.FORWARD:
            result[b, i, j, f] += drawn.input[b, row, column, channel] * drawn.kernel[p, q, c, f]
        elif pass_ is Pass.INPUT_GRADIENT:
            result[b, row, column, channel] += (
                drawn.output_gradient[b, i, j, f] * drawn.kernel[p, q, c, f]
            )
        else:
            result[p, q, c, f] += (
                drawn.input[b, row, column, channel] * drawn.output_gradient[b, i, j, f]
            )
    if drawn.bias is not None:
        result += drawn.bias
    return result


@settings(deadline=None)
@given(layers())
def test_the_oracle_equals_the_explicit_sum(layer):
    for pass_ in Pass:
        drawn = operands.exact_integers(layer, pass_, 1)
        np.testing.assert_array_equal(
            oracle.expected(layer, pass_, drawn), explicit(layer, pass_, drawn)
        )


@settings(deadline=None)
@given(layers())
def test_cut_layers_keep_their_geometry(layer):
    grown = replace(
        layer,
        input_shape=(64, 48, layer.groups * 200),
        filters=layer.groups * 150,
        batch_size=32,
    )
    for pass_ in Pass:
        small = cut(grown, pass_)
        shrunk = small.input_size[0] <= small.strides[0] and small.input_size[1] <= small.strides[1]
        assert small.terms(pass_) <= MAX_TERMS or shrunk
        assert (small.kernel_size, small.strides, small.padding, small.groups) == (
            (grown.kernel_size, grown.strides, grown.padding, grown.groups)
        )
        assert small == cut(small, pass_)


def test_the_bound_covers_rounding_and_is_not_loose():
    layer = Layer("x", (12, 12, 100), 8, (3, 3), batch_size=2)
    drawn = operands.floats(layer, Pass.FORWARD, 0)
    bound = direct_factor(layer, Pass.FORWARD) * oracle.magnitude(layer, Pass.FORWARD, drawn)
    right = oracle.expected(layer, Pass.FORWARD, drawn)
    assert np.median(bound / np.abs(right)) < 0.01
    rounded = right.astype(np.float32)
    assert (np.abs(rounded - right) <= bound).all()


@pytest.mark.parametrize("name", ["right", "in_float64", "by_fft"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_right_functions_agree(name, dtype):
    implementation = REGISTRY.get(f"{USERS}:{name}")
    found = check(Case(implementation, replace(LAYER, dtype=dtype), Pass.FORWARD, 1, 0))
    assert found.verdict == "agrees", found
    assert found.exact is (name != "by_fft")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("flipped", "elements differ, the first at image 0, filter 0, row 0, column 0"),
        ("remembers", "elements differ"),
        ("forgets_a_corner", "1 of 392 elements are not finite"),
        ("too_small", "the result has shape (2, 4, 6, 6), expected (2, 4, 7, 7), that is (batch, "),
    ],
)
def test_wrong_functions_are_found_wrong(name, sentence):
    found = check(Case(REGISTRY.get(f"{USERS}:{name}"), LAYER, Pass.FORWARD, 1, 0))
    assert found.verdict == "wrong"
    assert sentence in found.diagnosis


class _Faulty(Im2col):
    """An im2col whose result `fault` spoils."""

    def __init__(self, fault):
        self._fault = fault

    def prepare(self, layer, pass_, threads):
        prepared = super().prepare(layer, pass_, threads)
        right = prepared.run
        prepared.run = lambda: self._fault(right(), layer)
        return prepared


FAULTS = {
    "gradient of all zeros": lambda result, layer: result * 0,
    "mean over the batch": lambda result, layer: result / layer.batch_size,
    "one element off by one": lambda result, layer: _bumped(result),
    "float16 inside": lambda result, layer: np.clip(result, -6e4, 6e4).astype("f2").astype("f4"),
    "rows swapped": lambda result, layer: result[:, ::-1],
}


def _bumped(result):
    result = result.copy()
    result.flat[-1] += 1
    return result


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("pass_", Pass)
def test_faults_show_in_every_pass_at_any_size(fault, pass_):
    """Faults show even in a kernel gradient of 20,000 terms, where the float bound is useless."""
    large = Layer("conv1", (28, 28, 1), 8, (3, 3), batch_size=32)
    for layer in (LAYER, large):
        found = check(Case(_Faulty(FAULTS[fault]), layer, pass_, 1, 0))
        assert found.verdict == "wrong", (fault, layer.name)


def test_a_stale_buffer_is_found():
    """NaN in its buffer shows that a convolution leaves a part of the buffer unwritten."""

    class Stale(Im2col):
        def prepare(self, layer, pass_, threads):
            prepared = super().prepare(layer, pass_, threads)
            kept = prepared._scratch[0].array("kept", *layer.result_shape(pass_))
            right = prepared.run

            def run():
                kept[:, 1:] = right()[:, 1:]
                return kept

            prepared.run = run
            return prepared

    found = check(Case(Stale(), LAYER, Pass.FORWARD, 1, 0))
    assert found.verdict == "wrong"
    assert "not finite" in found.diagnosis


def test_mostly_zero_results_are_mistrusted(monkeypatch):
    monkeypatch.setattr(operands, "exact_integers", lambda *_: _zeros(LAYER))
    found = check(Case(Im2col(), LAYER, Pass.FORWARD, 1, 0))
    assert found.verdict == "mistrusted"
    assert "100% of the right result is zero" in found.diagnosis


def _zeros(layer):
    drawn = operands.floats(layer, Pass.FORWARD, 0)
    return operands.Operands(drawn.input * 0, drawn.kernel * 0)


def test_strides_beyond_the_kernel_are_not_mistrusted():
    """Most of such an input gradient is zero, as it should be."""
    layer = Layer("x", (13, 13, 3), 4, (1, 1), strides=(4, 4), batch_size=2)
    assert check(Case(Im2col(), layer, Pass.INPUT_GRADIENT, 1, 0)).verdict == "agrees"
