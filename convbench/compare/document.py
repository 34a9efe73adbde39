"""Hold what a diff says, as values: one figure a file, one change a new file."""

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
    """How much the same code differs between two sessions, as standard deviations of logs.

    `degrees` of freedom say how well that is known. `source` is the noise file, or the runs, that
    it comes from; None: assumed. `learnt` is what a session knew of earlier runs; it counts before
    the others, and says how much one run deviates from the long run.
    """

    speedup: float = 0.02
    time: float = 0.10
    degrees: float = math.inf
    source: str | None = None
    learnt: tuple[Deviation, ...] = ()

    def of_speedup(self, between: str) -> tuple[float, float]:
        """The deviation of a speedup between two kinds of implementations, and its degrees."""
        return self._of("speedup", between) or (self.speedup, self.degrees)

    def of_time(self, kind: str) -> tuple[float, float]:
        """The deviation of a kind's time, and its degrees of freedom."""
        return self._of("time", kind) or (self.time, self.degrees)

    def _of(self, of: str, between: str) -> tuple[float, float] | None:
        for known in self.learnt:
            if (known.of, known.between) == (of, between):
                return TWO_RUNS * known.value, known.degrees
        return None


ASSUMED = Deviations()


def learnt_by(result: ResultFile) -> Deviations:
    """What the session of a result knew of earlier runs on its machine; ASSUMED without that."""
    known = tuple(one for one in result.deviations if one.of in ("speedup", "time"))
    if not known:
        return ASSUMED
    runs = max(one.runs for one in known)
    return replace(ASSUMED, source=f"{runs} earlier runs on this machine", learnt=known)


@dataclass(frozen=True)
class Figure:
    """One cell in one file. `value` None: its status says why, or it was not measured.

    `chosen` is what a speedup is over; the cell's own implementation where it is the fastest Keras
    itself. `reliable` is of a speedup, `exact` of memory. `undisturbed` is the same figure of each
    round's quickest samples, for times and speedups.
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
    """New over old, of one cell or of the geometric mean of several `cells`.

    `verdict` is `unclear` where the interval contains 1, and `rounds_to_show` then the rounds of
    both files for which its half width is below 5 %, None where MOST_ROUNDS are too few. Memory
    has no interval: exact, or `estimated`.
    """

    ratio: float
    ci99: Interval | None
    verdict: Verdict
    rounds_to_show: int | None = None
    reliable: bool = True
    cells: int = 1


@dataclass(frozen=True)
class CellRow:
    """A cell: one figure a file, None where a file does not have it, and one change a new file."""

    layer: str
    pass_: Part
    implementation: str
    figures: tuple[Figure | None, ...]
    changes: tuple[Change | None, ...]

    __pydantic_config__ = FILE_NAMES


@dataclass(frozen=True)
class MeanRow:
    """Geometric means of an implementation's changes, one a new file; pass None: all passes."""

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
    layer: str
    pass_: Part
    implementation: str

    __pydantic_config__ = FILE_NAMES


@dataclass(frozen=True)
class Session:
    """Where the figures of a file come from. `date` is when its first sample was taken."""

    path: str
    suite: str
    date: str | None
    cpu: str
    threads: int
    effort: str
    rounds: int


@dataclass(frozen=True)
class Difference:
    """What sets one new file apart from the old one, besides its figures.

    `not_alike` names what `incomparable` says in words, in the same order.
    """

    incomparable: tuple[str, ...]
    environment: tuple[str, ...]
    other_geometry: dict[str, tuple[str, str]]
    only_in_old: tuple[CellName, ...]
    only_in_new: tuple[CellName, ...]
    not_alike: tuple[str, ...] = ()


@dataclass(frozen=True)
class Diff:
    """`files` are the old one and the new ones; `differences` and all changes one a new file."""

    files: tuple[Session, ...]
    deviations: Deviations
    differences: tuple[Difference, ...]
    compared: tuple[Compared, ...]
