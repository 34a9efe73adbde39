"""Hold the harness against a plain loop: does a tight loop over the same call give its figures?

    python benchmarks/timeit.py [--suites mnist lenet ...] [--threads 1 2] [-o FILE.json]
    python benchmarks/timeit.py --from FILE.json > results/timeit.txt

In each repetition, `convbench run` runs every suite once, and a plain loop (timeit_loop.py) runs
each of its cells once. The loop makes the same call in a process of its own, with nothing beside
it: 0.3 s of calls without the clock, then 60 samples of 10 ms back to back. The order is drawn anew
each time, so that slow spells of the host do not meet one side alone. A campaign that was stopped
goes on when it is started with the same file. A file of another CPU is refused. Nothing else may
run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernels import without_pins

from convbench.machine import description as machine
from convbench.problem.layer import Pass
from convbench.results.file import write_atomically
from convbench.suites.file import read_suite
from convbench.suites.suite import KERAS_WAYS

ROOT = Path(__file__).parents[1]
LOOP = Path(__file__).with_name("timeit_loop.py")

LAYERS = {
    "mnist": (),
    "lenet": (),
    "resnet50": (
        "conv1_conv",
        "conv2_block1_2_conv",
        "conv3_block1_2_conv",
        "conv5_block1_1_conv",
    ),
    "vgg16": ("block1_conv1", "block2_conv1", "block3_conv2", "block5_conv1"),
    "mobilenet": ("conv1", "conv_dw_1", "conv_pw_1", "conv_pw_6"),
}
"""Suites and their layers to measure. An empty tuple stands for all layers of the suite."""

IMPLEMENTATIONS = ("im2col", "auto", *KERAS_WAYS)

WITHIN_MEAN = 0.02
"""Largest wanted distance from 1 of the harness's geometric mean over the plain loop's (2 %)."""

BEYOND_SPREAD = 0.03
"""Allowance for a cell (3 %), beyond the distance of its plain loops from each other."""

PART_OF_CELLS = 0.9
FINE = (0, 3)


@dataclass(frozen=True)
class Task:
    """One step of a repetition: the plain loop of a cell or, without `cell`, a run of a suite."""

    repetition: int
    suite: str
    threads: int
    cell: tuple[str, str, str] | None = None  # layer, pass, implementation

    @property
    def key(self) -> str:
        return "/".join(map(str, (self.repetition, self.suite, self.threads, *(self.cell or ()))))


def main() -> None:
    options = _options()
    path: Path = options.from_ or options.output
    state = _load(path)
    if not options.from_:
        _campaign(options, path, state)
    print(report(state))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suites", nargs="+", choices=list(LAYERS), default=list(LAYERS))
    parser.add_argument("--implementations", nargs="+", default=list(IMPLEMENTATIONS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--effort", default="quick")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so long")
    parser.add_argument("--from", dest="from_", type=Path, metavar="FILE.json", help="only print")
    parser.add_argument("-o", dest="output", type=Path, default=ROOT / "results" / "timeit.json")
    return parser.parse_args()


# Measuring


def _load(path: Path) -> dict[str, Any]:
    """Return what was measured so far. Exit for a file of another CPU."""
    here = machine.fingerprint().cpu
    if not path.exists():
        return {"cpu": here, "harness": {}, "plain": {}}
    state: dict[str, Any] = json.loads(path.read_text())
    if state["cpu"] != here and "--from" not in sys.argv:
        sys.exit(f"timeit.py: {path} is of {state['cpu']}, this is {here}: take another -o")
    return state


def _campaign(options: argparse.Namespace, path: Path, state: dict[str, Any]) -> None:
    ends = time.monotonic() + 60 * options.minutes
    for task in _tasks(options):
        if task.key in state["harness" if task.cell is None else "plain"]:
            continue
        if time.monotonic() > ends:
            print(f"timeit.py: stopped after {options.minutes:g} minutes", file=sys.stderr)
            return
        print(f"timeit.py: {task.key}", file=sys.stderr, flush=True)
        if task.cell is None:
            state["harness"][task.key] = _harness(task, options)
        else:
            state["plain"][task.key] = _plain(task)
        write_atomically(path, json.dumps(state))


def _tasks(options: argparse.Namespace) -> Iterator[Task]:
    """Yield the steps, repetition by repetition, each in a random order that a restart repeats."""
    for repetition in range(options.repetitions):
        tasks = []
        for name in options.suites:
            for threads in options.threads:
                tasks.append(Task(repetition, name, threads))
                tasks += [
                    Task(repetition, name, threads, (layer, pass_, implementation))
                    for layer in _layers(name)
                    for pass_ in Pass
                    for implementation in options.implementations
                ]
        random.Random(repetition).shuffle(tasks)
        yield from tasks


def _layers(suite: str) -> tuple[str, ...]:
    return LAYERS[suite] or tuple(layer.name for layer in read_suite(suite).layers)


def _harness(task: Task, options: argparse.Namespace) -> dict[str, list[float]]:
    """Return every cell's typical and undisturbed seconds a call, as `convbench run` gives them."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "result.json"
        command = ["run", task.suite, "--threads", str(task.threads), "--effort", options.effort]
        command += [word for name in options.implementations for word in ("--impl", name)]
        command += [word for layer in LAYERS[task.suite] for word in ("--layer", layer)]
        code = subprocess.run(
            [sys.executable, "-m", "convbench", *command, "--quiet", "-o", str(output)],
            cwd=ROOT,
            env=without_pins(os.environ),
            stdout=subprocess.DEVNULL,
        ).returncode
        if code not in FINE:
            sys.exit(f"timeit.py: convbench {' '.join(command)}: exit code {code}")
        cells = json.loads(output.read_text())["convbench"]["cells"]
    return {
        f"{cell['layer']}/{cell['pass']}/{cell['implementation']}": [
            cell["time"]["time_s"],
            cell["time"]["undisturbed_s"],
        ]
        for cell in cells
        if cell["time"]
    }


