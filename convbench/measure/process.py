"""Hold a worker process from the parent's side: start, ask, stop and continue, kill.

A worker without the token is stopped, with all of its threads. Otherwise idle BLAS threads would
spin on a core after a call (OpenBLAS: 110 ms measured) and slow down whichever arm comes next. On
Linux a signal to its process group stops a worker; the portable way suspends its processes one by
one.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import AuthenticationError, Pipe
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from convbench.machine.system import is_linux
from convbench.measure.messages import (
    Answer,
    CellFailedError,
    Failure,
    Ready,
    Request,
    Start,
    UnansweredError,
)

if TYPE_CHECKING:
    import psutil

LOG_TAIL = 3
"""Number of the last lines of a dead worker's output that are told."""

ENDS_S = 1.0
"""Seconds that a worker which has closed its connection gets to end by itself."""

KEY_BYTES = 32
"""Length in bytes of the key by which the parent knows its worker."""

START_TIMEOUT_S = 180.0
"""Seconds that a worker gets to start. Importing TensorFlow takes some 3 s, and far longer from a
cold disk."""

CONNECT_CHECK_S = 0.2
"""Seconds between two looks at whether a worker that has not connected yet has ended."""

LAST_SMALL_CODE = 255
"""Largest exit code that is written in decimal. Windows ends a process that crashed with the number
of the exception, which its documentation writes in hexadecimal."""


class WorkerLostError(UnansweredError):
    """A worker is gone: it crashed, somebody killed it, or it hung and the parent killed it."""

    def __init__(self, reason: str) -> None:
        super().__init__(Failure(reason))


class Worker:
    """A worker process as its parent sees it. Only `kill` may be called from another thread."""

    def __init__(self, start: Start, environment: Mapping[str, str]) -> None:
        self.runtime = start.runtime
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        variables = {**environment, "PYTHONPATH": _with_our_package(environment)}
        child = _LinuxChild if is_linux() else _PortableChild
        self._child: _Child = child(variables, self._log)
        self.ready: Ready | None = None
        self._awaiting = False
        with _LIVE_LOCK:
            _LIVE.add(self)
        self._send(start)

    def wait_ready(self) -> Ready:
        """Wait until the worker has imported its runtime, and return what it then tells.

        Raises WorkerLostError if the worker cannot start within START_TIMEOUT_S.
        """
        if self.ready is None:
            try:
                self.ready = self._receive(START_TIMEOUT_S)
            except CellFailedError as failed:
                self.kill()
                raise WorkerLostError(str(failed)) from None
        return self.ready

    def ask(self, request: Request[Answer], timeout_s: float) -> Answer:
        """Return the worker's answer, for which it has `timeout_s` seconds.

        Raises CellFailedError if the request failed, and WorkerLostError if the worker is dead.
        """
        self._send(request)
        answer: Answer = self._receive(timeout_s)
        return answer

    def settle(self, timeout_s: float) -> None:
        """Take the answer that an interrupted `ask` left, so that the worker can be asked again.

        Raises WorkerLostError if it does not come within `timeout_s` seconds.
        """
        if self._awaiting:
            with contextlib.suppress(CellFailedError):
                self._receive(timeout_s)

    @contextlib.contextmanager
    def token(self) -> Iterator[None]:
        """Let the worker run inside the `with`, and stop it at the end."""
        self._child.resume()
        try:
            yield
        finally:
            self.stop()

    def stop(self) -> None:
        """Make the worker stand still, with all of its threads and processes."""
        self._child.suspend()

    def kill(self) -> None:
        """Kill the worker and the processes that it started."""
        self._child.kill()
        with _LIVE_LOCK:
            _LIVE.discard(self)

    def _send(self, message: Start | Request[Any]) -> None:
        # If the worker is dead, waiting for its answer tells why.
        self._awaiting = True
        with contextlib.suppress(OSError):
            self._child.connection.send(message)

    def _receive(self, timeout_s: float) -> Any:
        try:
            if not self._child.connection.poll(timeout_s):
                self.kill()
                raise WorkerLostError(
                    f"no answer for {timeout_s:g} s, so the worker was killed (see --timeout)"
                )
            answer = self._child.connection.recv()
            self._awaiting = False
        except (EOFError, OSError):
            raise WorkerLostError(self._last_words()) from None
        if isinstance(answer, Failure):
            raise CellFailedError(answer)
        return answer

    def _last_words(self) -> str:
        # A worker that ends by itself tells more than one that is killed.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.process.wait(ENDS_S)
        self.kill()
        why = how_it_ended(self._child.process.returncode)
        printed = self._printed()
        place = _crash_place(printed)
        if place:
            return f"{why} ({place})"
        lines = [line.strip() for line in printed.splitlines() if line.strip()]
        return ": ".join([why, *([" | ".join(lines[-LOG_TAIL:])[-300:]] if lines else [])])

    def _printed(self) -> str:
        """Return what the worker and its libraries wrote to stdout and stderr."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")


def how_it_ended(code: int) -> str:
    """Tell how a worker ended, from its exit code. A negative code is a signal (POSIX only)."""
    if code < 0:
        name = signal.Signals(-code).name
        reason = " (memory ran out, or somebody killed it)" if name == "SIGKILL" else ""
        return f"the worker was killed by {name}{reason}"
    shown = str(code) if code <= LAST_SMALL_CODE else f"0x{code:08X}"
    return f"the worker ended with exit code {shown}"


class _Child(ABC):
    """The process of a worker and the connection to it, in one system's way."""

    process: subprocess.Popen[bytes]
    connection: Connection

    @abstractmethod
    def suspend(self) -> None:
        """Make the worker, its threads and the processes that it started stand still."""

    @abstractmethod
    def resume(self) -> None:
        """Let the worker, its threads and the processes that it started go on."""

    @abstractmethod
    def kill(self) -> None:
        """Kill the worker and the processes that it started, and wait until the worker is gone."""


