"""Fetch another version of the user's file: beside it, from another folder, or from a git ref.

`git worktree` checks a ref out of the repository that holds the file, into a temporary folder that
is removed again. Nothing in the user's own checkout is touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from convbench.errors import ConvbenchError, ImplementationError
from convbench.machine.processes import is_running
from convbench.own_code.description import OwnCode, spelled

PREFIX = "convbench-version-"
"""Beginning of the names of our temporary folders. The number of our process follows."""

NO_HOOKS = ("-c", "core.hooksPath=/dev/null")
"""Options of git that keep a checkout from running the hooks of the user's repository."""


@contextmanager
def other_version(own: OwnCode, against: str) -> Iterator[OwnCode]:
    """Yield the other version of own code, which is called in the same way.

    `against` is a file, FILE.py:NAME, a folder that holds the same file, or a git ref. The file of
    a git ref exists inside the `with` only. Raises ConvbenchError, which says what was looked for.
    """
    file, function = own.source, own.attribute
    if file is None:
        raise ConvbenchError(f"{own.name}: there is no {own.place_kind} {own.where}")
    found = _beside(file, function, against)
    if found is None:
        with _checked_out(file, against) as path:
            name, code = f"{own.name}@{against}", spelled(str(path), function)
            yield replace(own, name=name, code=code)
        return
    path, other_function = found
    if (path.resolve(), other_function) == (file.resolve(), function):
        raise ConvbenchError(
            f"--against {against}: this is {own.name} itself",
            hint="name another file, or a git ref such as main",
        )
    code = spelled(str(path), other_function)
    yield replace(own, name=code, code=code)


def _beside(file: Path, function: str, against: str) -> tuple[Path, str] | None:
    """Return the file and function that `against` names as a path, or None if it is no path."""
    path = Path(against)
    if path.is_file():
        return path, function
    if path.is_dir():
        inside = [path / file.name]
        if not file.is_absolute():
            inside.insert(0, path / file)
        there = next((candidate for candidate in inside if candidate.is_file()), None)
        if there is None:
            raise ImplementationError(
                f"--against {against}: that folder has no {' and no '.join(map(str, inside))}",
                hint=f"if you mean a branch of that name, write --against refs/heads/{against}",
            )
        return there, function
    other, _, other_function = against.rpartition(":")
    if other and Path(other).is_file():
        return Path(other), other_function
    return None


@contextmanager
def _checked_out(file: Path, ref: str) -> Iterator[Path]:
    """Yield the path of the file as it was at a ref of its repository."""
    folder = file.resolve().parent
    top = Path(_git(folder, ref, "rev-parse", "--show-toplevel"))
    if ref.startswith("-"):
        raise ConvbenchError(f"--against {ref}: neither a path nor a git ref")
    commit = _git(folder, ref, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
    inside = file.resolve().relative_to(top.resolve())
    _remove_what_was_left(top, ref)
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-") as temporary:
        tree = Path(temporary) / "tree"
        try:
            _git(top, ref, *NO_HOOKS, "worktree", "add", "--quiet", "--detach", str(tree), commit)
            if not (tree / inside).is_file():
                raise ConvbenchError(
                    f"--against {ref}: {inside} does not exist there ({commit[:12]})",
                    hint="name a ref that has it, or the old file's path",
                )
            yield tree / inside
        finally:
            # A folder that cannot be removed must not hide the result, or the real error.
            with suppress(ConvbenchError):
                _git(top, ref, "worktree", "remove", "--force", str(tree))
            with suppress(ConvbenchError):
                _git(top, ref, "worktree", "prune")


def _remove_what_was_left(top: Path, ref: str) -> None:
    """Remove the trees of convbench processes that were killed. Folders name their process."""
    listed = _git(top, ref, "worktree", "list", "--porcelain")
    for line in listed.splitlines():
        folder = Path(line.removeprefix("worktree ")).parent
        owner = folder.name.removeprefix(PREFIX).partition("-")[0]
        if folder.name.startswith(PREFIX) and owner.isdigit() and not is_running(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)
    _git(top, ref, "worktree", "prune")


def _git(folder: Path, ref: str, *arguments: str) -> str:
    """Return what git prints. Raises ConvbenchError with git's complaint."""
    # In a hook, GIT_DIR, GIT_INDEX_FILE and others name the repository that the hook belongs to.
    environment = {name: v for name, v in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
    except OSError as error:
        raise ConvbenchError(f"--against {ref}: git cannot be run: {error.strerror}") from None
    if done.returncode != 0:
        complaint = " ".join(done.stderr.split()) or f"{folder} has no such ref"
        raise ConvbenchError(
            f"--against {ref}: neither a path nor a git ref: {complaint}",
            hint="a shallow clone lacks other refs: fetch them (actions/checkout: fetch-depth: 0)",
        )
    return done.stdout.strip()
