"""Test whether the gate's verdicts can be trusted: false alarms, power, and seconds to a verdict.

    python benchmarks/verdicts.py quiet|many|loaded|time|show [...]

Every step runs the real command line and adds to the noise files in results/, so that a campaign
can be made in parts. `show` prints the results of all files. Nothing else may run on the machine
meanwhile (`loaded` starts the neighbour that it needs), and only one step at a time. Unset the
variables that pin BLAS kernels first.

    quiet   ten pairs a run: A against A 20 times, then 10 times with 5 % and 10 % injected as well
    many    27 rules in one job, twice, with 5 % and 10 % injected
    loaded  ten pairs a run, 3 times, while a neighbour loads one core in random bursts
    time    one rule, 9 times: seconds from the command to its verdict
"""

from __future__ import annotations

import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Process
from pathlib import Path

from convbench.noise import file as noise_file
from convbench.noise import trials as noise
from convbench.noise.trials import Figures
from convbench.results import stats

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
QUIET, MANY, LOADED = (RESULTS / f"verdicts-{name}.json" for name in ("quiet", "many", "loaded"))
SUITE_OF_27 = Path(__file__).with_suffix(".yaml")
REPEATS = 9

SHORTEST_BURST_S, LONGEST_BURST_S = 0.005, 2.0


def main() -> None:
    steps = {"quiet": quiet, "many": many, "loaded": loaded, "time": verdict_time, "show": show}
    chosen = sys.argv[1:]
    if not chosen or set(chosen) - set(steps):
        sys.exit(__doc__)
    for step in chosen:
        steps[step]()


def quiet() -> None:
    campaign("noise", QUIET, runs=20, inject="", seed=0)
    campaign("noise", QUIET, runs=10, inject="5%,10%", seed=1000)


def many() -> None:
    campaign(str(SUITE_OF_27), MANY, runs=2, inject="5%,10%", seed=0, together=True)


def loaded() -> None:
    with neighbour():
        campaign("noise", LOADED, runs=3, inject="5%,10%", seed=0)


def campaign(
    suite: str, file: Path, *, runs: int, inject: str, seed: int, together: bool = False
) -> None:
    each = [] if together else ["--each"]
    options = ["--runs", str(runs), "--inject", inject, "--seed", str(seed), *each, "--quiet"]
    done = convbench("noise", suite, *options, "-o", str(file))
    print(done.stdout)


def verdict_time() -> None:
    """Return a whole command's wall time in seconds: one rule, and a function against its copy."""
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        example = (ROOT / "examples" / "my_conv.py").read_text()
        for name in ("new.py", "old.py"):
            (Path(folder) / name).write_text(example)
        for repeat in range(REPEATS):
            started = time.perf_counter()
            one = ["--layer", "middle", "--pass", "forward", "--quiet", "-o", f"{repeat}.json"]
            impl = ["--impl", "new.py:convolve", "--against", "old.py"]
            done = convbench("gate", "noise", *one, *impl, cwd=Path(folder))
            seconds.append(time.perf_counter() - started)
            print(f"{seconds[-1]:.1f} s: {done.stdout.strip().splitlines()[-1]}", flush=True)
    median = statistics.median(seconds)
    verdict = "under" if median < 15 else "OVER"
    print(f"median {median:.1f} s of {REPEATS}, {verdict} the target of 15 s")


def show() -> None:
    for what, file in (("quiet", QUIET), ("many", MANY), ("loaded", LOADED)):
        if file.exists():
            loaded_file = noise_file.load(file)
            figures = noise.figures(loaded_file)
            load = statistics.median(run.load for run in loaded_file.runs)
            print(f"\n{what}: {len(loaded_file.runs)} runs, {loaded_file.effort} effort,", end=" ")
            print(f"{loaded_file.threads} thread, median load of others {load:.0%}")
            show_figures(figures, what)


def show_figures(figures: Figures, what: str) -> None:
    is_loaded = what == "loaded"
    for alarms in figures.alarms:
        rate = alarms.upper if what == "quiet" else alarms.false_alarms / alarms.jobs
        line(
            f"A/A, {alarms.rules} rules: false alarms {alarms.false_alarms} of {alarms.jobs}, "
            f"95 % upper bound {alarms.upper:.2%}",
            rate <= 0.01,
        )
        held = alarms.held / alarms.jobs
        line(
            f"A/A, {alarms.rules} rules: holds {alarms.held} of {alarms.jobs} ({held:.1%}), "
            f"inconclusive {alarms.inconclusive}, unreliable {alarms.unreliable}",
            held >= 0.95 if what == "quiet" else None,
        )
    for power in figures.power:
        found = power.found / power.trials
        low = 1 - stats.proportion_upper(power.trials - power.found, power.trials)
        wanted = 0.99 if math.isclose(power.injected, 0.10) else 0.95
        line(
            f"slowed by {power.injected:.0%} (seen {power.seen:.2%}), {power.rules} rules: found "
            f"{power.found} of {power.trials} ({found:.1%}, 95 % lower bound {low:.1%}), "
            f"inconclusive {power.inconclusive}, unreliable {power.unreliable}, said to hold "
            f"{power.missed}, said to be faster {power.faster}",
            power.faster == 0 if is_loaded else found >= wanted,
        )
    if figures.detects is not None:
        line(f"median minimum detectable slowdown of one rule: {figures.detects - 1:.1%}", None)


def line(words: str, target: bool | None) -> None:
    mark = {True: "ok    ", False: "MISSED", None: "      "}[target]
    print(f"  {mark} {words}")


@contextmanager
def neighbour() -> Iterator[None]:
    """Run a process that keeps one core busy in bursts, half of the time."""
    process = Process(target=burn, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.terminate()


def burn() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    draw = random.Random(1)
    while True:
        logs = math.log(SHORTEST_BURST_S), math.log(LONGEST_BURST_S)
        busy, idle = (math.exp(draw.uniform(*logs)) for _ in range(2))
        until = time.perf_counter() + busy
        while time.perf_counter() < until:
            pass
        time.sleep(idle)


def convbench(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "convbench", *arguments], capture_output=True, text=True, cwd=cwd
    )
    if done.returncode not in (0, 1, 3):  # all verdicts are welcome here
        sys.exit(f"convbench {' '.join(arguments)}: exit code {done.returncode}\n{done.stderr}")
    return done


if __name__ == "__main__":
    main()
