"""Find the file that a person names, or suggest likely names, and read the file as text."""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path

from convbench.errors import SuiteError
from convbench.suites.file.document import Kind
from convbench.suites.file.kinds import others
from convbench.suites.file.messages import quoted

MAX_BYTES = 4_000_000
"""Largest file that is read, in bytes: about ten thousand layers."""


def find(target: str | Path, kind: Kind) -> tuple[Path, bytes]:
    """Return the file that `target` names, and up to MAX_BYTES + 1 bytes of it.

    Raises SuiteError if there is no such file, or if it cannot be read.
    """
    shipped = kind.shipped()
    path = Path(target)
    if str(target) in shipped and not os.path.isfile(path):
        path = shipped[str(target)]
    try:
        if not str(target):
            raise FileNotFoundError
        with path.open("rb") as stream:
            return path, stream.read(MAX_BYTES + 1)
    except IsADirectoryError:
        raise SuiteError(
            f"{path}: found a folder, expected a YAML file", hint="name a file in this folder"
        ) from None
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the name
        raise _not_found(str(target), kind, shipped) from None
    except OSError as error:
        raise SuiteError(
            f"{path}: cannot be read: {error.strerror}", hint="check the path and its permissions"
        ) from None


def _not_found(target: str, kind: Kind, shipped: dict[str, Path]) -> SuiteError:
    try:
        beside = [str(p) for p in Path(target).parent.iterdir() if p.suffix in (".yaml", ".yml")]
    except (OSError, ValueError):
        beside = []
    for other in others(kind) if shipped else ():
        if target in other.shipped():
            return SuiteError(
                f"{target}: found a {other.name}, expected a {kind.name}",
                hint=f"{other.command} {target}",
            )
    # own and own.yaml have about half of their letters in common.
    close = get_close_matches(target, [*shipped, *beside], cutoff=0.5)
    message = f"there is no {kind.name} {quoted(target)}"
    if shipped:
        names = ", ".join(shipped)
        message += f": neither a file of that name nor one of the shipped {kind.name}s ({names})"
    return SuiteError(
        message,
        hint=f"did you mean {' or '.join(close)}?" if close else "name a YAML file",
    )


def decode(file: str, data: bytes, kind: Kind) -> str:
    """Return the text of a file. Raises SuiteError if it is too large, or no UTF-8 text."""
    if len(data) > MAX_BYTES:
        raise SuiteError(
            f"{file}: found more than {MAX_BYTES // 1_000_000} MB, expected a {kind.name}",
            hint="check that this is the file you mean, or split it",
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8-sig")
        found = f"the byte 0x{data[error.start]:02x}, which is not UTF-8, expected UTF-8 text"
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            found = "UTF-16 text, expected UTF-8"
        raise SuiteError(
            f"{file}:{place_after(before)}: found {found}; save the file as UTF-8"
        ) from None


def place_after(before: str) -> str:
    """Return line:column, both from 1, of the character that follows this text."""
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    return f"{line}:{column}"
