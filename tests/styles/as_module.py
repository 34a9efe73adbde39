"""Compute the three passes by functions at module level."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def forward(
    x, kernel, bias=None, strides=(1, 1), padding=((0, 0), (0, 0)), dilation_rate=(1, 1), groups=1
):
    """Return the output (batch, filters, out height, out width)."""
    windows = _windows(_pad(x, padding), kernel.shape[2:], strides, dilation_rate)
    parts = [
        np.tensordot(w, k, axes=([1, 4, 5], [1, 2, 3]))
        for w, k in zip(np.split(windows, groups, 1), np.split(kernel, groups), strict=True)
    ]
    out = np.concatenate(parts, axis=-1)
    if bias is not None:
        out += bias
    return np.moveaxis(out, -1, 1)


def input_gradient(
    output_gradient,
    kernel,
    input_shape,
    strides=(1, 1),
    padding=((0, 0), (0, 0)),
    dilation_rate=(1, 1),
    groups=1,
):
    """Add the share of every output position to the window that it was computed from."""
    gradient = np.zeros(input_shape, output_gradient.dtype)
    padded = _pad(gradient, padding)
    kh, kw = kernel.shape[2:]
    per_group, per = input_shape[1] // groups, len(kernel) // groups
    for g in range(groups):
        channels, filters = slice(g * per_group, (g + 1) * per_group), slice(g * per, (g + 1) * per)
        for i, j in np.ndindex(output_gradient.shape[2:]):
            top, left = i * strides[0], j * strides[1]
            rows = slice(top, top + (kh - 1) * dilation_rate[0] + 1, dilation_rate[0])
            columns = slice(left, left + (kw - 1) * dilation_rate[1] + 1, dilation_rate[1])
            share = np.tensordot(output_gradient[:, filters, i, j], kernel[filters], axes=1)
            padded[:, channels, rows, columns] += share
    (top, _), (left, _) = padding
    gradient[...] = padded[:, :, top : top + input_shape[2], left : left + input_shape[3]]
    return gradient


def kernel_gradient(
    x,
    output_gradient,
    kernel_size,
    strides=(1, 1),
    padding=((0, 0), (0, 0)),
    dilation_rate=(1, 1),
    groups=1,
):
    """Sum over the batch and the output positions."""
    windows = _windows(_pad(x, padding), kernel_size, strides, dilation_rate)
    return np.concatenate(
        [
            np.tensordot(e, w, axes=([0, 2, 3], [0, 2, 3]))
            for w, e in zip(
                np.split(windows, groups, 1), np.split(output_gradient, groups, 1), strict=True
            )
        ]
    )


def _pad(x, padding):
    return np.pad(x, ((0, 0), (0, 0), *padding))


def _windows(x, kernel_size, strides, dilation_rate):
    """View x as (batch, channels, out height, out width, kernel height, kernel width)."""
    (kh, kw), (dh, dw) = kernel_size, dilation_rate
    span = (kh - 1) * dh + 1, (kw - 1) * dw + 1
    windows = sliding_window_view(x, span, axis=(2, 3))
    return windows[:, :, :: strides[0], :: strides[1], ::dh, ::dw]
