"""Test the benchmark of repetitions: its table of made-up runs, and the order of its campaign.

Nothing is timed. Each run is made of drawn samples, and may deviate from the others as a whole.
"""

from __future__ import annotations

import json
import math
import random
import re
import sys
from itertools import groupby
from pathlib import Path

import pytest

from convbench.results import file as result_file
from tests.diff_fixture import TIMES, saved, scaled

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import repetitions

RUNS = 6


def campaign_of(folder: Path, deviation: float, effort: str = "quick", cpu: str = "") -> None:
    """Save runs between which im2col's time differs by `deviation`, in addition to its noise."""
    draw = random.Random(3)
    for number in range(RUNS):
        times = scaled(TIMES, im2col=math.exp(draw.gauss(0, deviation)))
        made = saved(times, seed=number, date=f"2026-11-{number + 1:02d} 09:31", noise=0.01)
        target = folder / f"{effort}-{number:02d}.json"
        result_file.save(target, made)
        if cpu and number == RUNS - 1:
            document = json.loads(target.read_text())
            document["convbench"]["machine"]["cpu"] = cpu
            target.write_text(json.dumps(document))


def rows(folder: Path, words: str) -> list[tuple[int, float, str]]:
    """Return the table's rows that begin with `words`.

    Each row is a number of pairs, the per cent whose interval holds 0, and a verdict.
    """
    pattern = re.compile(rf"{re.escape(words)} +(\d+) +([\d.]+)% +(met|MISSED)?")
    found = [pattern.search(line) for line in repetitions.report(folder)]
    return [(int(m[1]), float(m[2]), m[3] or "") for m in found if m]


def test_runs_that_differ_by_noise_alone_agree(tmp_path: Path) -> None:
    campaign_of(tmp_path, deviation=0.0)
    found = rows(tmp_path, "with what all runs taught")
    assert found
    assert all(part >= 97 and verdict == "met" for _, part, verdict in found)


def test_runs_that_differ_more_than_their_rounds_tell_are_seen(tmp_path: Path) -> None:
    """The intervals of single runs are too narrow. What all runs taught makes them wide enough."""
    campaign_of(tmp_path, deviation=0.10)
    alone = rows(tmp_path, repetitions.RUNS_ALONE)
    taught = rows(tmp_path, "with what all runs taught")
    assert min(part for _, part, _ in alone) < 90
    assert all(part >= 97 for _, part, _ in taught)


def test_every_pair_and_every_speedup_counts(tmp_path: Path) -> None:
    campaign_of(tmp_path, deviation=0.0)
    figures = repetitions._figures(result_file.load(tmp_path / "quick-00.json"))
    pairs = sum(number for number, _, _ in rows(tmp_path, repetitions.RUNS_ALONE))
    assert pairs == len(figures) * RUNS * (RUNS - 1) // 2


def test_runs_of_two_cpus_are_refused(tmp_path: Path) -> None:
    campaign_of(tmp_path, deviation=0.0, cpu="Another CPU")
    with pytest.raises(SystemExit, match=r"runs of several CPUs: .*Another CPU"):
        list(repetitions.report(tmp_path))


def test_the_runs_of_an_effort_are_spread_over_the_campaign() -> None:
    order = list(repetitions.mixed({"quick": 20, "standard": 8}))
    assert sorted(order) == sorted(
        [("quick", number) for number in range(20)] + [("standard", number) for number in range(8)]
    )
    longest = max(len(list(group)) for _, group in groupby(effort for effort, _ in order))
    assert longest <= 3


def test_a_campaign_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "quick-00.json").touch()
    ran: list[str] = []
    monkeypatch.setattr(repetitions, "run", lambda effort, output: ran.append(output.name))
    repetitions.campaign(tmp_path, {"quick": 2, "standard": 1}, minutes=1)
    assert ran == ["standard-00.json", "quick-01.json"]
