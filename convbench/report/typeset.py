"""Set words on a grid of characters: how wide a text is, cleaned, wrapped and shortened."""

from __future__ import annotations

import re
import unicodedata

ELLIPSIS = "…"

# A number and its unit, and the two bounds of an interval, stay on one line.
_GLUED = re.compile(
    r"(?<=\d) (?=(?:%|ms|MiB|[kMGT]?FLOP|times|rounds?)(?:\W|$))|(?<=[\d.],) (?=[\d.]+\])"
)
_GLUE = "\x00"


# Colours and cursor movements (ECMA-48, 5.4), which a worker's last words on stderr may hold.
_CONTROL_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


def clean(words: str) -> str:
    """Return one line without control characters: a name or a reason must not move the cursor."""
    return " ".join(printable(words).split())


def printable(words: str) -> str:
    """Return the text without control characters, but with all of its spaces."""
    words = _CONTROL_SEQUENCE.sub("", words)
    return "".join(c if c.isprintable() else " " for c in words)


def width(words: str) -> int:
    """Return a text's width on a terminal: 2 for East Asian characters, 0 for combining ones."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in words
    )


def left(words: str, columns: int) -> str:
    return words + " " * (columns - width(words))


def right(words: str, columns: int) -> str:
    return " " * (columns - width(words)) + words


def wrap(words: str, columns: int | None) -> list[str]:
    """Return lines of at most `columns` (None: one line). A word is broken only if it must be."""
    words = clean(words)
    if columns is None or width(words) <= columns:
        return [words]
    lines, line = [], ""
    for word in _GLUED.sub(_GLUE, words).split(" "):
        word = word.replace(_GLUE, " ")
        if line and width(line) + 1 + width(word) > columns:
            lines.append(line)
            line = ""
        line = f"{line} {word}" if line else word
        while width(line) > columns:
            cut = _fitting(line, columns)
            lines.append(line[:cut])
            line = line[cut:]
    return [*lines, line] if line else lines


def shorten(words: str, columns: int) -> str:
    """Cut the beginning of a text that is too long: `…conv.py:fast`. Paths differ at their ends."""
    if width(words) <= columns:
        return words
    kept = ""
    for c in reversed(words):
        if width(ELLIPSIS + c + kept) > columns:
            break
        kept = c + kept
    return ELLIPSIS + kept


def _fitting(words: str, columns: int) -> int:
    """Return how many characters fit, at least one."""
    count = 1
    while count < len(words) and width(words[: count + 1]) <= columns:
        count += 1
    return count
