"""Convolutions in which SciPy does the work, one plane at a time."""

import numpy as np
from scipy import ndimage, signal


def correlate(x, kernel):
    """Call scipy.signal.correlate, which chooses its method by itself."""
    out = []
    for image in x:
        for one in kernel:
            planes = zip(image, one, strict=True)
            out.append(sum(signal.correlate(plane, taps, mode="valid") for plane, taps in planes))
    return np.array(out).reshape(len(x), len(kernel), *out[0].shape)


def correlate_volume(x, kernel):
    """Correlate in three dimensions at once, channels included."""
    return np.array(
        [[signal.correlate(i, k, mode="valid", method="direct")[0] for k in kernel] for i in x]
    )


def convolve(x, kernel):
    """Turn the kernel first, because scipy.signal.convolve turns it again."""
    turned = np.flip(kernel, axis=(2, 3))
    kh, kw = kernel.shape[2:]
    out = np.zeros((len(x), len(kernel), x.shape[2] - kh + 1, x.shape[3] - kw + 1), x.dtype)
    for b, f, c in np.ndindex(len(x), *kernel.shape[:2]):
        out[b, f] += signal.convolve(x[b, c], turned[f, c], mode="valid", method="direct")
    return out


def correlate_image(x, kernel):
    """Call scipy.ndimage.correlate, which centres the kernel, and cut off the border."""
    kh, kw = kernel.shape[2:]
    height, width = x.shape[2:]
    out = np.zeros((len(x), len(kernel), height, width), x.dtype)
    for b in range(len(x)):
        for f in range(len(kernel)):
            for c in range(x.shape[1]):
                out[b, f] += ndimage.correlate(x[b, c], kernel[f, c], mode="constant", cval=0.0)
    top, left = kh // 2, kw // 2
    return out[:, :, top : top + height - kh + 1, left : left + width - kw + 1]


def one_dimensional(x, kernel):
    """Call np.correlate on rows that are strung together."""
    filters, channels, kh, kw = kernel.shape
    batch, _, height, width = x.shape
    out_h, out_w = height - kh + 1, width - kw + 1
    taps = np.zeros((filters, channels, kh, width), kernel.dtype)
    taps[..., :kw] = kernel
    taps = taps.reshape(filters, channels, -1)[..., : (kh - 1) * width + kw]
    out = np.zeros((batch, filters, out_h * width), x.dtype)
    for b, f, c in np.ndindex(batch, filters, channels):
        line = np.correlate(x[b, c].ravel(), taps[f, c], mode="valid")
        out[b, f, : len(line)] += line
    return out.reshape(batch, filters, out_h, width)[..., :out_w]


class Correlate2d:
    """All three passes by correlate2d and convolve2d; strides are taken from the full result."""

    def __init__(self, strides, padding, dilation_rate, groups):
        self.strides, self.padding = strides, padding
        self.dilation_rate, self.groups = dilation_rate, groups

    def _pairs(self, filters, per_group):
        """Yield every filter with each of its channels, and that channel's number in the group."""
        for f in range(filters):
            group = f // (filters // self.groups)
            for c in range(per_group):
                yield f, group * per_group + c, c

    def forward(self, x, kernel, bias=None):
        x = np.pad(x, ((0, 0), (0, 0), *self.padding))
        taps = self._spread(kernel, self.dilation_rate)
        sh, sw = self.strides
        planes = [[0.0] * len(kernel) for _ in x]
        for b in range(len(x)):
            for f, channel, c in self._pairs(*kernel.shape[:2]):
                full = signal.correlate2d(x[b, channel], taps[f, c], mode="valid")
                planes[b][f] = planes[b][f] + full[::sh, ::sw]
        out = np.array(planes)
        return out if bias is None else out + bias.reshape(-1, 1, 1)

    def input_gradient(self, output_gradient, kernel, input_shape):
        (top, bottom), (left, right) = self.padding
        batch, channels, height, width = input_shape
        size = height + top + bottom, width + left + right
        padded = np.zeros((batch, channels, *size), kernel.dtype)
        taps = self._spread(kernel, self.dilation_rate)
        errors = self._spread(output_gradient, self.strides)
        for b in range(batch):
            for f, channel, c in self._pairs(*kernel.shape[:2]):
                full = signal.convolve2d(errors[b, f], taps[f, c], mode="full")
                padded[b, channel, : full.shape[0], : full.shape[1]] += full
        return padded[:, :, top : top + height, left : left + width]

    def kernel_gradient(self, x, output_gradient, kernel_size):
        x = np.pad(x, ((0, 0), (0, 0), *self.padding))
        errors = self._spread(output_gradient, self.strides)
        (kh, kw), (dh, dw) = kernel_size, self.dilation_rate
        height = errors.shape[2] + (kh - 1) * dh
        width = errors.shape[3] + (kw - 1) * dw
        filters, per_group = errors.shape[1], x.shape[1] // self.groups
        gradient = np.zeros((filters, per_group, kh, kw), x.dtype)
        for b in range(len(x)):
            for f, channel, c in self._pairs(filters, per_group):
                met = x[b, channel, :height, :width]
                full = signal.correlate2d(met, errors[b, f], mode="valid")
                gradient[f, c] += full[::dh, ::dw]
        return gradient

    @staticmethod
    def _spread(array, steps):
        """Put zeros between the elements of the last two axes."""
        (height, width), (down, across) = array.shape[2:], steps
        size = (height - 1) * down + 1, (width - 1) * across + 1
        out = np.zeros((*array.shape[:2], *size), array.dtype)
        out[:, :, ::down, ::across] = array
        return out
