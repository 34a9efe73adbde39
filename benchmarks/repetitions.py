"""Test whether intervals survive a repetition: make the same run many times, and compare all pairs.

    python benchmarks/repetitions.py [--quick 20] [--standard 8] -o FOLDER
    python benchmarks/repetitions.py --from FOLDER > results/repetitions.txt

This runs `convbench run mnist` again and again. Beside every fourth run, a neighbour keeps one CPU
busy in bursts (the one of verdicts.py). The runs of each effort have a memory of their own in the
folder, which is empty at first, as on a machine where convbench was just installed. Quick and
standard runs are mixed, so that those of one effort are apart in time. A campaign that was stopped
goes on with the same folder. Nothing else may run on the machine meanwhile.

Two runs of the same thing differ by nothing but chance: the 99 % interval of the difference should
hold 0 in at least 97 % of all pairs. "As told" is what `convbench diff` says. Until five runs are
remembered, it assumes how much runs differ.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from itertools import combinations
from pathlib import Path

from kernels import without_pins
from verdicts import neighbour

from convbench.compare import Deviations, learnt_by
from convbench.results import file as result_file
from convbench.results import run_memory, stats
from convbench.results.file import Saved
from convbench.results.run_memory_file import MEMORY_VARIABLE
from convbench.results.summary import Ratio, RatioKey, between, speedups

ROOT = Path(__file__).parents[1]
SUITE = "mnist"
WANTED = 0.97
"""Smallest share of pairs whose interval of the difference should hold 0 (issue 17, line 4)."""

LOADED_EVERY = 4
FINE = (0, 3)

RUNS_ALONE = "of both runs alone"
ROW = "{:12} {:36} {:>6} {:>7} {:7} {:>10}"

Figures = dict[RatioKey, Ratio]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", type=int, default=20)
    parser.add_argument("--standard", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so long")
    parser.add_argument("--from", dest="from_", type=Path, metavar="FOLDER", help="only print")
    parser.add_argument("-o", dest="output", type=Path, default=ROOT / "results" / "repetitions")
    options = parser.parse_args()
    folder: Path = options.from_ or options.output
    if not options.from_:
        campaign(folder, {"quick": options.quick, "standard": options.standard}, options.minutes)
    print("\n".join(report(folder)))


# Measuring


def campaign(folder: Path, asked: dict[str, int], minutes: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + 60 * minutes
    for effort, number in mixed(asked):
        output = folder / f"{effort}-{number:02d}.json"
        if output.exists():
            continue
        if time.monotonic() > ends:
            print(f"repetitions.py: stopped after {minutes:g} minutes", file=sys.stderr)
            return
        print(f"repetitions.py: {output.name}", file=sys.stderr, flush=True)
        with neighbour() if number % LOADED_EVERY == LOADED_EVERY - 1 else nullcontext():
            run(effort, output)


def mixed(asked: dict[str, int]) -> Iterator[tuple[str, int]]:
    """Return the efforts of all runs, each effort spread evenly over the campaign."""
    places = [
        ((number + 0.5) / count, effort, number)
        for effort, count in asked.items()
        for number in range(count)
    ]
    for _, effort, number in sorted(places):
        yield effort, number


def run(effort: str, output: Path) -> None:
    unfinished = output.with_suffix(".unfinished.json")
    memory = {MEMORY_VARIABLE: str(output.with_name(f"runs-{effort}.json"))}
    command = ["run", SUITE, "--effort", effort, "--quiet", "--force", "-o", str(unfinished)]
    code = subprocess.run(
        [sys.executable, "-m", "convbench", *command],
        cwd=ROOT,
        env=without_pins(os.environ) | memory,
        stdout=subprocess.DEVNULL,
    ).returncode
    if code not in FINE:
        sys.exit(f"repetitions.py: convbench {' '.join(command)}: exit code {code}")
    unfinished.rename(output)


# Telling


def report(folder: Path) -> Iterator[str]:
    yield f"Pairs of runs of {SUITE}: does the 99 % interval of the difference hold 0?"
    for effort in ("quick", "standard"):
        files = sorted(folder.glob(f"{effort}-[0-9][0-9].json"))
        if len(files) > 1:
            yield from _of_effort(effort, [result_file.load(file) for file in files])


def _of_effort(effort: str, runs: Sequence[Saved]) -> Iterator[str]:
    cpus = {run.result.machine.cpu for run in runs}
    if len(cpus) > 1:
        sys.exit(f"repetitions.py: runs of several CPUs: {', '.join(sorted(cpus))}")
    in_the_end = run_memory.learn([one for run in runs if (one := run_memory.run_of(run))])
    knowledge: dict[str, Callable[[Saved], Deviations]] = {
        RUNS_ALONE: lambda newer: Deviations(speedup=0.0),
        "as told when the newer run was made": lambda newer: learnt_by(newer.result),
        "with what all runs taught": lambda newer: Deviations(learnt=in_the_end.deviations),
    }
    figures = [_figures(run) for run in runs]
    all_kinds = {_kinds(key, ratio) for of_run in figures for key, ratio in of_run.items()}
    yield ""
    yield f"{effort}: {len(runs)} runs on {cpus.pop()}, every fourth beside a neighbour"
    yield ROW.format("speedups", "intervals", "pairs", "hold 0", "", "half width").rstrip()
    for kinds in sorted(all_kinds):
        for words, known_to in knowledge.items():
            yield _row(kinds, words, runs, figures, known_to)
    for known in in_the_end.deviations:
        if known.of == "speedup":
            yield (
                f"runs differ from the long run by {known.value:.1%} in {known.between} "
                f"(standard deviation, {known.degrees:g} degrees of freedom)"
            )


def _figures(run: Saved) -> Figures:
    """Return the speedups of a run, without those of the fastest Keras over itself."""
    found = speedups(run.result, run.benchmarks)
    return {key: ratio for key, ratio in found.items() if key[2] != ratio.chosen}


def _kinds(key: RatioKey, ratio: Ratio) -> str:
    return between(key[2], ratio.chosen)


def _row(
    kinds: str,
    words: str,
    runs: Sequence[Saved],
    figures: Sequence[Figures],
    known_to: Callable[[Saved], Deviations],
) -> str:
    """Write how many speedups of these kinds agree in all pairs of runs, and the median width."""
    held, widths = 0, []
    for (_, older), (run, newer) in combinations(zip(runs, figures, strict=True), 2):
        deviation = known_to(run).of_speedup(kinds)
        for key in older.keys() & newer.keys():
            if {_kinds(key, older[key]), _kinds(key, newer[key])} == {kinds}:
                found = stats.quotient(newer[key].estimate, older[key].estimate, *deviation)
                interval = found.interval(0.99)
                assert interval is not None
                low, high = interval
                held += low <= 1 <= high
                widths.append(math.sqrt(high / low) - 1)
    if not widths:
        return f"{kinds:12} no pairs"
    part = held / len(widths)
    verdict = "" if words == RUNS_ALONE else "met" if part >= WANTED else "MISSED"
    width = f"{statistics.median(widths):.1%}"
    return ROW.format(kinds, words, len(widths), f"{part:.1%}", verdict, width).rstrip()


if __name__ == "__main__":
    main()
