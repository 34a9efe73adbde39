"""Convolve in C, compiled with -ffast-math, which sums in another order than C asks for."""

import ctypes
import functools
import subprocess
import tempfile
from pathlib import Path

import numpy as np

SOURCE = """
#define CORRELATE(NAME, REAL)                                                                  \\
void NAME(const REAL *x, const REAL *k, REAL *out, long b, long c, long h, long w, long f,     \\
          long kh, long kw) {                                                                  \\
    long oh = h - kh + 1, ow = w - kw + 1;                                                     \\
    for (long n = 0; n < b; n++) for (long o = 0; o < f; o++)                                  \\
    for (long i = 0; i < oh; i++) for (long j = 0; j < ow; j++) {                              \\
        REAL sum = 0;                                                                          \\
        for (long d = 0; d < c; d++) for (long p = 0; p < kh; p++) for (long q = 0; q < kw; q++) \\
            sum += x[((n * c + d) * h + i + p) * w + j + q] * k[((o * c + d) * kh + p) * kw + q]; \\
        out[((n * f + o) * oh + i) * ow + j] = sum;                                            \\
    }                                                                                          \\
}
CORRELATE(correlate_float, float)
CORRELATE(correlate_double, double)
"""


@functools.cache
def _library():
    with tempfile.TemporaryDirectory() as folder:
        source, compiled, library = (Path(folder) / f"correlate.{end}" for end in ("c", "o", "so"))
        source.write_text(SOURCE)
        subprocess.run(
            ["cc", "-O3", "-ffast-math", "-fPIC", "-c", source, "-o", compiled], check=True
        )
        # A library that is linked with -ffast-math lets the whole process flush denormal numbers.
        subprocess.run(["cc", "-shared", compiled, "-o", library], check=True)
        return ctypes.CDLL(str(library))


def fast_math(x, kernel):
    """Call the loops in C."""
    x, kernel = np.ascontiguousarray(x), np.ascontiguousarray(kernel)
    (batch, channels, height, width), (filters, _, kh, kw) = x.shape, kernel.shape
    out = np.empty((batch, filters, height - kh + 1, width - kw + 1), x.dtype)
    function = getattr(_library(), "correlate_double" if x.itemsize == 8 else "correlate_float")
    pointers = (ctypes.c_void_p(array.ctypes.data) for array in (x, kernel, out))
    sizes = (batch, channels, height, width, filters, kh, kw)
    function(*pointers, *map(ctypes.c_long, sizes))
    return out
