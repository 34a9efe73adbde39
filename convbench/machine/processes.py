"""Tell whether a process runs, and let a worker end with its parent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
from collections.abc import Callable

from convbench.machine.system import is_linux

PR_SET_PDEATHSIG = 1
"""Number of the option of prctl(2) that names the signal for a process whose parent died."""

OOM_SCORE_ADJ = b"800"
"""Number added to the score by which Linux chooses a process to kill when memory runs out. Scores
go up to 1000, so a worker is killed before any process that leaves its score as it is."""


def is_running(process: int) -> bool:
    """Return whether a process with that id exists, whoever owns it."""
    import psutil

    return psutil.pid_exists(process)


def die_with_the_parent() -> None:
    """Make the kernel kill this process when its parent dies, even if it is stopped or hangs.

    Only Linux can do this. Other systems use `end_with`.
    """
    if is_linux():
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def end_with(pipe: int) -> None:
    """End this process when the process that holds the other end of a pipe is gone.

    A thread waits for that and uses no CPU time meanwhile. If this process is suspended, so is the
    thread, and the process stays.
    """

    def wait() -> None:
        with contextlib.suppress(OSError):
            while os.read(pipe, 1):
                pass
        os._exit(1)

    threading.Thread(target=wait, name="convbench-parent", daemon=True).start()


def be_killed_first() -> None:
    """Make the system kill this process before its parent if memory runs out (Linux only)."""
    if is_linux():
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "wb", 0) as file:
            file.write(OOM_SCORE_ADJ)


def call_in_forks(call: Callable[[], None]) -> None:
    """Call `call` in every process that is forked off this one. Windows has no forks."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=call)
