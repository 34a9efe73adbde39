"""Tell which CPUs a process or a thread may use, and keep it to some of them.

Only Linux keeps single threads to CPUs. psutil keeps whole processes, on Windows among others;
macOS keeps neither.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
from collections.abc import Callable, Iterable

from convbench.machine.system import is_linux


def usable_cpus() -> tuple[int, ...]:
    """The logical CPUs that this process may run on."""
    if is_linux():
        return tuple(sorted(os.sched_getaffinity(0)))
    import psutil

    process = psutil.Process()
    if hasattr(process, "cpu_affinity"):
        return tuple(sorted(process.cpu_affinity()))
    return tuple(range(psutil.cpu_count() or 1))


def keep_process(cpus: Iterable[int]) -> None:
    """Keeps every thread of this process to some CPUs, as far as the system can."""
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
    """Whether `thread_cpus` and `keep_thread` work here."""
    return is_linux()


def thread_cpus() -> set[int]:
    """The CPUs that the calling thread may run on."""
    return os.sched_getaffinity(0)


def keep_thread(cpus: Iterable[int], thread: int = 0) -> None:
    """Keeps a thread, by its native id, to some CPUs; 0 is the calling thread. Raises OSError."""
    os.sched_setaffinity(thread, cpus)


def current_cpu() -> int | None:
    """The CPU that the calling thread is on; None where threads cannot be kept to it."""
    getcpu = _sched_getcpu() if is_linux() else None
    cpu = -1 if getcpu is None else getcpu()
    return cpu if cpu >= 0 else None


@functools.cache
def _sched_getcpu() -> Callable[[], int] | None:
    """The C library's function; None where it has none."""
    found: Callable[[], int] | None = getattr(ctypes.CDLL(None), "sched_getcpu", None)
    return found
