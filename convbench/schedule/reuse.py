"""Tell code that keeps results from code that computes them.

Its first call after new operands takes much longer, or it is faster than any computation can be.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from convbench.measure.messages import Sampled
from convbench.problem.layer import Layer

FEWEST = 5
"""Fewest visits with new operands, and with the same ones, from which anything is told."""

FAR_LONGER = 3.0
"""Factor by which a first call with new operands is longer where results are kept. Both meet
threads that slept, and operands that were written just now are no colder than others."""

CALLS = 5.0
"""Number of usual calls by which the first call must be longer, so that no disturbance counts."""

COLD_BYTES_PER_S = 1e9
"""Rate at which operands and results come from memory at the least, in bytes per second."""


BEYOND_PEAK = 4.0
"""Factor over the measured peak that is believed, beside what transforms save. Three levels of
Strassen's method save a third of the multiplications, and a neighbour may have halved the peak
while it was measured."""


def beyond_peak(visits: Sequence[Sampled], layer: Layer, peak: float) -> float | None:
    """Return how many times the peak rate is exceeded, or None where that is possible.

    `peak` is in operations per second. No transform of kernel and images takes fewer
    multiplications than one for each element of the result and each channel (Winograd, "Arithmetic
    Complexity of Computations", 1980: F(m, r) takes m + r - 1). So none saves more than a factor of
    the number of kernel positions.
    """
    call_s = statistics.median(visit.visited.call_s for visit in visits)
    if call_s <= 0:
        return None
    ratio = layer.flops_in_bounds / call_s / peak
    return ratio if ratio > BEYOND_PEAK * math.prod(layer.kernel_size) else None


def reused(visits: Sequence[Sampled], nbytes: int) -> float | None:
    """Return how many times as long a call with new operands takes as the usual call.

    `nbytes` is the size of operands and result. Return None if the quickest first call with new
    operands is not much longer than first calls with those of the visit before. A neighbour may
    disturb many first calls, but hardly all of them. The first visit of a worker does not count,
    since it also meets memory that nobody touched.
    """
    later = [visit for visit in visits if not visit.is_first]
    new, same = (
        [visit.visited.warmups[0][1] for visit in later if visit.is_fresh is fresh]
        for fresh in (True, False)
    )
    if min(len(new), len(same)) < FEWEST:
        return None
    usual_s = statistics.median(visit.visited.call_s for visit in later)
    new_s, same_s = min(new), statistics.median(same)
    if new_s <= FAR_LONGER * same_s + CALLS * usual_s + nbytes / COLD_BYTES_PER_S:
        return None
    return new_s / usual_s
