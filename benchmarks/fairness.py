"""Test whether the harness is fair: divide its figures for runtimes of known cost by the truth.

    python benchmarks/fairness.py [--effort quick] [--threads 1 2] [--wake-s 0.06]

The runtimes are in tests/users/synthetic.py. Nothing disturbs the first of them. A pause puts the
others to sleep; one of those has a heap that is slow to collect, and one has a pool of threads.
Once awake, each takes the same time for a call, whatever the harness did before. `--wake-s` takes
one or more times in seconds for which a sleeping runtime must be called until it is awake. On a
virtual machine, TensorFlow's threads needed 0.1 to 0.2 s. A quick run takes 20 s for each number of
threads and time to wake. Nothing else may run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SUITE = ROOT / "tests" / "suites" / "fairness.yaml"
WITHIN = 0.03
"""Largest deviation of a figure from the truth, as a fraction (issue 17, line 6)."""

ROW = "{:8} {:>7} {:>7} {:>9} {:>10} {:>7}  {}"


def main() -> None:
    sys.path.insert(0, str(ROOT))
    from tests.users.synthetic import COST_S, WAKE, WAKE_S

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--effort", default="quick")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--wake-s", nargs="+", type=float, default=[WAKE_S])
    options = parser.parse_args()
    print(f"the truth is {COST_S * 1e6:g} us a call; {options.effort} effort")
    print(ROW.format("runtime", "threads", "wakes", "figure", "over truth", "", "").rstrip())
    print(ROW.format("", "", "ms", "us", "", "", "").rstrip())
    missed = 0
    for threads in options.threads:
        for wake_s in options.wake_s:
            for cell in measured(threads, options.effort, {WAKE: str(wake_s)}):
                ratio = cell["time"]["time_s"] / COST_S
                is_met = abs(ratio - 1) <= WITHIN
                missed += not is_met
                print(
                    ROW.format(
                        cell["implementation"],
                        threads,
                        "-" if cell["implementation"] == "steady" else f"{wake_s * 1e3:g}",
                        f"{ratio * COST_S * 1e6:.1f}",
                        f"{ratio:.3f}",
                        half_width(cell["time"]["ci99_s"]),
                        f"{'within' if is_met else 'OVER'} {WITHIN:.0%}",
                    ),
                    flush=True,
                )
    print(f"{missed or 'none'} further than {WITHIN:.0%} from the truth")


def measured(threads: int, effort: str, environment: dict[str, str]) -> list[dict[str, Any]]:
    """Return the cells of a `convbench run` in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "result.json"
        options = ["--threads", str(threads), "--effort", effort, "--quiet", "-o", str(output)]
        done = subprocess.run(
            [sys.executable, "-m", "convbench", "run", str(SUITE), *options],
            env={**os.environ, "PYTHONPATH": str(ROOT), "CONVBENCH_RUN_MEMORY": "", **environment},
            capture_output=True,
            text=True,
        )
        if done.returncode not in (0, 3):  # 3: the machine was not calm
            sys.exit(f"convbench run {SUITE}: exit code {done.returncode}\n{done.stderr}")
        cells: list[dict[str, Any]] = json.loads(output.read_text())["convbench"]["cells"]
        return cells


def half_width(interval: list[float] | None) -> str:
    """Write half of a 99 % interval, or an empty text if the effort claims no interval."""
    if interval is None:
        return ""
    low, high = interval
    return f"±{(high / low) ** 0.5 - 1:.1%}"


if __name__ == "__main__":
    main()
