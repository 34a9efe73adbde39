"""Whether a training follows Keras: every parameter, step by step.

In float64 a parameter may differ from Keras's by CLOSE times its largest element. In float32 the
two round differently, and what they round feeds back through the weights: how fast that grows
depends on the network. So it is measured, without our training: Keras's float32 run against its
float64 run, with equal weights and batches, is what rounding does to this network up to this step.
Ours, in float32, may be FACTOR times as far from the float64 run.

An algorithm that is not exact rounds more than Keras does, and Adam, which divides by the size of a
gradient, turns even the least of it into steps of full size where a gradient is zero. What it may
err by a priori is no help: it is larger than a step. In float64 it follows as closely as any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Weights = Mapping[str, Array]

CLOSE = 1e-9
"""Of float64: some 10^7 roundings of the size of the largest element."""

FACTOR = 8.0
"""Two draws of the same rounding differ. Measured: up to 1.7 (100 steps, ten seeds)."""

LEAST = 4.0
"""Units in the last place of the largest element that are no departure at any step: Keras's float32
run may come out equal by chance while little has been rounded."""


@dataclass(frozen=True)
class Departure:
    """The first step (from 1) and the parameter at which a training is beyond the bound, or, as
    `worst`, where it was closest to it. `error` and `bound` are of the largest element there."""

    step: int
    parameter: str
    error: float
    bound: float

    @property
    def over_bound(self) -> float:
        return self.error / self.bound if self.bound else (np.inf if self.error else 0.0)


class Following:
    """Compares one training with Keras's as steps come in."""

    def __init__(self) -> None:
        self.steps = 0
        self.worst: Departure | None = None
        self.departed: Departure | None = None
        self._rounding: dict[str, float] = {}

    def compare(self, ours: Weights, exact: Weights, *rounded: Weights) -> None:
        """The weights after a step: ours, Keras's in float64, and, where ours are float32, those of
        the runs that are rounded as ours may be."""
        self.steps += 1
        for name, reference in exact.items():
            error = _distance(ours[name], reference)
            largest = float(np.abs(reference).max())
            if not rounded:
                bound = CLOSE * largest
            else:
                seen = max(_distance(run[name], reference) for run in rounded)
                seen = self._rounding[name] = max(seen, self._rounding.get(name, 0.0))
                bound = FACTOR * seen + LEAST * float(np.finfo(np.float32).eps) * largest
            here = Departure(self.steps, name, error, bound)
            if self.worst is None or here.over_bound > self.worst.over_bound:
                self.worst = here
            if self.departed is None and not error <= bound:
                self.departed = here


def _distance(one: Array, other: Array) -> float:
    """The largest difference of their elements; infinite where one is no number."""
    largest = float(np.abs(one.astype(np.float64) - other).max())
    return largest if np.isfinite(largest) else float(np.inf)
