"""Keep small JSON documents in the user's cache, each in a file of its own.

The cache is a convenience. Whatever is wrong with a file, nothing raises, and a file that another
program wrote is left as it is.
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
"""Longest wait for a lock in seconds. A process that was stopped while it holds the lock must not
stop others."""

Document = dict[str, Any]


def path_of(name: str, variable: str) -> Path | None:
    """Return the path of a file of the cache, or None where nothing is to be kept.

    The environment variable `variable` replaces the default path. If it is empty, nothing is kept.
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
    """Return the document in a file, or None if another program wrote the file.

    The document is empty if there is no file or it cannot be parsed. `schema` is the document's
    name and version, such as "convbench-tuning/1"; a document of another version reads as empty.
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
    """Replace the document by what `change` returns for it, while the file is locked.

    Return False if nothing was kept: there is no path, another program wrote the file, or the file
    cannot be written.
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
    """Return the entries of a JSON object, and none for any other value."""
    return list(found.items()) if isinstance(found, dict) else []


def _replace(path: Path, document: Document) -> None:
    """Write the whole file, or leave it as it is. Raises OSError."""
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
    """Hold the lock of the file inside the `with`, unless it cannot be had within LOCK_S."""
    if is_linux():
        with _locked_by_linux(path.with_name(f"{path.name}.lock")):
            yield
    else:
        with _locked_by_a_file(path.with_name(f"{path.name}.held")):
            yield


@contextlib.contextmanager
def _locked_by_linux(lock: Path) -> Iterator[None]:
    """Lock by flock(2). The system frees this lock when its holder ends, even if it is killed."""
    import fcntl

    with lock.open("a") as file:
        _within_lock_s(lambda: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB))
        yield


@contextlib.contextmanager
def _locked_by_a_file(lock: Path) -> Iterator[None]:
    """Lock by a file that exists. A file that a killed process left costs one wait, once."""
    _within_lock_s(lambda: lock.touch(exist_ok=False))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            lock.unlink()


def _within_lock_s(take: Callable[[], None]) -> None:
    """Try to take the lock until that succeeds or LOCK_S have passed."""
    deadline = time.monotonic() + LOCK_S
    while True:
        try:
            return take()
        except OSError:
            if time.monotonic() >= deadline:
                return None
        time.sleep(0.005)
