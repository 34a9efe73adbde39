"""Convolutions by Python loops: over scalars, output or kernel positions, backwards, generators."""

import math
from itertools import product

import numpy as np


def scalar(x, kernel):
    """Run seven loops, with one product at a time."""
    batch, channels, height, width = x.shape
    filters, _, kernel_h, kernel_w = kernel.shape
    out_h = height - kernel_h + 1
    out_w = width - kernel_w + 1
    out = np.zeros((batch, filters, out_h, out_w), dtype=x.dtype)
    for b in range(batch):
        for f in range(filters):
            for i in range(out_h):
                for j in range(out_w):
                    total = 0.0
                    for c in range(channels):
                        for p in range(kernel_h):
                            for q in range(kernel_w):
                                total += x[b, c, i + p, j + q] * kernel[f, c, p, q]
                    out[b, f, i, j] = total
    return out


def output_positions(x, kernel):
    """Take one window at a time, for all images and filters at once."""
    kh, kw = kernel.shape[2:]
    out_h, out_w = x.shape[2] - kh + 1, x.shape[3] - kw + 1
    out = np.empty((len(x), len(kernel), out_h, out_w), x.dtype)
    for i in range(out_h):
        for j in range(out_w):
            window = x[:, np.newaxis, :, i : i + kh, j : j + kw]
            out[:, :, i, j] = (window * kernel).sum(axis=(2, 3, 4))
    return out


def kernel_positions(x, kernel):
    """Take one tap of the kernel at a time, for the whole picture."""
    kh, kw = kernel.shape[2:]
    out_h, out_w = x.shape[2] - kh + 1, x.shape[3] - kw + 1
    out = np.zeros((len(x), len(kernel), out_h, out_w), x.dtype)
    for p, q in np.ndindex(kh, kw):
        out += np.einsum("bchw,fc->bfhw", x[:, :, p : p + out_h, q : q + out_w], kernel[:, :, p, q])
    return out


def backwards(x, kernel):
    """Sum from the last channel and tap to the first."""
    filters, channels, kh, kw = kernel.shape
    out_h, out_w = x.shape[2] - kh + 1, x.shape[3] - kw + 1
    out = 0
    for c in reversed(range(channels)):
        for p in range(kh - 1, -1, -1):
            for q in range(kw - 1, -1, -1):
                met = x[:, c, p : p + out_h, q : q + out_w]
                out = out + met[:, None] * kernel[:, c, p, q].reshape(1, filters, 1, 1)
    return out


def kahan(x, kernel):
    """Sum with Kahan's compensation."""
    filters, channels, kh, kw = kernel.shape
    out_h, out_w = x.shape[2] - kh + 1, x.shape[3] - kw + 1
    total = np.zeros((len(x), filters, out_h, out_w), x.dtype)
    lost = np.zeros_like(total)
    for c, p, q in product(range(channels), range(kh), range(kw)):
        met = x[:, c, p : p + out_h, q : q + out_w]
        term = met[:, None] * kernel[None, :, c, p, q, None, None] - lost
        new = total + term
        lost = (new - total) - term
        total = new
    return total


def generators(x, kernel):
    """Sum generators with math.fsum."""
    filters, channels, kh, kw = kernel.shape
    shape = (len(x), filters, x.shape[2] - kh + 1, x.shape[3] - kw + 1)

    def products(b, f, i, j):
        for c, p, q in np.ndindex(channels, kh, kw):
            yield float(x[b, c, i + p, j + q]) * float(kernel[f, c, p, q])

    sums = (math.fsum(products(*index)) for index in np.ndindex(shape))
    return np.fromiter(sums, dtype=x.dtype).reshape(shape)


def vectorized(x, kernel):
    """Use np.vectorize over the indices of the output."""
    kh, kw = kernel.shape[2:]
    shape = (len(x), len(kernel), x.shape[2] - kh + 1, x.shape[3] - kw + 1)

    def one(b, f, i, j):
        return np.vdot(x[b, :, i : i + kh, j : j + kw], kernel[f])

    return np.vectorize(one, otypes=[x.dtype])(*np.indices(shape))


def nested_lists(x, kernel):
    """Compute in lists of Python floats, and make an array at the end, which is float64."""
    kh, kw = kernel.shape[2:]
    images, filters = x.tolist(), kernel.tolist()
    out_h, out_w = x.shape[2] - kh + 1, x.shape[3] - kw + 1
    return np.array(
        [
            [
                [
                    [
                        sum(
                            plane[i + p][j + q] * taps[p][q]
                            for plane, taps in zip(image, one, strict=True)
                            for p in range(kh)
                            for q in range(kw)
                        )
                        for j in range(out_w)
                    ]
                    for i in range(out_h)
                ]
                for one in filters
            ]
            for image in images
        ]
    )