def _plain(task: Task) -> list[float] | None:
    """Return the median of a plain loop and the mean of its quickest eighth, or None if the cell is
    not supported."""
    assert task.cell is not None
    environment = {
        **without_pins(os.environ),
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    done = subprocess.run(
        [sys.executable, "-P", str(LOOP), task.suite, *task.cell, str(task.threads)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"timeit.py: {task.key}: {done.stderr[-2000:]}")
    samples = json.loads(done.stdout)
    if samples is None:
        return None
    quickest = sorted(samples)[: max(1, len(samples) // 8)]
    return [statistics.median(samples), statistics.fmean(quickest)]


# Telling


@dataclass(frozen=True)
class Compared:
    """One cell: the log of the harness's time over the plain loop's, and the largest distance
    between the logs of plain loops. Index 0 is the typical time, index 1 the undisturbed one."""

    implementation: str
    threads: int
    name: str
    logs: tuple[float, float]
    spreads: tuple[float, float]


def compared(state: dict[str, Any]) -> list[Compared]:
    """Return every cell that both sides have measured."""
    harness: dict[tuple[int, str], list[list[float]]] = {}
    for key, cells in state["harness"].items():
        _, suite, threads = key.split("/")
        for cell, times in cells.items():
            harness.setdefault((int(threads), f"{suite}/{cell}"), []).append(times)
    plain: dict[tuple[int, str], list[list[float]]] = {}
    for key, times in state["plain"].items():
        if times is not None:
            _, suite, threads, cell = key.split("/", 3)
            plain.setdefault((int(threads), f"{suite}/{cell}"), []).append(times)
    found = []
    for (threads, name), times in sorted(harness.items()):
        loops = plain.get((threads, name))
        if loops:
            logs, spreads = [], []
            for which in (0, 1):
                ours = [math.log(each[which]) for each in times]
                theirs = [math.log(each[which]) for each in loops]
                logs.append(statistics.fmean(ours) - statistics.fmean(theirs))
                spreads.append(max(theirs) - min(theirs))
            implementation = name.rpartition("/")[2]
            found.append(
                Compared(
                    implementation, threads, name, (logs[0], logs[1]), (spreads[0], spreads[1])
                )
            )
    return found


def report(state: dict[str, Any]) -> str:
    """Write the tables: first the harness over the plain loop, for each implementation and number
    of threads, then the speedups over the fastest Keras by both."""
    cells = compared(state)
    loops = len({key.split("/")[0] for key in state["plain"]})
    lines = [
        "The harness's time over the plain loop's",
        f"machine   {state['cpu']}; at most {loops} plain loops for each cell",
        f"wanted    mean within {WITHIN_MEAN:.0%} of 1; {PART_OF_CELLS:.0%} of the cells no "
        f"further from their plain loops than these are apart, plus {BEYOND_SPREAD:.0%}",
    ]
    for which, title in enumerate(("typical time (median)", "undisturbed time (quickest eighth)")):
        lines += [
            "",
            title,
            f"{'threads  implementation':26}cells   mean  furthest cells  loops apart  near enough",
        ]
        for threads in sorted({cell.threads for cell in cells}):
            for name in dict.fromkeys(cell.implementation for cell in cells):
                of_row = [c for c in cells if (c.threads, c.implementation) == (threads, name)]
                if of_row:
                    lines.append(_row(threads, name, of_row, which))
    lines += ["", *_speedups(state)]
    return "\n".join(line.rstrip() for line in lines)


def _row(threads: int, name: str, cells: list[Compared], which: int) -> str:
    logs = [cell.logs[which] for cell in cells]
    near = sum(
        abs(cell.logs[which]) <= cell.spreads[which] + math.log1p(BEYOND_SPREAD) for cell in cells
    )
    mean = math.exp(statistics.fmean(logs))
    met = abs(mean - 1) <= WITHIN_MEAN and near >= PART_OF_CELLS * len(cells)
    apart = math.expm1(statistics.median(cell.spreads[which] for cell in cells))
    return (
        f"{threads:7}  {name:17}{len(cells):5}{mean:8.3f}  {math.exp(min(logs)):.2f} to "
        f"{math.exp(max(logs)):.2f} {apart:14.1%} {near:6} of {len(cells):<4}"
        f"{'met' if met else 'missed'}"
    )


def _speedups(state: dict[str, Any]) -> Iterator[str]:
    """Yield geometric means over each cell's fastest Keras, by the harness and by plain loops."""
    yield "Speedups over the fastest Keras, geometric means over the cells (harness; plain loop)"
    sides: list[dict[tuple[str, str], dict[str, float]]] = [{}, {}]
    for key, cells in state["harness"].items():
        _, suite, threads = key.split("/")
        for cell, times in cells.items():
            _gather(sides[0], threads, f"{suite}/{cell}", times[0])
    for key, times in state["plain"].items():
        if times is not None:
            _, suite, threads, cell = key.split("/", 3)
            _gather(sides[1], threads, f"{suite}/{cell}", times[0])
    for threads in sorted({unit[0] for unit in sides[0]}):
        for name in ("im2col", "auto"):
            means = [
                [
                    math.log(min(ways) / of_unit[name])
                    for unit, of_unit in side.items()
                    if unit[0] == threads
                    and name in of_unit
                    and (ways := [of_unit[way] for way in KERAS_WAYS if way in of_unit])
                ]
                for side in sides
            ]
            if all(means):
                ours, plain = (math.exp(statistics.fmean(logs)) for logs in means)
                yield f"{threads:>7}  {name:10} {ours:6.3f}; {plain:6.3f}"


def _gather(
    side: dict[tuple[str, str], dict[str, float]], threads: str, name: str, seconds: float
) -> None:
    """Keep the geometric mean of the last mean and the new time. The order hardly matters here."""
    unit, _, implementation = name.rpartition("/")
    of_unit = side.setdefault((threads, unit), {})
    before = of_unit.get(implementation)
    of_unit[implementation] = seconds if before is None else math.sqrt(before * seconds)


if __name__ == "__main__":
    main()
