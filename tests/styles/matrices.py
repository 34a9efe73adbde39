"""Convolutions as matrix products: im2col, col2im, kn2row, Toeplitz, sparse matrices, SVD."""

import numpy as np
from scipy import sparse
from scipy.linalg import toeplitz as toeplitz_matrix


def im2col(x, kernel):
    """Make the columns by fancy indices, and multiply once."""
    batch, channels, height, width = x.shape
    filters, _, kh, kw = kernel.shape
    out_h, out_w = height - kh + 1, width - kw + 1
    rows = np.repeat(np.arange(kh), kw)[:, None] + np.repeat(np.arange(out_h), out_w)
    columns = np.tile(np.arange(kw), kh)[:, None] + np.tile(np.arange(out_w), out_h)
    col = x[:, :, rows, columns]  # batch, channels, taps, positions
    col = col.transpose(1, 2, 0, 3).reshape(channels * kh * kw, -1)
    out = kernel.reshape(filters, -1) @ col
    return out.reshape(filters, batch, out_h, out_w).transpose(1, 0, 2, 3)


def im2col_by_hand(x, kernel):
    """Fill columns by a loop over taps, and make one product for each image."""
    batch, channels, height, width = x.shape
    filters, _, kh, kw = kernel.shape
    out_h, out_w = height - kh + 1, width - kw + 1
    col = np.empty((batch, channels, kh, kw, out_h, out_w), x.dtype)
    for p in range(kh):
        for q in range(kw):
            col[:, :, p, q] = x[:, :, p : p + out_h, q : q + out_w]
    out = [np.dot(kernel.reshape(filters, -1), one.reshape(-1, out_h * out_w)) for one in col]
    return np.stack(out).reshape(batch, filters, out_h, out_w)


def kn2row(x, kernel):
    """Shift and add 1x1 convolutions of the whole input."""
    batch, channels, height, width = x.shape
    filters, _, kh, kw = kernel.shape
    out_h, out_w = height - kh + 1, width - kw + 1
    flat = x.reshape(batch, channels, height * width)
    out = np.zeros((batch, filters, out_h, out_w), x.dtype)
    for p in range(kh):
        for q in range(kw):
            plane = np.matmul(kernel[:, :, p, q], flat).reshape(batch, filters, height, width)
            out += plane[:, :, p : p + out_h, q : q + out_w]
    return out


def blocks(x, kernel):
    """Multiply blocks of a few output rows, so that the columns stay in the cache."""
    batch, channels, height, width = x.shape
    filters, _, kh, kw = kernel.shape
    out_h, out_w = height - kh + 1, width - kw + 1
    weights = kernel.reshape(filters, -1)
    out = np.empty((batch, filters, out_h, out_w), x.dtype)
    for b in range(batch):
        for start in range(0, out_h, 3):
            stop = min(start + 3, out_h)
            col = np.stack(
                [
                    x[b, c, start + p : stop + p, q : q + out_w].ravel()
                    for c in range(channels)
                    for p in range(kh)
                    for q in range(kw)
                ]
            )
            out[b, :, start:stop] = (weights @ col).reshape(filters, stop - start, out_w)
    return out


def toeplitz(x, kernel):
    """Make a Toeplitz matrix for every kernel row."""
    filters, channels, kh, kw = kernel.shape
    height, width = x.shape[2:]
    out_h, out_w = height - kh + 1, width - kw + 1
    out = np.zeros((len(x), filters, out_h, out_w), x.dtype)
    for f, c, p in np.ndindex(filters, channels, kh):
        taps = kernel[f, c, p]
        matrix = toeplitz_matrix(
            np.r_[taps[0], np.zeros(out_w - 1)], np.r_[taps, np.zeros(width - kw)]
        )
        out[:, f] += (x[:, c, p : p + out_h] @ matrix.T).astype(x.dtype)
    return out


def by_svd(x, kernel):
    """Split every kernel into a sum of separable ones, which rounds more than direct sums do."""
    kh, kw = kernel.shape[2:]
    out_h, out_w = x.shape[2] - kh + 1, x.shape[3] - kw + 1
    u, s, vh = np.linalg.svd(kernel, full_matrices=False)
    out = np.zeros((len(x), len(kernel), out_h, out_w), x.dtype)
    for rank in range(s.shape[-1]):
        down = u[..., rank] * s[..., rank, None]
        across = vh[..., rank, :]
        tall = sum(
            x[:, None, :, p : p + out_h] * down[None, :, :, p, None, None] for p in range(kh)
        )
        wide = sum(tall[..., q : q + out_w] * across[None, :, :, q, None, None] for q in range(kw))
        out += wide.sum(axis=2)
    return out


