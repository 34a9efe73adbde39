"""Test that docs/your-own-convolution.md, and the README's check, show what the commands print.

Each command runs in a folder with the repository's paths that the page uses, the files that the
page shows above it (`# NAME.py` is their first line) and its diffs. After the report's words have
changed, `python -m tests.test_own_code_page` writes the checks' new output into both pages.
"""

import re
import shlex
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli import ROOT, convbench
from tests.mutants.causes import CAUSES

PAGE = ROOT / "docs" / "your-own-convolution.md"
README = ROOT / "README.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ convbench (.*)\n(?:\$ echo \$\?\n(\d+)\n)?", re.MULTILINE)


@dataclass(frozen=True)
class Step:
    """A command of the page, the exit code and output that the page shows, and all blocks above."""

    line: str
    exit_code: int
    shown: tuple[str, ...]
    above: tuple[tuple[str, str], ...]


def steps(page):
    found, blocks = [], BLOCK.findall(page)
    for index, (kind, text) in enumerate(blocks):
        if kind != "console":
            continue
        output = []
        for following, content in blocks[index + 1 :]:
            if following != "text":
                break
            output += content.splitlines()
        if not (commands := COMMAND.findall(text)):
            continue
        *others, last = commands
        for line, code in others:
            found.append(Step(line, int(code or 0), (), tuple(blocks[:index])))
        found.append(Step(last[0], int(last[1] or 0), tuple(output), tuple(blocks[:index])))
    return found


STEPS = steps(PAGE.read_text())


def prepared(folder, step):
    """Fill the folder as a reader has it at this step, and return the folder."""
    shutil.copytree(ROOT / "tests" / "users", folder / "tests" / "users")
    shutil.copytree(ROOT / "examples", folder / "examples")
    for kind, text in step.above:
        first = text.partition("\n")[0]
        if kind == "python" and (name := re.fullmatch(r"# (\w+\.py)", first)):
            (folder / name[1]).write_text(text)
        if kind == "diff":
            subprocess.run(["git", "apply", "-"], cwd=folder, input=text, text=True, check=True)
    return folder


LONG = ("check my_layer.py",)
"""Checks that explain mistakes in two passes."""


def is_run(step):
    return step.line.startswith("run ")


def is_check(step):
    return step.line.startswith("check ")


def expected(step):
    """Return the lines that the output must have: all that do not depend on machine and time."""
    if is_check(step):
        # Shrinking ends when its time is up, so that a busy machine may find another layer.
        varying = ("run  ", "versions", "  smallest layer that fails")
        return [line for line in step.shown if not line.startswith(varying)]
    return [untimed(line) for line in step.shown]


def untimed(line):
    """Return the part of a run's line that no clock decides: a heading, or a cell's verdict."""
    return line if " -> " in line else " ".join(line.split()[:2])


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(step, marks=pytest.mark.slow if step.line in LONG or is_run(step) else ())
        for step in STEPS
    ],
    ids=lambda step: step.line,
)
def test_a_command_prints_what_the_page_shows(step, tmp_path):
    words = shlex.split(step.line)
    effort = ["--effort", "smoke"] if words[0] == "run" and "--effort" not in words else []
    done = convbench(*words, *effort, cwd=prepared(tmp_path, step))
    assert done.returncode == step.exit_code, done.stderr
    assert not missing(step, done)


def said(done):
    """Return what a command prints without its progress."""
    lines = done.stderr.splitlines()
    errors = [line for line in lines if line.startswith(("convbench: error", "convbench: hint"))]
    return done.stdout + "".join(f"{line}\n" for line in errors)


def missing(step, done):
    printed = said(done).splitlines()
    printed = {*printed, *map(untimed, printed)}
    return [line for line in expected(step) if line not in printed]


def test_the_readme_shows_what_its_check_says(tmp_path):
    (step,) = filter(is_check, steps(README.read_text()))
    assert len(expected(step)) >= 5
    done = convbench(*shlex.split(step.line), cwd=prepared(tmp_path, step))
    assert done.returncode == 5
    assert not missing(step, done)


def test_the_page_shows_output_of_every_check():
    checks = [step for step in STEPS if is_check(step)]
    assert len(checks) >= 5
    assert {step.exit_code for step in checks} == {0, 2, 5}
    for step in checks:
        assert len(expected(step)) >= (2 if step.exit_code == 2 else 5), step.line


def test_the_suite_shown_is_that_of_the_repository():
    ((name, shown),) = re.findall(
        r"<!-- (\S+\.yaml) -->\n```yaml\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    assert (ROOT / name).read_text().endswith(shown)


def test_every_mistake_has_a_place_on_the_page():
    causes = {cause for answers in CAUSES.values() for one in answers for cause in one}
    words = set(re.findall(r"`([\w-]+)`", PAGE.read_text()))
    assert causes - words == {"unexplained"}


def test_a_step_knows_its_exit_code_and_its_output():
    page = """
```console
$ convbench check a.py
$ echo $?
5
```

```text
one
two
```

```python
# b.py
```

```console
$ convbench check b.py
```
"""
    first, second = steps(page)
    assert (first.line, first.exit_code, first.shown) == ("check a.py", 5, ("one", "two"))
    assert (second.line, second.exit_code, second.shown) == ("check b.py", 0, ())
    assert ("python", "# b.py\n") in second.above


def refresh(file):
    """Write the output of each check into the text block below its command."""
    page, at = file.read_text(), 0
    for step in steps(page):
        at = page.index(f"\n$ convbench {step.line}\n", at) + 1
        if is_check(step):
            with tempfile.TemporaryDirectory() as folder:
                done = convbench(*shlex.split(step.line), cwd=prepared(Path(folder), step))
            start = page.index("```text\n", at) + len("```text\n")
            page = page[:start] + said(done) + page[page.index("```", start) :]
    file.write_text(page)


if __name__ == "__main__":
    refresh(PAGE)
    refresh(README)
