"""Test what the built-in layers find in code that is right at first, or for most values."""

from __future__ import annotations

import json
import re

import pytest

from convbench.agreement.check.case import Case
from convbench.agreement.check.checker import check
from convbench.implementations.registry import REGISTRY
from convbench.problem.layer import Pass
from convbench.suites.file import read_suite
from tests.cli import ROOT, convbench
from tests.mutants import campaign

FILE = ROOT / "tests" / "users" / "unsteady.py"


@pytest.fixture
def checked(tmp_path):
    def check(name, *options):
        output = tmp_path / "r.json"
        done = convbench("check", f"{FILE}:{name}", "--quiet", "-o", output, "--force", *options)
        cells = json.loads(output.read_text())["convbench"]["cells"]
        return done, [cell for cell in cells if cell["pass"] == "forward"]

    return check


FOUND = {
    "wrong_from_the_50th_call": "it keeps state between calls",
    "WrongFromThe50thCallOfAnObject": "wrong at call 50 of one object",
    "wrong_on_another_thread": "wrong on another thread",
    "wrong_after_a_larger_layer": "it keeps state between calls",
    "wrong_once_in_50": "is wrong in forward",  # chance decides how it is named
    "remembers_by_the_sum": "it keeps results by a part of their operands",
    "remembers_by_the_corner": "it keeps results by a part of their operands",
    "nan_after_a_relu": "wrong where an element of the images is 0",
    "divides_by_denormal_numbers": "some elements of the images are denormal numbers",
    "saturates": "wrong where numbers are large",
    "drops_tiny_values": "wrong where products are very small numbers",
    "truncated_operands": "as of bfloat16, are right where float32 has 24",
    "rest_of_a_block_of_images": "17 or more images and the number of images is no multiple of 16",
    "blocks_of_columns": "columns is no multiple of 32",
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "told"), FOUND.items())
def test_code_that_is_right_at_first_is_found(checked, name, told):
    done, _ = checked(name)
    assert done.returncode == 5, done.stdout
    assert told in done.stdout


def test_values_for_which_code_is_wrong_are_told(checked):
    done, _ = checked("nan_after_a_relu", "--layer", "one-*")
    assert done.returncode == 5, done.stdout
    assert FOUND["nan_after_a_relu"] in done.stdout


def test_a_budget_leaves_layers_out_and_says_so(checked):
    done, cells = checked("right", "--budget", "1")
    assert done.returncode == 0, done.stdout
    left = [cell for cell in cells if cell["status"] == "skipped"]
    if left:  # a quick machine may have asked all
        told = r"Skipped: forward, .* on \d+ of 346 layers: not asked, since the 1 s of --budget"
        assert re.search(told, done.stdout)


def test_random_layers_are_asked_until_the_time_is_up(checked):
    done, _ = checked("right", "--thorough", "2", "--seed", "7", "--layer", "3x3*")
    assert done.returncode == 0, done.stdout
    assert "random layers are right, too (--seed 7)" in done.stderr


@pytest.mark.slow
def test_a_random_layer_that_is_wrong_is_reported(checked):
    done, cells = checked("wrong_for_7x7", "--thorough", "20", "--seed", "7", "--layer", "one-*")
    assert done.returncode == 5, done.stdout
    assert "the wrong layer is one of" in done.stderr
    assert "7 or more kernel rows" in done.stdout
    assert all(cell["layer"].startswith("random-7-") for cell in cells)


@pytest.mark.parametrize(
    "number", [n if n < 3 else pytest.param(n, marks=pytest.mark.slow) for n in range(20)]
)
def test_mutants_that_a_layer_tells_from_right_code_are_found(number):
    answer = campaign.ask(number)
    assert answer["found"] is not None or answer["told_apart"] is None


@pytest.mark.slow
@pytest.mark.parametrize("number", range(10))
def test_right_variants_are_right(number):
    assert campaign.ask_right(number)["found"] is None


@pytest.mark.slow
@pytest.mark.parametrize("number", range(0, len(campaign.TRANSFORMS) * 3, 7))
def test_right_transforms_are_right(number):
    assert campaign.ask_transform(number)["called_wrong"] == []


@pytest.mark.parametrize(
    ("style", "seed", "layer", "pass_"),
    [
        ("convbench_calls.py:WinogradOnSmallTiles", 7, "channels-257", "forward"),
        ("convbench_calls.py:WinogradOnSmallTiles", 7, "one-row-padded", "input-gradient"),
        ("convbench_calls.py:Fft", 7, "5x5-same-dilation-2x2", "kernel-gradient"),
        ("convbench_calls.py:Fft", 1, "1x1", "forward"),
        ("convbench_calls.py:Fft", 1, "4x1-pads-uneven", "forward"),
        ("fourier.py:oaconvolve", 7, "one-pixel-batch-1", "forward"),
        ("fourier.py:oaconvolve", 1, "one-pixel-batch-3", "forward"),
        ("winograd.py:Winograd", 1, "one-column-padded", "input-gradient"),
    ],
)
def test_draws_in_which_the_largest_elements_meet_in_no_sum(style, seed, layer, pass_):
    implementation = REGISTRY.get(f"{ROOT / 'tests' / 'styles'}/{style}")
    (asked,) = (each for each in read_suite("coverage").layers if each.name == layer)
    found = check(Case(implementation, asked, Pass(pass_), threads=2, seed=seed))
    assert found.verdict == "agrees", found.diagnosis


def test_a_campaign_keeps_its_answers_and_tells_its_rates(tmp_path, capsys):
    kept = tmp_path / "mutants.jsonl"
    answers = [
        {"number": 0, "found": "3x3"},
        {"number": 1, "found": None, "told_apart": "5x5x1 -> 3x3x1"},
        {"number": 2, "found": None, "told_apart": None},
    ]
    kept.write_text("".join(f"{json.dumps(answer)}\n" for answer in answers))
    assert campaign.kept(kept, 3, campaign.ask) == answers
    right = [{"number": 0, "found": None}]
    transforms = [{"number": n, "cells": 9, "called_wrong": []} for n in range(18)]
    transforms[1]["called_wrong"] = ["3x3 forward"]
    assert not campaign.report(answers, right, transforms)
    printed = capsys.readouterr().out
    assert "all: 1 of 2 mutants found (50.0%)" in printed
    assert "not counted, since no layer tells them from right code: 1" in printed
    assert "not found: M1, " in printed
    assert "right variants: 0 of 1 called wrong" in printed
    assert "right transforms, seeds 0 to 0: 1 of 162 cells called wrong" in printed
    assert f"called wrong: {campaign.TRANSFORMS[1]} with seed 0 on 3x3 forward" in printed
