"""Test that files which earlier versions of convbench saved are still read.

`tests/earlier/` keeps some: two runs, a check and a training, named by the day on which that
version was made. Never write them anew: a change that cannot read them needs another schema.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from convbench.machine.cautions import SET_BY_US
from convbench.results import file as result_file
from tests.cli import convbench

EARLIER = Path(__file__).parent / "earlier"
OLDEST, NEWER = EARLIER / "run-2026-11-23.json", EARLIER / "run-2026-11-25.json"
CHECK, TRAINING = EARLIER / "check-2026-11-27.json", EARLIER / "training-2026-11-27.json"

SHOWN = {
    OLDEST: "im2col is 26.0 times as fast as loop, and 0.546 times as fast as the fastest Keras",
    NEWER: "im2col is 52.7 times as fast as loop, and 1.17 times as fast as the fastest Keras",
    CHECK: "examples/my_conv.py:convolve_flipped is wrong in forward",
    TRAINING: "0.0351 s with im2col",
}
"""A piece of what `show` prints for each file. The figures are those that the file had then."""


@pytest.mark.parametrize("file", SHOWN, ids=lambda file: file.stem)
def test_its_figures_are_shown(file: Path) -> None:
    done = convbench("show", file)
    assert done.returncode == 0, done.stderr
    assert SHOWN[file] in done.stdout


@pytest.mark.parametrize("file", SHOWN, ids=lambda file: file.stem)
def test_nothing_is_lost_when_it_is_saved_again(file: Path, tmp_path: Path) -> None:
    saved = result_file.load(file)
    again = tmp_path / "again.json"
    result_file.save(again, saved)
    assert result_file.load(again) == saved
    before = json.loads(file.read_text())["convbench"]
    after = json.loads(again.read_text())["convbench"]
    before["environment"].pop(SET_BY_US, None)
    assert after["environment"] == before["environment"]
    assert [cell["status"] for cell in after["cells"]] == [
        cell["status"] for cell in before["cells"]
    ]


def test_an_explanation_without_kinds_gets_them() -> None:
    document = json.loads(CHECK.read_text())["convbench"]
    old = [cell["agreement"]["explanation"] for cell in document["cells"] if cell["agreement"]]
    assert "kinds" not in next(filter(None, old)), "the file is of the version before kinds"
    cells = result_file.load(CHECK).result.cells
    wrong = [cell.agreement for cell in cells if cell.agreement and cell.agreement.explanation]
    assert wrong
    for agreement in wrong:
        assert agreement.explanation is not None
        causes = tuple(kind.cause for kind in agreement.explanation.kinds)
        assert causes == agreement.explanation.causes == ("kernel-flipped",)


def test_two_are_compared() -> None:
    done = convbench("diff", OLDEST, NEWER)
    assert done.returncode == 0, done.stderr
    assert "conv2 forward" in done.stdout


def test_one_is_a_baseline_of_the_gate() -> None:
    done = convbench("gate", NEWER, "--baseline", OLDEST, "--allow-different-machine")
    assert done.returncode in (0, 1, 3), done.stderr
    assert "conv2 forward" in done.stdout
