"""Two convolutions as people write them first, to try `--impl` with.

convbench run mnist --impl examples/my_conv.py:convolve --pass forward
"""

import numpy as np


def convolve(x, kernel):
    """Valid cross-correlation; x (batch, channels, h, w), kernel (filters, channels, h, w)."""
    kernel_h, kernel_w = kernel.shape[2:]
    out_h, out_w = x.shape[2] - kernel_h + 1, x.shape[3] - kernel_w + 1
    output = np.zeros((len(x), len(kernel), out_h, out_w), x.dtype)
    for p in range(kernel_h):
        for q in range(kernel_w):
            shifted = x[:, :, p : p + out_h, q : q + out_w]
            output += np.einsum("bchw,fc->bfhw", shifted, kernel[:, :, p, q])
    return output


def convolve_flipped(x, kernel):
    """Convolve with the kernel flipped. This is a common mistake: layers do not flip the kernel."""
    return convolve(x, kernel[:, :, ::-1, ::-1])
