"""Runtimes whose calls have a known cost, to hold the harness against.

Each computes a convolution of a tiny layer, right for any operands, and then waits until the call
has taken the time that it states. Awake, a call of any of them takes COST_S: that is the truth, and
what a plain loop gives after it has warmed up. What they differ in is what a harness may disturb.

- `Steady`: nothing.
- `Sleepy`: after a pause its calls are slow until it has been called for a while without one, as
  TensorFlow's are whose threads slept (on a virtual machine 0.1 to 0.2 s, measured).
- `Heap`: sleepy, and a garbage collection takes longer than the pause that puts it to sleep.
- `Pool`: sleepy, with a dozen threads that sleep, two of which take part in each call.

How long a sleepy one takes to wake is WAKE_S, or what the variable WAKE says, in seconds.
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
"""A call of any of them when it is awake. The convolution itself takes a fifth of it at most."""

ASLEEP_S = 600e-6
"""A call of a sleepy one that is not awake yet."""

PAUSE_S = 1e-3
"""A sleepy one falls asleep when this long passes between the end of a call and the next call.

What interrupts a call itself, such as another process on its CPU, makes that call longer and
nothing else, so that a busy machine does not put it to sleep.
"""

WAKE = "CONVBENCH_TEST_WAKE_S"
WAKE_S = 0.06
"""How long a sleepy one must be called without a pause until it is awake."""

OBJECTS = 2_000_000
"""Containers on the heap of `Heap`: a collection walks over them for some 0.1 s."""

THREADS, TAKING_PART = 12, 2
"""Threads of `Pool`, and how many of them compute a part of each call."""


class Steady:
    """Every call takes COST_S."""

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
    """A call takes ASLEEP_S until calls have followed one another for as long as it wakes."""

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
    """Has many objects, made when it is first used: nobody who imported it could freeze them."""

    def __init__(self):
        super().__init__()
        self._objects = heap()


class Pool(Sleepy):
    """Leaves the filters to threads that wait for work, in equal parts."""

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
    """OBJECTS containers, once a process."""
    enabled = gc.isenabled()
    gc.disable()  # or it would walk over them again and again while they are made
    objects = []
    for _ in range(OBJECTS):
        objects.append([objects])
    if enabled:
        gc.enable()
    return objects


@functools.cache
def pool():
    """The queue that THREADS threads wait at, once a process."""
    work = SimpleQueue()

    def take_part():
        while True:
            done, place, x, part = work.get()
            done.put((place, correlate(x, part)))

    for _ in range(THREADS):
        threading.Thread(target=take_part, daemon=True).start()
    return work


def correlate(x, kernel):
    """Valid padding, strides 1; x (batch, channels, height, width)."""
    windows = sliding_window_view(x, kernel.shape[2:], axis=(2, 3))
    batch, channels, height, width, *size = windows.shape
    rows = windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, channels * size[0] * size[1])
    product = rows @ kernel.reshape(len(kernel), -1).T
    return product.reshape(batch, height, width, -1).transpose(0, 3, 1, 2)


def wait_until(end):
    while perf_counter() < end:
        pass
