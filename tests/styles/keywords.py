"""Convolutions of many signatures: ints, strings, keywords only, a dataclass, a decorator."""

from __future__ import annotations  # it makes a dataclass look its module up in sys.modules

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def _einsum(x, kernel):
    windows = sliding_window_view(x, kernel.shape[2:], axis=(2, 3))
    return np.einsum("bchwij,fcij->bfhw", windows, kernel)


def float64_inside(x, kernel):
    """Sum in float64, and return the operands' dtype."""
    return _einsum(x.astype(np.float64), kernel.astype(np.float64)).astype(x.dtype)


def float64_result(x, kernel):
    """Sum in float64, and return float64."""
    return _einsum(np.asarray(x, dtype=float), np.asarray(kernel, dtype=float))


def long_double_inside(x, kernel):
    """Sum in the longest float there is."""
    return _einsum(x.astype(np.longdouble), kernel.astype(np.longdouble)).astype(x.dtype)


def ints(x, kernel, strides=1, padding=0):
    """Take one number for both axes, as courses do."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    batch, _, height, width = x.shape
    filters, _, kh, kw = kernel.shape
    out_h = (height - kh) // strides + 1
    out_w = (width - kw) // strides + 1
    out = np.zeros((batch, filters, out_h, out_w), x.dtype)
    for b in range(batch):
        for f in range(filters):
            for i in range(out_h):
                for j in range(out_w):
                    top, left = i * strides, j * strides
                    out[b, f, i, j] = np.sum(x[b, :, top : top + kh, left : left + kw] * kernel[f])
    return out


def words(x, kernel, strides=(1, 1), padding="valid", dilation_rate=(1, 1)):
    """Take the padding in TensorFlow's words."""
    kh, kw = kernel.shape[2:]
    span = (kh - 1) * dilation_rate[0] + 1, (kw - 1) * dilation_rate[1] + 1
    if padding == "same":
        pads = [(0, 0), (0, 0)]
        for size, step, length in zip(x.shape[2:], strides, span, strict=True):
            total = max((math.ceil(size / step) - 1) * step + length - size, 0)
            pads.append((total // 2, total - total // 2))
        x = np.pad(x, pads)
    elif padding != "valid":
        raise ValueError(f"padding: {padding!r}")
    windows = sliding_window_view(x, span, axis=(2, 3))
    windows = windows[:, :, :: strides[0], :: strides[1], :: dilation_rate[0], :: dilation_rate[1]]
    return np.einsum("bchwij,fcij->bfhw", windows, kernel)


def only_groups(x, kernel, *, groups=1):
    """Take groups by keyword, and nothing else."""
    if groups == 1:
        return _einsum(x, kernel)
    parts = zip(np.split(x, groups, axis=1), np.split(kernel, groups, axis=0), strict=True)
    return np.concatenate([_einsum(part, one) for part, one in parts], axis=1)


def only_bias(x, kernel, bias):
    """Take a bias without a default; it is None when there is none."""
    out = _einsum(x, kernel)
    if bias is not None:
        out += np.reshape(bias, (1, -1, 1, 1))
    return out


def like_torch(x, kernel, bias=None, strides=1, padding=0, dilation_rate=1, groups=1):
    """Take an int or a pair for everything, as torch.nn.functional.conv2d does."""
    (sh, sw), (ph, pw), (dh, dw) = map(_pair, (strides, padding, dilation_rate))
    x = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    filters, per_group, kh, kw = kernel.shape
    windows = sliding_window_view(x, ((kh - 1) * dh + 1, (kw - 1) * dw + 1), axis=(2, 3))
    windows = windows[:, :, ::sh, ::sw, ::dh, ::dw]
    windows = windows.reshape(len(x), groups, per_group, *windows.shape[2:])
    weights = kernel.reshape(groups, filters // groups, per_group, kh, kw)
    out = np.einsum("bgchwij,gfcij->bgfhw", windows, weights)
    out = out.reshape(len(x), filters, *out.shape[3:])
    return out if bias is None else out + bias[:, None, None]


def _pair(value):
    return (value, value) if np.isscalar(value) else tuple(value)


def _counted(function):
    """Count calls, as people's decorators for timing and logs do."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        wrapper.calls += 1
        return function(*args, **kwargs)

    wrapper.calls = 0
    return wrapper


@_counted
def decorated(x, kernel, *, strides=(1, 1)):
    """Convolve behind a decorator, which shows the wrapped function's signature."""
    windows = sliding_window_view(x, kernel.shape[2:], axis=(2, 3))[
        :, :, :: strides[0], :: strides[1]
    ]
    return np.einsum("bchwij,fcij->bfhw", windows, kernel)


@dataclass
class Described:
    """A dataclass whose fields are the keywords; its gradients loop over output positions."""

    filters: int
    kernel_size: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    dilation_rate: tuple[int, int] = (1, 1)
    groups: int = 1

    def forward(self, x, kernel, bias=None):
        x = np.pad(x, ((0, 0), (0, 0), *self.padding))
        span = [(k - 1) * d + 1 for k, d in zip(self.kernel_size, self.dilation_rate, strict=True)]
        out_h = (x.shape[2] - span[0]) // self.strides[0] + 1
        out_w = (x.shape[3] - span[1]) // self.strides[1] + 1
        out = np.empty((len(x), self.filters, out_h, out_w), x.dtype)
        for i, j, channels, filters, rows, columns in self._windows(x.shape[1], out_h, out_w):
            window = x[:, channels, rows, columns]
            out[:, filters, i, j] = np.tensordot(window, kernel[filters], ([1, 2, 3], [1, 2, 3]))
        if bias is not None:
            out = (out.swapaxes(1, 3) + bias).swapaxes(1, 3)
        return out

    def input_gradient(self, output_gradient, kernel, input_shape):
        (top, bottom), (left, right) = self.padding
        batch, channels, height, width = input_shape
        size = height + top + bottom, width + left + right
        padded = np.zeros((batch, channels, *size), kernel.dtype)
        for i, j, c, f, rows, columns in self._windows(channels, *output_gradient.shape[2:]):
            error = output_gradient[:, f, i, j]
            padded[:, c, rows, columns] += np.einsum("bf,fcpq->bcpq", error, kernel[f])
        return padded[:, :, top : size[0] - bottom, left : size[1] - right]

    def kernel_gradient(self, x, output_gradient, kernel_size):
        x = np.pad(x, ((0, 0), (0, 0), *self.padding))
        shape = self.filters, x.shape[1] // self.groups, *self.kernel_size
        gradient = np.zeros(shape, x.dtype)
        for i, j, c, f, rows, columns in self._windows(x.shape[1], *output_gradient.shape[2:]):
            window = x[:, c, rows, columns]
            gradient[f] += np.einsum("bf,bcpq->fcpq", output_gradient[:, f, i, j], window)
        return gradient

    def _windows(self, channels, out_h, out_w):
        per_group, per = channels // self.groups, self.filters // self.groups
        (kh, kw), (sh, sw), (dh, dw) = self.kernel_size, self.strides, self.dilation_rate
        for i, j, g in np.ndindex(out_h, out_w, self.groups):
            yield (
                i,
                j,
                slice(g * per_group, (g + 1) * per_group),
                slice(g * per, (g + 1) * per),
                slice(i * sh, i * sh + (kh - 1) * dh + 1, dh),
                slice(j * sw, j * sw + (kw - 1) * dw + 1, dw),
            )


class Ints:
    """All three passes by loops over images and positions; strides and padding are ints."""

    def forward(self, x, kernel, strides=1, padding=0):
        return ints(x, kernel, strides, padding)

    def input_gradient(self, output_gradient, kernel, input_shape, strides=1, padding=0):
        batch, channels, height, width = input_shape
        shape = batch, channels, height + 2 * padding, width + 2 * padding
        padded = np.zeros(shape, kernel.dtype)
        kh, kw = kernel.shape[2:]
        for b, f, i, j in np.ndindex(output_gradient.shape):
            top, left = i * strides, j * strides
            share = output_gradient[b, f, i, j] * kernel[f]
            padded[b, :, top : top + kh, left : left + kw] += share
        if padding:
            padded = padded[:, :, padding:-padding, padding:-padding]
        return padded

    def kernel_gradient(self, x, output_gradient, kernel_size, strides=1, padding=0):
        x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
        kh, kw = kernel_size
        gradient = np.zeros((output_gradient.shape[1], x.shape[1], kh, kw), x.dtype)
        for b, f, i, j in np.ndindex(output_gradient.shape):
            top, left = i * strides, j * strides
            gradient[f] += x[b, :, top : top + kh, left : left + kw] * output_gradient[b, f, i, j]
        return gradient
