"""Convolutions by views of all windows: sliding_window_view, as_strided, and their products."""

import numpy as np
from numpy.lib.stride_tricks import as_strided, sliding_window_view


def einsum(x, kernel):
    """Convolve by one einsum over the windows."""
    windows = sliding_window_view(x, kernel.shape[2:], axis=(2, 3))
    return np.einsum("bchwij,fcij->bfhw", windows, kernel)


def einsum_optimized(x, kernel):
    """Let einsum choose BLAS; the result is then a transposed view."""
    windows = sliding_window_view(x, kernel.shape[2:], axis=(2, 3))
    return np.einsum("bchwij,fcij->bfhw", windows, kernel, optimize="optimal")


def tensordot(x, kernel):
    """Multiply the windows of as_strided by tensordot."""
    batch, channels, height, width = x.shape
    kh, kw = kernel.shape[2:]
    shape = batch, channels, height - kh + 1, width - kw + 1, kh, kw
    windows = as_strided(x, shape, x.strides + x.strides[2:], writeable=False)
    return np.tensordot(windows, kernel, axes=((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)


def broadcast_matmul(x, kernel):
    """Stack matrices for np.matmul: filters by taps, taps by columns, for every image and row."""
    kh, kw = kernel.shape[2:]
    windows = sliding_window_view(x, (kh, kw), axis=(2, 3))  # b c h w i j
    rows = windows.transpose(0, 2, 1, 4, 5, 3).reshape(
        len(x), windows.shape[2], -1, windows.shape[3]
    )
    product = kernel.reshape(1, 1, len(kernel), -1) @ rows  # b h f w
    return np.swapaxes(product, 1, 2)


def broadcast_sum(x, kernel):
    """Make one huge array of products, and sum it."""
    windows = sliding_window_view(x, kernel.shape[1:], axis=(1, 2, 3))[:, 0]  # b h w c i j
    products = windows[:, None] * kernel[None, :, None, None]
    return products.reshape(*products.shape[:4], -1).sum(-1)


def inner(x, kernel):
    """Call np.inner on flattened windows, and move the axes into place."""
    windows = sliding_window_view(x, kernel.shape[1:], axis=(1, 2, 3))[:, 0]
    flat = windows.reshape(*windows.shape[:3], -1)
    return np.moveaxis(np.inner(flat, kernel.reshape(len(kernel), -1)), -1, 1)


class Einsum:
    """All three passes by einsum over windows; the input gradient is a full correlation."""

    def __init__(self, strides, padding, dilation_rate, groups):
        self.strides = strides
        self.padding = padding
        self.dilation_rate = dilation_rate
        self.groups = groups

    def forward(self, x, kernel, bias=None):
        x = np.pad(x, [(0, 0), (0, 0), *self.padding])
        filters, per_group, *size = kernel.shape
        windows = self._windows(x, size)
        windows = windows.reshape(len(x), self.groups, per_group, *windows.shape[2:])
        kernel = kernel.reshape(self.groups, -1, per_group, *size)
        out = np.einsum("bgchwij,gfcij->bgfhw", windows, kernel)
        out = out.reshape(len(x), filters, *out.shape[3:])
        if bias is not None:
            out += bias[:, None, None]
        return out

    def input_gradient(self, output_gradient, kernel, input_shape):
        batch, _, height, width = input_shape
        filters, per_group, kh, kw = kernel.shape
        (top, bottom), (left, right) = self.padding
        out_h, out_w = output_gradient.shape[2:]
        (sh, sw), (dh, dw) = self.strides, self.dilation_rate
        # Strides put zeros between the errors, and a full correlation needs zeros around them.
        span_h, span_w = (kh - 1) * dh + 1, (kw - 1) * dw + 1
        padded_h, padded_w = height + top + bottom, width + left + right
        spread = np.zeros(
            (batch, filters, padded_h + span_h - 1, padded_w + span_w - 1), output_gradient.dtype
        )
        spread[
            :,
            :,
            span_h - 1 : span_h + (out_h - 1) * sh : sh,
            span_w - 1 : span_w + (out_w - 1) * sw : sw,
        ] = output_gradient
        windows = sliding_window_view(spread, (span_h, span_w), axis=(2, 3))[..., ::dh, ::dw]
        windows = windows[:, :, top : top + height, left : left + width]
        windows = windows.reshape(batch, self.groups, -1, height, width, kh, kw)
        turned = kernel[:, :, ::-1, ::-1].reshape(self.groups, -1, per_group, kh, kw)
        return np.einsum("bgfhwij,gfcij->bgchw", windows, turned).reshape(input_shape)

    def kernel_gradient(self, x, output_gradient, kernel_size):
        x = np.pad(x, [(0, 0), (0, 0), *self.padding])
        batch, filters, out_h, out_w = output_gradient.shape
        windows = self._windows(x, kernel_size)
        windows = windows.reshape(batch, self.groups, -1, *windows.shape[2:])
        errors = output_gradient.reshape(batch, self.groups, -1, out_h, out_w)
        gradient = np.einsum("bgchwij,bgfhw->gfcij", windows, errors)
        return gradient.reshape(filters, -1, *kernel_size)

    def _windows(self, x, size):
        (sh, sw), (dh, dw) = self.strides, self.dilation_rate
        span = (size[0] - 1) * dh + 1, (size[1] - 1) * dw + 1
        return sliding_window_view(x, span, axis=(2, 3))[:, :, ::sh, ::sw, ::dh, ::dw]


class OnlyGradients:
    """Both gradients, without a forward pass and without keywords."""

    def input_gradient(self, output_gradient, kernel, input_shape):
        kh, kw = kernel.shape[2:]
        around = np.pad(output_gradient, ((0, 0), (0, 0), (kh - 1, kh - 1), (kw - 1, kw - 1)))
        windows = sliding_window_view(around, (kh, kw), axis=(2, 3))
        return np.tensordot(windows, kernel[:, :, ::-1, ::-1], ([1, 4, 5], [0, 2, 3])).transpose(
            0, 3, 1, 2
        )

    def kernel_gradient(self, x, output_gradient, kernel_size):
        windows = sliding_window_view(x, output_gradient.shape[2:], axis=(2, 3))
        return np.tensordot(output_gradient, windows, ([0, 2, 3], [0, 4, 5]))
