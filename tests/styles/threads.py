"""Convolutions by threads over images, over rows, and over filters."""

from concurrent.futures import ThreadPoolExecutor
from threading import Thread

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def over_images(x, kernel):
    """Start one task for each image."""

    def one(image):
        windows = sliding_window_view(image, kernel.shape[2:], axis=(1, 2))
        return np.tensordot(kernel, windows, axes=([1, 2, 3], [0, 3, 4]))

    with ThreadPoolExecutor(2) as pool:
        return np.stack(list(pool.map(one, x)))


def over_rows(x, kernel):
    """Start one task for each row of the output."""
    kh, kw = kernel.shape[2:]
    out = np.empty((len(x), len(kernel), x.shape[2] - kh + 1, x.shape[3] - kw + 1), x.dtype)

    def row(i):
        windows = sliding_window_view(x[:, :, i : i + kh], kw, axis=3)
        out[:, :, i] = np.einsum("bciwj,fcij->bfw", windows, kernel)

    with ThreadPoolExecutor(max_workers=3) as pool:
        for future in [pool.submit(row, i) for i in range(out.shape[2])]:
            future.result()
    return out


def bare_threads(x, kernel):
    """Start one thread for each filter, without a pool."""
    windows = sliding_window_view(x, kernel.shape[2:], axis=(2, 3))
    out = np.zeros((len(x), len(kernel), *windows.shape[2:4]), x.dtype)

    def work(f):
        out[:, f] = np.tensordot(windows, kernel[f], axes=([1, 4, 5], [0, 1, 2]))

    threads = [Thread(target=work, args=(f,)) for f in range(len(kernel))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return out


class Pool:
    """All three passes by a pool that lives as long as the layer; images are its tasks."""

    def __init__(self, *, strides, padding):
        self.strides = strides
        self.padding = padding
        self.pool = ThreadPoolExecutor(2)

    def forward(self, x, kernel, bias=None):
        x = np.pad(x, ((0, 0), (0, 0), *self.padding))
        kh, kw = kernel.shape[2:]
        sh, sw = self.strides
        out_h, out_w = (x.shape[2] - kh) // sh + 1, (x.shape[3] - kw) // sw + 1
        out = np.zeros((len(x), len(kernel), out_h, out_w), x.dtype)

        def one(b):
            for p, q, met in self._taps(x[b], (kh, kw), (out_h, out_w)):
                out[b] += np.tensordot(kernel[:, :, p, q], met, axes=1)
            if bias is not None:
                out[b] += bias[:, None, None]

        list(self.pool.map(one, range(len(x))))
        return out

    def input_gradient(self, output_gradient, kernel, input_shape):
        batch, channels, height, width = input_shape
        (top, bottom), (left, right) = self.padding
        size = height + top + bottom, width + left + right
        padded = np.zeros((batch, channels, *size), output_gradient.dtype)

        def one(b):
            errors = output_gradient[b]
            for p, q, met in self._taps(padded[b], kernel.shape[2:], errors.shape[1:]):
                met += np.tensordot(kernel[:, :, p, q].T, errors, axes=1)

        list(self.pool.map(one, range(batch)))
        return padded[:, :, top : top + height, left : left + width]

    def kernel_gradient(self, x, output_gradient, kernel_size):
        x = np.pad(x, ((0, 0), (0, 0), *self.padding))

        def one(b):
            errors = output_gradient[b]
            gradient = np.empty((len(errors), x.shape[1], *kernel_size), x.dtype)
            for p, q, met in self._taps(x[b], kernel_size, errors.shape[1:]):
                gradient[:, :, p, q] = np.tensordot(errors, met, axes=([1, 2], [1, 2]))
            return gradient

        return sum(self.pool.map(one, range(len(x))))

    def _taps(self, image, kernel_size, output):
        (sh, sw), (out_h, out_w) = self.strides, output
        for p, q in np.ndindex(*kernel_size):
            rows = slice(p, p + (out_h - 1) * sh + 1, sh)
            yield p, q, image[:, rows, q : q + (out_w - 1) * sw + 1 : sw]
