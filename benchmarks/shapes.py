"""Check agreement at scale: import every published list in a folder, and check all of its layers.

    python benchmarks/shapes.py FOLDER [--batch-size 1] [--most-gflop 50] > results/shapes.txt

FOLDER holds the lists as their projects publish them (benchdnn, DeepBench, XNNPACK, convSet, ...),
in folders of their own. im2col and keras are checked in all three passes: integers must be exact at
full size, and floats lie within their bound on a cut copy. Layers of more than --most-gflop are
left out and named. The exit code is 1 if any cell is wrong or crashed.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from convbench import importers
from convbench.problem.layer import Layer
from convbench.suites.file import read_suite
from convbench.suites.file.writing import write_suite

IMPLEMENTATIONS = ("im2col", "keras")
NOT_LISTS = re.compile(r"LICENSE|README", re.IGNORECASE)
STATUSES = ("ok", "wrong", "failed", "skipped", "unsupported")


def convbench(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "convbench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def left_out(file: Path) -> list[str]:
    """Return the reasons for which entries are left out, with the number of entries."""
    _, reading = importers.read(importers.source(str(file)))
    reasons = Counter(entry.reason.rpartition(": ")[2] for entry in reading.left_out)
    return [f"{count} x {reason}" for reason, count in reasons.items()]


def without_largest(file: Path, most: float) -> list[Layer]:
    """Take the layers of more than `most` FLOPs out of a suite's file, and return them."""
    suite = read_suite(file)
    small = [layer for layer in suite.layers if layer.flops <= most]
    file.write_text(write_suite(replace(suite, layers=tuple(small))))
    return [layer for layer in suite.layers if layer not in small]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--most-gflop", type=float, default=50.0)
    options = parser.parse_args()
    files = [f for f in sorted(options.folder.glob("*/*")) if not NOT_LISTS.search(f.name)]
    total: Counter[str] = Counter()
    print(f"batch {options.batch_size}; {' and '.join(IMPLEMENTATIONS)}; three passes", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for file in files:
            name = f"{file.parent.name}/{file.name}"
            suite, result = Path(folder) / f"{file.stem}.yaml", Path(folder) / f"{file.stem}.json"
            said = convbench("import", file, "--batch-size", options.batch_size, "-o", suite)
            told = [
                line for line in said.stderr.splitlines() if ": read " in line or "error" in line
            ]
            print(f"\n{name}\n  {told[-1].removeprefix('convbench: ')}", flush=True)
            for reason in left_out(file):
                print(f"    left out: {reason}")
            if not suite.exists():
                continue
            for layer in without_largest(suite, options.most_gflop * 1e9):
                print(f"    too large: {layer.name}: {layer.geometry()}")
            started = time.monotonic()
            impls = [word for name in IMPLEMENTATIONS for word in ("--impl", name)]
            convbench("check", suite, *impls, "--quiet", "-o", result)
            cells = json.loads(result.read_text())["convbench"]["cells"]
            counts = Counter(cell["status"] for cell in cells)
            exact = sum(bool((cell["agreement"] or {}).get("exact")) for cell in cells)
            total.update(counts)
            words = ", ".join(f"{counts[s]} {s}" for s in STATUSES if counts[s])
            print(
                f"  {len(cells)} cells: {words}; {exact} exact; {time.monotonic() - started:.0f} s"
            )
            for cell in cells:
                if cell["status"] not in ("ok", "unsupported"):
                    where = " ".join(cell[key] for key in ("layer", "pass", "implementation"))
                    print(f"    {cell['status']}: {where}: {cell['reason']}", flush=True)
    print(f"\nin all: {', '.join(f'{total[s]} {s}' for s in STATUSES)}")
    sys.exit(bool(total["wrong"] or total["failed"]))


if __name__ == "__main__":
    main()
