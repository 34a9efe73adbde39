"""Hold what a diff says, as values: one figure for each file, one change for each new file."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from convbench.results.between_runs import TWO_RUNS
from convbench.results.model import Deviation, Interval, Part, ResultFile, Status
from convbench.suites.suite import FILE_NAMES

Quantity = Literal["time", "speedup", "peak_memory", "fraction_of_peak"]
Verdict = Literal["up", "down", "equal", "unclear", "no_interval", "estimated"]


@dataclass(frozen=True)
class Deviations:
    """The difference between two sessions of the same code, as standard deviations of logs.

    `degrees` are the deviations' degrees of freedom. `source` is the noise file, or the runs, that
    they come from; None where they are assumed. `learnt` is what a session knew of earlier runs. It
    is preferred to `speedup` and `time`, and tells how much one run deviates from the long run.
    """

    speedup: float = 0.02
    time: float = 0.10
    degrees: float = math.inf
    source: str | None = None
    learnt: tuple[Deviation, ...] = ()

    def of_speedup(self, between: str) -> tuple[float, float]:
        """Return the deviation of a speedup between two kinds, and its degrees of freedom."""
        return self._of("speedup", between) or (self.speedup, self.degrees)

    def of_time(self, kind: str) -> tuple[float, float]:
        """Return the deviation of a kind's time, and its degrees of freedom."""
        return self._of("time", kind) or (self.time, self.degrees)

    def _of(self, of: str, between: str) -> tuple[float, float] | None:
        for known in self.learnt:
            if (known.of, known.between) == (of, between):
                return TWO_RUNS * known.value, known.degrees
        return None


ASSUMED = Deviations()
"""Deviations of a machine of which nothing is known."""


def learnt_by(result: ResultFile) -> Deviations:
    """Return what a result's session knew of earlier runs on its machine, or else ASSUMED."""
    known = tuple(one for one in result.deviations if one.of in ("speedup", "time"))
    if not known:
        return ASSUMED
    runs = max(one.runs for one in known)
    return replace(ASSUMED, source=f"{runs} earlier runs on this machine", learnt=known)


@dataclass(frozen=True)
class Figure:
    """The figure of one cell in one file.

    `value` is None where `status` is not `ok`, or where nothing was measured. `chosen` is the
    implementation that a speedup is over; it is the cell's own where that is the fastest Keras way.
    `reliable` concerns speedups, `exact` memory. For times and speedups, `undisturbed` is the same
    figure from each round's quickest samples.
    """

    status: Status
    value: float | None = None
    ci99: Interval | None = None
    rounds: int | None = None
    chosen: str | None = None
    reliable: bool = True
    exact: bool = True
    undisturbed: float | None = None
    undisturbed_ci99: Interval | None = None


@dataclass(frozen=True)
class Change:
    """The ratio of new to old, for one cell or for the geometric mean of several `cells`.

    `verdict` is `unclear` where the interval contains 1. `rounds_to_show` is then the number of
    rounds of each file with which half of the interval would be below 5 %; None where MOST_ROUNDS
    are too few. Memory has no interval; its verdict is `estimated` where it is not exact.
    """

    ratio: float
    ci99: Interval | None
    verdict: Verdict
    rounds_to_show: int | None = None
    reliable: bool = True
    cells: int = 1


@dataclass(frozen=True)
class CellRow:
    """A cell, with a figure for each file and a change for each new file.

    A figure is None where the file lacks the cell, a change where either file gives none.
    """

    layer: str
    pass_: Part
    implementation: str
    figures: tuple[Figure | None, ...]
    changes: tuple[Change | None, ...]

    __pydantic_config__ = FILE_NAMES


@dataclass(frozen=True)
class MeanRow:
    """Geometric means of an implementation's changes, one for each new file.

    `pass_` is None for the mean over all passes.
    """

    implementation: str
    pass_: Part | None
    changes: tuple[Change | None, ...]

    __pydantic_config__ = FILE_NAMES


@dataclass(frozen=True)
class Compared:
    """One quantity in all files: seconds, a speedup over `versus`, bytes, or a fraction."""

    quantity: Quantity
    versus: str | None
    rows: tuple[CellRow, ...]
    means: tuple[MeanRow, ...]


@dataclass(frozen=True)
class CellName:
    """The name of a cell: its layer, pass and implementation."""

    layer: str
    pass_: Part
    implementation: str

    __pydantic_config__ = FILE_NAMES


@dataclass(frozen=True)
class Session:
    """The session that a file's figures come from. `date` is that of its first sample."""

    path: str
    suite: str
    date: str | None
    cpu: str
    threads: int
    effort: str
    rounds: int


@dataclass(frozen=True)
class Difference:
    """The differences of one new file from the old one, besides its figures.

    `incomparable` has sentences; `not_alike` names the subject of each, in the same order.
    `other_geometry` has the old and the new geometry of layers that changed, by name.
    """

    incomparable: tuple[str, ...]
    environment: tuple[str, ...]
    other_geometry: dict[str, tuple[str, str]]
    only_in_old: tuple[CellName, ...]
    only_in_new: tuple[CellName, ...]
    not_alike: tuple[str, ...] = ()


@dataclass(frozen=True)
class Diff:
    """A comparison of an old file with new ones.

    `files` has the old one first. `differences`, and the changes in `compared`, have one entry for
    each new file.
    """

    files: tuple[Session, ...]
    deviations: Deviations
    differences: tuple[Difference, ...]
    compared: tuple[Compared, ...]
