"""Tell which CPUs a process or a thread may use, and keep it to some of them.

Only Linux can keep a single thread to some CPUs. psutil can keep a whole process to them, on
Windows for example. macOS can do neither.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
from collections.abc import Callable, Iterable

from convbench.machine.system import is_linux


def usable_cpus() -> tuple[int, ...]:
    """Return the logical CPUs that this process may run on."""
    if is_linux():
        return tuple(sorted(os.sched_getaffinity(0)))
    import psutil

    process = psutil.Process()
    if hasattr(process, "cpu_affinity"):
        return tuple(sorted(process.cpu_affinity()))
    return tuple(range(psutil.cpu_count() or 1))


def keep_process(cpus: Iterable[int]) -> None:
    """Keep every thread of this process to some CPUs, as far as the system can."""
    if is_linux():
        for task in os.listdir("/proc/self/task"):  # BLAS may have threads already
            with contextlib.suppress(OSError):  # a thread that is gone
                os.sched_setaffinity(int(task), cpus)
        return
    import psutil

    process = psutil.Process()
    if hasattr(process, "cpu_affinity"):
        with contextlib.suppress(psutil.Error, OSError):
            process.cpu_affinity(list(cpus))


def keeps_threads() -> bool:
    """Return whether `thread_cpus` and `keep_thread` work on this system."""
    return is_linux()


def thread_cpus() -> set[int]:
    """Return the CPUs that the calling thread may run on."""
    return os.sched_getaffinity(0)


def keep_thread(cpus: Iterable[int], thread: int = 0) -> None:
    """Keep the thread with this native id to some CPUs; 0 is the calling thread.

    Raises OSError where the system refuses.
    """
    os.sched_setaffinity(thread, cpus)


def current_cpu() -> int | None:
    """Return the CPU that the calling thread is on, or None where the system does not tell."""
    getcpu = _sched_getcpu() if is_linux() else None
    cpu = -1 if getcpu is None else getcpu()
    return cpu if cpu >= 0 else None


@functools.cache
def _sched_getcpu() -> Callable[[], int] | None:
    """Return the C library's function of that name, or None if it has none."""
    found: Callable[[], int] | None = getattr(ctypes.CDLL(None), "sched_getcpu", None)
    return found
