"""Keep what somebody's code says while it runs: what it prints, warns of and raises.

Each line says where in the user's file it came from. Frames of convbench and of libraries are cut.
"""

from __future__ import annotations

import codecs
import functools
import io
import linecache
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from os.path import isfile
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from convbench.own_code.calls import expression_file
from convbench.problem.layer import Pass

if TYPE_CHECKING:
    from typing_extensions import Buffer

MAX_LINES = 20
"""Number of different lines that are kept, and of frames of a traceback."""

MAX_LENGTH = 200
"""Characters of a line that are kept."""

_LIBRARIES = tuple(
    {
        str(Path(__file__).parents[1]),
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    }
)
_EXPRESSIONS = tuple(expression_file(pass_) for pass_ in Pass)


@functools.cache
def is_theirs(file: str) -> bool:
    """Tell whether a frame's file is the user's own: neither convbench nor an installed library.

    A file that does not exist, such as the source of a compiled extension, is not the user's. The
    expressions of a suite have no file, but are the user's.
    """
    if file in _EXPRESSIONS:
        return True
    return not file.startswith(_LIBRARIES) and "site-packages" not in file and isfile(file)


class Said:
    """Different lines in the order in which they came. Only the first MAX_LINES are kept."""

    def __init__(self) -> None:
        self._lines: dict[str, None] = {}
        self._words: set[str] = set()
        self.left_out = 0
        """Number of lines that came after MAX_LINES had been kept."""

    @property
    def is_full(self) -> bool:
        return len(self._lines) >= MAX_LINES

    def add(self, words: str, place: str = "") -> None:
        """Keep a line, or count it. `place` says where it comes from; a full list does not need
        it."""
        short = words if len(words) <= MAX_LENGTH else words[: MAX_LENGTH - 3] + "..."
        if not self.is_full:
            self._lines.setdefault(f"{place}{short}")
            self._words.add(short)
        elif short not in self._words:
            self.left_out += 1

    @property
    def lines(self) -> tuple[str, ...]:
        return tuple(self._lines)


@contextmanager
def listening() -> Iterator[Said]:
    """Keep what is printed, and what is warned of, inside the `with`."""
    said = Said()
    printed = _Printed(said)
    stream = _Stream(printed, said)
    with (
        redirect_stdout(stream),
        redirect_stderr(stream),
        warnings.catch_warnings(record=True) as warned,
    ):
        warnings.simplefilter("always")
        try:
            yield said
        finally:
            with suppress(ValueError):  # the code may have detached the stream
                stream.flush()
            printed.end()
            for warning in warned:
                place = f"{Path(warning.filename).name}:{warning.lineno}: "
                said.add(f"{warning.category.__name__}: {warning.message}", place)


class _Stream(io.TextIOWrapper):
    """Stand-in for sys.stdout. It passes text on at once as long as lines are kept, so that the
    place of the print is still on the stack."""

    def __init__(self, printed: _Printed, said: Said) -> None:
        super().__init__(printed, "utf-8", "backslashreplace", newline="\n")
        self._printed, self._said = printed, said

    def write(self, text: str, /) -> int:
        length = super().write(text)
        if self._printed.is_kept or ("\n" in text and not self._said.is_full):
            self.flush()
        return length


class _Printed(io.RawIOBase):
    """The raw stream below sys.stdout. It keeps whole lines, each with the print that began it.

    Code that asks for a file descriptor gets the worker's stderr, and so do processes that it
    starts.
    """

    name = "<stdout>"
    mode = "wb"

    def __init__(self, said: Said) -> None:
        self._said = said
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._begun = ""
        self._place = ""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2

    def isatty(self) -> bool:
        return False

    def close(self) -> None:
        """Do nothing, so that what the code prints after closing its stdout is kept as well."""

    def write(self, given: Buffer, /) -> int:
        data = bytes(given)
        if not self._begun and not self._said.is_full:
            self._place = _caller()
        first, *others = self._decoder.decode(data).split("\n")
        self._begun += first[: MAX_LENGTH + 1 - len(self._begun)]
        for line in others:
            self._said.add(f"printed: {self._begun}", self._place)
            self._begun = line[: MAX_LENGTH + 1]
        return len(data)

    @property
    def is_kept(self) -> bool:
        """Whether the next text in this line would be kept."""
        return not self._said.is_full and len(self._begun) <= MAX_LENGTH

    def end(self) -> None:
        """Keep the line that was begun, since no more text comes."""
        if self._begun:
            self._said.add(f"printed: {self._begun}", self._place)
            self._begun = ""


def _caller() -> str:
    """Return the place of the innermost frame that is the user's: `my_conv.py:12: `."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not is_theirs(frame.f_code.co_filename):
        frame = frame.f_back
    return "" if frame is None else f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}: "


def describe_exception(error: BaseException) -> str:
    """Describe an exception: `ValueError: message (my_conv.py:12, in conv)`.

    The place is the innermost one in the user's own code, and is left out if there is none.
    """
    text = "".join(traceback.format_exception_only(error)).strip()
    if isinstance(error, MemoryError):  # NumPy raises a class of its own with another name
        text = ": ".join(filter(None, ("out of memory", str(error))))
    theirs = _frames(error)
    if isinstance(error, SyntaxError) or not theirs:
        return " ".join(text.split())
    frame = theirs[-1]
    return f"{text} ({Path(frame.filename).name}:{frame.lineno}, in {frame.name})"


def place_of(error: BaseException) -> str:
    """Return the innermost place in the user's code: `my_conv.py:12`, or nothing if it has none."""
    theirs = _frames(error)
    return f"{Path(theirs[-1].filename).name}:{theirs[-1].lineno}" if theirs else ""


def trace(error: BaseException) -> tuple[str, ...]:
    """Return the user's frames, outermost first: `my_conv.py:12, in conv: return x @ k`.

    Fewer than two frames give an empty trace: `describe_exception` already names a single one.
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
