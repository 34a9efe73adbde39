"""Count the memory that OpenBLAS packs matrices into: buffers of its own, which no meter sees.

OpenBLAS maps a buffer of 32 MiB for each thread, once a process, and copies blocks of the operands
of a product into its first pages. TensorFlow takes the same kind of memory from malloc in every
call, where memray counts it; so both sides' figures mean the same only if these pages count too.

The pages that some calls touched are counted like this (all names are OpenBLAS's, in
driver/others/memory.c and blas_server.c): its threads are ended, as they are before every fork, so
that all buffers are free; as many as can be in use at a time are taken, their pages given back to
the system, the buffers freed, and the threads started again. Nobody else can use a buffer
meanwhile. The next products take the same buffers, first ones first. Afterwards the system tells
which pages are there (machine/pages.py).
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

from convbench.machine import pages

LEAST_BUFFER_BYTES = 2**20
"""Smallest growth of the process in bytes that is taken for OpenBLAS's buffer. OpenBLAS's
BUFFER_SIZE is 8 MiB and more on every processor (common_*.h); a thread of the process that
allocates at that moment makes it grow by less."""

MOST_BUFFERS = 64
"""Buffers that are taken at most until one of them is new and its size can be seen. An OpenBLAS
built for one thread has 2 * MAX_PARALLEL_NUMBER * 2 of them, NumPy's has 128 and more."""


class BuffersUnseenError(Exception):
    """The buffers of a BLAS library cannot be counted; the text says why."""


class BlasBuffers:
    """The buffers of all OpenBLAS libraries of this process, for `threads` threads of a call."""

    def __init__(self, threads: int) -> None:
        """Raises OSError or BuffersUnseenError where there is an OpenBLAS whose buffers cannot be
        counted."""
        # The caller's threads may each multiply, and a library's own threads keep one buffer each.
        self._count = 2 * threads + 2
        self._libraries = [_library(path) for path in _openblas_paths()]
        self._taken: list[tuple[int, int]] = []  # address, bytes

    def forget(self) -> None:
        """Empties the buffers, so that pages which are touched from now on can be counted.

        Raises OSError or BuffersUnseenError where they cannot be.
        """
        self._taken = [
            (address, library.buffer_bytes)
            for library in self._libraries
            for address in library.emptied(self._count)
        ]
        if self.touched_bytes():
            raise BuffersUnseenError(pages.UNSEEN)

    def touched_bytes(self) -> int:
        """Bytes of the pages that were touched since `forget`."""
        return sum(pages.resident_bytes(address, size) for address, size in self._taken)


class _OpenBlas:
    """One library: its functions, and the size of a buffer."""

    def __init__(self, path: str) -> None:
        library = ctypes.CDLL(path)
        try:
            self._end_threads = library.blas_thread_shutdown_
            self._start_threads = library.blas_thread_init
            self._allocate = library.blas_memory_alloc
            self._free = library.blas_memory_free
        except AttributeError:
            raise BuffersUnseenError(f"{Path(path).name} hides its buffers") from None
        self._allocate.restype = ctypes.c_void_p
        self._free.argtypes = [ctypes.c_void_p]
        self.buffer_bytes = self._measured_bytes()

    def _measured_bytes(self) -> int:
        """The size of a buffer: what the process grows by when it takes a new one.

        The smallest of several: another thread may allocate as well.
        """
        taken: list[int] = []
        grown: list[int] = []
        try:
            while len(grown) < 2 and len(taken) < MOST_BUFFERS:
                before = pages.mapped_bytes()
                taken.append(self._allocate(0))
                more = pages.mapped_bytes() - before
                if more >= LEAST_BUFFER_BYTES:
                    grown.append(more)
        finally:
            for address in taken:
                self._free(address)
        if not grown:
            raise BuffersUnseenError("OpenBLAS maps no buffers of its own")
        return min(grown)

    def emptied(self, count: int) -> list[int]:
        """The addresses of the buffers that OpenBLAS takes first, without any pages."""
        self._end_threads()
        taken = [self._allocate(0) for _ in range(count)]
        try:
            for address in taken:
                pages.give_back(address, self.buffer_bytes)
        finally:
            for address in taken:
                self._free(address)
            self._start_threads()
        return taken


_library = functools.cache(_OpenBlas)


def _openblas_paths() -> list[str]:
    """The OpenBLAS libraries that are loaded: NumPy's, and SciPy's where it is imported."""
    from threadpoolctl import threadpool_info

    found = threadpool_info()
    return [pool["filepath"] for pool in found if pool["internal_api"] == "openblas"]
