"""Read text files of other tools line by line, within bounds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from convbench.importers.contract import ImportSourceError

MAX_BYTES = 20_000_000
"""Largest file in bytes, enough for some 100,000 layers. The largest published list, ConvBench's,
has 2 MB."""

MAX_LINE = 10_000
"""Most characters of a line. An entry has a few hundred."""

SHOWN = 60
"""Most characters of an entry that messages quote."""


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file, each with its number from 1 and without its end.

    Raises ImportSourceError if the file is not there, too large, or not text, or if a line is
    longer than MAX_LINE.
    """
    for number, line in enumerate(read(path).splitlines(), 1):
        if len(line) > MAX_LINE:
            raise ImportSourceError(
                f"{path}:{number}: found a line of {len(line)} characters, expected a list of "
                "layers, one per line",
                hint="check that this is the file you mean",
            )
        yield number, line


def read(path: Path) -> str:
    """Read a whole file. Raises ImportSourceError if it is not there, too large, or not text."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise ImportSourceError(
            f"{path}: cannot be read: {reason}", hint="check the path and its permissions"
        ) from None
    if len(data) > MAX_BYTES:
        raise ImportSourceError(
            f"{path}: found more than {MAX_BYTES // 1_000_000} MB, expected a list of layers",
            hint="check that this is the file you mean, or split it",
        )
    if problem := not_text(data):
        raise ImportSourceError(f"{path}: found {problem}, expected a list of layers in UTF-8")
    return data.decode("utf-8-sig")


def not_text(data: bytes) -> str | None:
    """Say what data is that is not UTF-8 text; None for text."""
    if b"\0" in data:
        return "a binary file"
    try:
        data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return f"the byte 0x{data[error.start]:02x}, which is not UTF-8"
    return None


def shown(entry: str, most: int = SHOWN) -> str:
    """Return an entry as messages quote it: short, on one line, in printable characters."""
    printable = "".join(c if c.isprintable() else "?" for c in " ".join(entry.split()))
    return printable if len(printable) <= most else printable[: most - 3] + "..."
