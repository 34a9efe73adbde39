"""Time an arm: a visit wakes it up by calling it, then takes many short samples back to back.

A visit is what a user's tight loop is: warm operands, threads that are awake, the garbage collector
off as in `timeit`. Nothing comes between the last call that wakes the arm up and the clock, and
nothing between two samples, since TensorFlow's threads fall asleep in any pause and need far longer
to run side by side again than a sample takes (docs/measuring.md has the figures).
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat

from convbench.results.model import PAUSE_S, State

COLD_SAMPLES = 5
"""Number of samples in a visit of the state `cold-threads`, each of one call."""

STEADY = 0.1
"""An arm counts as awake from its first calls that come within this part of its later ones."""

WAKE_SAMPLE_S = 0.005
"""Seconds of calls that are looked at together while an arm wakes up."""

LEAST_WAKE_S = 0.005
"""Seconds for which every arm is called before the clock starts: others have used the caches."""

WAKE_MARGIN = 2.0
"""How many times as long an arm is woken up as it needed when it was watched."""


@dataclass(frozen=True)
class Plan:
    """How a visit is made: seconds of waking up, of a sample, of all samples, and how many samples
    a slow arm gives at the least."""

    wake_s: float
    sample_s: float
    visit_s: float
    least: int = 1
    state: State = "warm"

    def seconds(self, call_s: float) -> float:
        """Predicted seconds of a visit to an arm whose call takes `call_s`."""
        waking = max(self.wake_s, call_s)
        if self.state == "cold-threads":
            return waking + COLD_SAMPLES * (PAUSE_S + call_s)
        return waking + self.samples(call_s) * max(self.sample_s, call_s)

    def samples(self, call_s: float) -> int:
        """Number of samples in a warm visit; a sample is one call at the least."""
        return max(self.least, round(self.visit_s / max(self.sample_s, call_s)))


@dataclass(frozen=True)
class Visited:
    """What a visit gave: `values` are seconds a call, one for each sample of `loops` calls.

    `warmups` are the calls that woke the arm up, as (calls, seconds a call). `call_s` is the time
    of a call at their end.
    """

    loops: int
    call_s: float
    values: tuple[float, ...]
    warmups: tuple[tuple[int, float], ...]

    @property
    def quickest_s(self) -> float:
        """Seconds a call of the quickest sample or group of calls; the first call is left out."""
        return min(*self.values, *(value for _, value in self.warmups[1:]))

    def awake_s(self, awake_call_s: float) -> float | None:
        """After how many seconds of waking up calls were first as quick as those of an arm that is
        awake, to STEADY; None if none was. The first call meets pages that nobody touched."""
        passed = 0.0
        for calls, value in self.warmups[1:]:
            passed += calls * value
            if value <= awake_call_s * (1 + STEADY):
                return passed
        return None

    def was_awake(self, awake_call_s: float) -> bool:
        """Whether any sample was as quick as those of an arm that is awake, to STEADY."""
        return min(self.values) <= awake_call_s * (1 + STEADY)


def visit(run: Callable[[], object], plan: Plan, loops: int | None = None) -> Visited:
    """Wakes the arm up and samples it; `loops` calls a sample, or as many as fill the plan's time.

    Garbage is collected before the first call, and the collector is off until the last sample.
    """
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        warmups = _wake(run, plan.wake_s)
        call_s = statistics.median(value for _, value in warmups[-3:])
        if plan.state == "cold-threads":
            loops, values = 1, _after_pauses(run)
        else:
            loops = loops or max(1, math.ceil(plan.sample_s / call_s))
            values = tuple([clock(run, loops) for _ in range(plan.samples(call_s))])
    finally:
        if was_enabled:
            gc.enable()
    return Visited(loops, call_s, values, tuple(warmups))


def _wake(run: Callable[[], object], seconds: float) -> list[tuple[int, float]]:
    """Calls `run` for `seconds`, once at least, in groups of WAKE_SAMPLE_S."""
    end = time.perf_counter() + seconds
    warmups = [(1, clock(run, 1))]
    loops = 1
    while time.perf_counter() < end:
        value = clock(run, loops)
        warmups.append((loops, value))
        loops = max(1, min(2 * loops, round(WAKE_SAMPLE_S / max(value, 1e-9))))
    return warmups


def wake_s(longest: float, visits: Sequence[Visited]) -> float:
    """How long an arm is woken up that was visited like this so far, in the same state.

    The first visits wake it up for as long as the effort allows. An arm is awake where its calls
    are about as quick as the quickest of all visits; one that never got there in a visit is taken
    to need the longest time. The median of the watched visits counts, since a neighbour who leaves
    in the middle of one makes an arm seem to wake up then. Where most of the latest visits gave no
    quick sample the arm was asleep, or a neighbour was there: it gets the longest time again. What
    is decided rests on earlier visits alone, so that it picks no samples.
    """
    if len(visits) < WATCHED_VISITS:
        return longest
    awake_call_s = min(visit.quickest_s for visit in visits)
    latest = visits[-LATEST_VISITS:]
    if 2 * sum(visit.was_awake(awake_call_s) for visit in latest) < len(latest):
        return longest
    needed = [visit.awake_s(awake_call_s) for visit in visits[:WATCHED_VISITS]]
    typical = statistics.median(longest if seconds is None else seconds for seconds in needed)
    return min(max(WAKE_MARGIN * typical, LEAST_WAKE_S), longest)


WATCHED_VISITS = 2
"""Number of visits that wake an arm up for as long as the effort allows, so as to see what it
needs."""

LATEST_VISITS = 4
"""Number of the latest visits that tell whether an arm is still woken up."""


def _after_pauses(run: Callable[[], object]) -> tuple[float, ...]:
    """Seconds of the first call after each of COLD_SAMPLES pauses."""
    values = []
    for _ in range(COLD_SAMPLES):
        time.sleep(PAUSE_S)
        values.append(clock(run, 1))
    return tuple(values)


def clock(run: Callable[[], object], loops: int) -> float:
    """Seconds a call. The loop itself adds some 20 ns a call (benchmarks/harness.py)."""
    calls = repeat(None, loops)
    start = time.perf_counter()
    for _ in calls:
        run()
    return (time.perf_counter() - start) / loops
