"""The README: its two install commands in a fresh environment, every other command, its output."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli import ROOT, convbench, started

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```console\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
INSTALL, TEST = (block.strip() for block in BLOCKS[:2])
COMMANDS = [
    line.removeprefix("$ ")
    for block in BLOCKS[2:]
    for line in block.splitlines()
    if line.startswith("$ ")
]
EXIT_CODES = {"convbench check examples": 5}  # the example that is wrong on purpose


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The files that git has, in a folder of their own: what a newcomer gets."""
    folder = tmp_path_factory.mktemp("clone") / "convbench"
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, files.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def _shell(command, folder):
    outside = {
        name: value
        for name, value in os.environ.items()
        if name not in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")
    }
    path = os.pathsep.join(
        entry for entry in os.environ["PATH"].split(os.pathsep) if entry != str(_bin())
    )
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**outside, "PATH": path},
        capture_output=True,
        text=True,
        timeout=900,
    )


def _bin():
    return Path(sys.executable).parent


@pytest.mark.slow
def test_the_first_command_in_a_fresh_environment(clone):
    assert INSTALL.startswith("python3 -m venv .venv && ")
    done = _shell(f"{INSTALL} --effort smoke", clone)
    assert done.returncode in (0, 3), done.stderr[-3000:]
    assert "im2col is" in done.stdout
    assert len(list((clone / "results").glob("mnist-2*.json"))) == 1
    # The installed package has the shipped suites, and needs nothing of the checkout.
    elsewhere = _shell(
        f"cd {shlex.quote(str(clone.parent))} && {clone}/.venv/bin/convbench run smoke "
        "--effort smoke --impl im2col --layer plain --pass forward",
        clone,
    )
    assert elsewhere.returncode == 0, elsewhere.stderr


@pytest.mark.slow
def test_the_second_command_finds_the_tests(clone):
    assert TEST.endswith(" -m pytest")
    done = _shell(f"{TEST} --collect-only", clone)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "tests/test_readme.py" in done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the tour's commands run: its files, in a repository."""
    folder = tmp_path_factory.mktemp("tour")
    for name in ("configs", "examples", "docs", "results"):
        shutil.copytree(ROOT / name, folder / name)
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    for arguments in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "all"]):
        subprocess.run(["git", *who, *arguments], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def resumable(tmp_path_factory):
    """A folder with a result file that was made here."""
    folder = tmp_path_factory.mktemp("resumable")
    arguments = ["--effort", "smoke", "--layer", "conv1", "-o", "results/mnist.json"]
    done = convbench("run", "mnist", *arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def _measures(words):
    """Whether a command of the tour measures anything, so that its effort matters."""
    return words[1] in ("run", "gate", "noise", "train", "profile") and not any(
        w.endswith(".json") for w in words[2:3]
    )


SLOW = ("convbench run", "convbench profile", "convbench train", "convbench import keras:")
"""Commands that measure with TensorFlow."""


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(line, marks=pytest.mark.slow if line.startswith(SLOW) else ())
        for line in COMMANDS
    ],
)
def test_a_command_of_the_tour(line, folder, request):
    words = shlex.split(line)
    if words[0] == "python":
        done = subprocess.run([sys.executable, *words[1:]], cwd=folder, capture_output=True)
        assert done.returncode == 0, done.stderr
        return
    assert words[0] == "convbench"
    here, effort = folder, ["--effort", "smoke"] if _measures(words) else []
    if "--resume" in words:
        here, effort = request.getfixturevalue("resumable"), []
    done = started(*words[1:], *effort, cwd=here)
    expected = next((code for start, code in EXIT_CODES.items() if line.startswith(start)), 0)
    assert done.returncode == expected, done.stderr
    assert done.stdout or "-o" in words


def test_the_tour_has_every_command():
    assert {shlex.split(line)[1] for line in COMMANDS if line.startswith("convbench")} == {
        "run",
        "check",
        "show",
        "diff",
        "gate",
        "noise",
        "train",
        "profile",
        "machine",
        "schema",
        "import",
        "export",
        "merge",
    }


def test_the_output_shown_is_that_of_the_saved_result():
    (command, shown) = re.search(
        r"<!-- (convbench show [^>]*) -->\n```text\n(.*?)```", README, re.DOTALL
    ).groups()
    assert convbench(*shlex.split(command)[1:]).stdout.rstrip() == shown.rstrip()


def test_the_network_shown_is_that_of_the_saved_result():
    saved = (ROOT / "results" / "resnet50.txt").read_text()
    assert convbench("show", "results/resnet50.json").stdout == saved
    (shown,) = re.findall(r"<!-- results/resnet50.txt -->\n```text\n(.*?)```", README, re.DOTALL)
    lines = [line for line in shown.splitlines() if line]
    assert len(lines) > 10
    assert [line for line in lines if line not in saved.splitlines()] == []


def test_the_picture_is_that_of_the_saved_result(tmp_path):
    picture = tmp_path / "picture.svg"
    assert convbench("show", "results/mnist-conv2.json", "-o", picture).returncode == 0
    committed = (ROOT / "docs" / "mnist-conv2.svg").read_text()
    assert _words(picture.read_text()) == _words(committed)


def _words(svg):
    """What a picture says; the identifiers in it are drawn from its content and Rich's version."""
    return re.findall(r">([^<>]+)</text>", svg)


def test_the_suite_shown_is_the_shipped_one():
    shown = re.search(r"```yaml\n(.*?)```", README, re.DOTALL)[1]
    assert shown.rstrip() == (ROOT / "configs" / "mnist.yaml").read_text().rstrip()
