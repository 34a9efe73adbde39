"""Convolutions that keep workspaces between calls, or whose results the next call overwrites."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

_workspaces = {}
_result = None


def _workspace(name, shape, dtype):
    key = name, tuple(shape), np.dtype(dtype)
    if key not in _workspaces:
        _workspaces[key] = np.empty(shape, dtype)
    return _workspaces[key]


def preallocated(x, kernel):
    """Write results into a new buffer, one image and one filter at a time."""
    kh, kw = kernel.shape[2:]
    result = np.empty((len(x), len(kernel), x.shape[2] - kh + 1, x.shape[3] - kw + 1), x.dtype)
    windows = sliding_window_view(x, (kh, kw), axis=(2, 3))
    for image, planes in zip(windows, result, strict=True):
        for one, plane in zip(kernel, planes, strict=True):
            np.einsum("chwij,cij->hw", image, one, out=plane)
    return result


def module_workspace(x, kernel):
    """Keep columns and result in the module, and return the same array from each call."""
    batch, channels, height, width = x.shape
    filters, _, kh, kw = kernel.shape
    out_h, out_w = height - kh + 1, width - kw + 1
    col = _workspace("col", (batch, channels, kh, kw, out_h, out_w), x.dtype)
    for p in range(kh):
        for q in range(kw):
            np.copyto(col[:, :, p, q], x[:, :, p : p + out_h, q : q + out_w])
    out = _workspace("out", (batch, filters, out_h * out_w), x.dtype)
    np.matmul(kernel.reshape(filters, -1), col.reshape(batch, -1, out_h * out_w), out=out)
    return out.reshape(batch, filters, out_h, out_w)


def accumulator(x, kernel):
    """Set one global result to zero, and add to it in place."""
    global _result
    kh, kw = kernel.shape[2:]
    shape = len(x), len(kernel), x.shape[2] - kh + 1, x.shape[3] - kw + 1
    if _result is None or _result.shape != shape or _result.dtype != x.dtype:
        _result = np.empty(shape, x.dtype)
    _result.fill(0)
    for c, p, q in np.ndindex(kernel.shape[1:]):
        met = x[:, c, p : p + shape[2], q : q + shape[3]]
        for f in range(shape[1]):
            _result[:, f] += met * kernel[f, c, p, q]
    return _result


class Planned:
    """All three passes with arrays made for the layer; padded borders are zeroed only once."""

    def __init__(self, layer):
        self.layer = layer
        (top, _), (left, _) = layer.pads
        height, width, channels = layer.input_shape
        batch, dtype = layer.batch_size, layer.dtype
        self.padded = np.zeros((batch, channels, *layer.padded_size), dtype)
        self.inner = self.padded[:, :, top : top + height, left : left + width]
        self.scattered = np.empty_like(self.padded)
        self.cropped = self.scattered[:, :, top : top + height, left : left + width]
        out_h, out_w = layer.output_size
        g = layer.groups
        c, f = channels // g, layer.filters // g
        self.col = np.empty((batch, g, c, *layer.kernel_size, out_h, out_w), dtype)
        self.output = np.empty((batch, layer.filters, out_h, out_w), dtype)
        self.gradients = np.empty((batch, g, f, self.col[0, 0, ..., 0, 0].size), dtype)
        self.gradient = np.empty((layer.filters, c, *layer.kernel_size), dtype)

    def forward(self, x, kernel, bias=None):
        self._columns(x)
        weights, col, output = self._matrices(kernel, self.output)
        np.matmul(weights, col, out=output)
        if bias is not None:
            self.output += bias[:, None, None]
        return self.output

    def input_gradient(self, output_gradient, kernel, input_shape):
        weights, col, errors = self._matrices(kernel, output_gradient)
        np.matmul(weights.swapaxes(-1, -2), errors, out=col)
        self.scattered.fill(0)
        for (p, q), met in self._taps(self.scattered):
            met += self.col[:, :, :, p, q].reshape(met.shape)
        return self.cropped

    def kernel_gradient(self, x, output_gradient, kernel_size):
        self._columns(x)
        _, col, errors = self._matrices(self.gradient, output_gradient)
        np.matmul(errors, col.swapaxes(-1, -2), out=self.gradients)
        return self.gradients.sum(
            axis=0, out=self.gradient.reshape(self.gradients[0].shape)
        ).reshape(self.gradient.shape)

    def _columns(self, x):
        self.inner[...] = x
        for (p, q), met in self._taps(self.padded):
            self.col[:, :, :, p, q] = met.reshape(self.col[:, :, :, p, q].shape)

    def _matrices(self, kernel, output):
        """Return kernel, columns and output as stacks of matrices, one for each image and group."""
        g, batch = self.layer.groups, self.layer.batch_size
        positions = output.shape[2] * output.shape[3]
        weights = kernel.reshape(g, len(kernel) // g, -1)
        return (
            weights,
            self.col.reshape(batch, g, -1, positions),
            output.reshape(batch, g, -1, positions),
        )

    def _taps(self, padded):
        (sh, sw), (dh, dw) = self.layer.strides, self.layer.dilation_rate
        out_h, out_w = self.layer.output_size
        for p, q in np.ndindex(*self.layer.kernel_size):
            rows = slice(p * dh, p * dh + (out_h - 1) * sh + 1, sh)
            yield (p, q), padded[:, :, rows, q * dw : q * dw + (out_w - 1) * sw + 1 : sw]


class PlannedWithoutBias(Planned):
    """All three passes, planned for any layer, without a way to take a bias."""

    def forward(self, x, kernel):
        return super().forward(x, kernel)


class Lazy:
    """All three passes without a plan: buffers grow as needed, and results are views of them."""

    def __init__(self):
        self._memory = {}

    def _buffer(self, name, shape, dtype):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if name not in self._memory or len(self._memory[name]) < size:
            self._memory[name] = np.empty(size, np.uint8)
        return self._memory[name][:size].view(dtype).reshape(shape)

    def forward(self, x, kernel, groups=1):
        kh, kw = kernel.shape[2:]
        shape = len(x), len(kernel), x.shape[2] - kh + 1, x.shape[3] - kw + 1
        out = self._buffer("output", shape, x.dtype)
        windows = sliding_window_view(x, (kh, kw), axis=(2, 3))
        for f, c in self._groups(len(kernel), x.shape[1], groups):
            np.einsum("bchwij,fcij->bfhw", windows[:, c], kernel[f], out=out[:, f])
        return out

    def input_gradient(self, output_gradient, kernel, input_shape, groups=1):
        out = self._buffer("input gradient", input_shape, output_gradient.dtype)
        out[...] = 0
        for f, c in self._groups(len(kernel), input_shape[1], groups):
            for p, q in np.ndindex(*kernel.shape[2:]):
                height, width = output_gradient.shape[2:]
                out[:, c, p : p + height, q : q + width] += np.einsum(
                    "bfhw,fc->bchw", output_gradient[:, f], kernel[f, :, p, q]
                )
        return out

    def kernel_gradient(self, x, output_gradient, kernel_size, groups=1):
        filters = output_gradient.shape[1]
        shape = filters, x.shape[1] // groups, *kernel_size
        out = self._buffer("kernel gradient", shape, x.dtype)
        windows = sliding_window_view(x, output_gradient.shape[2:], axis=(2, 3))
        for f, c in self._groups(filters, x.shape[1], groups):
            errors = output_gradient[:, f]
            np.einsum("bcijhw,bfhw->fcij", windows[:, c], errors, out=out[f])
        return out

    @staticmethod
    def _groups(filters, channels, groups):
        f, c = filters // groups, channels // groups
        return [(slice(g * f, g * f + f), slice(g * c, g * c + c)) for g in range(groups)]
