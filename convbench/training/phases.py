"""Tell where the time of a training step goes: a stopwatch whose laps have names."""

from __future__ import annotations

import time
from enum import StrEnum


class Phase(StrEnum):
    """The parts of a step. `LAYOUT` is what an implementation's own layout costs on the way in and
    out; the bias gradient is among the other layers. `WAITING` is one thread for the others."""

    DATA = "data"
    FORWARD = "conv forward"
    INPUT_GRADIENT = "input gradient"
    KERNEL_GRADIENT = "kernel gradient"
    LAYOUT = "layout"
    OTHER_LAYERS = "other layers"
    WAITING = "waiting"
    OPTIMISER = "optimiser"


class Phases:
    """Seconds by phase. A lap ends now and goes to the phase that it is called with, so that all
    time from `start` on is somewhere; a lap costs one reading of the clock."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(Phase, 0.0)
        self.start()

    def start(self) -> None:
        """What passed since the last lap is nobody's."""
        self._last = time.perf_counter()

    def lap(self, phase: Phase) -> None:
        now = time.perf_counter()
        self.seconds[phase] += now - self._last
        self._last = now
