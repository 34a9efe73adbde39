"""Test shapes, pads, FLOPs and bytes of layers against Keras's rules and brute force."""

import math

import pytest
from hypothesis import given

from convbench.errors import LayerError
from convbench.problem.layer import Layer, Pass
from tests.layers import layers


def test_a_known_layer_has_the_expected_shapes_flops_and_bytes():
    layer = Layer("conv2", (26, 26, 8), 16, (3, 3))
    assert layer.output_shape == (24, 24, 16)
    assert layer.kernel_shape == (3, 3, 8, 16)
    assert layer.flops == layer.flops_in_bounds == 2 * 32 * 24 * 24 * 16 * 3 * 3 * 8
    assert layer.columns_bytes == 32 * 24 * 24 * 3 * 3 * 8 * 4
    assert layer.geometry() == "26x26x8 -> 24x24x16, kernel 3x3, batch 32"


def test_same_padding_puts_the_odd_pad_last_as_keras_does():
    layer = Layer("x", (8, 7, 1), 1, (3, 2), strides=(2, 2), padding="same")
    assert layer.pads == ((0, 1), (0, 1))
    assert layer.output_size == (4, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": 3}, "groups: 3 must divide"),
        ({"kernel_size": (9, 1)}, "the output would be empty"),
        ({"filters": 0}, "filters: must be at least 1"),
        ({"strides": (1, 0)}, "strides: must be at least 1"),
        ({"padding": ((1, -1), (0, 0))}, "pads must not be negative"),
    ],
)
def test_impossible_layers_are_refused(changes, message):
    given_ = {"name": "x", "input_shape": (8, 8, 4), "filters": 4, "kernel_size": (3, 3)}
    with pytest.raises(LayerError, match=message):
        Layer(**{**given_, **changes})


@given(layers())
def test_flops_in_bounds_counts_every_tap_on_the_input(layer):
    (top, _), (left, _) = layer.pads
    height, width = layer.input_size
    taps = sum(
        0 <= i * layer.strides[0] + p * layer.dilation_rate[0] - top < height
        and 0 <= j * layer.strides[1] + q * layer.dilation_rate[1] - left < width
        for i in range(layer.output_size[0])
        for j in range(layer.output_size[1])
        for p in range(layer.kernel_size[0])
        for q in range(layer.kernel_size[1])
    )
    products = layer.batch_size * layer.filters * layer.channels // layer.groups
    assert layer.flops_in_bounds == 2 * taps * products
    assert layer.flops_in_bounds <= layer.flops


@given(layers())
def test_the_three_passes_share_their_arrays(layer):
    assert layer.padding != "same" or layer.output_size == tuple(
        math.ceil(size / stride)
        for size, stride in zip(layer.input_size, layer.strides, strict=True)
    )
    # Each pass computes what the two others read.
    result = {pass_: layer.result_bytes(pass_) for pass_ in Pass}
    bias = layer.filters * layer.itemsize * layer.use_bias
    assert layer.operand_bytes(Pass.KERNEL_GRADIENT) == (
        result[Pass.FORWARD] + result[Pass.INPUT_GRADIENT]
    )
    assert layer.operand_bytes(Pass.FORWARD) - bias == (
        result[Pass.INPUT_GRADIENT] + result[Pass.KERNEL_GRADIENT]
    )
