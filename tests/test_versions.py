"""Test two versions of a file: each finds its own package, and both run in the same conditions."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from convbench.errors import ConvbenchError
from convbench.implementations.registry import REGISTRY
from convbench.own_code.description import OwnCode
from convbench.own_code.files import import_path
from convbench.own_code.versions import other_version
from convbench.runtimes.own_code import OwnCodeRuntime
from tests.cli import TINY, convbench
from tests.systems import linux

CODE = "def conv(x, kernel):\n    return x\n"


def test_a_file_finds_its_folder_its_package_and_its_repository_first(tmp_path):
    package = tmp_path / "src" / "mine" / "inner"
    package.mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    found = import_path(package / "conv.py")
    assert found == [str(package), str(tmp_path / "src"), str(tmp_path)]


def test_a_file_by_itself_finds_its_folder_only(tmp_path):
    assert import_path(tmp_path / "conv.py") == [str(tmp_path)]


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("convbench.own_code.description.STARTED_IN", tmp_path)
    for name in ("new.py", "old.py", "before/new.py", "before/deep/new.py", "deep/new.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(CODE)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "against", "expected"),
    [
        ("new.py:conv", "old.py", "old.py:conv"),
        ("new.py:conv", "old.py:other", "old.py:other"),
        ("new.py:conv", "new.py:other", "new.py:other"),
        ("new.py:conv", "before", "before/new.py:conv"),
        ("deep/new.py:conv", "before", "before/deep/new.py:conv"),
        ("deep/new.py:conv", "before/deep", "before/deep/new.py:conv"),
    ],
)
def test_a_version_is_found_by_a_file_a_name_or_a_folder(files, name, against, expected):
    with other_version(OwnCode.of(name), against) as found:
        assert found.name == expected
        assert REGISTRY.get(found.name).runtime == OwnCodeRuntime(expected)


def test_a_version_at_a_ref_is_removed_again_whatever_happens(files):
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
        subprocess.run(["git", *who, *words], check=True, capture_output=True)
    # A hook of the user's must not run for a measurement.
    hook = files / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {files}/hooked\n")
    hook.chmod(0o755)

    def measure():
        with other_version(OwnCode.of("deep/new.py:conv"), "HEAD") as found:
            assert found.name == "deep/new.py:conv@HEAD"
            assert Path(found.where).read_text() == CODE
            raise RuntimeError

    with pytest.raises(RuntimeError):
        measure()
    listed = subprocess.run(["git", "worktree", "list"], check=True, capture_output=True, text=True)
    assert len(listed.stdout.splitlines()) == 1
    assert not (files / "hooked").exists()


def test_the_worktree_that_a_killed_process_left_is_removed(files):
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
        subprocess.run(["git", *who, *words], check=True, capture_output=True)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    kept, left = (files / f"convbench-version-{pid}-x" for pid in (os.getpid(), gone.pid))
    for folder in (kept, left):
        tree = ["git", "worktree", "add", "-q", "--detach", folder / "tree"]
        subprocess.run(tree, check=True, capture_output=True)
    with other_version(OwnCode.of("new.py:conv"), "HEAD"):
        pass
    assert kept.exists()
    assert not left.exists()
    listed = subprocess.run(["git", "worktree", "list"], check=True, capture_output=True, text=True)
    assert len(listed.stdout.splitlines()) == 2


def test_outside_a_repository_there_are_no_refs(files):
    with (
        pytest.raises(ConvbenchError, match="neither a path nor a git ref"),
        other_version(OwnCode.of("new.py:conv"), "main"),
    ):
        pass


@linux
def test_versions_are_timed_on_the_same_cpus(tmp_path):
    log = tmp_path / "log"
    code = (
        "import os\n\nimport numpy as np\n"
        "from numpy.lib.stride_tricks import sliding_window_view\n\n"
        f"with open({str(log)!r}, 'a') as file:\n"
        "    print(*sorted(os.sched_getaffinity(0)), sep=',', file=file)\n\n\n"
        "def conv(x, kernel):\n"
        "    windows = sliding_window_view(x, kernel.shape[2:], (2, 3))\n"
        "    return np.einsum('bcijpq,fcpq->bfij', windows, kernel)\n"
    )
    for name in ("new.py", "old.py"):
        (tmp_path / name).write_text(code)
    done = convbench(
        *("gate", TINY, "--impl", "new.py:conv", "--against", "old.py", "--effort", "smoke"),
        *("--layer", "a", "--pass", "forward", "--threads", "1", "-o", "result.json"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    timed = log.read_text().splitlines()[-3:]  # the new version, the old one and the twin
    assert len(set(timed)) == 1
    assert timed[0].isdigit()
