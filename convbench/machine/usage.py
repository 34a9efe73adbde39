"""Tell how much memory this process takes, how many new pages, and how busy the machine is."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from convbench.machine.system import is_linux


def load() -> float:
    """Return how many processes ran or waited to run, on average over the last minute."""
    import psutil

    return psutil.getloadavg()[0]


def peak_resident_bytes() -> int:
    """Return the largest resident memory of this process so far, in bytes.

    The portable figure comes from the operating system on Windows, and from getrusage elsewhere.
    On Linux, getrusage also counts what the parent held before the fork.
    """
    if is_linux():
        with contextlib.suppress(OSError):
            status = Path("/proc/self/status").read_text()
            if found := re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE):
                return int(found[1]) * 1024
    import psutil

    peak = getattr(psutil.Process().memory_info(), "peak_wset", None)
    if peak is not None:
        return int(peak)
    import resource

    unit = 1 if psutil.MACOS else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak_resident() -> bool:
    """Let `peak_resident_bytes` start anew from now on. Return whether the system can do that."""
    if is_linux():
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
            return True
    return False


def resident_bytes() -> int:
    """Return the resident memory of this process, in bytes.

    Memory that was freed is given back to the system first, where the C library can do that.
    """
    import ctypes

    import psutil

    if is_linux():
        with contextlib.suppress(AttributeError):  # musl has no malloc_trim
            ctypes.CDLL(None).malloc_trim(0)
    return int(psutil.Process().memory_info().rss)


def page_faults() -> int | None:
    """Return how many pages this process touched for the first time so far.

    Return None on systems that do not count them.
    """
    if is_linux():
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    import psutil

    memory = psutil.Process().memory_info()
    faults = getattr(memory, "num_page_faults", getattr(memory, "pfaults", None))
    return None if faults is None else int(faults)
