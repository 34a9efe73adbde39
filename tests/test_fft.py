"""Test fft on large kernels, and what its bound lets through. The bound is derived, not tuned."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from convbench.agreement.check import oracle
from convbench.agreement.check.bound import cut, with_small_planes
from convbench.agreement.check.case import Case
from convbench.agreement.check.checker import check
from convbench.implementations.numpy import fft
from convbench.implementations.numpy.fft import Fft, PreparedFft
from convbench.implementations.variants import Variant, VariantImplementation
from convbench.machine.tuning import CacheSizes
from convbench.problem import operands
from convbench.problem.layer import Layer, Pass

LARGE = Layer("large", (28, 26, 3), 4, (7, 7), padding="same", use_bias=True, batch_size=5)


@pytest.mark.parametrize("size", range(7, 16, 2))
@pytest.mark.parametrize("pass_", Pass)
def test_fft_is_right_on_large_kernels(size, pass_):
    for layer in (
        replace(LARGE, kernel_size=(size, size)),
        replace(LARGE, kernel_size=(size, size - 2), padding=((0, 3), (9, 1)), dtype="float64"),
        replace(LARGE, kernel_size=(7, size), dilation_rate=(3, 1), groups=1, use_bias=False),
        replace(LARGE, input_shape=(20, 20, 6), filters=6, groups=6, kernel_size=(size, size)),
    ):
        found = check(Case(Fft(), layer, pass_, 1, 0))
        assert found.verdict == "agrees", (layer.geometry(), found.diagnosis)
        assert found.exact is None


@pytest.mark.parametrize("size", [3, 7, 11, 15])
@pytest.mark.parametrize("pass_", Pass)
def test_the_bound_is_less_than_a_thousand_times_the_errors(size, pass_):
    """Errors are 0.003 to 0.028 of the bound, a worst case over roundings that rarely add up."""
    layer = replace(LARGE, kernel_size=(size, size), input_shape=(56, 56, 16), batch_size=2)
    found = check(Case(Fft(), layer, pass_, 1, 0))
    assert 1e-3 < found.error_over_bound < 0.1


@pytest.mark.parametrize("name", ["_transform", "_back"])
@pytest.mark.parametrize("layer", [LARGE, replace(LARGE, input_shape=(112, 112, 16), batch_size=1)])
@pytest.mark.parametrize("pass_", Pass)
def test_float16_inside_is_wrong(monkeypatch, name, layer, pass_):
    """Spectra, or a product of spectra, went through float16 once."""
    right = getattr(PreparedFft, name)

    def halved(self, given, *rest):
        parts = given.view(self._layer.dtype) if np.iscomplexobj(given) else given
        scale = np.abs(parts).max()  # keeps the range of float16 out of play: the 11 bits matter
        return right(self, ((parts / scale).astype("f2") * scale).view(given.dtype), *rest)

    monkeypatch.setattr(PreparedFft, name, halved)
    assert check(Case(Fft(), layer, pass_, 1, 0)).verdict == "wrong"


@pytest.mark.parametrize(
    ("pass_", "share"),
    [(Pass.FORWARD, 1e-3), (Pass.INPUT_GRADIENT, 1e-3), (Pass.KERNEL_GRADIENT, 0.1)],
)
def test_a_fault_of_one_element_at_full_size_only_is_wrong(pass_, share):
    """The fault is `share` of the largest element, more where 4,800 terms make the bound wide."""
    full = replace(LARGE, input_shape=(40, 40, 8), batch_size=3, kernel_size=(5, 5))
    assert with_small_planes(cut(full, pass_)) != full

    class Faulty(Fft):
        def prepare(self, layer, pass_, threads):
            prepared = super().prepare(layer, pass_, threads)
            right = prepared.run

            def run():
                result = right()
                if layer == full:
                    result.flat[-1] += share * np.abs(result).max()
                return result

            prepared.run = run
            return prepared

    assert check(Case(Fft(), full, pass_, 1, 0)).verdict == "agrees"
    found = check(Case(Faulty(), full, pass_, 1, 0))
    assert found.verdict == "wrong"
    assert found.error_over_bound > 1
    assert "1 of " in found.diagnosis


@pytest.mark.parametrize("l2", [1, 10**5, 10**9])
@pytest.mark.parametrize("pass_", Pass)
def test_fft_is_right_whatever_the_blocks(monkeypatch, pass_, l2):
    monkeypatch.setattr(fft, "cache_bytes", lambda: CacheSizes(l2=l2))
    layer = replace(LARGE, batch_size=7, filters=2)
    assert check(Case(Fft(), layer, pass_, 1, 0)).verdict == "agrees"
    drawn = operands.exact_integers(layer, pass_, 0)
    prepared = Fft().prepare(layer, pass_, 1)
    prepared.load(drawn)
    found = np.rint(prepared.to_numpy(prepared.run()))
    np.testing.assert_allclose(found, oracle.expected(layer, pass_, drawn), atol=1)


def test_the_workspace_does_not_grow_with_the_batch(monkeypatch):
    monkeypatch.setattr(fft, "cache_bytes", lambda: CacheSizes(l2=2**20))
    few, many = (replace(LARGE, batch_size=n, filters=16) for n in (64, 512))
    for pass_ in Pass:
        assert Fft().workspace_bytes(few, pass_, 1) == Fft().workspace_bytes(many, pass_, 1)


def test_a_fast_length_is_the_next_one_without_large_factors():
    lengths = [fft.fast_length(size) for size in (1, 2, 7, 11, 28, 31, 58, 121, 230)]
    assert lengths == [1, 2, 8, 12, 30, 32, 60, 125, 240]


def test_fft_refuses_strides():
    reason = Fft().unsupported(replace(LARGE, strides=(2, 1)), Pass.FORWARD)
    assert "strides must be 1" in reason.why
    assert reason.lacks == ("strides",)


@pytest.mark.parametrize("pass_", Pass)
def test_float32_is_transformed_in_float32(pass_):
    """NumPy's default norm goes through float64, in arrays that no prediction counts."""
    layer = replace(LARGE, batch_size=16, input_shape=(64, 60, 8), filters=8)
    prepared = Fft().prepare(layer, pass_, 1)
    prepared.load(operands.floats(layer, pass_, 0))
    prepared.run()
    tracemalloc.start()
    prepared.run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < layer.result_bytes(pass_) + 2**17


def test_an_implementation_without_a_bound_is_held_to_that_of_direct_sums():
    layer = Layer("one product", (12, 12, 1), 3, (1, 1), batch_size=2)

    class Unbounded(Fft):
        def error_bound(self, layer, pass_, operands):
            return None

    assert check(Case(Fft(), layer, Pass.FORWARD, 1, 0)).verdict == "agrees"
    assert check(Case(Unbounded(), layer, Pass.FORWARD, 1, 0)).verdict == "wrong"


def test_a_variant_states_the_bound_of_what_it_stands_for():
    layer = Layer("one product", (12, 12, 1), 3, (1, 1), batch_size=2)
    again = VariantImplementation(Variant("again", "fft"), Fft())
    assert check(Case(again, layer, Pass.FORWARD, 1, 0)).verdict == "agrees"