class Scalar:
    """All three passes by loops over scalars, with a test for the border in place of pads."""

    def _taps(self, output, channels, filters, kernel_size, size, options):
        """Yield filter, channel, channel of the group, output and kernel position, row, column."""
        strides, padding, dilation_rate, groups = options
        per_group, filters_per_group = channels // groups, filters // groups
        for f in range(filters):
            first = f // filters_per_group * per_group
            for i, j in np.ndindex(*output):
                for p, q in np.ndindex(*kernel_size):
                    row = i * strides[0] + p * dilation_rate[0] - padding[0][0]
                    column = j * strides[1] + q * dilation_rate[1] - padding[1][0]
                    if 0 <= row < size[0] and 0 <= column < size[1]:
                        for c in range(per_group):
                            yield f, first + c, c, i, j, p, q, row, column

    def forward(self, x, kernel, bias=None, *, strides, padding, dilation_rate, groups):
        batch, channels, height, width = x.shape
        filters, _, kh, kw = kernel.shape
        (top, bottom), (left, right) = padding
        out_h = (height + top + bottom - (kh - 1) * dilation_rate[0] - 1) // strides[0] + 1
        out_w = (width + left + right - (kw - 1) * dilation_rate[1] - 1) // strides[1] + 1
        out = np.zeros((batch, filters, out_h, out_w), x.dtype)
        options = strides, padding, dilation_rate, groups
        taps = self._taps((out_h, out_w), channels, filters, (kh, kw), (height, width), options)
        for f, c, of_group, i, j, p, q, row, column in taps:
            for b in range(batch):
                out[b, f, i, j] += x[b, c, row, column] * kernel[f, of_group, p, q]
        if bias is not None:
            for f in range(filters):
                out[:, f] += bias[f]
        return out

    def input_gradient(
        self, output_gradient, kernel, input_shape, *, strides, padding, dilation_rate, groups
    ):
        batch, filters, *output = output_gradient.shape
        _, channels, *size = input_shape
        gradient = np.zeros(input_shape, output_gradient.dtype)
        options = strides, padding, dilation_rate, groups
        taps = self._taps(output, channels, filters, kernel.shape[2:], size, options)
        for f, c, of_group, i, j, p, q, row, column in taps:
            for b in range(batch):
                share = output_gradient[b, f, i, j] * kernel[f, of_group, p, q]
                gradient[b, c, row, column] += share
        return gradient

    def kernel_gradient(
        self, x, output_gradient, kernel_size, *, strides, padding, dilation_rate, groups
    ):
        batch, filters, *output = output_gradient.shape
        channels, size = x.shape[1], x.shape[2:]
        gradient = np.zeros((filters, channels // groups, *kernel_size), x.dtype)
        options = strides, padding, dilation_rate, groups
        taps = self._taps(output, channels, filters, kernel_size, size, options)
        for f, c, of_group, i, j, p, q, row, column in taps:
            for b in range(batch):
                gradient[f, of_group, p, q] += x[b, c, row, column] * output_gradient[b, f, i, j]
        return gradient


class KernelPositions:
    """All three passes by slices of a padded input, one tap at a time; groups are an axis."""

    @staticmethod
    def forward(
        x,
        kernel,
        bias=None,
        strides=(1, 1),
        padding=((0, 0), (0, 0)),
        dilation_rate=(1, 1),
        groups=1,
    ):
        padded = np.pad(x, ((0, 0), (0, 0), *padding))
        filters, per_group, kh, kw = kernel.shape
        out_h = (padded.shape[2] - (kh - 1) * dilation_rate[0] - 1) // strides[0] + 1
        out_w = (padded.shape[3] - (kw - 1) * dilation_rate[1] - 1) // strides[1] + 1
        padded = padded.reshape(len(x), groups, per_group, *padded.shape[2:])
        kernel = kernel.reshape(groups, filters // groups, per_group, kh, kw)
        out = np.zeros((len(x), groups, filters // groups, out_h, out_w), x.dtype)
        for p in range(kh):
            for q in range(kw):
                met = _met(padded, p, q, out_h, out_w, strides, dilation_rate)
                out += np.einsum("bgchw,gfc->bgfhw", met, kernel[..., p, q])
        out = out.reshape(len(x), filters, out_h, out_w)
        return out if bias is None else out + bias.reshape(1, filters, 1, 1)

    @staticmethod
    def input_gradient(
        output_gradient,
        kernel,
        input_shape,
        strides=(1, 1),
        padding=((0, 0), (0, 0)),
        dilation_rate=(1, 1),
        groups=1,
    ):
        batch, channels, height, width = input_shape
        (top, bottom), (left, right) = padding
        filters, per_group, kh, kw = kernel.shape
        out_h, out_w = output_gradient.shape[2:]
        error = output_gradient.reshape(batch, groups, filters // groups, out_h, out_w)
        kernel = kernel.reshape(groups, filters // groups, per_group, kh, kw)
        size = height + top + bottom, width + left + right
        gradient = np.zeros((batch, groups, per_group, *size), error.dtype)
        for p in range(kh):
            for q in range(kw):
                met = _met(gradient, p, q, out_h, out_w, strides, dilation_rate)
                met += np.einsum("bgfhw,gfc->bgchw", error, kernel[..., p, q])
        gradient = gradient.reshape(batch, channels, *size)
        return gradient[:, :, top : top + height, left : left + width]

    @staticmethod
    def kernel_gradient(
        x,
        output_gradient,
        kernel_size,
        strides=(1, 1),
        padding=((0, 0), (0, 0)),
        dilation_rate=(1, 1),
        groups=1,
    ):
        padded = np.pad(x, ((0, 0), (0, 0), *padding))
        batch, filters, out_h, out_w = output_gradient.shape
        per_group = x.shape[1] // groups
        padded = padded.reshape(batch, groups, per_group, *padded.shape[2:])
        error = output_gradient.reshape(batch, groups, filters // groups, out_h, out_w)
        gradient = np.empty((groups, filters // groups, per_group, *kernel_size), x.dtype)
        for p, q in np.ndindex(*kernel_size):
            met = _met(padded, p, q, out_h, out_w, strides, dilation_rate)
            gradient[..., p, q] = np.einsum("bgchw,bgfhw->gfc", met, error)
        return gradient.reshape(filters, per_group, *kernel_size)


def _met(array, p, q, out_h, out_w, strides, dilation_rate):
    """Return the part of `array` that tap (p, q) meets."""
    top, left = p * dilation_rate[0], q * dilation_rate[1]
    return array[
        ...,
        top : top + (out_h - 1) * strides[0] + 1 : strides[0],
        left : left + (out_w - 1) * strides[1] + 1 : strides[1],
    ]
