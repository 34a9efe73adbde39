"""Compute right convolutions in plain NumPy, in parts that the mutants spoil."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

NO_PADS = ((0, 0), (0, 0))


def pad(x, padding):
    """Return x with zeros around its rows and columns."""
    return np.pad(x, ((0, 0), (0, 0), *padding))


def output_size(size, kernel_size, strides=(1, 1), padding=NO_PADS, dilation_rate=(1, 1)):
    """Return the numbers of rows and columns of the output."""
    return tuple(
        (n + sum(pads) - (k - 1) * d - 1) // s + 1
        for n, k, s, pads, d in zip(size, kernel_size, strides, padding, dilation_rate, strict=True)
    )


def windows(x, kernel_size, strides=(1, 1), dilation_rate=(1, 1)):
    """View padded x as (batch, channels, out height, out width, kernel height, kernel width)."""
    (kh, kw), (sh, sw), (dh, dw) = kernel_size, strides, dilation_rate
    view = sliding_window_view(x, ((kh - 1) * dh + 1, (kw - 1) * dw + 1), axis=(2, 3))
    return view[:, :, ::sh, ::sw, ::dh, ::dw]


def taps(kernel_size, strides, out_size, dilation_rate):
    """Yield (p, q, rows, columns): slices of the padded input that tap (p, q) touches."""
    (kh, kw), (sh, sw), (oh, ow), (dh, dw) = kernel_size, strides, out_size, dilation_rate
    for p in range(kh):
        for q in range(kw):
            rows = slice(p * dh, p * dh + sh * (oh - 1) + 1, sh)
            columns = slice(q * dw, q * dw + sw * (ow - 1) + 1, sw)
            yield p, q, rows, columns


def forward(x, kernel, bias=None, strides=(1, 1), padding=NO_PADS, dilation_rate=(1, 1), groups=1):
    """Return the output (batch, filters, out height, out width)."""
    view = windows(pad(x, padding), kernel.shape[2:], strides, dilation_rate)
    n, c, oh, ow, kh, kw = view.shape
    grouped = view.reshape(n, groups, c // groups, oh, ow, kh, kw)
    kernels = kernel.reshape(groups, -1, *kernel.shape[1:])
    out = np.einsum("ngcijkl,gfckl->ngfij", grouped, kernels).reshape(n, -1, oh, ow)
    return out if bias is None else out + bias[:, None, None]


def input_gradient(
    output_gradient,
    kernel,
    input_shape,
    strides=(1, 1),
    padding=NO_PADS,
    dilation_rate=(1, 1),
    groups=1,
):
    """Return the gradient of x, in its shape."""
    n, c, h, w = input_shape
    (top, bottom), (left, right) = padding
    oh, ow = output_gradient.shape[2:]
    gradients = output_gradient.reshape(n, groups, -1, oh, ow)
    kernels = kernel.reshape(groups, -1, *kernel.shape[1:])
    padded = np.zeros((n, c, h + top + bottom, w + left + right), output_gradient.dtype)
    for p, q, rows, columns in taps(kernel.shape[2:], strides, (oh, ow), dilation_rate):
        part = np.einsum("ngfij,gfc->ngcij", gradients, kernels[..., p, q])
        padded[:, :, rows, columns] += part.reshape(n, c, oh, ow)
    return padded[:, :, top : top + h, left : left + w]


def kernel_gradient(
    x,
    output_gradient,
    kernel_size,
    strides=(1, 1),
    padding=NO_PADS,
    dilation_rate=(1, 1),
    groups=1,
):
    """Return the gradient of the kernel, summed over the batch."""
    n, f, oh, ow = output_gradient.shape
    view = windows(pad(x, padding), kernel_size, strides, dilation_rate)
    grouped = view.reshape(n, groups, -1, oh, ow, *kernel_size)
    gradients = output_gradient.reshape(n, groups, f // groups, oh, ow)
    result = np.einsum("ngcijkl,ngfij->gfckl", grouped, gradients)
    return result.reshape(f, -1, *kernel_size)
