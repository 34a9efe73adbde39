"""Measure how fast the harness itself is, and print each figure beside its target.

    python benchmarks/harness.py [--all]

`--all` adds the two whole mnist runs (some four minutes). This is not a test: figures from a busy
machine say nothing about the code.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from convbench.measure.clock import clock

REPEATS = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="the mnist runs too")
    everything = parser.parse_args().all
    show("convbench --help", seconds("--help"), "s", 0.2)
    loaded = modules_after_help()
    print(f"{'modules loaded by --help: numpy, tensorflow, rich, pydantic':58} {loaded or 'none'}")
    show("clock loop, per cent of a 100 us kernel", clock_overhead() * 100, "%", 1.0)
    show("run configs/smoke.yaml", run_s("smoke"), "s", 20)
    if everything:
        show("run configs/mnist.yaml --effort quick", run_s("mnist", "--effort", "quick"), "s", 60)
        show("run configs/mnist.yaml (standard)", run_s("mnist"), "s", 150)


def show(what: str, value: float, unit: str, target: float) -> None:
    verdict = "under" if value < target else "OVER"
    print(f"{what:58} {value:8.3f} {unit:2} {verdict} the target of {target:g} {unit}", flush=True)


def seconds(*arguments: str) -> float:
    """Return the median wall time of a command in seconds, in a new process each time."""
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        convbench(*arguments)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def run_s(suite: str, *options: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        convbench("run", suite, *options, "--quiet", "-o", str(Path(folder) / "result.json"))
        return time.perf_counter() - started


def convbench(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "convbench", *arguments], capture_output=True, text=True
    )
    if done.returncode not in (0, 3):  # 3: the machine was too noisy to trust the timings
        sys.exit(f"convbench {' '.join(arguments)}: exit code {done.returncode}\n{done.stderr}")


def modules_after_help() -> str:
    program = (
        "import sys\n"
        "sys.argv = ['convbench', '--help']\n"
        "from convbench.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = ('numpy', 'tensorflow', 'rich', 'pydantic')\n"
        "print('LOADED', *[m for m in heavy if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    return done.stdout.rpartition("LOADED")[2].strip()


def clock_overhead() -> float:
    """Return what the clock's loop and call add to a kernel of 100 microseconds, as a fraction.

    The cost is measured with a kernel that does nothing. A busy wait of 100 us could not show the
    cost, since the wait itself deviates by more.
    """
    empty_s = min(clock(lambda: None, 10_000) for _ in range(20))
    return empty_s / 100e-6


if __name__ == "__main__":
    main()
