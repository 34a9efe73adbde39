"""Count events of the CPU and the kernel with perf_event_open(2), where that is permitted.

Events of every thread of the process count. The CPU's events count in user space only, which needs
no privilege beyond kernel.perf_event_paranoid <= 2. Many virtual machines have no hardware
counters, and only Linux has perf_event_open.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from convbench.machine.system import is_linux

SYSCALLS = {"x86_64": 298, "aarch64": 241}
"""Number of the system call perf_event_open(2) by architecture, from Linux's unistd.h."""

ATTRIBUTES = struct.Struct("=IIQQQQQ72x")
"""Layout of struct perf_event_attr: type, size, config, sample period, sample type, read format,
flags. This and the numbers below are from Linux's perf_event.h."""

HARDWARE, SOFTWARE, CACHE = 0, 1, 3
"""Types of events."""

READ_MISSES = 1 << 16
"""Part of `config` of a cache's event that asks for misses of reads."""

DISABLED, NO_KERNEL, NO_HYPERVISOR = 1, 1 << 5, 1 << 6
"""Flags: do not count yet, do not count in the kernel, do not count in a hypervisor."""

TIMES = 1 | 2
"""Read format with two times: how long the event was enabled, and how long it was counted. If there
are more events than the CPU has counters, each event is counted only part of the time."""

ENABLE, DISABLE = 0x2400, 0x2401
"""Requests to ioctl(2) that start and stop a counter."""

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
"""Type and `config` of each event that can be counted."""

REASONS = {
    errno.ENOENT: "this system has no such counter, like many virtual machines",
    errno.EOPNOTSUPP: "this CPU has no such counter",
    errno.EACCES: "not permitted: kernel.perf_event_paranoid is above 2",
    errno.EPERM: "not permitted here, as in many containers",
    errno.ENOSYS: "this kernel has no perf_event_open",
}
"""Reasons why an event cannot be counted, by the error of perf_event_open(2)."""


class Counters:
    """The counters of one event, one for each thread of the process."""

    def __init__(self, descriptors: list[int]) -> None:
        self._descriptors = descriptors

    def start(self) -> None:
        self._control(ENABLE)

    def stop(self) -> None:
        self._control(DISABLE)

    def total(self) -> float:
        """Return how often the event happened between `start` and `stop`, in all threads."""
        return sum(map(_read, self._descriptors))

    def _control(self, request: int) -> None:
        import fcntl

        for descriptor in self._descriptors:
            fcntl.ioctl(descriptor, request, 0)


@contextmanager
def counters(event: str) -> Iterator[Counters]:
    """Yield the counters of one of EVENTS. Raises OSError with the reason if there are none."""
    if not is_linux():
        raise OSError(0, "only Linux has perf_event_open")
    descriptors: list[int] = []
    try:
        for thread in os.listdir("/proc/self/task"):
            with suppress(ProcessLookupError):  # a thread that is gone
                descriptors.append(_perf_event_open(*EVENTS[event], int(thread)))
        yield Counters(descriptors)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _perf_event_open(kind: int, config: int, thread: int) -> int:
    number = SYSCALLS.get(platform.machine())
    if number is None:
        raise OSError(0, f"the number of perf_event_open is not known on {platform.machine()}")
    flags = DISABLED | NO_HYPERVISOR | (0 if kind == SOFTWARE else NO_KERNEL)
    attributes = ATTRIBUTES.pack(kind, ATTRIBUTES.size, config, 0, 0, TIMES, flags)
    libc = ctypes.CDLL(None, use_errno=True)
    found: int = libc.syscall(number, attributes, thread, -1, -1, 0)
    if found < 0:
        failed = ctypes.get_errno()
        raise OSError(failed, REASONS.get(failed, os.strerror(failed)))
    return found


def _read(descriptor: int) -> float:
    value, enabled, ran = struct.unpack("=QQQ", os.read(descriptor, 24))
    return value * enabled / ran if ran else 0.0
