"""Time the functions of a pair in a plain loop until the median of the batches is narrow enough.

    python loop.py a|b|turns HALF_WIDTH SECONDS

`a` and `b` time one function, back to back. `turns` times both in this one process, a batch of each
in turn, and takes the ratio of the two. HALF_WIDTH is the wanted half width for the logarithm of
the median. After SECONDS the loop ends in any case. The output is a JSON object with `log`,
`half_width` and the number of `batches`.
"""

from __future__ import annotations

import gc
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module

WARM_UP_S = 0.3
BATCH_S = 0.010
"""Seconds of calls without the clock, and of one batch: the plain loop of issue 17."""

LEAST_BATCHES = 60
"""Smallest number of batches for a figure, as in the plain loop of issue 17."""

CHECKED_EVERY = 20
"""Number of batches from one look at the half width to the next."""

NORMAL_QUANTILE = 1.96
"""Quantile of the normal distribution for a two-sided interval of 95 %."""


def median_and_half_width(figures: Sequence[float]) -> tuple[float, float]:
    """Return the median, and the longer half of its 95 % interval from order statistics.

    The ranks are those of the sign test, by its normal approximation (Conover, *Practical
    Nonparametric Statistics*, 3rd ed., section 3.2). The test takes batches as independent, which
    they are not on a shared machine. It needs at least ten figures.
    """
    ordered = sorted(figures)
    count = len(ordered)
    below = math.floor((count - NORMAL_QUANTILE * math.sqrt(count)) / 2)
    median = statistics.median(ordered)
    return median, max(median - ordered[below], ordered[count - 1 - below] - median)


def until_narrow(batch: Callable[[], float], half_width: float, seconds: float) -> list[float]:
    """Return the figures of as many batches as the half width needs, within `seconds`."""
    ends = time.perf_counter() + seconds
    figures: list[float] = []
    while True:
        figures += [batch() for _ in range(CHECKED_EVERY)]
        is_narrow = (
            len(figures) >= LEAST_BATCHES and median_and_half_width(figures)[1] <= half_width
        )
        if is_narrow or time.perf_counter() > ends:
            return figures


def batch_of(arm: str) -> Callable[[], float]:
    """Warm an arm up, and return a function that times a batch: the logarithm of seconds a call."""
    conv = import_module(arm).conv
    operands = import_module("operands")

    def seconds_a_call(calls: int) -> float:
        started = time.perf_counter()
        for _ in range(calls):
            conv(operands.x, operands.kernel)
        return (time.perf_counter() - started) / calls

    warm = time.perf_counter() + WARM_UP_S
    seconds = [seconds_a_call(1)]
    while time.perf_counter() < warm:
        seconds.append(seconds_a_call(1))
    calls = max(round(BATCH_S / statistics.median(seconds)), 1)
    return lambda: math.log(seconds_a_call(calls))


def in_turns() -> Callable[[], float]:
    """Return a function that times a batch of each arm, and gives the logarithm of T_A / T_B.

    The arm that comes first changes from turn to turn.
    """
    arms = {arm: batch_of(arm) for arm in "ab"}
    order = "ab"

    def turn() -> float:
        nonlocal order
        order = order[::-1]
        logs = {arm: arms[arm]() for arm in order}
        return logs["a"] - logs["b"]

    return turn


def main() -> None:
    what, half_width, seconds = sys.argv[1:]
    gc.disable()  # as timeit does
    batch = in_turns() if what == "turns" else batch_of(what)
    figures = until_narrow(batch, float(half_width), float(seconds))
    log, found = median_and_half_width(figures)
    print(json.dumps({"log": log, "half_width": found, "batches": len(figures)}))


if __name__ == "__main__":
    main()
