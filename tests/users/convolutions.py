"""Forward convolutions as a user may write them: NCHW, f(x, kernel), right and wrong ones."""

import ctypes
import os
import signal
import time

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def right(x, kernel):
    windows = sliding_window_view(x, kernel.shape[2:], axis=(2, 3))
    return np.einsum("bchwij,fcij->bfhw", windows, kernel)


def in_float64(x, kernel):
    return right(x.astype(np.float64), kernel.astype(np.float64))


def by_fft(x, kernel):
    """Rounds, so that integers do not come out equal. It is right all the same."""
    height, width = x.shape[2:]
    spectrum = np.fft.rfft2(x.astype(np.float64))
    flipped = np.fft.rfft2(kernel.astype(np.float64)[:, :, ::-1, ::-1], (height, width))
    full = np.fft.irfft2(np.einsum("bchw,fchw->bfhw", spectrum, flipped), (height, width))
    return full[:, :, kernel.shape[2] - 1 :, kernel.shape[3] - 1 :]


def flipped(x, kernel):
    """Computes a convolution in the sense of mathematics, which is not what a layer computes."""
    return right(x, kernel[:, :, ::-1, ::-1])


def remembers(x, kernel, seen={}):  # noqa: B006 - the mistake under test
    """Computes once for each shape, and returns the same result ever after."""
    return seen.setdefault(x.shape, right(x, kernel))


def forgets_a_corner(x, kernel):
    result = right(x, kernel)
    result[-1, -1, -1, -1] = np.nan
    return result


def too_small(x, kernel):
    return right(x, kernel)[:, :, 1:, 1:]


def raises(x, kernel):
    raise RuntimeError("out of luck")


def out_of_memory(x, kernel):
    return np.empty((1 << 40,))


def killed(x, kernel):
    os.kill(os.getpid(), signal.SIGKILL)


def segfault(x, kernel):
    ctypes.string_at(0)


def hangs(x, kernel):
    while True:
        time.sleep(1)


def crashes_when_timed(x, kernel, calls=[0]):  # noqa: B006 - counts its calls
    """Is right while it is checked and metered, and dies in the timing phase (a fresh process)."""
    calls[0] += 1
    if os.environ.get("CONVBENCH_TEST_PHASE") == "timing" or calls[0] > 40:
        os.kill(os.getpid(), signal.SIGSEGV)
    return right(x, kernel)


def slow(x, kernel):
    time.sleep(0.15)
    return right(x, kernel)