class _LinuxChild(_Child):
    """A process group that is controlled by signals and connected by a pair of sockets."""

    def __init__(self, variables: Mapping[str, str], log: IO[bytes]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                _command("inherited", theirs.fileno()),
                env=variables,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is the parent's to handle
            )
        self.connection = Connection(ours.detach())

    def suspend(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        self.process.wait()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


class _PortableChild(_Child):
    """A process that psutil suspends and resumes, with the processes that it started.

    The worker calls back over TCP on this machine, and shows a key that it got through its stdin.
    That pipe stays open, so that the worker sees when its parent has died.
    """

    def __init__(self, variables: Mapping[str, str], log: IO[bytes]) -> None:
        import psutil

        key = secrets.token_bytes(KEY_BYTES)
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.process = subprocess.Popen(
                _command("calls", server.getsockname()[1]),
                env=variables,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                # Ctrl-C is the parent's to handle, on POSIX systems and on Windows.
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
            self._worker = psutil.Process(self.process.pid)
            assert self.process.stdin is not None
            with contextlib.suppress(OSError):  # a worker that has ended, as `_accepted` sees
                self.process.stdin.write(key)
            self.connection = _accepted(server, key, self.process)

    def suspend(self) -> None:
        self._each(lambda process: process.suspend())

    def resume(self) -> None:
        self._each(lambda process: process.resume())

    def kill(self) -> None:
        self._each(lambda process: process.kill())
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()

    def _each(self, act: Callable[[psutil.Process], None]) -> None:
        """Apply `act` to the worker first, and then to the processes that it started.

        Once the worker stands still it starts no more. On Windows there is always such a process:
        the Python of a virtual environment starts the one that does the work.
        """
        import psutil

        processes = [self._worker]
        with contextlib.suppress(psutil.Error):
            processes += self._worker.children(recursive=True)
        for process in processes:
            with contextlib.suppress(psutil.Error):
                act(process)


def _command(how: str, number: int) -> list[str]:
    """Return the command that starts a worker. measure/worker.py says what its arguments mean."""
    return [sys.executable, "-P", "-m", "convbench.measure.worker", how, str(number)]


def _accepted(server: socket.socket, key: bytes, process: subprocess.Popen[bytes]) -> Connection:
    """Return the connection of the caller that has the key.

    If the worker ends before it calls, return a connection whose other end is closed.
    """
    server.settimeout(CONNECT_CHECK_S)
    while process.poll() is None:
        with contextlib.suppress(TimeoutError):
            caller, _ = server.accept()
            caller.setblocking(True)
            connection = Connection(caller.detach())
            try:
                deliver_challenge(connection, key)
                answer_challenge(connection, key)
            except (AuthenticationError, EOFError, OSError):  # a caller without the key
                connection.close()
            else:
                return connection
    ours, theirs = Pipe()
    theirs.close()
    return ours


FRAME = re.compile(r'^  File "(?P<file>.+)", line (?P<line>\d+) in (?P<function>.+)$', re.MULTILINE)
"""A frame of a traceback as faulthandler writes it."""


def _crash_place(printed: str) -> str | None:
    """Return the innermost frame of the user's code that faulthandler wrote: `conv.py:12, in f`."""
    dump = printed.rpartition("Fatal Python error")[2]
    libraries = (sys.base_prefix, sys.prefix, str(Path(__file__).parents[1]))
    for frame in FRAME.finditer(dump):
        if not frame["file"].startswith((*libraries, "<")):
            return f"{Path(frame['file']).name}:{frame['line']}, in {frame['function']}"
    return None


_LIVE: set[Worker] = set()
_LIVE_LOCK = threading.Lock()


def kill_all() -> None:
    """Kill every worker that is alive. Whoever waits for one gets WorkerLostError."""
    with _LIVE_LOCK:
        workers = list(_LIVE)
    for worker in workers:
        worker.kill()


def _with_our_package(environment: Mapping[str, str]) -> str:
    """Return a PYTHONPATH on which the worker finds this very package, even if not installed."""
    ours = str(Path(__file__).parents[2])
    theirs = environment.get("PYTHONPATH")
    return f"{ours}{os.pathsep}{theirs}" if theirs else ours
