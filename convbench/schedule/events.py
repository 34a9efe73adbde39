"""Define what the schedule tells whoever watches: values, never text on a terminal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from convbench.results.model import Cell

Phase = Literal["machine", "agreement", "timing", "training", "experiments"]


@dataclass(frozen=True)
class PhaseStarted:
    """`steps` is how many Progress events the phase will yield at the most."""

    phase: Phase
    steps: int


@dataclass(frozen=True)
class Progress:
    """What runs now; `left_s` is the estimated time left, None where nothing is known yet."""

    phase: Phase
    what: str
    left_s: float | None = None


@dataclass(frozen=True)
class CellSettled:
    """A cell is known to be right, wrong, unsupported, failed or skipped."""

    cell: Cell


@dataclass(frozen=True)
class Saved:
    """The result file was written; `path` differs from the one asked for when that failed."""

    path: Path


Event = PhaseStarted | Progress | CellSettled | Saved
