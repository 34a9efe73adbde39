"""Decide what a budget of seconds allows: how many rounds, and which arms."""

from __future__ import annotations

import time
from dataclasses import dataclass

from convbench.schedule.effort import Effort

VISIT_S = 0.02
"""Seconds of a visit beside its calls: resuming the worker, collecting garbage, probes (measured:
10 ms with NumPy, 25 ms with TensorFlow)."""


@dataclass
class Budget:
    """Seconds for a whole run. `scale` is seen over predicted time of the last round."""

    seconds: float | None
    started: float
    scale: float = 1.0

    def allows(self, predicted_s: float) -> bool:
        if self.seconds is None:
            return True
        left_s = self.seconds - (time.monotonic() - self.started)
        return predicted_s * self.scale <= left_s

    def learn(self, predicted_s: float, seen_s: float) -> None:
        self.scale = seen_s / predicted_s if predicted_s > 0 else 1.0


def arm_s(effort: Effort, call_s: float) -> float:
    """Predicted time of one arm in one round of one (layer, pass)."""
    return effort.visits * (effort.plan(effort.wake_s, "warm").seconds(call_s) + VISIT_S)
