"""Time an arm: a visit wakes it up by calling it, then takes many short samples back to back.

A visit is like a user's tight loop: its operands are warm and its threads awake, and the garbage
collector is off as in `timeit`. There is no pause between the last call that wakes the arm up and
the clock, nor between two samples, since TensorFlow's threads fall asleep in any pause and need far
longer to run side by side again than a sample takes (docs/measuring.md has the figures).
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
"""Part by which calls may be longer than the quickest ones while the arm counts as awake."""

WAKE_SAMPLE_S = 0.005
"""Seconds of calls that are timed together while an arm wakes up."""

LEAST_WAKE_S = 0.005
"""Least seconds for which an arm is called before the clock starts. Other arms have used the caches
since its last visit."""

WAKE_MARGIN = 2.0
"""Ratio of the time for which an arm is woken up to the time that it needed when it was watched."""


@dataclass(frozen=True)
class Plan:
    """How to make a visit: seconds of waking up, of a sample, and of all samples together.

    `least` is the least number of samples, which a slow arm gives.
    """

    wake_s: float
    sample_s: float
    visit_s: float
    least: int = 1
    state: State = "warm"

    def seconds(self, call_s: float) -> float:
        """Predict the seconds of a visit to an arm whose call takes `call_s`."""
        waking = max(self.wake_s, call_s)
        if self.state == "cold-threads":
            return waking + COLD_SAMPLES * (PAUSE_S + call_s)
        return waking + self.samples(call_s) * max(self.sample_s, call_s)

    def samples(self, call_s: float) -> int:
        """Return the number of samples in a warm visit; each sample is at least one call."""
        return max(self.least, round(self.visit_s / max(self.sample_s, call_s)))


@dataclass(frozen=True)
class Visited:
    """The times of a visit: `values` are seconds a call, one for each sample of `loops` calls.

    `warmups` are the groups of calls that woke the arm up, as (calls, seconds a call). `call_s` is
    the time of a call at their end.
    """

    loops: int
    call_s: float
    values: tuple[float, ...]
    warmups: tuple[tuple[int, float], ...]

    @property
    def quickest_s(self) -> float:
        """Seconds a call in the quickest sample or group of calls, without the first call."""
        return min((*self.values, *(value for _, value in self.warmups[1:])))

    def awake_s(self, awake_call_s: float) -> float | None:
        """Return after how many seconds of waking up calls were first as quick as `awake_call_s`.

        They may be longer by STEADY. Return None if no calls were so quick. The first call does not
        count, since it meets pages that nobody touched.
        """
        passed = 0.0
        for calls, value in self.warmups[1:]:
            passed += calls * value
            if value <= awake_call_s * (1 + STEADY):
                return passed
        return None

    def was_awake(self, awake_call_s: float) -> bool:
        """Return whether any sample was as quick as `awake_call_s`, or longer by STEADY at most."""
        return min(self.values) <= awake_call_s * (1 + STEADY)


def visit(run: Callable[[], object], plan: Plan, loops: int | None = None) -> Visited:
    """Wake an arm up and sample it, with `loops` calls a sample or as many as the plan asks for.

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
    """Call `run` for `seconds`, at least once, in groups of WAKE_SAMPLE_S.

    Return each group as (calls, seconds a call).
    """
    end = time.perf_counter() + seconds
    warmups = [(1, clock(run, 1))]
    loops = 1
    while time.perf_counter() < end:
        value = clock(run, loops)
        warmups.append((loops, value))
        loops = max(1, min(2 * loops, round(WAKE_SAMPLE_S / max(value, 1e-9))))
    return warmups


def wake_s(longest: float, visits: Sequence[Visited]) -> float:
    """Return for how many seconds to wake an arm up, from its earlier visits in the same state.

    The first WATCHED_VISITS wake the arm up for `longest`, the time that the effort allows. An arm
    counts as awake when its calls are about as quick as the quickest of all visits. If it never got
    there in a visit, it is taken to need `longest`. The median of the watched visits counts: a
    neighbour who leaves in the middle of a visit makes the arm seem to wake up then.

    If most of the latest visits gave no quick sample, the arm was asleep or a neighbour was there,
    and it gets `longest` again. The decision rests on earlier visits alone, so it picks no samples.
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
"""Number of visits that wake an arm up for as long as the effort allows, to see what it needs."""

LATEST_VISITS = 4
"""Number of the latest visits that tell whether an arm is still woken up for long enough."""


def _after_pauses(run: Callable[[], object]) -> tuple[float, ...]:
    """Return the seconds of the first call after each of COLD_SAMPLES pauses."""
    values = []
    for _ in range(COLD_SAMPLES):
        time.sleep(PAUSE_S)
        values.append(clock(run, 1))
    return tuple(values)


def clock(run: Callable[[], object], loops: int) -> float:
    """Return the seconds a call of `loops` calls.

    The loop itself adds some 20 ns to each call (benchmarks/harness.py).
    """
    calls = repeat(None, loops)
    start = time.perf_counter()
    for _ in calls:
        run()
    return (time.perf_counter() - start) / loops
