"""Show where a harness slows a threaded arm down: visit one cell in ways that differ by one thing.

    python benchmarks/waking.py [--layer conv2] [--pass forward] [--visits 15] > results/waking.txt

Each way differs from the first by one thing, so that this thing's cost shows alone. Between two
visits the arm's process is paused for PAUSE_S, while another process multiplies matrices on all
threads. The figures are ratios to a plain loop of the same session: 0.3 s of calls, then samples
back to back, with nothing beside it. The ways take turns, in an order drawn anew each time.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

PAUSE_S = 0.15
IMPLEMENTATIONS = ("im2col", "keras", "keras-graph")


@dataclass(frozen=True)
class Way:
    """A way to visit an arm: `wake_s` of calls without the clock, then `samples` of `sample_s`.

    With `collects`, garbage is collected between the last of these calls and the clock. Without
    `stopped`, the process waits for its next visit instead of being stopped by a signal.
    """

    name: str
    wake_s: float
    samples: int
    sample_s: float
    collects: bool = False
    stopped: bool = True


WAYS = (
    Way("5 ms of calls, one sample of 10 ms, collection between", 0.005, 1, 0.010, collects=True),
    Way("the same without the collection", 0.005, 1, 0.010),
    Way("the same, not stopped, only idle", 0.005, 1, 0.010, stopped=False),
    Way("5 ms of calls, 20 samples of 2.5 ms", 0.005, 20, 0.0025),
    Way("50 ms of calls, 20 samples of 2.5 ms", 0.05, 20, 0.0025),
    Way("100 ms of calls, 20 samples of 2.5 ms", 0.1, 20, 0.0025),
    Way("200 ms of calls, 20 samples of 2.5 ms", 0.2, 20, 0.0025),
    Way("300 ms of calls, 20 samples of 2.5 ms", 0.3, 20, 0.0025),
)
PLAIN = Way("plain loop", 0.3, 60, 0.01)


class Arm:
    """A process that serves one implementation of one cell."""

    def __init__(self, *words: str) -> None:
        from kernels import without_pins  # a process that serves does not have it on its path

        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, "--serve", str(theirs.fileno()), *words],
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                stderr=subprocess.DEVNULL,
                env={**without_pins(os.environ), "TF_CPP_MIN_LOG_LEVEL": "3"},
            )
        self._connection = Connection(ours.detach())
        self._connection.recv()

    def visit(self, way: Way) -> list[float]:
        """Return the seconds a call of each sample."""
        self._signal(signal.SIGCONT)
        self._connection.send(way)
        values: list[float] = self._connection.recv()
        if way.stopped:
            self._signal(signal.SIGSTOP)
        return values

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: int) -> None:
        os.killpg(self._process.pid, number)


def serve(descriptor: int, suite: str, layer: str, pass_: str, implementation: str) -> None:
    """Answer each way with its samples. The implementation `burn` multiplies matrices."""
    import numpy as np
    import threadpoolctl

    connection = Connection(descriptor)
    threads = len(os.sched_getaffinity(0))
    threadpoolctl.threadpool_limits(threads, user_api="blas")
    if implementation == "burn":
        square = np.ones((1024, 1024), np.float32)
        run: Callable[[], object] = lambda: square @ square  # noqa: E731
    else:
        from convbench.implementations.registry import REGISTRY
        from convbench.problem import operands
        from convbench.problem.layer import Pass
        from convbench.suites.file import read_suite

        cell = next(one for one in read_suite(suite).layers if one.name == layer), Pass(pass_)
        prepared = REGISTRY.get(implementation).prepare(*cell, threads)
        prepared.load(operands.floats(*cell, 0))
        run = prepared.run
    run()
    gc.collect()
    gc.freeze()
    gc.disable()
    connection.send(None)
    while True:
        connection.send(_samples(run, connection.recv()))


def _samples(run: Callable[[], object], way: Way) -> list[float]:
    now = time.perf_counter
    made, start = 0, now()
    while made < 1 or now() - start < way.wake_s:
        run()
        made += 1
    loops = max(1, round(way.sample_s * made / (now() - start)))
    if way.collects:
        gc.collect()
    found = []
    for _ in range(way.samples):
        start = now()
        for _ in range(loops):
            run()
        found.append((now() - start) / loops)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", default="mnist")
    parser.add_argument("--layer", default="conv2")
    parser.add_argument("--pass", dest="pass_", default="forward")
    parser.add_argument("--implementations", nargs="+", default=list(IMPLEMENTATIONS))
    parser.add_argument("--visits", type=int, default=15)
    options = parser.parse_args()
    print(f"{options.suite}, {options.layer} {options.pass_}: time over the plain loop's")
    print("median of the visits' medians; of their quickest eighths\n")
    for implementation in options.implementations:
        cell = (options.suite, options.layer, options.pass_, implementation)
        plain, found = _measured(cell, options.visits)
        print(f"{implementation}, plain loop {plain[0] * 1e6:.0f} us; {plain[1] * 1e6:.0f}")
        for way, figures in found.items():
            ratios = [figure / reference for figure, reference in zip(figures, plain, strict=True)]
            print(f"  {way.name:56}{ratios[0]:6.2f}{ratios[1]:8.2f}", flush=True)


def _measured(
    cell: tuple[str, str, str, str], visits: int
) -> tuple[tuple[float, float], dict[Way, tuple[float, float]]]:
    arm, burner = Arm(*cell), Arm(*cell[:3], "burn")
    burn = Way("burn", PAUSE_S, 1, 0.001)
    values: dict[Way, list[list[float]]] = {way: [] for way in (PLAIN, *WAYS)}
    try:
        burner.visit(burn)
        order = random.Random(0)
        for _ in range(visits):
            for way in order.sample(list(values), len(values)):
                burner.visit(burn)
                values[way].append(arm.visit(way))
    finally:
        arm.kill()
        burner.kill()
    figures = {way: _figures(of_way) for way, of_way in values.items()}
    return figures.pop(PLAIN), figures


def _figures(visits: list[list[float]]) -> tuple[float, float]:
    """Return the median of the visits' medians, and that of the means of their quickest eighths."""
    quickest = [statistics.fmean(sorted(one)[: max(1, len(one) // 8)]) for one in visits]
    return statistics.median(map(statistics.median, visits)), statistics.median(quickest)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        rest: list[Any] = sys.argv[3:]
        serve(int(sys.argv[2]), *rest)
    else:
        main()
