"""Measure what large sets cost, and print each figure beside its target.

    python benchmarks/sets.py > results/sets.txt

The first set has 100 small layers in two implementations, in the forward pass at quick effort: how
long does the run take, and how much does the command's own memory grow? The second is a file of
5,000 cells: how long does it take to load and to show? Both together take some seven minutes.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import psutil

from convbench import runtimes
from convbench.machine import description as machine
from convbench.problem.layer import Layer, Pass
from convbench.results import file as result_file
from convbench.results.model import Agreement, RoundSamples, benchmark_name
from convbench.schedule import Session
from convbench.suites.file.writing import write_suite
from convbench.suites.suite import Suite

SMALL, LARGE, ROUNDS, BLOCKS = 100, 2500, 5, 4
MIB = 2**20


def layers(count: int) -> tuple[Layer, ...]:
    """Return small layers, the same ones every time."""
    rng = random.Random(1)
    return tuple(
        Layer(
            f"set:{i}",
            (rng.randint(8, 28), rng.randint(8, 28), rng.choice((1, 3, 8, 16))),
            rng.choice((4, 8, 16, 32)),
            rng.choice(((1, 1), (3, 3), (5, 5))),
            batch_size=rng.choice((1, 4, 8)),
        )
        for i in range(count)
    )


def show(what: str, value: float, unit: str, target: float) -> None:
    verdict = "under" if value < target else "OVER"
    print(f"{what:62} {value:8.2f} {unit:3} {verdict} the target of {target:g} {unit}", flush=True)


def run_of_small_layers(folder: Path) -> tuple[float, float]:
    """Return a run's seconds, and the MiB by which the command's own memory grew after the first
    tenth of the run."""
    suite = folder / "small.yaml"
    asked = Suite("small", layers(SMALL), ("im2col", "keras-graph"), (Pass.FORWARD,))
    suite.write_text(write_suite(replace(asked, effort="quick")))
    command = [sys.executable, "-m", "convbench", "run", suite, "--quiet", "-o", folder / "r.json"]
    started, sizes = time.monotonic(), []
    with subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                sizes.append(watched.memory_info().rss)
            except psutil.NoSuchProcess:
                break
            time.sleep(0.5)
    seconds = time.monotonic() - started
    at_work = sizes[len(sizes) // 10 : -4]
    return seconds, (max(at_work) - at_work[0]) / MIB


def large_result(path: Path) -> float:
    """Write a file of 5,000 cells, as a run at quick effort leaves it. Return its size in MB."""
    rng = random.Random(0)
    suite = Suite("large", layers(LARGE), ("loop", "im2col"), (Pass.FORWARD,))
    here, software = machine.fingerprint(), machine.software(runtimes.versions())
    session = Session(suite, here, software, {}, 2, "quick", 0, path)
    for key in session.cells:
        session.update(key, status="ok", agreement=Agreement(True, 0.1, 1e-7, "agrees"))
        seconds = rng.uniform(1e-5, 1e-3)
        for r in range(1, ROUNDS + 1):
            values = tuple(seconds * rng.uniform(0.95, 1.1) for _ in range(BLOCKS))
            about: dict[str, str | int | float] = {"load_avg_1min": 0.5, "mem_max_rss": 10**8}
            run = RoundSamples(r, (0, 1) * 2, 10, values, ((1, seconds),), about)
            session.add(benchmark_name(*key), run)
    session.save()
    return path.stat().st_size / 1e6


def command_s(*arguments: object) -> float:
    command = [sys.executable, "-m", "convbench", *map(str, arguments)]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = large_result(folder / "large.json")
        print(f"a result file of {2 * LARGE} cells has {size:.1f} MB")
        started = time.perf_counter()
        result_file.load(folder / "large.json")
        show("  to load it", time.perf_counter() - started, "s", 3)
        show(
            "  convbench show, from start to end", command_s("show", folder / "large.json"), "s", 3
        )
        seconds, grown = run_of_small_layers(folder)
        show(f"{SMALL} small layers x 2 implementations x forward, quick", seconds / 60, "min", 5)
        show("  growth of the command's own memory meanwhile", grown, "MiB", 50)


if __name__ == "__main__":
    main()
