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
"""What is added to the score by which Linux chooses a process to kill when memory runs out. Scores
go up to 1000, so a worker is taken before any process that leaves the score as it is."""


def is_running(process: int) -> bool:
    """Whether there is a process of that id, whoever owns it."""
    import psutil

    return psutil.pid_exists(process)


def die_with_the_parent() -> None:
    """The kernel kills this process when its parent dies, even if it is stopped or hangs.

    Only Linux has this; elsewhere see `end_with`.
    """
    if is_linux():
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def end_with(pipe: int) -> None:
    """Ends this process when whoever holds the other end of a pipe is gone.

    A thread waits for that and takes no time meanwhile. A process that is suspended waits as well,
    and stays.
    """

    def wait() -> None:
        with contextlib.suppress(OSError):
            while os.read(pipe, 1):
                pass
        os._exit(1)

    threading.Thread(target=wait, name="convbench-parent", daemon=True).start()


def be_killed_first() -> None:
    """When memory runs out, the system takes this process and not its parent. Only Linux does."""
    if is_linux():
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "wb", 0) as file:
            file.write(OOM_SCORE_ADJ)


def call_in_forks(call: Callable[[], None]) -> None:
    """Calls `call` in every process that is forked off this one. Windows has no forks."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=call)
