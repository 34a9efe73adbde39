"""Compute all three passes in float64, sharing no code with any implementation.

Each kernel position is one matrix product over the whole batch. In float64, products of integers
are exact below 2^53, and the error on float32 operands is 2^-29 of what a float32 result may have.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from convbench.problem.layer import Layer, Pass
from convbench.problem.operands import Operands

Float64 = NDArray[np.float64]


def expected(layer: Layer, pass_: Pass, operands: Operands) -> Float64:
    """Return the right result in float64: NHWC, or (kh, kw, in, out) for the kernel gradient.

    BLAS gets one thread: cells are checked side by side on all CPUs, and two threads of OpenBLAS
    that do not get two CPUs at once wait for each other (measured for a kernel gradient of 3
    channels, on two shared CPUs: 1.5 s instead of 2 ms).
    """
    with _blas().limit(limits=1, user_api="blas"):
        return _expected(layer, pass_, operands)


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def _expected(layer: Layer, pass_: Pass, operands: Operands) -> Float64:
    if pass_ is Pass.FORWARD:
        x, kernel = _given(operands.input), _given(operands.kernel)
        result = _forward(layer, x, kernel)
        return result if operands.bias is None else result + _given(operands.bias)
    if pass_ is Pass.INPUT_GRADIENT:
        return _input_gradient(layer, _given(operands.output_gradient), _given(operands.kernel))
    return _kernel_gradient(layer, _given(operands.input), _given(operands.output_gradient))


def magnitude(layer: Layer, pass_: Pass, operands: Operands) -> Float64:
    """Return the sum of the products' absolute values for each element: |x| conv |k| (+ |bias|).

    The shape is that of the result.
    """

    def absolute(array: NDArray[np.floating[Any]] | None) -> NDArray[np.floating[Any]] | None:
        return None if array is None else np.abs(array)

    return expected(
        layer,
        pass_,
        Operands(
            absolute(operands.input),
            absolute(operands.kernel),
            absolute(operands.bias),
            absolute(operands.output_gradient),
        ),
    )


def _given(array: NDArray[np.floating[Any]] | None) -> Float64:
    if array is None:
        raise ValueError("an operand of this pass is missing")
    return array.astype(np.float64)


def _taps(layer: Layer, padded: Float64) -> list[tuple[int, int, Float64]]:
    """Return (p, q, view) for every kernel position: the inputs that it meets.

    A view is (batch, out h, out w, channels).
    """
    out_h, out_w = layer.output_size
    taps = []
    for p in range(layer.kernel_size[0]):
        for q in range(layer.kernel_size[1]):
            rows = np.arange(out_h) * layer.strides[0] + p * layer.dilation_rate[0]
            columns = np.arange(out_w) * layer.strides[1] + q * layer.dilation_rate[1]
            view = padded[
                :,
                rows[0] : rows[-1] + 1 : layer.strides[0],
                columns[0] : columns[-1] + 1 : layer.strides[1],
            ]
            taps.append((p, q, view))
    return taps


def _padded(layer: Layer, x: Float64) -> Float64:
    (top, _), (left, _) = layer.pads
    height, width, channels = layer.input_shape
    padded = np.zeros((len(x), *layer.padded_size, channels))
    padded[:, top : top + height, left : left + width] = x
    return padded


def _split(array: Float64, groups: int) -> Float64:
    """Turn (batch, height, width, channels) into (groups, positions, channels of a group)."""
    return np.ascontiguousarray(
        array.reshape(-1, groups, array.shape[-1] // groups).transpose(1, 0, 2)
    )


def _split_kernel(layer: Layer, kernel: Float64) -> Float64:
    """Turn (kh, kw, in, out) into (kh, kw, groups, channels of a group, filters of a group)."""
    kh, kw, channels, filters = kernel.shape
    split = kernel.reshape(kh, kw, channels, layer.groups, filters // layer.groups)
    return split.transpose(0, 1, 3, 2, 4)


def _merge(array: Float64, shape: tuple[int, ...]) -> Float64:
    """Undo `_split`."""
    return array.transpose(1, 0, 2).reshape(shape)


def _forward(layer: Layer, x: Float64, kernel: Float64) -> Float64:
    split = _split_kernel(layer, kernel)
    shape = layer.result_shape(Pass.FORWARD)
    total = 0.0
    for p, q, met in _taps(layer, _padded(layer, x)):
        total = total + _split(met, layer.groups) @ split[p, q]
    return _merge(np.asarray(total), shape)


def _input_gradient(layer: Layer, error: Float64, kernel: Float64) -> Float64:
    split = _split_kernel(layer, kernel)
    errors = _split(error, layer.groups)
    padded = np.zeros((len(error), *layer.padded_size, layer.channels))
    for p, q, met in _taps(layer, padded):
        met += _merge(errors @ split[p, q].transpose(0, 2, 1), met.shape)
    (top, _), (left, _) = layer.pads
    height, width = layer.input_size
    return padded[:, top : top + height, left : left + width]


def _kernel_gradient(layer: Layer, x: Float64, error: Float64) -> Float64:
    errors = _split(error, layer.groups)
    gradient = np.empty(layer.kernel_shape)
    for p, q, met in _taps(layer, _padded(layer, x)):
        product = _split(met, layer.groups).transpose(0, 2, 1) @ errors
        gradient[p, q] = product.transpose(1, 0, 2).reshape(layer.kernel_shape[2:])
    return gradient
