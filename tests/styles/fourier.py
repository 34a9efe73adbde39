"""Convolve by the convolution theorem in float64 and float32, which round more than direct sums."""

import numpy as np
import scipy.fft
import scipy.signal


def numpy_float64(x, kernel):
    """Transform by np.fft in double precision, and return the dtype of x."""
    size = x.shape[2:]
    image = np.fft.rfft2(x.astype(np.float64))
    taps = np.fft.rfft2(kernel.astype(np.float64), s=size)
    full = np.fft.irfft2(np.einsum("bchw,fchw->bfhw", image, taps.conj()), s=size)
    out = full[:, :, : size[0] - kernel.shape[2] + 1, : size[1] - kernel.shape[3] + 1]
    return out.astype(x.dtype)


def numpy_float32(x, kernel):
    """Transform by np.fft, which since NumPy 2 keeps the operands' precision, float32 here."""
    size = x.shape[2:]
    taps = np.fft.rfft2(kernel[:, :, ::-1, ::-1], s=size)
    full = np.fft.irfft2((np.fft.rfft2(x)[:, None] * taps).sum(axis=2), s=size)
    return full[:, :, kernel.shape[2] - 1 :, kernel.shape[3] - 1 :]


def real_part(x, kernel):
    """Use complex transforms of a fast length; return a view of every other number of the array."""
    height, width = x.shape[2:]
    kh, kw = kernel.shape[2:]
    size = [scipy.fft.next_fast_len(n) for n in (height + kh - 1, width + kw - 1)]
    image = scipy.fft.fft2(x, size)
    taps = scipy.fft.fft2(kernel, size)
    product = np.einsum("bcuv,fcuv->bfuv", image, np.conj(taps))
    return scipy.fft.ifft2(product).real[..., : height - kh + 1, : width - kw + 1]


def fftconvolve(x, kernel):
    """Broadcast scipy.signal.fftconvolve over images and filters."""
    turned = kernel[None, :, :, ::-1, ::-1]
    return scipy.signal.fftconvolve(x[:, None], turned, mode="valid", axes=(3, 4)).sum(axis=2)


def oaconvolve(x, kernel):
    """Convolve by overlap-add, one image and one filter at a time, channels included."""
    return np.stack(
        [
            [
                scipy.signal.oaconvolve(image, one[::-1, ::-1, ::-1], mode="valid")[0]
                for one in kernel
            ]
            for image in x
        ]
    )


class InSinglePrecision:
    """All three passes by scipy.fft, which computes float32 in complex64.

    Where the true result is zero, as in an input gradient that no window reaches, this result has
    rounding noise.
    """

    def _transform(self, array):
        return scipy.fft.rfft2(array)

    def _back(self, spectrum, size, dtype):
        return scipy.fft.irfft2(spectrum, s=size)

    def forward(
        self,
        x,
        kernel,
        bias=None,
        strides=(1, 1),
        padding=((0, 0), (0, 0)),
        dilation_rate=(1, 1),
        groups=1,
    ):
        padded = np.pad(x, ((0, 0), (0, 0), *padding))
        size = padded.shape[2:]
        image = self._transform(_grouped(padded, groups, 1))
        taps = self._transform(_grouped(_spread(kernel, dilation_rate, size), groups, 0))
        full = self._back(np.einsum("bgcuv,gfcuv->bgfuv", image, taps.conj()), size, x.dtype)
        full = full.reshape(len(x), len(kernel), *size)
        last = [
            n - (k - 1) * d for n, k, d in zip(size, kernel.shape[2:], dilation_rate, strict=True)
        ]
        out = full[:, :, : last[0] : strides[0], : last[1] : strides[1]]
        return out if bias is None else out + bias[:, None, None]

    def input_gradient(
        self,
        output_gradient,
        kernel,
        input_shape,
        strides=(1, 1),
        padding=((0, 0), (0, 0)),
        dilation_rate=(1, 1),
        groups=1,
    ):
        (top, bottom), (left, right) = padding
        batch, channels, height, width = input_shape
        size = height + top + bottom, width + left + right
        errors = self._transform(_grouped(_spread(output_gradient, strides, size), groups, 1))
        taps = self._transform(_grouped(_spread(kernel, dilation_rate, size), groups, 0))
        full = self._back(
            np.einsum("bgfuv,gfcuv->bgcuv", errors, taps), size, output_gradient.dtype
        )
        full = full.reshape(batch, channels, *size)
        return full[:, :, top : top + height, left : left + width]

    def kernel_gradient(
        self,
        x,
        output_gradient,
        kernel_size,
        strides=(1, 1),
        padding=((0, 0), (0, 0)),
        dilation_rate=(1, 1),
        groups=1,
    ):
        padded = np.pad(x, ((0, 0), (0, 0), *padding))
        size = padded.shape[2:]
        image = self._transform(_grouped(padded, groups, 1))
        errors = self._transform(_grouped(_spread(output_gradient, strides, size), groups, 1))
        full = self._back(np.einsum("bgcuv,bgfuv->gfcuv", image, errors.conj()), size, x.dtype)
        (kh, kw), (dh, dw) = kernel_size, dilation_rate
        full = full[..., : (kh - 1) * dh + 1 : dh, : (kw - 1) * dw + 1 : dw]
        return full.reshape(output_gradient.shape[1], x.shape[1] // groups, kh, kw)


class InDoublePrecision(InSinglePrecision):
    """All three passes in float64, rounded to the dtype of the operands at the end."""

    def _transform(self, array):
        return np.fft.rfft2(array.astype(np.float64))

    def _back(self, spectrum, size, dtype):
        return np.fft.irfft2(spectrum, s=size).astype(dtype)


def _spread(array, steps, size):
    """Put zeros between the elements of the last two axes, and after them, up to `size`."""
    out = np.zeros((*array.shape[:2], *size), array.dtype)
    (height, width), (down, across) = array.shape[2:], steps
    out[:, :, : (height - 1) * down + 1 : down, : (width - 1) * across + 1 : across] = array
    return out


def _grouped(array, groups, axis):
    shape = array.shape
    return array.reshape(*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :])
