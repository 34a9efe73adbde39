"""Time an epoch of MNIST's size in NumPy against Keras's fit, and compare it with the targets.

    python benchmarks/epoch.py [--effort standard] [-o FOLDER] > results/epoch.txt
    python benchmarks/epoch.py --from FOLDER/epoch-*.json

Each batch size takes one `convbench train` in a process of its own, without the variables that pin
BLAS kernels. Nothing else may run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from kernels import PINS

from convbench.errors import ConvbenchError
from convbench.report.formats.terminal import print_report
from convbench.results import file as result_file
from convbench.results.model import ResultFile
from convbench.suites.suite import FASTEST_KERAS
from convbench.training.tables import report

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "results" / "epoch"
NETWORK = "mnist_cnn"
TARGETS = {32: 1.2, 128: 1.0}
"""Smallest speedup of an epoch with `auto` over one of Keras's fit, by batch size."""

LOOP_TARGET = (50.0, 200.0)
"""Expected range of the reference loop's time over that of `auto`."""

FINE = (0, 3, 5)
"""Exit codes to go on with. The tables show unreliable timings (3) and wrong cells (5)."""


def main() -> None:
    options = _options()
    try:
        paths = options.from_ or [_measured(size, options) for size in options.batch_sizes]
        results = [result_file.load(path).result for path in paths]
    except ConvbenchError as error:
        sys.exit(f"epoch.py: {error.message}")
    for result in results:
        print_report(report(result))
        print()
    print("Targets")
    for result in results:
        for line in verdicts(result):
            print(line)
    pins = " ".join(f"{name}={os.environ[name]}" for name in PINS if name in os.environ)
    if pins and not options.from_:
        print(f"unset, so that BLAS kernels are native: {pins}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=list(TARGETS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--effort", default="standard")
    parser.add_argument("--data", default="synthetic")
    parser.add_argument("--from", dest="from_", nargs="+", type=Path, metavar="RESULT.json")
    parser.add_argument("-o", dest="folder", type=Path, default=FOLDER)
    return parser.parse_args()


def _measured(size: int, options: argparse.Namespace) -> Path:
    path: Path = options.folder / f"epoch-{size}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "convbench", "train", NETWORK, "--impl", "auto"]
    command += ["--impl", "loop", "--batch-size", str(size), "--threads", str(options.threads)]
    command += ["--effort", options.effort, "--data", options.data, "--force", "-o", str(path)]
    unpinned = {name: value for name, value in os.environ.items() if name not in PINS}
    done = subprocess.run(command, env=unpinned, stdout=subprocess.DEVNULL)
    if done.returncode not in FINE:
        sys.exit(f"epoch.py: {' '.join(command[2:])} ended with exit code {done.returncode}")
    return path


def verdicts(result: ResultFile) -> list[str]:
    """Return a line for each target: what is wanted, and what was found, with its 99 % interval."""
    assert result.training is not None
    size = result.training.network["batch_size"]
    found = {(s.implementation, s.versus): s for s in result.speedups}
    lines = []
    over_keras = found.get(("auto", FASTEST_KERAS))
    if over_keras is not None and size in TARGETS:
        met = "met" if over_keras.ratio >= TARGETS[size] else "MISSED"
        lines.append(
            f"batch {size}: auto over the fastest Keras at least {TARGETS[size]:.1f}: "
            f"{over_keras.ratio:.3f}{_interval(over_keras.ci99)} {met}"
        )
    over_loop = found.get(("auto", "loop"))
    if over_loop is not None:
        low, high = LOOP_TARGET
        met = "as expected" if low <= over_loop.ratio <= high else "not as expected"
        lines.append(
            f"batch {size}: loop {over_loop.ratio:.1f}{_interval(over_loop.ci99)} times slower "
            f"than auto ({low:.0f} to {high:.0f} were expected): {met}"
        )
    return lines


def _interval(bounds: tuple[float, float] | None) -> str:
    return f" [{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds else ""


if __name__ == "__main__":
    main()
