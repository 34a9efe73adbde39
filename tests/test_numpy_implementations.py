"""Test what is particular to some implementations in NumPy."""

import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from convbench.implementations.numpy import loop
from convbench.implementations.numpy.fft import Fft
from convbench.implementations.numpy.naive_im2col import NaiveIm2col
from convbench.problem import operands
from convbench.problem.layer import Layer, Pass

ONE_CHANNEL = Layer("mono", (9, 8, 1), 3, (3, 2), batch_size=4)


def test_the_loop_takes_an_input_without_a_channel_axis():
    rng = np.random.default_rng(0)
    x, kernel = rng.random((4, 9, 8)), rng.random((3, 1, 3, 2))
    error = rng.random((4, 3, 7, 7))
    np.testing.assert_array_equal(
        loop.forward(x, kernel, ONE_CHANNEL), loop.forward(x[:, None], kernel, ONE_CHANNEL)
    )
    np.testing.assert_array_equal(
        loop.kernel_gradient(x, error, ONE_CHANNEL),
        loop.kernel_gradient(x[:, None], error, ONE_CHANNEL),
    )


def test_the_gradients_of_the_loop_are_the_derivatives_of_its_forward_pass():
    """Central differences tell: a flipped output gradient does not pass."""
    layer = Layer("x", (5, 6, 2), 4, (3, 2), strides=(2, 1), padding="same", groups=2, batch_size=2)
    rng = np.random.default_rng(1)
    x, kernel = rng.random((2, 2, 5, 6)), rng.random((4, 1, 3, 2))
    error = rng.random((2, 4, *layer.output_size))

    def loss(x, kernel):
        return np.sum(loop.forward(x, kernel, layer) * error)

    def differences(of, which):
        gradient = np.zeros_like(of)
        for index in np.ndindex(of.shape):
            step = np.zeros_like(of)
            step[index] = 1e-4
            pair = [(x + s, kernel) if which == 0 else (x, kernel + s) for s in (step, -step)]
            gradient[index] = (loss(*pair[0]) - loss(*pair[1])) / 2e-4
        return gradient

    np.testing.assert_allclose(
        loop.input_gradient(error, kernel, layer), differences(x, 0), rtol=1e-7
    )
    np.testing.assert_allclose(
        loop.kernel_gradient(x, error, layer), differences(kernel, 1), rtol=1e-7
    )


LAYERS = [
    Layer("images", (12, 10, 3), 5, (3, 2), padding="same", batch_size=7),
    Layer("rows", (31, 12, 6), 4, (3, 3), strides=(2, 1), padding=((2, 0), (1, 3)), groups=2),
    Layer("deep", (9, 9, 40), 8, (3, 3), dilation_rate=(2, 1), batch_size=3),
]


def test_columns_bytes_are_those_of_the_whole_matrix_of_columns():
    layer = LAYERS[2]
    positions = layer.batch_size * math.prod(layer.output_size)
    assert layer.columns_bytes == positions * 9 * 40 * 4


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
@pytest.mark.parametrize("pass_", Pass)
def test_fft_predicts_the_buffers_that_it_allocates(layer, pass_):
    layer = replace(layer, strides=(1, 1))
    prepared = Fft().prepare(layer, pass_, 1)
    assert sum(b.nbytes for b in prepared.buffers) == Fft().workspace_bytes(layer, pass_, 1)


NAIVE = Layer("naive", (30, 28, 12), 12, (3, 3), padding="same", use_bias=True, batch_size=8)


@pytest.mark.parametrize("groups", [1, 3, 12])
@pytest.mark.parametrize("kernel_size", [(2, 5), (3, 3)])
@pytest.mark.parametrize("pass_", Pass)
def test_naive_im2col_predicts_what_a_call_allocates(pass_, kernel_size, groups):
    layer = replace(NAIVE, kernel_size=kernel_size, groups=groups)
    prepared = NaiveIm2col().prepare(layer, pass_, 1)
    prepared.load(operands.floats(layer, pass_, 0))
    prepared.run()
    tracemalloc.start()
    kept = prepared.run()
    peak = tracemalloc.get_traced_memory()[1] - layer.result_bytes(pass_)
    tracemalloc.stop()
    assert kept is not None
    predicted = NaiveIm2col().workspace_bytes(layer, pass_, 1)
    assert peak == pytest.approx(predicted, rel=0.05)
