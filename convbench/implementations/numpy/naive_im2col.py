"""naive-im2col: build the whole column matrix in one go, as tutorials do.

This version is for teaching, and shows how much memory the method takes. It computes at once what
`im2col` computes in blocks, and allocates everything anew at every call. The layout is NHWC. A row
of the matrix is one window, and a column is one (group, kernel row, kernel column, channel of the
group).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from convbench.implementations.contract import Implementation, Ledger
from convbench.problem.layer import Layer, Pass
from convbench.problem.operands import Operands
from convbench.problem.unsupported import Unsupported
from convbench.runtimes.numpy import NumPy

Array = NDArray[Any]


def forward(x: Array, kernel: Array, layer: Layer, bias: Array | None = None) -> Array:
    """Return the output, (batch, output height, output width, filters).

    `x` is (batch, height, width, channels), and `kernel` is (kernel height, kernel width, channels
    of a group, filters).
    """
    output = columns(x, layer) @ _by_group(kernel, layer)
    output = _interleaved(output, (len(x), *layer.output_shape))
    return output if bias is None else output + bias


def input_gradient(output_gradient: Array, kernel: Array, layer: Layer) -> Array:
    """Return the gradient to the input, (batch, height, width, channels), by col2im."""
    matrix = _by_group(output_gradient, layer) @ _by_group(kernel, layer).transpose(0, 2, 1)
    padded = np.zeros(
        (len(output_gradient), *layer.padded_size, layer.channels), output_gradient.dtype
    )
    windows = _windows(padded, layer, writeable=True)
    parts = matrix.reshape(windows.shape)
    for p, q in np.ndindex(layer.kernel_size):  # the windows of one kernel position never overlap
        windows[..., p, q, :] += parts[..., p, q, :]
    (top, _), (left, _) = layer.pads
    height, width = layer.input_size
    return padded[:, top : top + height, left : left + width]


def kernel_gradient(x: Array, output_gradient: Array, layer: Layer) -> Array:
    """Return the gradient to the kernel, (height, width, channels of a group, filters)."""
    gradient = columns(x, layer).transpose(0, 2, 1) @ _by_group(output_gradient, layer)
    return _interleaved(gradient, layer.kernel_shape)


def columns(x: Array, layer: Layer) -> Array:
    """Return the columns of `x`.

    The matrix is (groups, batch * output positions, kernel positions * channels of a group).
    """
    windows = _windows(np.pad(x, ((0, 0), *layer.pads, (0, 0))), layer)
    return windows.reshape(layer.groups, -1, math.prod(windows.shape[4:]))


def _windows(padded: Array, layer: Layer, writeable: bool = False) -> Array:
    """Return the windows as a view.

    It is (groups, batch, output height, output width, kh, kw, channels of a group).
    """
    (stride_h, stride_w), (dilation_h, dilation_w) = layer.strides, layer.dilation_rate
    grouped = padded.reshape(*padded.shape[:3], layer.groups, -1)
    span = layer.effective_kernel_size
    windows = sliding_window_view(grouped, span, axis=(1, 2), writeable=writeable)
    met = windows[:, ::stride_h, ::stride_w, ..., ::dilation_h, ::dilation_w]
    return met.transpose(3, 0, 1, 2, 5, 6, 4)


def _by_group(array: Array, layer: Layer) -> Array:
    """Return a view (groups, rows, filters of a group) of an array whose last axis is filters."""
    return array.reshape(-1, layer.groups, layer.filters // layer.groups).transpose(1, 0, 2)


def _interleaved(product: Array, shape: tuple[int, ...]) -> Array:
    """Put the groups of (groups, rows, filters of a group) side by side, by a copy if needed."""
    return product.transpose(1, 0, 2).reshape(shape)


class NaiveIm2col(Implementation):
    name = "naive-im2col"
    runtime = NumPy()

    def unsupported(self, layer: Layer, pass_: Pass) -> Unsupported | None:
        return None

    def exact(self, layer: Layer, pass_: Pass) -> bool:
        return True

    def workspace_bytes(self, layer: Layer, pass_: Pass, threads: int) -> int:
        """Count the whole matrix, together with the padded images or with the result.

        That is too much for 1x1 kernels, whose matrix is a view of the padded images.
        """
        padded = layer.batch_size * math.prod(layer.padded_size) * layer.channels * layer.itemsize
        result = layer.result_bytes(pass_)
        gathered = layer.columns_bytes + padded - result  # the result is not there yet
        if pass_ is Pass.INPUT_GRADIENT:  # the result is a view of the padded images
            return gathered
        copied = layer.groups > 1 or (layer.use_bias and pass_ is Pass.FORWARD)
        return max(gathered, layer.columns_bytes, result if copied else 0)

    def prepare(self, layer: Layer, pass_: Pass, threads: int) -> PreparedNaiveIm2col:
        return PreparedNaiveIm2col(layer, pass_)


class PreparedNaiveIm2col:
    buffers: tuple[Array, ...] = ()

    def __init__(self, layer: Layer, pass_: Pass) -> None:
        self._layer, self._pass = layer, pass_
        bias = ("add the bias",) if layer.use_bias else ()
        steps = {
            Pass.FORWARD: ("pad the input", "gather all columns", "matrix product", *bias),
            Pass.INPUT_GRADIENT: (
                "matrix product into all columns",
                "add the columns into the windows",
                "cut the pads",
            ),
            Pass.KERNEL_GRADIENT: ("pad the input", "gather all columns", "matrix product"),
        }
        self.ledger = Ledger(steps[pass_], ("copy of the operands into NHWC",))

    def load(self, operands: Operands) -> None:
        given = operands.input, operands.kernel, operands.bias, operands.output_gradient
        copies: list[Any] = [None if array is None else array.copy() for array in given]
        self._x, self._kernel, self._bias, self._error = copies

    def run(self) -> Array:
        if self._pass is Pass.FORWARD:
            return forward(self._x, self._kernel, self._layer, self._bias)
        if self._pass is Pass.INPUT_GRADIENT:
            return input_gradient(self._error, self._kernel, self._layer)
        return kernel_gradient(self._x, self._error, self._layer)

    def to_numpy(self, result: object) -> Array:
        return np.asarray(result)
