"""Convolutions in other layouts than NCHW, with results that are views or read-only."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def channels_last(x, kernel):
    """Take NHWC and HWIO, and make one product for each kernel position."""
    kh, kw = kernel.shape[:2]
    out_h, out_w = x.shape[1] - kh + 1, x.shape[2] - kw + 1
    out = 0
    for p in range(kh):
        for q in range(kw):
            out = out + x[:, p : p + out_h, q : q + out_w] @ kernel[p, q]
    return out


channels_last.layout = "NHWC"
channels_last.kernel_layout = "HWIO"


def batch_last(x, kernel):
    """Take CHWN with IHWO kernels, as cuda-convnet did."""
    kh, kw = kernel.shape[1:3]
    windows = sliding_window_view(x, (kh, kw), axis=(1, 2))
    return np.einsum("chwnij,cijf->fhwn", windows, kernel)


batch_last.layout = "CHWN"
batch_last.kernel_layout = "IHWO"


def columns_first(x, kernel):
    """Take WHCN with WHIO kernels, as Julia does; return Fortran order."""
    kw, kh = kernel.shape[:2]
    out = np.zeros(
        (x.shape[0] - kw + 1, x.shape[1] - kh + 1, kernel.shape[3], x.shape[3]), x.dtype, order="F"
    )
    for j in range(out.shape[0]):
        for i in range(out.shape[1]):
            out[j, i] = np.tensordot(kernel, x[j : j + kw, i : i + kh], ([0, 1, 2], [0, 1, 2]))
    return out


columns_first.layout = "WHCN"
columns_first.kernel_layout = "WHIO"


def mixed(x, kernel):
    """Take NCHW with HWIO kernels; return NHWC."""
    windows = sliding_window_view(x, kernel.shape[:2], axis=(2, 3))
    return np.tensordot(windows, kernel, axes=([4, 5, 1], [0, 1, 2]))


mixed.layout = "NCHW"
mixed.output_layout = "NHWC"
mixed.kernel_layout = "HWIO"


def pictures(x, kernel):
    """Take pictures without a channel axis; the output has one for the filters."""
    kh, kw = kernel.shape[1:]
    batch, height, width = x.shape
    out = np.zeros((batch, len(kernel), height - kh + 1, width - kw + 1), x.dtype)
    for f, taps in enumerate(kernel):
        for i, j in np.ndindex(out.shape[2:]):
            out[:, f, i, j] = np.sum(x[:, i : i + kh, j : j + kw] * taps, axis=(1, 2))
    return out


pictures.layout = "NHW"
pictures.kernel_layout = "OHW"


def fortran_order(x, kernel):
    """Return a result in Fortran order."""
    windows = sliding_window_view(x, kernel.shape[2:], axis=(2, 3))
    return np.asfortranarray(np.einsum("bchwij,fcij->bfhw", windows, kernel))


def corner_of_larger(x, kernel):
    """Return a view of a larger array whose other elements are NaN."""
    kh, kw = kernel.shape[2:]
    out_h, out_w = x.shape[2] - kh + 1, x.shape[3] - kw + 1
    large = np.full((len(x), len(kernel), *x.shape[2:]), np.nan, x.dtype)
    windows = sliding_window_view(x, (kh, kw), axis=(2, 3))
    large[:, :, :out_h, :out_w] = np.einsum("bchwij,fcij->bfhw", windows, kernel)
    return large[:, :, :out_h, :out_w]


def turned_view(x, kernel):
    """Compute upside down, and turn the result by a view with negative strides."""
    windows = sliding_window_view(x[:, :, ::-1, ::-1], kernel.shape[2:], axis=(2, 3))
    out = np.einsum("bchwij,fcij->bfhw", windows, kernel[:, :, ::-1, ::-1])
    return out[:, :, ::-1, ::-1]


def read_only(x, kernel):
    """Return a result that nobody may write to."""
    windows = sliding_window_view(x, kernel.shape[2:], axis=(2, 3))
    out = np.einsum("bchwij,fcij->bfhw", windows, kernel)
    out.flags.writeable = False
    return out


class ChannelsLast:
    """All three passes in NHWC and HWIO, one product for each group and kernel position."""

    layout = "NHWC"
    kernel_layout = "HWIO"

    def forward(
        self,
        x,
        kernel,
        bias=None,
        strides=(1, 1),
        padding=((0, 0), (0, 0)),
        dilation_rate=(1, 1),
        groups=1,
    ):
        x = np.pad(x, ((0, 0), *padding, (0, 0)))
        kh, kw, _, filters = kernel.shape
        out_h = (x.shape[1] - (kh - 1) * dilation_rate[0] - 1) // strides[0] + 1
        out_w = (x.shape[2] - (kw - 1) * dilation_rate[1] - 1) // strides[1] + 1
        out = np.zeros((len(x), out_h, out_w, filters), x.dtype)
        for p, q, met in _taps(x, kernel.shape[:2], (out_h, out_w), strides, dilation_rate):
            for c, f in _groups(x.shape[-1], filters, groups):
                out[..., f] += met[..., c] @ kernel[p, q, :, f]
        return out if bias is None else out + bias

    def input_gradient(
        self,
        output_gradient,
        kernel,
        input_shape,
        strides=(1, 1),
        padding=((0, 0), (0, 0)),
        dilation_rate=(1, 1),
        groups=1,
    ):
        batch, height, width, channels = input_shape
        (top, bottom), (left, right) = padding
        padded = np.zeros(
            (batch, top + height + bottom, left + width + right, channels), output_gradient.dtype
        )
        _, *output, filters = output_gradient.shape
        for p, q, met in _taps(padded, kernel.shape[:2], output, strides, dilation_rate):
            for c, f in _groups(channels, filters, groups):
                met[..., c] += output_gradient[..., f] @ kernel[p, q, :, f].T
        return padded[:, top : top + height, left : left + width]

    def kernel_gradient(
        self,
        x,
        output_gradient,
        kernel_size,
        strides=(1, 1),
        padding=((0, 0), (0, 0)),
        dilation_rate=(1, 1),
        groups=1,
    ):
        x = np.pad(x, ((0, 0), *padding, (0, 0)))
        _, *output, filters = output_gradient.shape
        gradient = np.zeros((*kernel_size, x.shape[-1] // groups, filters), x.dtype)
        for p, q, met in _taps(x, kernel_size, output, strides, dilation_rate):
            for c, f in _groups(x.shape[-1], filters, groups):
                axes = ([0, 1, 2], [0, 1, 2])
                gradient[p, q, :, f] = np.tensordot(met[..., c], output_gradient[..., f], axes)
        return gradient


class BatchLast:
    """All three passes in CHWN with OHWI kernels, with strides as the only parameter."""

    layout = "CHWN"
    kernel_layout = "OHWI"

    def __init__(self, strides):
        self.strides = strides

    def _taps(self, x, kernel_size, output):
        for p, q in np.ndindex(*kernel_size):
            (sh, sw), (out_h, out_w) = self.strides, output
            rows = slice(p, p + (out_h - 1) * sh + 1, sh)
            yield p, q, x[:, rows, q : q + (out_w - 1) * sw + 1 : sw]

    def forward(self, x, kernel):
        filters, kh, kw, _ = kernel.shape
        output = (x.shape[1] - kh) // self.strides[0] + 1, (x.shape[2] - kw) // self.strides[1] + 1
        out = np.zeros((filters, *output, x.shape[3]), x.dtype)
        for p, q, met in self._taps(x, (kh, kw), output):
            out += np.tensordot(kernel[:, p, q], met, axes=1)
        return out

    def input_gradient(self, output_gradient, kernel, input_shape):
        gradient = np.zeros(input_shape, output_gradient.dtype)
        for p, q, met in self._taps(gradient, kernel.shape[1:3], output_gradient.shape[1:3]):
            met += np.tensordot(kernel[:, p, q].T, output_gradient, axes=1)
        return gradient

    def kernel_gradient(self, x, output_gradient, kernel_size):
        gradient = np.zeros((len(output_gradient), *kernel_size, len(x)), x.dtype)
        for p, q, met in self._taps(x, kernel_size, output_gradient.shape[1:3]):
            gradient[:, p, q] = np.einsum("fhwn,chwn->fc", output_gradient, met)
        return gradient


class Pictures:
    """All three passes for one channel without an axis, as in courses: input NHW, kernels OHW."""

    layout = "NHW"
    kernel_layout = "OHW"

    def forward(self, x, kernel):
        windows = sliding_window_view(x, kernel.shape[1:], axis=(1, 2))
        return np.einsum("bhwij,fij->bfhw", windows, kernel)

    def input_gradient(self, output_gradient, kernel, input_shape):
        gradient = np.zeros(input_shape, output_gradient.dtype)
        _, kh, kw = kernel.shape
        for i, j in np.ndindex(output_gradient.shape[2:]):
            gradient[:, i : i + kh, j : j + kw] += np.tensordot(
                output_gradient[:, :, i, j], kernel, axes=1
            )
        return gradient

    def kernel_gradient(self, x, output_gradient, kernel_size):
        gradient = np.zeros((output_gradient.shape[1], *kernel_size), x.dtype)
        kh, kw = kernel_size
        for i, j in np.ndindex(output_gradient.shape[2:]):
            met = x[:, i : i + kh, j : j + kw]
            gradient += np.tensordot(output_gradient[:, :, i, j], met, axes=([0], [0]))
        return gradient


def _taps(x, kernel_size, output, strides, dilation_rate):
    """Yield (p, q, part of the NHWC array `x` that the tap meets)."""
    for p, q in np.ndindex(*kernel_size):
        top, left = p * dilation_rate[0], q * dilation_rate[1]
        bottom = top + (output[0] - 1) * strides[0] + 1
        right = left + (output[1] - 1) * strides[1] + 1
        yield p, q, x[:, top : bottom : strides[0], left : right : strides[1]]


def _groups(channels, filters, groups):
    """Return (channels, filters) of every group, as slices."""
    c, f = channels // groups, filters // groups
    return [(slice(g * c, g * c + c), slice(g * f, g * f + f)) for g in range(groups)]
