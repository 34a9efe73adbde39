"""A convolution layer in plain NumPy, written to learn what Conv2D does inside.

It trains, but on my laptop it is about five times slower than Keras. Why?
"""

import numpy as np


class Input:
    def __init__(self, *shape):
        self.output_shape = shape  # (height, width) or (channels, height, width)


class Convolution:
    """Valid padding, strides 1. A batch of grey images may come without the channel axis."""

    def __init__(self, filters, kernel_size, seed=0):
        self.filters = filters
        if isinstance(kernel_size, int):
            kernel_size = (kernel_size, kernel_size)
        self.kernel_size = kernel_size
        self.seed = seed
        self.kernel = None

    def connect(self, previous):
        """Infer the shapes from the previous layer and create the kernel."""
        *channels, height, width = previous.output_shape
        kh, kw = self.kernel_size
        self.output_shape = (self.filters, height - kh + 1, width - kw + 1)
        shape = (self.filters, *channels, kh, kw)
        limit = np.sqrt(6 / np.prod(shape[1:]))
        random = np.random.default_rng(self.seed)
        self.kernel = random.uniform(-limit, limit, shape).astype(np.float64)

    def convolve(self, x, k, mode):
        """forward: input and kernel; backward_i: output gradient and kernel;
        backward_k: input and output gradient."""
        x = x.astype(np.float64)
        k = k.astype(np.float64)
        grey = x.ndim == 3 or k.ndim == 3
        if x.ndim == 3:
            x = x[:, np.newaxis]
        if k.ndim == 3:
            k = k[:, np.newaxis]
        if mode != "forward":
            k = k[:, :, ::-1, ::-1]  # going backward the kernel is turned by 180 degrees
        kh, kw = k.shape[2:]

        if mode == "backward_i":
            x = np.pad(x, ((0, 0), (0, 0), (kh - 1, kh - 1), (kw - 1, kw - 1)))
        out_h, out_w = x.shape[2] - kh + 1, x.shape[3] - kw + 1
        if mode == "forward":
            out = np.zeros((x.shape[0], k.shape[0], out_h, out_w), dtype=np.float64)
        elif mode == "backward_i":
            out = np.zeros((x.shape[0], k.shape[1], out_h, out_w), dtype=np.float64)
        elif mode == "backward_k":
            out = np.zeros((k.shape[1], x.shape[1], out_h, out_w), dtype=np.float64)
        else:
            raise ValueError(mode)

        for i in range(out_h):
            for j in range(out_w):
                window = x[:, :, i : i + kh, j : j + kw]
                if mode == "forward":  # sum over channels
                    out[:, :, i, j] = np.tensordot(window, k, axes=([1, 2, 3], [1, 2, 3]))
                elif mode == "backward_i":  # sum over filters
                    out[:, :, i, j] = np.tensordot(window, k, axes=([1, 2, 3], [0, 2, 3]))
                else:  # sum over the batch
                    out[:, :, i, j] = np.tensordot(k, window, axes=([0, 2, 3], [0, 2, 3]))
        return out[:, 0] if grey and mode != "forward" else out

    def forward(self, x):
        return self.convolve(x, self.kernel, "forward")

    def backward(self, x, loss_grad, params):
        """Update the kernel; return the gradient for the layer before."""
        input_grad = self.convolve(loss_grad, self.kernel, "backward_i")
        kernel_grad = self.convolve(x, loss_grad, "backward_k")
        self.kernel = self.kernel - params["learning_rate"] * kernel_grad
        return input_grad
