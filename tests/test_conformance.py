"""Test that every implementation is right, or refuses, in every pass on every kind of layer.

The registry is enumerated, so that a new implementation is tested as soon as it is there.
"""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from convbench.agreement.check.case import Case
from convbench.agreement.check.checker import check
from convbench.implementations.registry import BUILT_IN, REGISTRY
from convbench.problem import operands
from convbench.problem.layer import Layer, Pass
from convbench.runtimes.tensorflow import TensorFlow
from convbench.suites.file import read_suite
from tests.layers import layers

THREADS = 1
GEOMETRY = read_suite("configs/geometry.yaml").layers
TENSORFLOW = [n for n in BUILT_IN if REGISTRY.get(n).runtime == TensorFlow()]
REFUSE_NOTHING = ("loop", "im2col", "naive-im2col")
OTHERS = [n for n in BUILT_IN if n not in TENSORFLOW]


def verify(name, layer, pass_):
    implementation = REGISTRY.get(name)
    reason = implementation.unsupported(layer, pass_)
    if reason is not None:
        assert name not in REFUSE_NOTHING, f"{name} must not refuse anything: {reason}"
        if name in TENSORFLOW:  # Keras refuses strides together with dilation only
            assert max(layer.strides) > 1, reason
            assert max(layer.dilation_rate) > 1, reason
        return
    found = check(Case(implementation, layer, pass_, THREADS, seed=1))
    assert found.verdict == "agrees", f"{name} {pass_} {layer.geometry()}: {found.diagnosis}"
    chosen = implementation.chosen(layer, pass_, THREADS)
    assert found.exact is (True if chosen.exact(layer, pass_) else None)


def _keras_is_slow_but_for_a_third():
    """Return each implementation with each layer. Keras compiles each for a tenth of a second."""
    return [
        pytest.param(
            name,
            layer,
            id=f"{name}-{layer.name}",
            marks=pytest.mark.slow if name in TENSORFLOW and not quick else (),
        )
        for name in BUILT_IN
        for number, layer in enumerate(GEOMETRY)
        for quick in (name == "keras-graph" and number % 3 == 0,)
    ]


@pytest.mark.parametrize(("name", "layer"), _keras_is_slow_but_for_a_third())
def test_every_implementation_is_right_on_every_geometry(name, layer):
    for pass_ in Pass:
        verify(name, layer, pass_)


@pytest.mark.usefixtures("no_trials")
@pytest.mark.parametrize("name", OTHERS)
@settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(layer=layers())
def test_every_implementation_is_right_on_drawn_layers(name, layer):
    for pass_ in Pass:
        verify(name, layer, pass_)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "keras-graph" else pytest.mark.slow)
        for name in TENSORFLOW
    ],
)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(layer=layers())
def test_keras_is_right_on_drawn_layers(name, layer):
    for pass_ in Pass:
        verify(name, layer, pass_)


LARGER = Layer("larger", (30, 26, 24), 20, (3, 4), padding="same", batch_size=5, groups=2)


def _prepared(name, pass_):
    implementation = REGISTRY.get(name)
    reason = implementation.unsupported(LARGER, pass_)
    if reason is not None:
        pytest.skip(reason.why)
    return implementation.prepare(LARGER, pass_, THREADS)


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("pass_", Pass)
def test_a_second_call_gives_the_same_result(name, pass_):
    """The same operands give the same bits, and they are left unchanged."""
    prepared = _prepared(name, pass_)
    drawn = operands.floats(LARGER, pass_, 3)
    kept = {what: array.copy() for what, array in vars(drawn).items() if array is not None}
    prepared.load(drawn)
    first = np.array(prepared.to_numpy(prepared.run()))
    again = np.array(prepared.to_numpy(prepared.run()))
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.float32
    assert first.shape == LARGER.result_shape(pass_)
    for what, array in kept.items():
        np.testing.assert_array_equal(getattr(drawn, what), array)


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("pass_", Pass)
def test_a_ledger_says_what_the_clock_sees(name, pass_):
    prepared = _prepared(name, pass_)
    assert prepared.ledger.inside
    assert prepared.ledger.outside
    assert all(isinstance(phrase, str) and phrase for phrase in prepared.ledger.inside)
