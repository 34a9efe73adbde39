"""Read text files of other tools line by line, within bounds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from convbench.importers.contract import ImportSourceError

MAX_BYTES = 20_000_000
"""Some 100,000 layers: the largest published list, ConvBench's, has 2 MB."""

MAX_LINE = 10_000
"""Characters of a line. An entry has a few hundred."""

SHOWN = 60
"""An entry is quoted up to this many characters."""


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, line without its end) of a file.

    Raises ImportSourceError for a file that is not there, too large, no text, or has a line that
    no list has.
    """
    for number, line in enumerate(read(path).splitlines(), 1):
        if len(line) > MAX_LINE:
            raise ImportSourceError(
                f"{path}:{number}: found a line of {len(line)} characters, expected a list of "
                "layers, one a line",
                hint="check that this is the file you mean",
            )
        yield number, line


def read(path: Path) -> str:
    """A whole file. Raises ImportSourceError as `lines` does."""
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
    """What data is that is no UTF-8 text; None for text."""
    if b"\0" in data:
        return "a binary file"
    try:
        data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return f"the byte 0x{data[error.start]:02x}, which is not UTF-8"
    return None


def shown(entry: str, most: int = SHOWN) -> str:
    """An entry as messages quote it: short, on one line, and without what moves a cursor."""
    printable = "".join(c if c.isprintable() else "?" for c in " ".join(entry.split()))
    return printable if len(printable) <= most else printable[: most - 3] + "..."
