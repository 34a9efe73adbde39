"""loop: compute the convolution that people write first, the yardstick for the others.

A Python loop runs over the output positions, or in the kernel gradient over the kernel positions.
Each step multiplies a window by the kernel and sums, for the whole batch. The layout is NCHW, and
kernels are (filters, channels of a group, height, width). An input without a channel axis, (batch,
height, width), has one channel. The code stays as people write it: correct, and not made faster.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.implementations.contract import Implementation, Ledger
from convbench.problem.layer import Layer, Pass
from convbench.problem.operands import Operands
from convbench.problem.unsupported import Unsupported
from convbench.runtimes.numpy import NumPy

Array = NDArray[np.floating[Any]]


def forward(x: Array, kernel: Array, layer: Layer, bias: Array | None = None) -> Array:
    """Return the output, (batch, filters, output height, output width).

    `x` is (batch, channels, height, width).
    """
    x = _pad(x, layer)
    out_h, out_w = layer.output_size
    output = np.zeros((len(x), layer.filters, out_h, out_w), x.dtype)
    for channels, filters in _groups(layer):
        for i in range(out_h):
            for j in range(out_w):
                window = x[:, channels, *_window(layer, i, j)]
                output[:, filters, i, j] = np.sum(
                    window[:, None] * kernel[None, filters], axis=(2, 3, 4)
                )
    if bias is not None:
        output += bias[:, None, None]
    return output


def input_gradient(output_gradient: Array, kernel: Array, layer: Layer) -> Array:
    """Return the gradient to the input, (batch, channels, height, width).

    `output_gradient` is (batch, filters, output height, output width). Every output position adds
    its share to the window that it was computed from.
    """
    out_h, out_w = layer.output_size
    batch = len(output_gradient)
    gradient = np.zeros((batch, layer.channels, *layer.padded_size), output_gradient.dtype)
    for channels, filters in _groups(layer):
        for i in range(out_h):
            for j in range(out_w):
                error = output_gradient[:, filters, i, j]
                gradient[:, channels, *_window(layer, i, j)] += np.sum(
                    error[:, :, None, None, None] * kernel[None, filters], axis=1
                )
    (top, _), (left, _) = layer.pads
    height, width = layer.input_size
    return gradient[:, :, top : top + height, left : left + width]


def kernel_gradient(x: Array, output_gradient: Array, layer: Layer) -> Array:
    """Return the gradient to the kernel, (filters, channels of a group, height, width).

    Every kernel position multiplies the inputs that it met by the output gradient. Nothing is
    flipped, since the forward pass is a cross-correlation.
    """
    x = _pad(x, layer)
    (kernel_h, kernel_w), (out_h, out_w) = layer.kernel_size, layer.output_size
    (stride_h, stride_w), (dilation_h, dilation_w) = layer.strides, layer.dilation_rate
    per_group = layer.channels // layer.groups
    gradient = np.zeros((layer.filters, per_group, kernel_h, kernel_w), x.dtype)
    for channels, filters in _groups(layer):
        for p in range(kernel_h):
            for q in range(kernel_w):
                top, left = p * dilation_h, q * dilation_w
                met = x[
                    :,
                    channels,
                    top : top + out_h * stride_h : stride_h,
                    left : left + out_w * stride_w : stride_w,
                ][:, :, :out_h, :out_w]
                gradient[filters, :, p, q] = np.sum(
                    output_gradient[:, filters, None] * met[:, None], axis=(0, 3, 4)
                )
    return gradient


def _pad(x: Array, layer: Layer) -> Array:
    if x.ndim == 3:
        x = x[:, None]
    if layer.pads == ((0, 0), (0, 0)):
        return x
    return np.pad(x, ((0, 0), (0, 0), *layer.pads))


def _window(layer: Layer, i: int, j: int) -> tuple[slice, slice]:
    """Return the rows and columns of the padded input under output position (i, j)."""
    (stride_h, stride_w), (span_h, span_w) = layer.strides, layer.effective_kernel_size
    dilation_h, dilation_w = layer.dilation_rate
    top, left = i * stride_h, j * stride_w
    return slice(top, top + span_h, dilation_h), slice(left, left + span_w, dilation_w)


def _groups(layer: Layer) -> list[tuple[slice, slice]]:
    channels, filters = layer.channels // layer.groups, layer.filters // layer.groups
    return [
        (slice(g * channels, (g + 1) * channels), slice(g * filters, (g + 1) * filters))
        for g in range(layer.groups)
    ]


class Loop(Implementation):
    name = "loop"
    runtime = NumPy()

    def unsupported(self, layer: Layer, pass_: Pass) -> Unsupported | None:
        return None

    def exact(self, layer: Layer, pass_: Pass) -> bool:
        return True

    def workspace_bytes(self, layer: Layer, pass_: Pass, threads: int) -> int:
        """Count the padded copy and the product of one window or of one kernel position."""
        padded = layer.batch_size * layer.channels * math.prod(layer.padded_size)
        if layer.pads == ((0, 0), (0, 0)):
            padded = 0
        per_group = layer.channels * layer.filters // layer.groups**2
        positions = layer.output_size if pass_ is Pass.KERNEL_GRADIENT else layer.kernel_size
        product = layer.batch_size * per_group * math.prod(positions)
        return (padded + product) * layer.itemsize

    def prepare(self, layer: Layer, pass_: Pass, threads: int) -> PreparedLoop:
        return PreparedLoop(layer, pass_)


class PreparedLoop:
    """The operands in NCHW. Every call allocates everything else, as people's own code does."""

    buffers: tuple[Array, ...] = ()

    def __init__(self, layer: Layer, pass_: Pass) -> None:
        self._layer = layer
        self._pass = pass_
        is_padded = layer.pads != ((0, 0), (0, 0))
        before, sums, after = {
            Pass.FORWARD: (("pad the input",), "multiply windows by the kernel and sum", ()),
            Pass.INPUT_GRADIENT: (
                (),
                "multiply errors by the kernel, add into windows",
                ("cut the pads",),
            ),
            Pass.KERNEL_GRADIENT: (("pad the input",), "multiply inputs by errors and sum", ()),
        }[pass_]
        inside = (*before, sums, *after) if is_padded else (sums,)
        if layer.use_bias and pass_ is Pass.FORWARD:
            inside += ("add the bias",)
        self.ledger = Ledger(inside, ("copy of the operands into NCHW",))

    def load(self, operands: Operands) -> None:
        self._x = _nchw(operands.input)
        self._error = _nchw(operands.output_gradient)
        self._kernel = None if operands.kernel is None else _oihw(operands.kernel)
        self._bias = None if operands.bias is None else operands.bias.copy()

    def run(self) -> object:
        x, kernel, error = self._x, self._kernel, self._error
        if self._pass is Pass.FORWARD and x is not None and kernel is not None:
            return forward(x, kernel, self._layer, self._bias)
        if self._pass is Pass.INPUT_GRADIENT and error is not None and kernel is not None:
            return input_gradient(error, kernel, self._layer)
        if x is not None and error is not None:
            return kernel_gradient(x, error, self._layer)
        raise ValueError(f"load the operands of the {self._pass} pass before run")

    def to_numpy(self, result: object) -> Array:
        array = np.asarray(result)
        axes = (2, 3, 1, 0) if self._pass is Pass.KERNEL_GRADIENT else (0, 2, 3, 1)
        return array.transpose(axes)


def _nchw(array: Array | None) -> Array | None:
    return None if array is None else np.ascontiguousarray(array.transpose(0, 3, 1, 2))


def _oihw(kernel: Array) -> Array:
    return np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
