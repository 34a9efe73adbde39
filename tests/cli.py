"""Run the command line for tests, each command in a process of its own."""

import atexit
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests" / "suites" / "tiny.yaml"
USERS = ROOT / "tests" / "users" / "convolutions.py"


def command(*arguments):
    return [sys.executable, "-m", "convbench", *map(str, arguments)]


def convbench(*arguments, cwd=ROOT, timeout=120, **environment):
    """Run a command and return its exit code, stdout and stderr.

    The command is forked off a process that has imported convbench already, which saves half a
    second. Its measurements are short (tests/command_server.py). `started` has neither shortcut,
    and neither has this function on other systems than Linux.
    """
    if sys.platform != "linux":
        return started(*arguments, cwd=cwd, timeout=timeout, **environment)
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        code = _server().run([*map(str, arguments)], str(cwd), env, (out, err), timeout)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode(errors="surrogateescape"))
    return subprocess.CompletedProcess(command(*arguments), code, *texts)


def started(*arguments, cwd=ROOT, timeout=120, **environment):
    """Run a command in a new Python process, as a shell does, and return what `convbench` does."""
    return subprocess.run(
        command(*arguments),
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


class _Server:
    def __init__(self):
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.command_server", str(theirs.fileno())],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                pass_fds=[theirs.fileno()],
            )
        self._connection = ours
        self._answers = ours.makefile("r")
        atexit.register(self.close)

    def run(self, arguments, cwd, env, streams, timeout):
        asked = json.dumps({"arguments": arguments, "cwd": cwd, "env": env}).encode()
        with open(os.devnull, "rb") as nothing:
            descriptors = [stream.fileno() for stream in (nothing, *streams)]
            socket.send_fds(self._connection, [asked], descriptors)
        child = json.loads(self._answers.readline())
        self._connection.settimeout(timeout)
        try:
            return json.loads(self._answers.readline())
        except TimeoutError:
            os.killpg(child, signal.SIGKILL)
            _server.cache_clear()
            raise subprocess.TimeoutExpired(arguments, timeout) from None
        finally:
            self._connection.settimeout(None)

    def close(self):
        self._connection.close()
        self._process.kill()
        self._process.wait()


@functools.cache
def _server():
    return _Server()


def run_tiny(output, *arguments, **keywords):
    """Run the smallest suite; return the finished command and its result file as plain data.

    Where no file was saved, the second value is None.
    """
    done = convbench("run", TINY, "--effort", "smoke", "-o", output, *arguments, **keywords)
    document = json.loads(output.read_text()) if output.exists() else None
    return done, document


def cells(document):
    return {
        (cell["layer"], cell["pass"], cell["implementation"]): cell
        for cell in document["convbench"]["cells"]
    }


def launched(*arguments, cwd=ROOT, **streams):
    """Start a command that Ctrl-C reaches even if the process that runs the tests ignores it.

    A shell starts its background jobs with SIGINT ignored, and their children inherit that.
    """
    if os.name != "posix":
        pytest.skip("Windows sends no signals")
    return subprocess.Popen(
        command(*arguments),
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        **streams,
    )
