"""Do what every command does on a terminal: errors, progress, and where output goes."""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from convbench.errors import ConvbenchError, ExitCode, SuiteError

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from convbench.schedule.events import Event

P = ParamSpec("P")
R = TypeVar("R")

PLAIN_INTERVAL_S = 10.0
"""Seconds between two lines of progress off a terminal, so that the log of a CI stays short."""


class Traceback:
    """The state of the option --traceback: `wanted` is whether it was given."""

    wanted = False


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """Return a command that shows our errors as messages, and ends with code 130 on Ctrl-C."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except ConvbenchError as error:
            if Traceback.wanted:
                raise
            if isinstance(error, SuiteError):  # editors and CI expect file:line:column first
                print(error.message, file=sys.stderr)
            else:
                for line in error.message.splitlines():
                    complain(f"error: {line}")
            if error.hint:
                complain(f"hint: {error.hint}")
            raise SystemExit(error.exit_code) from None
        except KeyboardInterrupt:
            complain("interrupted")
            raise SystemExit(ExitCode.INTERRUPTED) from None

    return wrapped


def complain(line: str) -> None:
    """Print a line on stderr, after the program's name."""
    print(f"convbench: {line}", file=sys.stderr)


def write(text: str, output: Path | None) -> None:
    """Write text to stdout, or to the file that -o names (`-` is stdout).

    Raises ConvbenchError if that fails.
    """
    if output is None or str(output) == "-":
        _write_to_stdout(text)
        return
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConvbenchError(
            f"{output} cannot be written: {error.strerror}", hint="name another file with -o"
        ) from None
    complain(f"wrote {output}")


def _write_to_stdout(text: str) -> None:
    """Write text to stdout. Characters that its encoding lacks become `?`.

    Raises ConvbenchError if stdout cannot be written. A reader that has seen enough, such as
    `head`, is no error: the command goes on to its exit code.
    """
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()
    except OSError as error:
        # Python flushes once more at its end. What is left over must not raise a second error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise ConvbenchError(f"stdout cannot be written: {error.strerror}") from None


class Watcher:
    """A display of events on stderr: a live bar on a terminal, and a line now and then off it."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._live: RichProgress | None = None
        self._task: TaskID | None = None
        self._phase = ""
        self._printed = 0.0

    def __enter__(self) -> Watcher:
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as RichProgress

            self._live = RichProgress(
                TextColumn("{task.fields[phase]}"),
                BarColumn(bar_width=16),
                TextColumn("{task.fields[what]}", markup=False),
                TimeElapsedColumn(),
                TextColumn("{task.fields[left]}"),
                console=Console(stderr=True),
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, event: Event) -> None:
        """Show an event, unless the watcher is quiet."""
        from convbench.schedule.events import PhaseStarted, Progress

        if self._quiet:
            return
        if isinstance(event, PhaseStarted):
            self._start(event.phase, event.steps)
        elif isinstance(event, Progress):
            left = "" if event.left_s is None else f"about {_duration(event.left_s)} left"
            if self._live is not None and self._task is not None:
                self._live.update(self._task, advance=1, what=event.what, left=left)
            elif self._live is None:
                self._print(event.what, left)

    def _start(self, phase: str, steps: int) -> None:
        self._phase = phase
        self._printed = 0.0
        if self._live is None:
            return
        if self._task is not None:
            self._live.remove_task(self._task)
        self._task = self._live.add_task("", total=steps, phase=phase, what="", left="")

    def _print(self, what: str, left: str) -> None:
        now = time.monotonic()
        if now - self._printed >= PLAIN_INTERVAL_S:
            self._printed = now
            complain(f"{self._phase}: {what}" + (f" ({left})" if left else ""))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
