"""Keep small JSON documents in the user's cache, each in a file of its own.

What is kept is a convenience: whatever is wrong with a file, nothing raises, and a file that is not
ours is left as it is.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from convbench.machine.system import is_linux

LOCK_S = 1.0
"""Longest wait for a file in seconds. A holder that was stopped must not stop others."""

Document = dict[str, Any]


def path_of(name: str, variable: str) -> Path | None:
    """Where a file of the cache lies; None where nothing shall be kept.

    The environment variable names another path in place of the default one, or, empty, none.
    """
    named = os.environ.get(variable)
    if named is not None:
        return Path(named) if named else None
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():
        try:
            base = Path.home() / ".cache"
        except RuntimeError:
            return None
    return base / "convbench" / name


def read(path: Path, schema: str) -> Document | None:
    """The document, empty where there is none that can be read; None for a file that is not ours.

    `schema` is its name and version, "convbench-tuning/1" say. Another version is not read.
    """
    family = schema.rpartition("/")[0]
    try:
        text = path.read_text()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError):
        return None
    if not text.startswith(f'{{"schema": "{family}/'):
        return None if text.strip() else {}
    try:
        document: Document = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return document if document.get("schema") == schema else {}


def update(path: Path | None, schema: str, change: Callable[[Document], Document]) -> bool:
    """Replaces the document by what `change` makes of it, alone with the file.

    False where nothing was kept: there is no path, the file is not ours or cannot be written.
    """
    if path is None:
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            document = read(path, schema)
            if document is None:
                return False
            _replace(path, {"schema": schema, **change(document)})
    except OSError:
        return False
    return True


def entries(found: Any) -> list[tuple[str, Any]]:
    """The entries of an object of a document; none where it is no object."""
    return list(found.items()) if isinstance(found, dict) else []


def _replace(path: Path, document: Document) -> None:
    """Writes the file whole, or not at all."""
    descriptor, name = tempfile.mkstemp(prefix=path.name, dir=path.parent)
    try:
        with open(descriptor, "w") as file:
            json.dump(document, file)
        os.replace(name, path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone with the file inside the `with`, as far as that can be had within LOCK_S."""
    if is_linux():
        with _locked_by_linux(path.with_name(f"{path.name}.lock")):
            yield
    else:
        with _locked_by_a_file(path.with_name(f"{path.name}.held")):
            yield


@contextlib.contextmanager
def _locked_by_linux(lock: Path) -> Iterator[None]:
    """The system lets go of this lock when its holder ends, however that ends."""
    import fcntl

    with lock.open("a") as file:
        _within_lock_s(lambda: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB))
        yield


@contextlib.contextmanager
def _locked_by_a_file(lock: Path) -> Iterator[None]:
    """A file that exists is the lock. One that a killed process left is waited for once."""
    _within_lock_s(lambda: lock.touch(exist_ok=False))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            lock.unlink()


def _within_lock_s(take: Callable[[], None]) -> None:
    """Tries until it takes the lock, or LOCK_S are over."""
    deadline = time.monotonic() + LOCK_S
    while True:
        try:
            return take()
        except OSError:
            if time.monotonic() >= deadline:
                return None
        time.sleep(0.005)
