"""Hold what a profile says: headline, stages, lines, waterfall, bounds, sweeps, advice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from convbench.machine.description import Caution, Machine, Software
from convbench.problem.layer import Layer
from convbench.profile.findings import Line, StageTime

SCHEMA = "convbench-profile/1"

Interval = tuple[float, float]
Evidence = Literal["measured", "estimated"]

CAUSES = (
    "python calls",
    "temporaries",
    "fresh pages",
    "element-wise arithmetic",
    "layout",
    "dtype",
    "threads",
    "BLAS kernels",
    "algorithm",
    "framework floor",
)
"""Causes of a gap, in the order in which they are taken out of it."""


@dataclass(frozen=True)
class Headline:
    """Times of the implementation and of the other one, in seconds, with 99 % intervals.

    `versus` is what was asked for, and `chosen` the implementation that it stands for, such as the
    fastest way to run Keras. `ratio` is `time_s` over `versus_s`.
    """

    layer: str
    pass_: str
    implementation: str
    versus: str
    chosen: str
    time_s: float
    ci99_s: Interval | None
    versus_s: float
    versus_ci99_s: Interval | None
    ratio: float
    ci99: Interval | None
    rounds: int
    reliable: bool
    verdict: str


@dataclass(frozen=True)
class Step:
    """One cause of the gap. Once it is taken out too, `left_s` seconds are left.

    `factor` is the time before over the time after; below 1, the cause favours the implementation.
    `why` says what was counted or measured.
    """

    cause: str
    factor: float
    left_s: float
    evidence: Evidence
    ci99: Interval | None = None
    why: str = ""


@dataclass(frozen=True)
class Bound:
    """A limit: the seconds that it allows, and the part of it that each implementation reaches."""

    name: str
    seconds: float
    fraction: float
    versus_fraction: float
    why: str = ""


@dataclass(frozen=True)
class Bounds:
    """The limits of a cell. `intensity` is FLOP per byte of operands and result.

    `ridge` is the intensity at which this machine's memory and arithmetic take equally long, or 0
    if its peaks are not known.
    """

    flops: int
    bytes: int
    intensity: float
    ridge: float
    limits: tuple[Bound, ...]


@dataclass(frozen=True)
class Point:
    """Seconds of a call of the implementation and of the other one, with `x` images or threads."""

    x: int
    time_s: float
    versus_s: float | None = None


@dataclass(frozen=True)
class Sweeps:
    """Times against batch and threads, and times on a layer of one element, in seconds.

    A line through the times against batch, by least squares, says that a call takes `floor_s` plus
    `slope_s` for each image.
    """

    batch: tuple[Point, ...] = ()
    threads: tuple[Point, ...] = ()
    floor_s: float | None = None
    slope_s: float | None = None
    one_element_s: float | None = None
    versus_one_element_s: float | None = None


@dataclass(frozen=True)
class Counter:
    """How often an event of the CPU or the kernel happens in a call; None if it was not counted."""

    event: str
    count: float | None
    versus_count: float | None


@dataclass(frozen=True)
class Advice:
    """A change to make, its `cause` in the waterfall, and the user's own `line` if one is known.

    `predicted_s` bounds the seconds that a call would take. If the change was tried, `measured_s`
    is the time that a call took, and `tried` says how. `read` is the step of the ladder that shows
    the change.
    """

    cause: str
    change: str
    predicted_s: Interval
    measured_s: float | None = None
    tried: str = ""
    read: str = ""
    file: str = ""
    number: int = 0
    line: str = ""


@dataclass(frozen=True)
class Overhead:
    """Time that tracing and timing lines add to a call, as a part of it. No cause contains any."""

    traced: float
    lines: float | None


@dataclass(frozen=True)
class Profile:
    """Everything that a profile of one cell found, as it is saved."""

    schema: str
    headline: Headline
    layer: Layer
    stages: tuple[StageTime, ...]
    lines: tuple[Line, ...]
    waterfall: tuple[Step, ...]
    unexplained: float
    bounds: Bounds
    sweeps: Sweeps
    advice: tuple[Advice, ...]
    overhead: Overhead
    threads: int
    effort: str
    machine: Machine
    software: Software
    environment: dict[str, str]
    warnings: tuple[Caution, ...] = ()
    notes: tuple[str, ...] = ()
    counters: tuple[Counter, ...] = ()
    counts: dict[str, float] = field(default_factory=dict)
