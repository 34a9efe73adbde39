"""Compute two passes by functions of a module that states its layout once; no padding."""

import numpy as np

layout = "NHWC"
kernel_layout = "HWIO"


def forward(x, kernel, bias=None, strides=(1, 1)):
    """Fill columns by a loop over output positions, and multiply once."""
    kh, kw, _, filters = kernel.shape
    rows = range(0, x.shape[1] - kh + 1, strides[0])
    columns = range(0, x.shape[2] - kw + 1, strides[1])
    col = np.array([[x[:, i : i + kh, j : j + kw] for j in columns] for i in rows])
    col = col.reshape(len(rows), len(columns), len(x), -1)
    out = (col @ kernel.reshape(-1, filters)).transpose(2, 0, 1, 3)
    return out if bias is None else out + bias


def kernel_gradient(x, output_gradient, kernel_size, strides=(1, 1)):
    """Add an outer product for each output position."""
    kh, kw = kernel_size
    gradient = np.zeros((kh, kw, x.shape[-1], output_gradient.shape[-1]), x.dtype)
    for i, j in np.ndindex(output_gradient.shape[1:3]):
        top, left = i * strides[0], j * strides[1]
        met = x[:, top : top + kh, left : left + kw]
        gradient += np.tensordot(met, output_gradient[:, i, j], axes=([0], [0]))
    return gradient
