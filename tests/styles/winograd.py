"""Convolve by Winograd's F(2x2, 3x3), and by another method where it does not apply."""

import numpy as np

# Lavin and Gray, "Fast algorithms for convolutional neural networks", 2015.
_B = np.array([[1, 0, 0, 0], [0, 1, -1, 1], [-1, 1, 1, 0], [0, 0, 0, -1]], np.float32)
_G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)
_A = np.array([[1, 0], [1, 1], [1, -1], [0, -1]], np.float32)


class Winograd:
    """All three passes by F(2x2, 3x3) where it applies, and by one tap at a time elsewhere."""

    def __init__(self, layer):
        self.layer = layer
        plain = layer.strides == layer.dilation_rate == (1, 1) and layer.groups == 1
        self.applies = plain and layer.kernel_size == (3, 3)

    def forward(self, x, kernel, bias=None):
        padded = np.pad(x, ((0, 0), (0, 0), *self.layer.pads))
        if self.applies:
            out = _winograd(padded, kernel)
        else:
            out = np.zeros((len(x), self.layer.filters, *self.layer.output_size), x.dtype)
            for p, q, met in self._taps(padded):
                for c, f in self._groups():
                    out[:, f] += np.einsum("bchw,fc->bfhw", met[:, c], kernel[f, :, p, q])
        return out if bias is None else out + bias[:, None, None]

    def input_gradient(self, output_gradient, kernel, input_shape):
        (top, _), (left, _) = self.layer.pads
        if self.applies:
            around = np.pad(output_gradient, ((0, 0), (0, 0), (2, 2), (2, 2)))
            gradient = _winograd(around, kernel[:, :, ::-1, ::-1].transpose(1, 0, 2, 3))
        else:
            size = self.layer.padded_size
            gradient = np.zeros((*input_shape[:2], *size), output_gradient.dtype)
            for p, q, met in self._taps(gradient):
                for c, f in self._groups():
                    weights = kernel[f, :, p, q]
                    met[:, c] += np.einsum("bfhw,fc->bchw", output_gradient[:, f], weights)
        return gradient[:, :, top : top + input_shape[2], left : left + input_shape[3]]

    def kernel_gradient(self, x, output_gradient, kernel_size):
        padded = np.pad(x, ((0, 0), (0, 0), *self.layer.pads))
        per_group = x.shape[1] // self.layer.groups
        gradient = np.zeros((self.layer.filters, per_group, *kernel_size), x.dtype)
        for p, q, met in self._taps(padded):
            for c, f in self._groups():
                errors = output_gradient[:, f]
                gradient[f, :, p, q] = np.einsum("bfhw,bchw->fc", errors, met[:, c])
        return gradient

    def _taps(self, padded):
        (sh, sw), (dh, dw) = self.layer.strides, self.layer.dilation_rate
        out_h, out_w = self.layer.output_size
        for p, q in np.ndindex(*self.layer.kernel_size):
            rows = slice(p * dh, p * dh + (out_h - 1) * sh + 1, sh)
            yield p, q, padded[:, :, rows, q * dw : q * dw + (out_w - 1) * sw + 1 : sw]

    def _groups(self):
        groups = self.layer.groups
        c, f = self.layer.input_shape[2] // groups, self.layer.filters // groups
        return [(slice(g * c, g * c + c), slice(g * f, g * f + f)) for g in range(groups)]


def _winograd(x, kernel):
    """Compute 2x2 outputs from 4x4 tiles; odd outputs are computed one larger and cut."""
    b_t, g, a_t = (matrix.astype(x.dtype) for matrix in (_B.T, _G, _A.T))
    batch, channels, height, width = x.shape
    out_h, out_w = height - 2, width - 2
    x = np.pad(x, ((0, 0), (0, 0), (0, out_h % 2), (0, out_w % 2)))
    rows, columns = -(-out_h // 2), -(-out_w // 2)
    tiles = np.empty((batch, channels, rows, columns, 4, 4), x.dtype)
    for i in range(rows):
        for j in range(columns):
            tiles[:, :, i, j] = x[:, :, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4]
    v = b_t @ tiles @ b_t.T
    u = g @ kernel @ g.T
    m = np.einsum("fcuv,bcijuv->bfijuv", u, v)
    y = a_t @ m @ a_t.T  # batch, filters, rows, columns, 2, 2
    y = y.transpose(0, 1, 2, 4, 3, 5).reshape(batch, len(kernel), 2 * rows, 2 * columns)
    return y[:, :, :out_h, :out_w]
