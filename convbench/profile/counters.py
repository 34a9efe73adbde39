"""Count what the CPU and the kernel count during a call, where perf_event_open(2) permits it.

Of every thread of the process, in user space only, so that no privilege is needed beyond
kernel.perf_event_paranoid <= 2. Many virtual machines have no hardware counters; what is missing is
told, not guessed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from convbench.profile.findings import Counted

SYSCALLS = {"x86_64": 298, "aarch64": 241}
ATTRIBUTES = struct.Struct("=IIQQQQQ72x")
"""perf_event_attr: type, size, config, sample period, sample type, read format, flags."""

HARDWARE, SOFTWARE, CACHE = 0, 1, 3
READ_MISSES = 1 << 16
DISABLED, NO_KERNEL, NO_HYPERVISOR = 1, 1 << 5, 1 << 6
TIMES = 1 | 2
"""Read with the time that the event was enabled and the time that it was counted: of more events
than the CPU has counters, each is counted a part of the time."""

ENABLE, DISABLE = 0x2400, 0x2401

EVENTS = {
    "cycles": (HARDWARE, 0),
    "instructions": (HARDWARE, 1),
    "last-level cache misses": (HARDWARE, 3),
    "branch misses": (HARDWARE, 5),
    "L1 data read misses": (CACHE, READ_MISSES),
    "data TLB read misses": (CACHE, 3 | READ_MISSES),
    "page faults": (SOFTWARE, 2),
    "context switches": (SOFTWARE, 3),
    "CPU migrations": (SOFTWARE, 4),
}

REASONS = {
    errno.ENOENT: "this system has no such counter, as virtual machines often",
    errno.EOPNOTSUPP: "this CPU has no such counter",
    errno.EACCES: "not permitted: kernel.perf_event_paranoid is above 2",
    errno.EPERM: "not permitted here, as in many containers",
    errno.ENOSYS: "this kernel has no perf_event_open",
}

SECONDS = 0.1
"""Seconds for which the counted calls are made; one call at least."""


def counted(run: Callable[[], object], call_s: float) -> Counted:
    """Counts a call, and by event what the system said where it has none."""
    calls = max(1, round(SECONDS / max(call_s, 1e-7)))
    counts: dict[str, float] = {}
    missing: dict[str, str] = {}
    for name, (kind, config) in EVENTS.items():
        try:
            with _open(kind, config) as counters:
                for counter in counters:
                    _control(counter, ENABLE)
                for _ in range(calls):
                    run()
                for counter in counters:
                    _control(counter, DISABLE)
                counts[name] = sum(map(_read, counters)) / calls
        except OSError as error:
            missing[name] = error.strerror or str(error)
    return Counted(counts, missing)


@contextmanager
def _open(kind: int, config: int) -> Iterator[list[int]]:
    """A counter of the event for each thread. Raises OSError."""
    counters: list[int] = []
    try:
        for thread in os.listdir("/proc/self/task") if sys.platform == "linux" else ():
            with suppress(ProcessLookupError):  # a thread that is gone
                counters.append(_perf_event_open(kind, config, int(thread)))
        if not counters:
            raise OSError(0, "perf_event_open is Linux's")
        yield counters
    finally:
        for counter in counters:
            os.close(counter)


def _perf_event_open(kind: int, config: int, thread: int) -> int:
    number = SYSCALLS.get(platform.machine())
    if number is None:
        raise OSError(0, f"perf_event_open's number is not known on {platform.machine()}")
    flags = DISABLED | NO_HYPERVISOR | (0 if kind == SOFTWARE else NO_KERNEL)
    attributes = ATTRIBUTES.pack(kind, ATTRIBUTES.size, config, 0, 0, TIMES, flags)
    libc = ctypes.CDLL(None, use_errno=True)
    found: int = libc.syscall(number, attributes, thread, -1, -1, 0)
    if found < 0:
        failed = ctypes.get_errno()
        raise OSError(failed, REASONS.get(failed, os.strerror(failed)))
    return found


def _control(counter: int, request: int) -> None:
    import fcntl

    fcntl.ioctl(counter, request, 0)


def _read(counter: int) -> float:
    value, enabled, ran = struct.unpack("=QQQ", os.read(counter, 24))
    return value * enabled / ran if ran else 0.0
