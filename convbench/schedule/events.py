"""Define what the schedule tells whoever watches: values, never text on a terminal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from convbench.results.model import Cell

Phase = Literal["machine", "agreement", "timing", "training", "experiments"]


@dataclass(frozen=True)
class PhaseStarted:
    """The news that a phase starts. It will yield at most `steps` Progress events."""

    phase: Phase
    steps: int


@dataclass(frozen=True)
class Progress:
    """What runs now. `left_s` is the estimated time left in seconds, None if none is known yet."""

    phase: Phase
    what: str
    left_s: float | None = None


@dataclass(frozen=True)
class CellSettled:
    """A cell that is now known to be right, wrong, unsupported, failed or skipped."""

    cell: Cell


@dataclass(frozen=True)
class Saved:
    """The path of the result file that was just written.

    It differs from the path that was asked for if that one could not be written.
    """

    path: Path


Event = PhaseStarted | Progress | CellSettled | Saved
