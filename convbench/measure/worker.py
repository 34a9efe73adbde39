"""Serve the cells of one runtime, one request at a time, in a process of their own.

`python -m convbench.measure.worker FD` talks through the inherited file descriptor FD, so that
whatever a library prints cannot corrupt it.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import os
import signal
import sys
from multiprocessing.connection import Connection
from typing import Any

from convbench.machine import tuning
from convbench.machine.description import blas_libraries
from convbench.measure.bench import Bench, failure_of
from convbench.measure.messages import Failure, Ready, Request, Start
from convbench.own_code.saying import describe_exception

PR_SET_PDEATHSIG = 1
"""Number of the option of prctl(2) that names the signal for a process whose parent died."""


def main() -> None:
    _die_with_the_parent()
    faulthandler.enable()
    connection = Connection(int(sys.argv[1]))
    start: Start = connection.recv()
    try:
        bench = _started(start)
        gc.freeze()  # a collection before a sample need not walk over all of TensorFlow (0.1 s)
        connection.send(Ready(blas_libraries(start.runtime.name)))
    except Exception as error:  # noqa: BLE001 - whatever an import raises is the parent's to report
        connection.send(Failure(describe_exception(error)))
        return
    while True:
        try:
            request = connection.recv()
        except EOFError:  # the parent is gone, or is done with us
            return
        connection.send(_answered(bench, request))


def _started(start: Start) -> Bench:
    tuning.allow_trials(start.tune)
    if start.cpus:
        _keep_to(start.cpus)
    start.runtime.start(start.threads)
    return Bench(start.registry, start.threads, start.seed)


def _answered(bench: Bench, request: Request[Any]) -> Any:
    try:
        return request.answer(bench)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it costs only that cell
        return failure_of(error)


def _keep_to(cpus: tuple[int, ...]) -> None:
    """Keep every thread of this process to some CPUs, those included that BLAS has already."""
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):  # a thread that is gone
            os.sched_setaffinity(int(task), cpus)


def _die_with_the_parent() -> None:
    """A parent that is killed leaves no worker behind, not even a stopped or a hung one."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # When memory runs out the kernel should take the worker, not the parent with its results.
    with contextlib.suppress(OSError):
        os.write(os.open("/proc/self/oom_score_adj", os.O_WRONLY), b"800")


if __name__ == "__main__":
    main()
