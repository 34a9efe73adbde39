"""Convolutions that are right at first, or for most values. `check` must find each of them."""

import random
import threading

import numpy as np

from convbench import conv2d


def right(x, kernel):
    images = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    taps = np.ascontiguousarray(kernel.transpose(2, 3, 1, 0))
    return conv2d(images, taps).transpose(0, 3, 1, 2).copy()


_calls = {"in all": 0}
_first_thread = []
_last_shape = []
_by_sum = {}
_by_corner = {}


def wrong_from_the_50th_call(x, kernel):
    _calls["in all"] += 1
    return right(x, kernel) + (_calls["in all"] >= 50)


class WrongFromThe50thCallOfAnObject:
    def __init__(self):
        self.calls = 0

    def forward(self, x, kernel):
        self.calls += 1
        return right(x, kernel) + (self.calls >= 50)


def wrong_on_another_thread(x, kernel):
    if not _first_thread:
        _first_thread.append(threading.get_ident())
    return right(x, kernel) * (1 if threading.get_ident() == _first_thread[0] else 2)


def wrong_after_a_larger_layer(x, kernel):
    largest = max([x.size, *_last_shape])
    _last_shape[:] = [largest]
    return right(x, kernel) + (x.size * 2 < largest)


def wrong_once_in_50(x, kernel):
    return right(x, kernel) + (random.random() < 0.02)


def remembers_by_the_sum(x, kernel):
    key = x.shape, kernel.shape, float(np.abs(x).sum()), float(kernel.sum())
    if key not in _by_sum:
        _by_sum[key] = right(x, kernel)
    return _by_sum[key].copy()


def remembers_by_the_corner(x, kernel):
    key = x.shape, kernel.shape, float(x[0, 0, 0, 0]), float(kernel[0, 0, 0, 0])
    if key not in _by_corner:
        _by_corner[key] = right(x, kernel)
    return _by_corner[key].copy()


def nan_after_a_relu(x, kernel):
    return right(x, kernel) * (np.nan if (x == 0).any() else 1)


def divides_by_denormal_numbers(x, kernel):
    """Scale by the smallest element and back, which overflows if it is denormal."""
    smallest = np.abs(x[x != 0]).min(initial=1)
    with np.errstate(all="ignore"):
        return right(x / smallest, kernel) * smallest


def saturates(x, kernel):
    return np.clip(right(x, kernel), -32768, 32767)


def drops_tiny_values(x, kernel):
    return right(np.where(np.abs(x) < 1e-7, 0, x).astype(x.dtype), kernel)


def truncated_operands(x, kernel):
    if x.dtype != np.float32 or x.shape[1] * kernel[0, 0].size <= 32:
        return right(x, kernel)
    bits = (np.ascontiguousarray(array).view(np.uint32) for array in (x, kernel))
    return right(*((array & np.uint32(0xFFFF0000)).view(np.float32) for array in bits))


def rest_of_a_block_of_images(x, kernel):
    result = right(x, kernel)
    whole = len(x) // 16 * 16
    if whole:
        result[whole:] = 0
    return result


def blocks_of_columns(x, kernel):
    result = right(x, kernel)
    whole = result.shape[3] // 32 * 32
    if whole:
        result[..., whole:] = 0
    return result


def wrong_for_7x7(x, kernel):
    return right(x, kernel) + (kernel.shape[2] >= 7)
