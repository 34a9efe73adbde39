"""What somebody's code says while it runs: what it prints, its warnings, and its exceptions.

Each with the line of their file that it came from; our frames and the libraries' are cut.
"""

from __future__ import annotations

import io
import linecache
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import FrameType

MAX_LINES = 20
MAX_LENGTH = 200

_LIBRARIES = tuple(
    {
        str(Path(__file__).parents[2]),
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        "<frozen",
    }
)


def is_theirs(file: str) -> bool:
    """Whether a file is the user's own: neither convbench nor an installed library."""
    return not file.startswith(_LIBRARIES) and "site-packages" not in file


class Said:
    """Lines, each once, in the order in which they came."""

    def __init__(self) -> None:
        self._lines: dict[str, None] = {}

    def add(self, line: str) -> None:
        short = line if len(line) <= MAX_LENGTH else line[: MAX_LENGTH - 3] + "..."
        if len(self._lines) < MAX_LINES:
            self._lines.setdefault(short)

    @property
    def lines(self) -> tuple[str, ...]:
        return tuple(self._lines)


@contextmanager
def listening() -> Iterator[Said]:
    """Notes what is printed and warned inside the `with`."""
    said = Said()
    printed = _Printed(said)
    with (
        redirect_stdout(printed),
        redirect_stderr(printed),
        warnings.catch_warnings(record=True) as warned,
    ):
        warnings.simplefilter("always")
        try:
            yield said
        finally:
            printed.flush()
            for warning in warned:
                place = f"{Path(warning.filename).name}:{warning.lineno}"
                said.add(f"{place}: {warning.category.__name__}: {warning.message}")


class _Printed(io.TextIOBase):
    """A stream that keeps whole lines, with the place of the print that began each."""

    def __init__(self, said: Said) -> None:
        self._said = said
        self._begun = ""
        self._place = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if not self._begun:
            self._place = _caller()
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._said.add(f"{self._place}printed: {line}")
        return len(text)

    def flush(self) -> None:
        if self._begun:
            self._said.add(f"{self._place}printed: {self._begun}")
            self._begun = ""


def _caller() -> str:
    """`my_conv.py:12: ` of the innermost frame that is the user's."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not is_theirs(frame.f_code.co_filename):
        frame = frame.f_back
    return "" if frame is None else f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}: "


def describe_exception(error: BaseException) -> str:
    """`ValueError: message (my_conv.py:12, in conv)`, the place in the user's own code if any."""
    text = "".join(traceback.format_exception_only(error)).strip()
    theirs = _frames(error)
    if isinstance(error, SyntaxError) or not theirs:
        return " ".join(text.split())
    frame = theirs[-1]
    return f"{text} ({Path(frame.filename).name}:{frame.lineno}, in {frame.name})"


def trace(error: BaseException) -> tuple[str, ...]:
    """The user's frames of an exception, outermost first: `my_conv.py:12, in conv: return x @ k`.

    Empty for fewer than two, which `describe_exception` tells as well.
    """
    frames = _frames(error)
    if len(frames) < 2:
        return ()
    return tuple(
        f"{Path(f.filename).name}:{f.lineno}, in {f.name}: "
        f"{linecache.getline(f.filename, f.lineno or 0).strip()}"
        for f in frames[-MAX_LINES:]
    )


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    return [f for f in traceback.extract_tb(error.__traceback__) if is_theirs(f.filename)]
