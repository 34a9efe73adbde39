"""Run blocks of work on threads of our own, with one BLAS thread in each.

NumPy copies and sums in one thread, and releases the interpreter's lock meanwhile. BLAS's own
threads meet at a barrier in every product, which on a shared machine waits for the thread that lost
its CPU. So threads of our own take the blocks, and each product runs in the thread that gathered
its columns.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from convbench.machine import affinity
from convbench.machine.processes import call_in_forks

Work = Callable[[int], object]


FLOPS_OF_A_THREAD = 4_000_000
"""Fewest additions and multiplications of a thread. With fewer, a thread is not worth its start,
which takes some 15 us."""


def worthwhile(threads: int, flops: int) -> int:
    """Return how many of the threads pay for this number of FLOPs. It is at least 1."""
    return max(1, min(threads, flops // FLOPS_OF_A_THREAD))


def in_threads(work: Work, threads: int) -> None:
    """Call work(0), ..., work(threads - 1) at the same time, each in a thread, and wait for all.

    The calling thread does work(0). An exception of a call is raised here once all have ended.
    """
    with one_blas_thread():
        if threads == 1:
            work(0)
            return
        pool = _pool(threads - 1)
        others: list[Future[object]] = []
        try:
            with pool.apart():
                others += [pool.submit(work, index) for index in range(1, threads)]
                work(0)
        finally:
            for other in others:
                other.exception()
        for other in others:
            other.result()


class _Pool(ThreadPoolExecutor):
    """Threads that do not share the CPU of the thread that calls them.

    Linux wakes a thread on the CPU of the thread that wakes it if every other CPU looks busy. Under
    KVM, a CPU that has slept for a moment looks busy. Two threads then take turns on one CPU for up
    to a second (measured: 10.3 ms a call instead of 5.6).
    """

    def __init__(self, threads: int) -> None:
        super().__init__(threads, "convbench", initializer=self._started)
        self._ids: list[int] = []
        self._allowed: set[int] = set()  # CPUs of these threads; none: as they started

    def _started(self) -> None:
        self._ids.append(threading.get_native_id())
        if self._allowed:
            with contextlib.suppress(OSError):  # or the pool would be broken
                affinity.keep_thread(self._allowed)

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """Keep the calling thread on its CPU inside the `with`, and the others on the other CPUs.

        Nothing changes if the process may use only one CPU, or if the system has no such calls.
        """
        current = affinity.current_cpu()
        cpus = set() if current is None else affinity.thread_cpus()
        if current is None or len(cpus) < 2:
            yield
            return
        with contextlib.suppress(OSError):  # a sandbox may forbid it
            allowed = cpus - {current}
            if allowed != self._allowed:
                self._allowed = allowed
                for thread in self._ids:
                    affinity.keep_thread(allowed, thread)
            affinity.keep_thread({current})
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                affinity.keep_thread(cpus)


@functools.cache
def _pool(threads: int) -> _Pool:
    return _Pool(threads)


class _Limit:
    """Number of calls that want one BLAS thread now, and the setting before the first of them."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self._lock = threading.Lock()
        self._wanted = 0
        self._before: list[tuple[Any, int]] = []

    def __enter__(self) -> None:
        with self._lock:
            self._wanted += 1
            if self._wanted > 1:
                return
            for library in blas().lib_controllers:
                threads = library.get_num_threads()
                if threads > 1:
                    self._before.append((library, threads))
                    library.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._wanted -= 1
            if self._wanted == 0:
                for library, threads in self._before:
                    library.set_num_threads(threads)
                self._before.clear()


_limit = _Limit()


def _in_a_child_process() -> None:
    """Forget the pools and the lock, since a child has none of its parent's threads."""
    _pool.cache_clear()
    _limit.forget()


call_in_forks(_in_a_child_process)


def one_blas_thread() -> contextlib.AbstractContextManager[None]:
    """Let BLAS compute in the calling thread alone inside the `with`, in the whole process."""
    return _limit


@functools.cache
def blas() -> Any:
    """Return threadpoolctl's controller of this process's BLAS, which NumPy has loaded by now."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")