class Im2col:
    """All three passes by im2col with indices and col2im with np.add.at, as courses teach them."""

    def forward(self, x, kernel, bias, strides, padding, dilation_rate, groups):
        x = np.pad(x, ((0, 0), (0, 0), *padding))
        filters, _, *size = kernel.shape
        rows, columns, output = self._indices(x.shape[2:], size, strides, dilation_rate)
        parts = []
        for part, weights in zip(
            np.split(x, groups, axis=1), np.split(kernel, groups), strict=True
        ):
            col = part[:, :, rows, columns].reshape(len(x), -1, rows.shape[1])
            parts.append(weights.reshape(len(weights), -1) @ col)
        out = np.concatenate(parts, axis=1).reshape(len(x), filters, *output)
        if bias is not None:
            out = out + bias[np.newaxis, :, np.newaxis, np.newaxis]
        return out

    def input_gradient(
        self, output_gradient, kernel, input_shape, strides, padding, dilation_rate, groups
    ):
        batch, channels, height, width = input_shape
        (top, bottom), (left, right) = padding
        padded = np.zeros(
            (batch, channels, height + top + bottom, width + left + right), kernel.dtype
        )
        filters, per_group, *size = kernel.shape
        rows, columns, _ = self._indices(padded.shape[2:], size, strides, dilation_rate)
        errors = output_gradient.reshape(batch, filters, -1)
        per = filters // groups
        for g in range(groups):
            weights = kernel[g * per : (g + 1) * per].reshape(per, -1)
            col = weights.T @ errors[:, g * per : (g + 1) * per]
            col = col.reshape(batch, per_group, *rows.shape)
            where = slice(g * per_group, (g + 1) * per_group)
            np.add.at(padded[:, where], (slice(None), slice(None), rows, columns), col)
        return padded[:, :, top : top + height, left : left + width]

    def kernel_gradient(
        self, x, output_gradient, kernel_size, strides, padding, dilation_rate, groups
    ):
        x = np.pad(x, ((0, 0), (0, 0), *padding))
        rows, columns, _ = self._indices(x.shape[2:], kernel_size, strides, dilation_rate)
        filters = output_gradient.shape[1]
        per, per_group = filters // groups, x.shape[1] // groups
        gradient = np.zeros((filters, per_group, *kernel_size), x.dtype)
        for g in range(groups):
            col = x[:, g * per_group : (g + 1) * per_group, rows, columns]
            col = col.transpose(1, 2, 0, 3).reshape(per_group * rows.shape[0], -1)
            errors = output_gradient[:, g * per : (g + 1) * per].transpose(1, 0, 2, 3)
            share = errors.reshape(per, -1) @ col.T
            gradient[g * per : (g + 1) * per] = share.reshape(per, per_group, *kernel_size)
        return gradient

    @staticmethod
    def _indices(size, kernel_size, strides, dilation_rate):
        """Return rows and columns (taps, positions) in the padded input, and the output size."""
        (kh, kw), (sh, sw), (dh, dw) = kernel_size, strides, dilation_rate
        out_h = (size[0] - ((kh - 1) * dh + 1)) // sh + 1
        out_w = (size[1] - ((kw - 1) * dw + 1)) // sw + 1
        down, across = np.mgrid[:kh, :kw].reshape(2, -1, 1)
        i, j = np.mgrid[:out_h, :out_w].reshape(2, 1, -1)
        return down * dh + i * sh, across * dw + j * sw, (out_h, out_w)


class Sparse:
    """All three passes by a sparse matrix with a planned pattern; its transpose is the gradient."""

    def __init__(self, layer):
        self.layer = layer
        height, width, channels = layer.input_shape
        (top, _), (left, _) = layer.pads
        per_group, per = channels // layer.groups, layer.filters // layer.groups
        shape = (layer.filters, *layer.output_size, per_group, *layer.kernel_size)
        f, i, j, c, p, q = np.indices(shape).reshape(6, -1)
        row = i * layer.strides[0] + p * layer.dilation_rate[0] - top
        column = j * layer.strides[1] + q * layer.dilation_rate[1] - left
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        sizes = layer.filters, *layer.output_size
        outputs = np.ravel_multi_index((f, i, j), sizes)
        weights = np.ravel_multi_index((f, c, p, q), (layer.filters, per_group, *layer.kernel_size))
        self.outputs, self.weights = outputs[inside], weights[inside]
        channel = f // per * per_group + c
        self.inputs = (channel * height * width + row * width + column)[inside]
        self.shape = int(np.prod(sizes)), channels * height * width

    def _matrix(self, kernel):
        values = kernel.ravel()[self.weights]
        return sparse.coo_array((values, (self.outputs, self.inputs)), shape=self.shape).tocsr()

    def forward(self, x, kernel, bias=None):
        out = self._matrix(kernel) @ x.reshape(len(x), -1).T
        out = out.T.reshape(len(x), self.layer.filters, *self.layer.output_size)
        return out if bias is None else out + bias[:, None, None]

    def input_gradient(self, output_gradient, kernel, input_shape):
        errors = output_gradient.reshape(len(output_gradient), -1)
        return (self._matrix(kernel).T @ errors.T).T.reshape(input_shape)

    def kernel_gradient(self, x, output_gradient, kernel_size):
        """Sum with np.bincount, which returns float64."""
        inputs, errors = x.reshape(len(x), -1), output_gradient.reshape(len(x), -1)
        per_group = self.layer.input_shape[2] // self.layer.groups
        shape = (self.layer.filters, per_group, *kernel_size)
        gradient = np.zeros(int(np.prod(shape)))
        for image, error in zip(inputs, errors, strict=True):
            products = image[self.inputs].astype(float) * error[self.outputs]
            gradient += np.bincount(self.weights, products, len(gradient))
        return gradient.reshape(shape)
