"""Ask the built-in layers about mutants and right code: `python -m tests.mutants.campaign`.

Mutants that are not found are asked a thousand random layers. Those that no layer tells from right
code do not count. Right variants are asked with the same draws, and right transforms, whose results
are rounded, with draws of many seeds. The answers are kept in the folder of `-o`, so that a
campaign can be stopped and resumed. It prints the rates, a line for each mutant that slips through,
and a line for whatever is right and called wrong. results/check.txt has them for 1,000 mutants, 500
variants and 10 seeds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from convbench.agreement.check.case import Case
from convbench.agreement.check.checker import check
from convbench.agreement.diagnosis.diagnosing import Diagnosing
from convbench.implementations.registry import REGISTRY
from convbench.problem import operands
from convbench.problem.layer import Layer, Pass
from convbench.suites.coverage import random_layers
from convbench.suites.file import read_suite
from tests.cli import ROOT
from tests.mutants.evidence import everyone
from tests.mutants.spoiling import Spoiler, spoiler, variant
from tests.styles.names import CALLS

FILE = ROOT / "tests" / "mutants" / "spoilt.py"

Answer = dict[str, Any]
"""Number of a mutant or variant, and the first layer on which something wrong is `found`."""

THREADS, SEED = 2, 0
BRUTE_FORCE = 1000
"""Number of random layers that a mutant which was not found is asked."""

SHARES = 5
"""Each right variant is asked one layer in so many, since nothing ends its check early."""

TRANSFORMS = (
    *(f"convbench_calls.py:{name}" for name in CALLS),
    "fourier.py:InSinglePrecision",
    "fourier.py:numpy_float32",
    "fourier.py:oaconvolve",
    "fourier.py:real_part",
    "keywords.py:float64_inside",
    "matrices.py:by_svd",
    "matrices.py:Im2col",
    "transforms.py:prefix_sums",
    "transforms.py:strassen",
    "transforms.py:winograd_6x6",
    "winograd.py:Winograd",
)
"""Right convolutions of tests/styles that compute in other ways than by direct sums, and two that
do not."""

TOLD_APART = 1e-3
"""Smallest error that tells a mutant from right code, as a part of the largest element."""


def ask(number: int) -> dict[str, Any]:
    """Return whether the check finds a mutant, or else whether any random layer tells it apart."""
    found = _found(f"M{number}", spoiler(number))
    if found is not None:
        return {"number": number, "found": found}
    return {"number": number, "found": None, "told_apart": _told_apart(number)}


def ask_right(number: int) -> dict[str, Any]:
    """Return on which of its share of layers the check calls a right variant wrong, or None."""
    share = slice(number % SHARES, None, SHARES)
    return {"number": number, "found": _found(f"R{number}", variant(number), share)}


def ask_transform(number: int) -> dict[str, Any]:
    """Return on which layers and passes the check calls a right transform wrong, with one seed."""
    seed, style = divmod(number, len(TRANSFORMS))
    implementation = REGISTRY.get(f"{ROOT / 'tests' / 'styles'}/{TRANSFORMS[style]}")
    cells, called_wrong = 0, []
    for layer in read_suite("coverage").layers:
        for pass_ in Pass:
            if implementation.unsupported(layer, pass_) is None:
                cells += 1
                if check(Case(implementation, layer, pass_, THREADS, seed)).verdict == "wrong":
                    called_wrong.append(f"{layer.name} {pass_}")
    return {"number": number, "cells": cells, "called_wrong": called_wrong}


def _found(name: str, spoiler: Spoiler, share: slice = slice(None)) -> str | None:
    """Return on which built-in layer the check finds something wrong, as `convbench check` does."""
    implementation = REGISTRY.get(f"{FILE}:{name}")
    diagnosing = Diagnosing()
    for layer in read_suite("coverage").layers[share]:
        case = Case(implementation, layer, Pass(spoiler.pass_), THREADS, SEED)
        found = check(case)
        if found.verdict != "wrong":
            found = diagnosing.steady(found, case)
        if found.verdict == "wrong":
            return layer.name
    return None


def _told_apart(number: int) -> str | None:
    """Return the geometry of a random layer on which a mutant is wrong, or None."""
    pass_ = Pass(spoiler(number).pass_)
    mutant, right = (REGISTRY.get(f"{FILE}:{name}") for name in (f"M{number}", "Right"))
    rng = np.random.default_rng(number)
    for layer in itertools.islice(random_layers(number), BRUTE_FORCE):
        ready = [each.prepare(layer, pass_, THREADS) for each in (mutant, right)]
        for drawn in _draws(layer, pass_, rng):
            results = []
            for each in ready:
                each.load(drawn)
                results.append(np.array(each.to_numpy(each.run()), np.float64))
            largest = np.abs(results[1]).max(initial=0)
            if not np.abs(results[0] - results[1]).max(initial=0) <= TOLD_APART * largest:
                return layer.geometry()
    return None


def _draws(layer: Layer, pass_: Pass, rng: np.random.Generator) -> list[Any]:
    """Draw floats, and integers of which all negative ones are zero, as after a ReLU."""
    floats = operands.floats(layer, pass_, int(rng.integers(1000)))
    whole = operands.exact_integers(layer, pass_, int(rng.integers(1000)))
    positive = {
        name: None if (array := getattr(whole, name)) is None else np.maximum(array, 0)
        for name in ("input", "output_gradient")
    }
    return [floats, replace(whole, **positive)]


def kept(path: Path, count: int, function: Callable[[int], Answer]) -> list[Answer]:
    """Ask what was not asked before, and return all answers."""
    done = {}
    if path.exists():
        answers = map(json.loads, path.read_text().splitlines())
        done = {answer["number"]: answer for answer in answers}
    with path.open("a") as file:
        for answer in everyone(function, [n for n in range(count) if n not in done]):
            file.write(json.dumps(answer) + "\n")
            file.flush()
            done[answer["number"]] = answer
    return [done[number] for number in range(count)]


def report(answers: list[Answer], variants: list[Answer], transforms: list[Answer]) -> bool:
    """Print the rates by kind of condition, what slips through, and what is called wrong.

    Return whether 97 % of the mutants are found and nothing that is right is called wrong.
    """
    counted, slipped = Counter[str](), Counter[str]()
    lines = []
    for answer in answers:
        mutant = spoiler(answer["number"])
        if answer["found"] is None and answer["told_apart"] is None:
            continue
        counted[mutant.kind] += 1
        if answer["found"] is None:
            slipped[mutant.kind] += 1
            lines.append(
                f"not found: M{mutant.number}, {mutant.pass_}: {mutant.how} where there are "
                f"{mutant.when}; it is wrong on {answer['told_apart']}"
            )
    for kind, count in sorted(counted.items()):
        print(f"{kind}: {count - slipped[kind]} of {count} found")
    total, missed = counted.total(), slipped.total()
    print(f"all: {total - missed} of {total} mutants found ({(total - missed) / total:.1%})")
    print(f"not counted, since no layer tells them from right code: {len(answers) - total}")
    called_wrong = [variant(each["number"]) for each in variants if each["found"] is not None]
    print(f"right variants: {len(called_wrong)} of {len(variants)} called wrong")
    lines += [f"called wrong: {one.pass_}: {one.how} where {one.when}" for one in called_wrong]
    seeds = len(transforms) // len(TRANSFORMS)
    cells, wrong = (
        sum(each["cells"] for each in transforms),
        sum(len(each["called_wrong"]) for each in transforms),
    )
    print(f"right transforms, seeds 0 to {seeds - 1}: {wrong} of {cells} cells called wrong")
    for answer in transforms:
        seed, style = divmod(answer["number"], len(TRANSFORMS))
        for cell in answer["called_wrong"]:
            lines.append(f"called wrong: {TRANSFORMS[style]} with seed {seed} on {cell}")
    for line in lines:
        print(line)
    return missed <= 0.03 * total and not called_wrong and not wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--mutants", type=int, default=1000)
    parser.add_argument("--variants", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=10)
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    ok = report(
        kept(given.output / "mutants.jsonl", given.mutants, ask),
        kept(given.output / "variants.jsonl", given.variants, ask_right),
        kept(given.output / "transforms.jsonl", given.seeds * len(TRANSFORMS), ask_transform),
    )
    sys.exit(not ok)
