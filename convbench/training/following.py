"""Tell whether a training follows Keras: every parameter, step by step.

In float64 (`compare`), our training and Keras's start from equal weights, take equal batches, and
each goes its own way. After any number of steps, a parameter may differ by CLOSE times its largest
element.

In float32 two right trainings part ways: sooner or later an input of a ReLU has different signs in
the two. Even Keras's own float32 and float64 runs come to differ by a tenth of what they have
learnt (measured: mnist_cnn, 100 steps, Adam). So `compare_step` compares single steps. Keras takes
each step from our weights and our optimiser's state: in float64, which shows the right result, and
in float32, which shows what rounding does. Our step may be FACTOR times as far from the right
result as any of Keras's float32 steps so far. An element may also be off by SIDE of the step, since
it may be on the other side of a ReLU or of a maximum.

An algorithm that is not exact rounds more than Keras does. Adam divides by the size of a gradient:
where a gradient is zero, it turns the smallest rounding into a step of full size. A bound on the
errors of such an algorithm does not help, because it is larger than a step. In float64 such an
algorithm follows Keras as closely as any other.
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
"""Largest error in float64, as a share of a parameter's largest element. It is the size of some
10^7 roundings."""

FACTOR = 8.0
"""Factor by which our float32 error may exceed Keras's, since two draws of the same rounding
differ."""

SIDE = 0.01
"""Error that is allowed beside rounding, as a share of a parameter's largest change in the step.
One activation of a batch has a far smaller share in that change, and a mistake in a gradient has a
far larger one."""

LEAST = 4.0
"""Error that is allowed at any step, in units in the last place of the largest element. As long as
little has been rounded, Keras's float32 run may come out equal by chance."""


@dataclass(frozen=True)
class Departure:
    """The difference of one parameter from Keras's after one step, counted from 1.

    `error` is the largest difference of an element, and `bound` is the largest that is allowed.
    """

    step: int
    parameter: str
    error: float
    bound: float

    @property
    def over_bound(self) -> float:
        """The error as a multiple of the bound."""
        return self.error / self.bound if self.bound else (np.inf if self.error else 0.0)


class Following:
    """The comparison of one training with Keras's, step by step.

    `worst` is the difference that was largest for its bound, `departed` the first that exceeded it.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.worst: Departure | None = None
        self.departed: Departure | None = None
        self._rounding: dict[str, float] = {}

    def compare(self, ours: Weights, exact: Weights) -> None:
        """Compare the weights after a step in float64: ours with Keras's, which are `exact`."""
        self.steps += 1
        for name, reference in exact.items():
            bound = CLOSE * float(np.abs(reference).max())
            self._note(name, _distance(ours[name], reference), bound)

    def compare_step(
        self, before: Weights, ours: Weights, exact: Weights, rounded: Weights
    ) -> None:
        """Compare our weights after a step in float32 with Keras's after the same step.

        The step starts from the weights `before`. Keras took it in float64, which gave `exact`, and
        in float32, which gave `rounded`.
        """
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
    """Return the largest difference of two arrays' elements, infinite if one is not finite."""
    largest = float(np.abs(one.astype(np.float64) - other).max())
    return largest if np.isfinite(largest) else float(np.inf)
