"""What a budget of seconds allows: how many rounds, and which arms."""

from __future__ import annotations

import time
from dataclasses import dataclass

from convbench.measure.clock import SLOW_CALL_S, longest_warm_up_s
from convbench.schedule.effort import ARM_SHARE, Effort
from convbench.tuning import resume_s

IMPORT_S = {"tensorflow": 4.0}
"""Start of a worker whose runtime is not light: a first guess, scaled by what is seen."""

LIGHT_IMPORT_S = 0.5


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


def blocks_of(effort: Effort, call_s: float) -> int:
    """In how many blocks of a round an arm takes part: few when a call is slow (see Effort)."""
    if call_s <= effort.sample_s:
        return effort.blocks
    fitting = int(ARM_SHARE * effort.blocks * effort.sample_s / call_s)
    return min(max(fitting, effort.slow_blocks), effort.blocks)


def arm_s(effort: Effort, call_s: float) -> float:
    """Predicted time of one arm in one round of one (layer, pass)."""
    longest_s = longest_warm_up_s(effort.sample_s)
    warm_up = call_s if call_s >= SLOW_CALL_S else longest_s / 2 + call_s
    sample = resume_s(call_s) + max(effort.sample_s, call_s)
    return warm_up + blocks_of(effort, call_s) * sample


def import_s(runtime: str) -> float:
    return IMPORT_S.get(runtime, LIGHT_IMPORT_S)
