"""The timer: warm-up until steady, then samples of as many calls as fill the sample's time."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat

from convbench.tuning import resume

STEADY = 0.05
"""Warm-up ends when the medians of the last two thirds of three samples differ by less."""

WARM_UP_S = 0.1
"""Warm-up ends after this long at the latest, or after WARM_UP_SAMPLES times a sample's time."""

WARM_UP_SAMPLES = 10

SLOW_CALL_S = 0.03
"""A call this long needs one warm-up only, and few samples: what is left of start-up is nothing
beside it."""


@dataclass(frozen=True)
class Warm:
    """An arm that is ready: calls a sample, seconds a call, and the warm-ups (calls, seconds)."""

    loops: int
    call_s: float
    warmups: tuple[tuple[int, float], ...]


def warm_up(run: Callable[[], object], sample_s: float) -> Warm:
    """Calls `run` until its time is steady, and finds how many calls fill `sample_s`."""
    deadline = time.perf_counter() + longest_warm_up_s(sample_s)
    first = clock(run, 1)
    warmups = [(1, first)]
    if first >= SLOW_CALL_S:
        return Warm(1, first, tuple(warmups))
    loops = 1
    while time.perf_counter() < deadline:
        value = clock(run, loops)
        warmups.append((loops, value))
        if value * loops < sample_s / 10:  # too short to judge: double, as timeit does
            loops *= 2
            continue
        if _steady([value for _, value in warmups]):
            break
    call_s = statistics.median(value for _, value in warmups[-3:])
    return Warm(max(1, math.ceil(sample_s / call_s)), call_s, tuple(warmups))


def longest_warm_up_s(sample_s: float) -> float:
    return min(WARM_UP_S, WARM_UP_SAMPLES * sample_s)


def sample(run: Callable[[], object], loops: int, call_s: float) -> float:
    """Seconds a call over `loops` calls, with the garbage collector quiet."""
    resume(run, call_s)
    gc.collect()
    gc.disable()
    try:
        return clock(run, loops)
    finally:
        gc.enable()


def clock(run: Callable[[], object], loops: int) -> float:
    """Seconds a call. The loop itself adds some 20 ns a call (benchmarks/harness.py)."""
    calls = repeat(None, loops)
    start = time.perf_counter()
    for _ in calls:
        run()
    return (time.perf_counter() - start) / loops


def _steady(values: list[float]) -> bool:
    if len(values) < 6:
        return False
    before, after = statistics.median(values[-6:-3]), statistics.median(values[-3:])
    return abs(before - after) <= STEADY * after
