"""Make malloc and the kernel keep pages of memory, take pages back, and count them.

This works on Linux only, and for malloc with glibc only. Elsewhere the functions say so.
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
"""Options with which malloc gives nothing back: never use mmap, and never trim the heap."""

AS_IT_STARTS = (
    (M_MMAP_MAX, 65536),
    (M_MMAP_THRESHOLD, 128 * 1024),
    (M_TRIM_THRESHOLD, 128 * 1024),
)
"""Values of these options with which a process starts, from mallopt(3)."""

MADV_DONTNEED, MADV_NOHUGEPAGE = 4, 15
"""Numbers of two kinds of advice to madvise(2), from Linux's mman-common.h."""

UNSEEN = "this system does not tell which pages are in memory"


@contextmanager
def memory_kept() -> Iterator[bool]:
    """Make malloc give nothing back to the system inside the `with`, and yield whether it does so.

    Only glibc can do it. Large arrays usually come from mmap or from the top of the heap and go
    back there, so the kernel zeroes their pages at every call. After the `with` they do so again,
    by the thresholds that a process starts with. These thresholds no longer grow, so time code as
    people run it before the `with`.
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
    """Return the bytes of addresses that this process has mapped.

    Raises OSError where pages cannot be counted.
    """
    if not is_linux():
        raise OSError(UNSEEN)
    return int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE


def give_back(address: int, size: int) -> None:
    """Give the pages of a range back to the system. Raises OSError where that cannot be done.

    When the range is touched again it gets small pages. A huge page would count as 2 MiB where
    one byte is touched.
    """
    _call("madvise", address, size, MADV_NOHUGEPAGE)
    _call("madvise", address, size, MADV_DONTNEED)


def resident_bytes(address: int, size: int) -> int:
    """Return the bytes of a range's pages that are in memory.

    Raises OSError where the system does not tell.
    """
    found = ctypes.create_string_buffer(size // mmap.PAGESIZE)
    _call("mincore", address, size, found)
    return sum(page & 1 for page in found.raw) * mmap.PAGESIZE


def _call(name: str, address: int, size: int, last: object) -> None:
    """Call a function of the C library on a range of memory. Raises OSError if it fails."""
    if not is_linux():
        raise OSError(UNSEEN)
    function = getattr(_c_library(), name)
    if function(ctypes.c_void_p(address), ctypes.c_size_t(size), last):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


@functools.cache
def _c_library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
