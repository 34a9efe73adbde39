"""Tell whether a training follows Keras: every parameter, step by step.

In float64 (`compare`) ours and Keras's go their own ways from equal weights with equal batches, and
after any number of steps a parameter may differ by CLOSE times its largest element.

In float32 two right trainings part ways: sooner or later a ReLU's input has one sign in one and the
other in the other, and Keras's own float32 and float64 runs come to differ by a tenth of what they
have learnt (measured: mnist_cnn, 100 steps, Adam). So each step is held against Keras's step from
our weights and our optimiser's state (`compare_step`): in float64, what is right; and in float32,
what rounding does. Ours may be FACTOR times as far from the first as any second one was so far, and
off by SIDE of the step, for an element that is on the other side of a ReLU or of a maximum.

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
"""Largest part of the largest element by which float64 may be off: some 10^7 roundings of that
size."""

FACTOR = 8.0
"""Two draws of the same rounding differ."""

SIDE = 0.01
"""Part of the largest change of a parameter's elements in a step by which an element may be off.
One element in a batch of images has a far smaller share in it, and a mistake in a gradient a far
larger one."""

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

    def compare(self, ours: Weights, exact: Weights) -> None:
        """Weights after a step in float64, ours and Keras's."""
        self.steps += 1
        for name, reference in exact.items():
            bound = CLOSE * float(np.abs(reference).max())
            self._note(name, _distance(ours[name], reference), bound)

    def compare_step(
        self, before: Weights, ours: Weights, exact: Weights, rounded: Weights
    ) -> None:
        """Weights after a step in float32 from those `before`: ours, and Keras's in float64 and in
        float32."""
        self.steps += 1
        for name, reference in exact.items():
            seen = max(self._rounding.get(name, 0.0), _distance(rounded[name], reference))
            self._rounding[name] = seen
            least = LEAST * float(np.finfo(np.float32).eps) * float(np.abs(reference).max())
            side = SIDE * _distance(reference, before[name])
            self._note(name, _distance(ours[name], reference), FACTOR * seen + least + side)

    def _note(self, name: str, error: float, bound: float) -> None:
        here = Departure(self.steps, name, error, bound)
        if self.worst is None or here.over_bound > self.worst.over_bound:
            self.worst = here
        if self.departed is None and not error <= bound:
            self.departed = here


def _distance(one: Array, other: Array) -> float:
    """The largest difference of their elements; infinite where one is no number."""
    largest = float(np.abs(one.astype(np.float64) - other).max())
    return largest if np.isfinite(largest) else float(np.inf)
