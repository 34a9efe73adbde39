"""Tell what fresh pages cost: memory that the system gives at every call and takes back after it.

Large arrays come from mmap, or from the top of the heap, and go back there: the kernel zeroes their
pages each time. A process whose malloc keeps what it once had pays for them once; the same call
timed with and without says what they cost, whatever size of pages the kernel happens to give.
"""

from __future__ import annotations

import ctypes
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
"""Numbers of the options of glibc's mallopt(3), from malloc.h."""

KEEPING = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1))

AS_IT_STARTS = (
    (M_MMAP_MAX, 65536),
    (M_MMAP_THRESHOLD, 128 * 1024),
    (M_TRIM_THRESHOLD, 128 * 1024),
)


@contextmanager
def memory_kept() -> Iterator[bool]:
    """Within, malloc gives nothing back to the system. Whether that can be had: glibc has it.

    Afterwards it does again, by the thresholds that a process starts with, which no longer grow:
    what is timed as people run it comes before.
    """
    mallopt: Callable[[int, int], int] | None = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        yield False
        return
    try:
        yield all(mallopt(*option) for option in KEEPING)
    finally:
        for option in AS_IT_STARTS:
            mallopt(*option)


def page_faults() -> int:
    """Pages that this process touched for the first time so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
