"""Implementations whose calls have a known cost, to hold the harness against.

Each computes a convolution of a tiny layer, right for any operands, and then waits until the call
has taken its stated time. A call of any of them takes COST_S when it is awake. That is the truth,
and a plain loop gives it after warming up. They differ in what a harness may disturb:

- `Steady` cannot be disturbed.
- `Sleepy` is slow after a pause, until it has been called for a while without one. TensorFlow is
  as slow when its threads slept (for 0.1 to 0.2 s on a virtual machine, measured).
- `Heap` is sleepy, and a garbage collection takes longer than the pause that puts it to sleep.
- `Pool` is sleepy, and has a dozen threads that sleep; two of them take part in each call.

A sleepy one takes WAKE_S to wake, or as many seconds as the variable WAKE says.
"""

import functools
import gc
import os
import threading
from queue import SimpleQueue
from time import perf_counter

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

COST_S = 300e-6
"""Seconds of a call when awake. The convolution itself takes a fifth of that at most."""

ASLEEP_S = 600e-6
"""Seconds of a call to a sleepy one that is not awake yet."""

PAUSE_S = 1e-3
"""Seconds between the end of a call and the next call that put a sleepy one to sleep.

What interrupts a call itself, such as another process on its CPU, only makes that call longer, so
that a busy machine puts nothing to sleep.
"""

WAKE = "CONVBENCH_TEST_WAKE_S"
WAKE_S = 0.06
"""Seconds for which a sleepy one must be called without a pause until it is awake."""

OBJECTS = 2_000_000
"""Number of containers on the heap of `Heap`: a collection walks over them for about 0.1 s."""

THREADS, TAKING_PART = 12, 2
"""Number of threads of `Pool`, and how many of them compute a part of each call."""


class Steady:
    """A convolution whose every call takes COST_S."""

    def forward(self, x, kernel):
        start = perf_counter()
        result = self.convolve(x, kernel)
        wait_until(start + self.cost_s(start))
        self.ended(perf_counter())
        return result

    def convolve(self, x, kernel):
        return correlate(x, kernel)

    def cost_s(self, start):
        return COST_S

    def ended(self, at):
        pass


class Sleepy(Steady):
    """A convolution whose calls take ASLEEP_S until they have followed one another for WAKE_S."""

    def __init__(self):
        self._wake_s = float(os.environ.get(WAKE, WAKE_S))
        self._ended = self._roused = -np.inf

    def cost_s(self, start):
        if start - self._ended > PAUSE_S:
            self._roused = start
        return COST_S if start - self._roused >= self._wake_s else ASLEEP_S

    def ended(self, at):
        self._ended = at


class Heap(Sleepy):
    """A sleepy convolution with many objects, made at first use: no importer can freeze them."""

    def __init__(self):
        super().__init__()
        self._objects = heap()


class Pool(Sleepy):
    """A sleepy convolution that leaves equal parts of its filters to threads that wait for work."""

    def __init__(self):
        super().__init__()
        self._work = pool()

    def convolve(self, x, kernel):
        done = SimpleQueue()
        for place, part in enumerate(np.array_split(kernel, TAKING_PART)):
            self._work.put((done, place, x, part))
        parts = dict(done.get() for _ in range(TAKING_PART))
        return np.concatenate([parts[place] for place in range(TAKING_PART)], axis=1)


@functools.cache
def heap():
    """Return OBJECTS containers, made once in each process."""
    enabled = gc.isenabled()
    gc.disable()  # else it walks over them again and again while they are made
    objects = []
    for _ in range(OBJECTS):
        objects.append([objects])
    if enabled:
        gc.enable()
    return objects


@functools.cache
def pool():
    """Return the queue at which THREADS threads wait, made once in each process."""
    work = SimpleQueue()

    def take_part():
        while True:
            done, place, x, part = work.get()
            done.put((place, correlate(x, part)))

    for _ in range(THREADS):
        threading.Thread(target=take_part, daemon=True).start()
    return work


def correlate(x, kernel):
    """Convolve x (batch, channels, height, width) with valid padding and strides of 1."""
    windows = sliding_window_view(x, kernel.shape[2:], axis=(2, 3))
    batch, channels, height, width, *size = windows.shape
    rows = windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, channels * size[0] * size[1])
    product = rows @ kernel.reshape(len(kernel), -1).T
    return product.reshape(batch, height, width, -1).transpose(0, 3, 1, 2)


def wait_until(end):
    while perf_counter() < end:
        pass
