"""Test draws of special values: their sums are exact, and they are what their names say."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given

from convbench.agreement.check import oracle
from convbench.problem import values
from convbench.problem.layer import Layer, Pass
from convbench.problem.values import FAMILIES, FEW_PRODUCTS, READS
from convbench.suites.file import read_suite
from tests.layers import layers

LAYER = Layer("plain", (9, 8, 3), 4, (3, 3), batch_size=3, use_bias=True)
LONG = Layer("long", (7, 7, 1024), 64, (7, 7), batch_size=1, padding="same")
BY_NAME = {family.name: family for family in FAMILIES}


@given(layers())
def test_sums_are_exact_and_in_range(layer):
    for pass_ in Pass:
        for family in FAMILIES:
            if not family.fits(layer, pass_):
                continue
            drawn = family.draw(layer, pass_, 3)
            magnitude = oracle.magnitude(layer, pass_, drawn)
            magnitude[magnitude <= np.finfo(layer.dtype).smallest_normal] = 0  # may be flushed
            sums = magnitude / family.unit(layer)
            assert np.array_equal(sums, np.rint(sums)), family.name
            assert sums.max() <= (2**24 if layer.dtype == "float32" else 2**53), family.name
            for name in READS[pass_]:
                array = getattr(drawn, name)
                assert array.dtype == layer.dtype
                assert np.isfinite(array).all()
                assert array.flags.c_contiguous


@pytest.mark.parametrize("pass_", Pass)
def test_long_sums_are_exact_too(pass_):
    for family in FAMILIES:
        if family.fits(LONG, pass_):
            drawn = family.draw(LONG, pass_, 0)
            assert oracle.magnitude(LONG, pass_, drawn).max() / family.unit(LONG) <= 2**24


def _drawn(name, pass_=Pass.FORWARD, layer=LAYER):
    drawn = BY_NAME[name].draw(layer, pass_, 0)
    return tuple(getattr(drawn, operand) for operand in READS[pass_])


def test_values_are_what_the_names_say():
    images, kernel = _drawn("relu")
    assert (images >= 0).all()
    assert 0.3 < (images == 0).mean() < 0.7
    assert (_drawn("mostly-zero")[0] == 0).mean() > 0.8
    assert (_drawn("mostly-zero")[0][:, 0, 0] == 0).all()
    assert any((image == 0).all() for image in _drawn("zero-parts")[0])
    assert (_drawn("zero-filter")[1] == 0).all(axis=(0, 1, 2)).sum() == 1
    assert np.ptp(_drawn("constant-images")[0]) == 0
    assert np.count_nonzero(_drawn("one-element")[0]) == 1
    assert np.count_nonzero(_drawn("one-tap")[1]) == 1
    kernel = _drawn("separable")[1]
    assert all(np.linalg.matrix_rank(kernel[:, :, c, f]) == 1 for c in range(3) for f in range(4))
    kernel = _drawn("symmetric")[1]
    np.testing.assert_array_equal(kernel, kernel[::-1, ::-1])
    images = _drawn("equal-channels")[0]
    np.testing.assert_array_equal(images[..., 0], images[..., 2])
    assert all((operand > 0).all() for operand in _drawn("positive"))
    assert (_drawn("negative")[0] < 0).all()
    assert np.abs(oracle.expected(LAYER, Pass.FORWARD, _operands("medium"))).max() > 65_504
    images = _drawn("denormal")[0]
    assert 1 <= ((np.abs(images) < np.finfo("f4").smallest_normal) & (images != 0)).sum() <= 6
    assert np.abs(oracle.expected(LAYER, Pass.FORWARD, _operands("large"))).max() > 1e29
    assert np.abs(oracle.expected(LAYER, Pass.FORWARD, _operands("small"))).max() < 1e-22


def _operands(name):
    return BY_NAME[name].draw(LAYER, Pass.FORWARD, 0)


def test_a_suite_of_many_layers_has_all_families_many_times():
    chosen = Counter(
        family.name
        for layer in read_suite("configs/coverage.yaml").layers
        for pass_ in Pass
        for family in values.families(layer, pass_, 0, 2)
    )
    assert set(chosen) == set(BY_NAME)
    assert min(chosen.values()) > 50


@given(layers())
def test_few_products_are_not_zero(layer):
    for pass_ in Pass:
        drawn = values.few_products(layer, pass_, 1)
        ones = type(drawn)(
            *(
                None if array is None else (array != 0).astype(np.float64)
                for array in (drawn.input, drawn.kernel, None, drawn.output_gradient)
            )
        )
        assert oracle.magnitude(layer, pass_, ones).max() <= FEW_PRODUCTS
        first, second = (getattr(drawn, name) for name in READS[pass_])
        assert (first != 0).all()
        assert second.any()


@given(layers())
def test_one_element_is_changed(layer):
    for pass_ in Pass:
        drawn = values.FAMILIES[0].draw(layer, pass_, 0)
        changed = values.one_changed(drawn, layer, pass_, 5)
        differ = [
            np.count_nonzero(getattr(drawn, name) != getattr(changed, name))
            for name in READS[pass_]
        ]
        assert sorted(differ) == [0, 1]
