"""Threads of our own over blocks of work, with one BLAS thread in each.

NumPy's copies and sums run in one thread and release the lock meanwhile; BLAS's own threads meet
at a barrier in every product, which on a shared machine waits for whoever lost its CPU. So the
blocks are dealt out, and a product runs in the thread that gathered its columns.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

Work = Callable[[int], object]


FLOPS_OF_A_THREAD = 4_000_000
"""A thread is worth its start, some 15 us, from so many additions and multiplications on."""


def worthwhile(threads: int, flops: int) -> int:
    """How many of the threads pay for so much work."""
    return max(1, min(threads, flops // FLOPS_OF_A_THREAD))


def in_threads(work: Work, threads: int) -> None:
    """Calls work(0), ..., work(threads - 1) at once, in as many threads, and waits for all.

    The calling thread does work(0). What a call raises is raised here, once all have ended.
    """
    with one_blas_thread():
        if threads == 1:
            work(0)
            return
        others = [_pool(threads - 1).submit(work, index) for index in range(1, threads)]
        try:
            work(0)
        finally:
            for other in others:
                other.exception()
        for other in others:
            other.result()


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="convbench")


class _Limit:
    """How many calls want one BLAS thread now, and what was set before the first of them."""

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
    """It has none of its parent's threads, and a lock that one of them held is never released."""
    _pool.cache_clear()
    _limit.forget()


os.register_at_fork(after_in_child=_in_a_child_process)


def one_blas_thread() -> contextlib.AbstractContextManager[None]:
    """BLAS computes in the calling thread alone; meanwhile that holds for the whole process."""
    return _limit


@functools.cache
def blas() -> Any:
    """threadpoolctl's controller of this process's BLAS; NumPy has loaded its own by now."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")
