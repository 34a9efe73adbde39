"""Decide what a budget of seconds allows: how many rounds, and which arms."""

from __future__ import annotations

import time
from dataclasses import dataclass

from convbench.schedule.effort import Effort

VISIT_S = 0.02
"""Seconds that a visit takes beside its calls, to resume the worker, collect garbage and run the
probes (measured: 10 ms with NumPy, 25 ms with TensorFlow)."""


@dataclass
class Budget:
    """The budget of a whole run, and how much of it is left.

    `seconds` is None if there is no limit. `started` is the time of the start on
    `time.monotonic`. `scale` is the time that the last round took over its predicted time.
    """

    seconds: float | None
    started: float
    scale: float = 1.0

    def allows(self, predicted_s: float) -> bool:
        """Return whether work that is predicted to take `predicted_s` seconds still fits."""
        if self.seconds is None:
            return True
        left_s = self.seconds - (time.monotonic() - self.started)
        return predicted_s * self.scale <= left_s

    def learn(self, predicted_s: float, seen_s: float) -> None:
        """Scale later predictions by what a round took, in seconds, over what was predicted."""
        self.scale = seen_s / predicted_s if predicted_s > 0 else 1.0


def arm_s(effort: Effort, call_s: float) -> float:
    """Predict how many seconds an arm takes in one round of its (layer, pass)."""
    return effort.visits * (effort.plan(effort.wake_s, "warm").seconds(call_s) + VISIT_S)
