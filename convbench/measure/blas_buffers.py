"""Count the memory that OpenBLAS packs matrices into: buffers of its own, which no meter sees.

OpenBLAS maps a buffer of 32 MiB for each thread, once a process, and copies blocks of a product's
operands into the first pages of the buffer. TensorFlow takes the same kind of memory from malloc in
every call, and there memray counts it. So the figures of NumPy and TensorFlow mean the same only if
these pages count too.

The pages that some calls touch are counted in these steps (all names are OpenBLAS's, in
driver/others/memory.c and blas_server.c):

1. End OpenBLAS's threads, as happens before every fork. Now all buffers are free.
2. Take as many buffers as can be in use at a time, so that nobody else can use them. Give their
   pages back to the system, free the buffers, and start the threads again.
3. Make the calls. Their products take the same buffers, in the same order.
4. Ask the system which pages of the buffers are in memory (machine/pages.py).
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

from convbench.machine import pages

LEAST_BUFFER_BYTES = 2**20
"""Smallest growth of the process in bytes that is taken for a buffer of OpenBLAS. Its BUFFER_SIZE
is at least 8 MiB on every processor (common_*.h). Another thread that allocates at that moment
makes the process grow by less."""

MOST_BUFFERS = 64
"""Most buffers that are taken until one of them is new, so that its size can be seen. An OpenBLAS
that was built for one thread has 2 * MAX_PARALLEL_NUMBER * 2 buffers; NumPy's has at least 128."""


class BuffersUnseenError(Exception):
    """The buffers of a BLAS library cannot be counted; the text says why."""


class BlasBuffers:
    """The buffers of all OpenBLAS libraries of this process, for calls with `threads` threads."""

    def __init__(self, threads: int) -> None:
        """Raises OSError or BuffersUnseenError if the buffers of an OpenBLAS cannot be counted."""
        # Each thread of the caller may multiply, and each thread of a library keeps one buffer.
        self._count = 2 * threads + 2
        self._libraries = [_library(path) for path in _openblas_paths()]
        self._taken: list[tuple[int, int]] = []  # address, bytes

    def forget(self) -> None:
        """Empty the buffers, so that pages which are touched from now on can be counted.

        Raises OSError or BuffersUnseenError if the pages cannot be counted.
        """
        self._taken = [
            (address, library.buffer_bytes)
            for library in self._libraries
            for address in library.emptied(self._count)
        ]
        if self.touched_bytes():
            raise BuffersUnseenError(pages.UNSEEN)

    def touched_bytes(self) -> int:
        """Return the bytes of the pages that were touched since `forget`. Raises OSError."""
        return sum(pages.resident_bytes(address, size) for address, size in self._taken)


class _OpenBlas:
    """One OpenBLAS library: its functions, and the size of its buffers."""

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
        """Return the size of a buffer: the bytes by which a new one makes the process grow.

        The smallest of several growths counts, since another thread may allocate as well.
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
        """Empty the `count` buffers that OpenBLAS takes first, and return their addresses."""
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
    """Return the paths of the loaded OpenBLAS libraries: NumPy's, and SciPy's if it is imported."""
    from threadpoolctl import threadpool_info

    found = threadpool_info()
    return [pool["filepath"] for pool in found if pool["internal_api"] == "openblas"]
