"""Test that the commands of the README and of docs/commands.md print what the pages say."""

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
COMMANDS_PAGE = (ROOT / "docs" / "commands.md").read_text()
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
INSTALL, TEST = (block.strip() for block in BLOCK.findall(README)[:2])
SHOWN_TABLE = re.compile(r"<!-- (convbench show [^>]*) -->\n```text\n(.*?)```", re.DOTALL)

IM2COL_AGAINST_BOTH = (
    r"im2col is [\d.]+ times as fast as loop, and "
    r"(is |takes )?[\d.]+ times as (fast|long) as the fastest Keras"
)
"""Pattern of the sentence under a table. The load decides whether im2col or Keras wins."""

PRINTED = {
    "convbench check examples/my_conv.py:convolve": (
        "layers, 2 threads",
        r"^forward +156 +190 +exact$",
        "Not checked: 190 of 346 layers need strides",
        "examples/my_conv.py:convolve is right in forward and is not checked in",
    ),
    "convbench run mnist --layer conv2": (
        "conv2 kernel-gradient  26x26x8 -> 24x24x16",
        r"im2col +loop .*\n",
        IM2COL_AGAINST_BOTH,
    ),
    "convbench run mnist --layer conv2 --pass forward": (
        r"keras-graph +exact +[\d.]+",
        IM2COL_AGAINST_BOTH,
    ),
    "convbench run mnist --impl examples/my_conv.py:convolve --pass forward --layer conv1": (
        r"examples/my_conv.py:convolve +exact",
        "conv1 forward",
    ),
    "convbench run --resume results/mnist.json": (
        r"im2col (is|takes) [\d.]+ times as (fast|long) as loop",
    ),
    "convbench import keras:MobileNet --batch-size 1 -o mobilenet.yaml": (
        r"keras: read \d+ convolutions, merged \d+ into equal ones",
    ),
    "convbench import examples/shapes_net -o example.yaml": ("benchdnn: read 5 convolutions",),
    "convbench run resnet50 --layer conv5_block1_1_conv --pass forward": (
        "conv5_block1_1_conv forward",
        r"im2col +exact",
    ),
    "convbench merge results/mnist.json -o results/merged.json": (
        "conv2 forward",
        "results/merged",
    ),
    "convbench export benchdnn alexnet": (r"--dir=FWD_.*\n", "mb4"),
    "convbench show results/mnist.json": ("conv5x5 kernel-gradient", "Speedups, geometric means"),
    "convbench show results/mnist.json --format csv": (r"^layer,pass,implementation,status",),
    "convbench show results/mnist-conv2.json -o docs/mnist-conv2.svg": ("wrote docs/mnist-conv2",),
    "python -m pyperf show results/mnist.json": ("conv1/forward/im2col",),
    "convbench gate noise --impl examples/my_conv.py:convolve --against HEAD --layer middle": (
        "no slower than examples/my_conv.py:convolve@HEAD",
        "inconclusive",
    ),
    "convbench gate results/mnist-conv2.json --rules examples/floors.yaml": (
        "geometric mean over .* at least 10 times as fast as loop",
        r"\(exit code 0\)",
    ),
    "convbench gate results/mnist-conv2.json --baseline results/mnist.json --tolerance 3%": (
        "no slower than in results/mnist.json",
        r"\(exit code 0\)",
    ),
    "convbench diff results/mnist.json results/mnist-conv2.json": ("conv2 forward", "peak memory"),
    "convbench noise --runs 1 --inject 10% --layer middle -o results/noise.json": (
        "how much sessions differ is told from 5 runs on",
        "Nothing was judged: no round gave a verdict",
    ),
    "convbench profile mnist --layer conv2": ("Where the gap comes from", "predicted:"),
    "convbench profile mnist --impl examples/my_conv.py:convolve --layer conv1": (
        "Where the gap comes from",
        r"my_conv.py",
    ),
    "convbench profile mnist --impl examples/my_conv.py:convolve --layer conv1 -o profile.html": (
        "wrote profile.html",
    ),
    "convbench profile --ladder": ("winograd", "threads"),
    "convbench train mnist_cnn --impl auto --impl loop": (
        "the fastest Keras",
        "auto",
        "held-out",
    ),
    "convbench machine": ("SGEMM, 2 threads", "fresh page of 4 KiB"),
    "convbench schema suite": (r'"\$schema"',),
    "convbench schema network": (r'"\$schema"',),
    "convbench schema result": (r'"\$schema"',),
}
"""Patterns of what each command of the two pages prints according to the pages."""

