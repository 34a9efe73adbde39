"""Say what malloc and the kernel do with pages of memory: keep them, take them back, count them.

Only Linux, and for malloc glibc, can be told and asked. Elsewhere these say that they cannot.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from convbench.machine.system import is_linux

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
"""Numbers of the options of glibc's mallopt(3), from malloc.h."""

KEEPING = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1))

AS_IT_STARTS = (
    (M_MMAP_MAX, 65536),
    (M_MMAP_THRESHOLD, 128 * 1024),
    (M_TRIM_THRESHOLD, 128 * 1024),
)

MADV_DONTNEED, MADV_NOHUGEPAGE = 4, 15
"""Numbers of two kinds of advice to madvise(2), from Linux's mman-common.h."""

UNSEEN = "this system does not tell which pages are there"


@contextmanager
def memory_kept() -> Iterator[bool]:
    """Inside the `with`, malloc gives nothing back to the system. Yields whether that can be had.

    Only glibc has it. Usually large arrays come from mmap, or from the top of the heap, and go back
    there, so that the kernel zeroes their pages at every call. Afterwards they do so again, by the
    thresholds that a process starts with, which no longer grow: what is timed as people run it
    comes before.
    """
    mallopt: Callable[[int, int], int] | None = None
    if is_linux():
        mallopt = getattr(_c_library(), "mallopt", None)
    if mallopt is None:
        yield False
        return
    try:
        yield all(mallopt(*option) for option in KEEPING)
    finally:
        for option in AS_IT_STARTS:
            mallopt(*option)


def mapped_bytes() -> int:
    """Bytes of addresses that this process has. Raises OSError where pages cannot be counted."""
    if not is_linux():
        raise OSError(UNSEEN)
    return int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE


def give_back(address: int, size: int) -> None:
    """Gives the pages of a range back to the system. Raises OSError.

    They come back as small pages: a huge one would count 2 MiB where one byte is touched.
    """
    _call("madvise", address, size, MADV_NOHUGEPAGE)
    _call("madvise", address, size, MADV_DONTNEED)


def resident_bytes(address: int, size: int) -> int:
    """Bytes of the pages of a range that are there. Raises OSError."""
    found = ctypes.create_string_buffer(size // mmap.PAGESIZE)
    _call("mincore", address, size, found)
    return sum(page & 1 for page in found.raw) * mmap.PAGESIZE


def _call(name: str, address: int, size: int, last: object) -> None:
    """Calls a function of the C library on a range of memory."""
    if not is_linux():
        raise OSError(UNSEEN)
    function = getattr(_c_library(), name)
    if function(ctypes.c_void_p(address), ctypes.c_size_t(size), last):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


@functools.cache
def _c_library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
