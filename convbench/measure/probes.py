"""Run small fixed work before and after each visit, to tell a calm machine from a disturbed one.

A neighbour on a shared host, or on the other hyperthread of a core, slows some work by 1.8 times
and leaves other work alone. A loop in the interpreter shows this best. On the machine on which this
was written, it takes either 1.05 to 1.1 or 1.6 to 1.9 times its quickest, for 0.2 to 2 s on end and
on each CPU by itself. A matrix product in the first-level cache takes 1.02 or 1.11 times its
quickest. The probes never see the arm, so what they say about a visit does not depend on how
quick the arm was.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

from convbench.machine import affinity
from convbench.results.model import Probe

LOOP_STEPS = 2500
"""Number of steps of the interpreter's loop, which take some 60 us."""

PROBED_CPUS = 8
"""Most CPUs that the loop runs on. They are spread evenly over those that may be used."""

PRODUCT_SIZE = 48
"""Rows and columns of the matrices that a probe multiplies. They are so small that no BLAS uses
further threads, which would go on spinning into the visit."""

PRODUCTS = 10
"""Number of products that are timed together."""

COPIED_FLOATS = 64 * 1024
"""Number of float32 that a probe copies. They stay in the second-level cache."""


def probe() -> Probe:
    """Run every probe once, which takes some 0.5 ms with two CPUs.

    Afterwards the calling thread may use the same CPUs as before, and runs on the same one.
    """
    work = _work()
    loops = _loops()
    product_s = _warm(work.multiply)
    copy_s = _warm(work.copy)
    return Probe(max(loops), min(loops), product_s, copy_s, work.sleeper.wake())


def _loops() -> list[float]:
    """Return the seconds of the loop on each probed CPU.

    The CPU on which this thread runs comes last, so that the thread stays there.
    """
    if not affinity.keeps_threads():
        return [_warm(_loop)]
    before = affinity.thread_cpus()
    cpus = sorted(before)
    probed = cpus[:: max(1, -(-len(cpus) // PROBED_CPUS))]
    here = affinity.current_cpu()
    if here in probed:
        probed = [*(cpu for cpu in probed if cpu != here), here]
    found = []
    try:
        for cpu in probed:
            affinity.keep_thread({cpu})
            found.append(_warm(_loop))
    except OSError:  # a sandbox may forbid to choose CPUs
        found = found or [_warm(_loop)]
    finally:
        affinity.keep_thread(before)
    return found


def _warm(work: Callable[[], object]) -> float:
    """Return the seconds of the work's second run; the first one meets cold caches."""
    work()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _loop() -> int:
    total = 0
    for step in range(LOOP_STEPS):
        total += step
    return total


class _Sleeper:
    """A thread that sleeps until it is asked to answer."""

    def __init__(self) -> None:
        self._asked, self._answered = threading.Semaphore(0), threading.Semaphore(0)
        threading.Thread(target=self._serve, name="convbench-probe", daemon=True).start()

    def _serve(self) -> None:
        while True:
            self._asked.acquire()
            self._answered.release()

    def wake(self) -> float:
        """Ask the thread, and return the seconds until it answers."""
        start = time.perf_counter()
        self._asked.release()
        self._answered.acquire()
        return time.perf_counter() - start


@dataclass(frozen=True)
class _Work:
    multiply: Callable[[], object]
    copy: Callable[[], object]
    sleeper: _Sleeper


@cache
def _work() -> _Work:
    """Return the work of the probes, which is made once in a process."""
    square: Any = np.ones((PRODUCT_SIZE, PRODUCT_SIZE), np.float32)
    product: Any = np.empty_like(square)
    source: Any = np.ones(COPIED_FLOATS, np.float32)
    target: Any = np.empty_like(source)

    def multiply() -> None:
        for _ in range(PRODUCTS):
            np.matmul(square, square, out=product)

    return _Work(multiply, partial(np.copyto, target, source), _Sleeper())
