"""Tell where the time of a training step goes: a stopwatch whose laps have names."""

from __future__ import annotations

import time
from enum import StrEnum


class Phase(StrEnum):
    """A part of a step.

    `LAYOUT` is the time to convert arrays to an implementation's own layout and back. The gradient
    of the bias is part of `OTHER_LAYERS`. `WAITING` is the time that a thread waits for the others.
    """

    DATA = "data"
    FORWARD = "conv forward"
    INPUT_GRADIENT = "input gradient"
    KERNEL_GRADIENT = "kernel gradient"
    LAYOUT = "layout"
    OTHER_LAYERS = "other layers"
    WAITING = "waiting"
    OPTIMISER = "optimiser"


class Phases:
    """A stopwatch that adds up the seconds of each phase.

    `lap` ends a lap and names its phase, so that all time since `start` belongs to a phase. A lap
    costs one reading of the clock.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(Phase, 0.0)
        self.start()

    def start(self) -> None:
        """Begin a lap. The time since the last one belongs to no phase."""
        self._last = time.perf_counter()

    def lap(self, phase: Phase) -> None:
        """End the lap, add its time to `phase`, and begin the next one."""
        now = time.perf_counter()
        self.seconds[phase] += now - self._last
        self._last = now
