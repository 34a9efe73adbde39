"""Hold a worker process from the parent's side: start, ask, stop and continue, kill.

A worker without the token is stopped by a signal, threads and all. Without that, idle BLAS threads
spin on a core after a call (OpenBLAS: 110 ms measured) and slow down whichever arm comes next.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from convbench.measure.messages import (
    Answer,
    CellFailedError,
    Failure,
    Ready,
    Request,
    Start,
    UnansweredError,
)

LOG_TAIL = 3
ENDS_S = 1.0
"""A worker that has closed its connection is about to end."""

START_TIMEOUT_S = 180.0
"""Importing TensorFlow takes some 3 s; on a cold disk far longer."""


class WorkerLostError(UnansweredError):
    """The worker is gone: it crashed, was killed, or hung and was killed by us."""

    def __init__(self, reason: str) -> None:
        super().__init__(Failure(reason))


class Worker:
    """A running worker. Not for several threads at a time, but for `kill`."""

    def __init__(self, start: Start, environment: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair()
        self.runtime = start.runtime
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "convbench.measure.worker", str(theirs.fileno())],
                env={**environment, "PYTHONPATH": _with_our_package(environment)},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,  # Ctrl-C is the parent's to handle
            )
        self._connection = Connection(ours.detach())
        self.ready: Ready | None = None
        self._awaiting = False
        with _LIVE_LOCK:
            _LIVE.add(self)
        self._send(start)

    def wait_ready(self) -> Ready:
        """What the worker says once its runtime is imported."""
        if self.ready is None:
            try:
                self.ready = self._receive(START_TIMEOUT_S)
            except CellFailedError as failed:
                self.kill()
                raise WorkerLostError(str(failed)) from None
        return self.ready

    def ask(self, request: Request[Answer], timeout_s: float) -> Answer:
        """The answer. Raises CellFailedError, or WorkerLostError; then the worker is dead."""
        self._send(request)
        answer: Answer = self._receive(timeout_s)
        return answer

    def settle(self, timeout_s: float) -> None:
        """Takes the answer that an interrupted `ask` did not wait for, so that it can be asked."""
        if self._awaiting:
            with contextlib.suppress(CellFailedError):
                self._receive(timeout_s)

    @contextlib.contextmanager
    def token(self) -> Iterator[None]:
        """The worker runs inside the `with`, and is stopped outside."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.stop()

    def stop(self) -> None:
        self._signal(signal.SIGSTOP)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        self._process.wait()
        with _LIVE_LOCK:
            _LIVE.discard(self)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _send(self, message: Start | Request[Any]) -> None:
        # A dead worker shows when the answer is awaited, with its reason.
        self._awaiting = True
        with contextlib.suppress(OSError):
            self._connection.send(message)

    def _receive(self, timeout_s: float) -> Any:
        try:
            if not self._connection.poll(timeout_s):
                self.kill()
                raise WorkerLostError(f"no answer for {timeout_s:g} s: killed (see --timeout)")
            answer = self._connection.recv()
            self._awaiting = False
        except (EOFError, OSError):
            raise WorkerLostError(self._last_words()) from None
        if isinstance(answer, Failure):
            raise CellFailedError(answer)
        return answer

    def _last_words(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):  # how it ends by itself tells more
            self._process.wait(ENDS_S)
        self.kill()
        code = self._process.returncode
        if code < 0:
            name = signal.Signals(-code).name
            why = f"the worker was killed by {name}"
            if code == -signal.SIGKILL:
                why += " (out of memory, or somebody's kill)"
        else:
            why = f"the worker ended with exit code {code}"
        printed = self._printed()
        place = _crash_place(printed)
        if place:
            return f"{why} ({place})"
        lines = [line.strip() for line in printed.splitlines() if line.strip()]
        return ": ".join([why, *([" | ".join(lines[-LOG_TAIL:])[-300:]] if lines else [])])

    def _printed(self) -> str:
        """What the worker wrote to stdout and stderr, its libraries' noise included."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")


FRAME = re.compile(r'^  File "(?P<file>.+)", line (?P<line>\d+) in (?P<function>.+)$', re.MULTILINE)


def _crash_place(printed: str) -> str | None:
    """The innermost frame of the user's own code that faulthandler wrote, `conv.py:12, in f`."""
    dump = printed.rpartition("Fatal Python error")[2]
    libraries = (sys.base_prefix, sys.prefix, str(Path(__file__).parents[1]))
    for frame in FRAME.finditer(dump):
        if not frame["file"].startswith((*libraries, "<")):
            return f"{Path(frame['file']).name}:{frame['line']}, in {frame['function']}"
    return None


_LIVE: set[Worker] = set()
_LIVE_LOCK = threading.Lock()


def kill_all() -> None:
    """Kills every worker that is alive; those who wait for one get WorkerLostError."""
    with _LIVE_LOCK:
        workers = list(_LIVE)
    for worker in workers:
        worker.kill()


def _with_our_package(environment: Mapping[str, str]) -> str:
    """PYTHONPATH on which the worker finds this very package, installed or not."""
    ours = str(Path(__file__).parents[2])
    theirs = environment.get("PYTHONPATH")
    return f"{ours}{os.pathsep}{theirs}" if theirs else ours