SLOW = (
    "convbench run",
    "convbench profile",
    "convbench train",
    "convbench import keras:",
    "convbench noise",
)
"""Commands that measure with TensorFlow, or many times over."""

SHOWN = {"convbench check examples/my_conv.py:convolve_flipped"}
"""Commands whose whole output the README shows, for tests/test_own_code_page.py to compare."""


def _commands(page):
    return [
        line.removeprefix("$ ")
        for block in BLOCK.findall(page)
        for line in block.splitlines()
        if line.startswith("$ ")
    ]


COMMANDS = list(dict.fromkeys([*_commands(README), *_commands(COMMANDS_PAGE)]))


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """Folder with the files that git has, as a newcomer gets them."""
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
def test_the_first_command_runs_in_a_fresh_environment(clone):
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
    """Folder in which the tour's commands run: a repository with the files that they need."""
    folder = tmp_path_factory.mktemp("tour")
    for name in ("configs", "examples", "docs", "results"):
        shutil.copytree(ROOT / name, folder / name)
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    for arguments in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "all"]):
        subprocess.run(["git", *who, *arguments], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def resumable(tmp_path_factory):
    """Folder with a result file that was made on this machine."""
    folder = tmp_path_factory.mktemp("resumable")
    arguments = ["--effort", "smoke", "--layer", "conv1", "-o", "results/mnist.json"]
    done = convbench("run", "mnist", *arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def _measures(words):
    """Return whether a command of the tour measures anything, so that its effort matters."""
    return words[1] in ("run", "gate", "noise", "train", "profile") and not any(
        w.endswith(".json") for w in words[2:3]
    )


def test_every_command_of_the_pages_has_patterns():
    assert set(COMMANDS) == {*PRINTED, *SHOWN}


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(line, marks=pytest.mark.slow if line.startswith(SLOW) else ())
        for line in COMMANDS
        if line not in SHOWN
    ],
)
def test_a_command_prints_what_the_pages_say(line, folder, request):
    words = shlex.split(line)
    if words[0] == "python":
        done = subprocess.run(
            [sys.executable, *words[1:]], cwd=folder, capture_output=True, text=True
        )
    else:
        assert words[0] == "convbench"
        here, effort = folder, ["--effort", "smoke"] if _measures(words) else []
        if "--resume" in words:
            here, effort = request.getfixturevalue("resumable"), []
        done = started(*words[1:], *effort, cwd=here)
    assert done.returncode == 0, done.stderr
    for pattern in PRINTED[line]:
        assert re.search(pattern, done.stdout + done.stderr, re.MULTILINE), pattern


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


@pytest.mark.parametrize("page", [README, COMMANDS_PAGE], ids=["README.md", "commands.md"])
def test_the_output_shown_is_that_of_the_saved_result(page):
    (command, shown) = SHOWN_TABLE.search(page).groups()
    assert convbench(*shlex.split(command)[1:]).stdout.rstrip() == shown.rstrip()


def test_the_network_shown_is_that_of_the_saved_result():
    saved = (ROOT / "results" / "resnet50.txt").read_text()
    assert convbench("show", "results/resnet50.json").stdout == saved
    (shown,) = re.findall(
        r"<!-- results/resnet50.txt -->\n```text\n(.*?)```", COMMANDS_PAGE, re.DOTALL
    )
    lines = [line for line in shown.splitlines() if line]
    assert len(lines) > 10
    assert [line for line in lines if line not in saved.splitlines()] == []


def test_the_picture_is_that_of_the_saved_result(tmp_path):
    picture = tmp_path / "picture.svg"
    assert convbench("show", "results/mnist-conv2.json", "-o", picture).returncode == 0
    committed = (ROOT / "docs" / "mnist-conv2.svg").read_text()
    assert _words(picture.read_text()) == _words(committed)


def _words(svg):
    """Return a picture's words, without its identifiers, which depend on Rich's version."""
    return re.findall(r">([^<>]+)</text>", svg)


def test_the_suite_shown_is_the_shipped_one():
    shown = re.search(r"```yaml\n(.*?)```", COMMANDS_PAGE, re.DOTALL)[1]
    assert shown.rstrip() == (ROOT / "configs" / "mnist.yaml").read_text().rstrip()
