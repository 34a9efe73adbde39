"""Right convolutions whose results or memory are unusual: other types, lanes that are not used."""

import numpy as np

from .windows import einsum


def complex_result(x, kernel):
    """Return complex numbers whose imaginary parts are zero, as an inverse transform may."""
    return einsum(x, kernel).astype(np.result_type(x.dtype, np.complex64))


class _Metres(np.ndarray):
    """An array with a unit. It cannot be compared, and what it is reduced to has a unit, too."""

    def __eq__(self, other):
        raise TypeError("lengths are not compared with numbers")

    __hash__ = None

    def max(self, *arguments, **keywords):
        return f"{np.asarray(self).max(*arguments, **keywords)} m"

    def astype(self, *arguments, **keywords):
        raise TypeError("lengths keep their type")


def subclass(x, kernel):
    """Return an array of a subclass that overrides some methods."""
    return einsum(x, kernel).view(_Metres)


def masked_array(x, kernel):
    """Return a masked array without a masked element."""
    return np.ma.masked_array(einsum(x, kernel))


def lanes(x, kernel):
    """Compute filters in lanes of eight. The lanes beyond the last filter are never written."""
    filters = len(kernel)
    wide = np.empty((8 * -(-filters // 8), *kernel.shape[1:]), kernel.dtype)
    wide[:filters] = kernel
    with np.errstate(invalid="ignore"):
        out = einsum(x, wide)
    return np.where(np.arange(len(wide))[:, None, None] < filters, out, 0)[:, :filters]


def lanes_times_zero(x, kernel):
    """Read lanes of eight channels, and multiply by zero what lies beyond the last one."""
    channels = kernel.shape[1]
    more = -channels % 8
    wide = np.empty((len(x), channels + more, *x.shape[2:]), x.dtype)
    wide[:, :channels] = x
    return einsum(wide, np.pad(kernel, ((0, 0), (0, more), (0, 0), (0, 0))))


def arena(x, kernel):
    """Reserve a gigabyte, and use the part that the result needs."""
    kh, kw = kernel.shape[2:]
    shape = len(x), len(kernel), x.shape[2] - kh + 1, x.shape[3] - kw + 1
    reserved = np.empty(2**30 // x.itemsize, x.dtype)
    out = reserved[: int(np.prod(shape))].reshape(shape)
    out[...] = einsum(x, kernel)
    return out
