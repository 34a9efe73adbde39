"""Run the same loop in single precision: half the bytes, and twice the numbers an instruction."""

import numpy as np


def convolve(x, kernel):
    """Return (batch, filters, height, width) for `x` of (batch, channels, height, width)."""
    filters, _, kernel_h, kernel_w = kernel.shape
    batch, _, height, width = x.shape
    output = np.zeros((batch, filters, height - kernel_h + 1, width - kernel_w + 1), x.dtype)
    for i in range(output.shape[2]):
        for j in range(output.shape[3]):
            window = x[:, :, i : i + kernel_h, j : j + kernel_w]
            output[:, :, i, j] = np.sum(window[:, None] * kernel, axis=(2, 3, 4))
    return output
