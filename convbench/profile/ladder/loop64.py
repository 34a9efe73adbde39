"""Run the loop that people write first, in double precision: multiply a window, and sum."""

import numpy as np


def convolve(x, kernel):
    """Return (batch, filters, height, width) for `x` of (batch, channels, height, width)."""
    x, kernel = x.astype(np.float64), kernel.astype(np.float64)
    filters, _, kernel_h, kernel_w = kernel.shape
    batch, _, height, width = x.shape
    output = np.zeros((batch, filters, height - kernel_h + 1, width - kernel_w + 1))
    for i in range(output.shape[2]):
        for j in range(output.shape[3]):
            window = x[:, :, i : i + kernel_h, j : j + kernel_w]
            output[:, :, i, j] = np.sum(window[:, None] * kernel, axis=(2, 3, 4))
    return output
