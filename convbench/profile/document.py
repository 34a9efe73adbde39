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
    """X takes so much, Y so much. `versus` is what was asked for, `chosen` which way that is."""

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
    """One cause: with it taken out as well, the time is `left_s`; `factor` is what it was worth.

    A factor below 1 works the other way. `why` is what was counted or measured, in a sentence.
    """

    cause: str
    factor: float
    left_s: float
    evidence: Evidence
    ci99: Interval | None = None
    why: str = ""


@dataclass(frozen=True)
class Bound:
    """A limit, the seconds that it allows, and the part of it that the implementation reaches."""

    name: str
    seconds: float
    fraction: float
    versus_fraction: float
    why: str = ""


@dataclass(frozen=True)
class Bounds:
    """`intensity` is FLOP per byte of operands and result, `ridge` where this machine's memory and
    its arithmetic take equally long."""

    flops: int
    bytes: int
    intensity: float
    ridge: float
    limits: tuple[Bound, ...]


@dataclass(frozen=True)
class Point:
    """`x` images in a batch, or threads; seconds a call of the implementation and the other."""

    x: int
    time_s: float
    versus_s: float | None = None


@dataclass(frozen=True)
class Sweeps:
    """`floor_s` and `slope_s`: a call takes floor + slope times images, by least squares."""

    batch: tuple[Point, ...] = ()
    threads: tuple[Point, ...] = ()
    floor_s: float | None = None
    slope_s: float | None = None
    one_element_s: float | None = None
    versus_one_element_s: float | None = None


@dataclass(frozen=True)
class Counter:
    """An event of the CPU or the kernel, a call; None where it could not be counted."""

    event: str
    count: float | None
    versus_count: float | None


@dataclass(frozen=True)
class Advice:
    """What to change: `cause` is the waterfall's, `line` the user's own, if one can be named.

    `predicted_s` are bounds of the time that a call would take. `measured_s` where the change could
    be tried here, `tried` says how. `read` is the file of the ladder that shows it.
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
    """What the profiler itself adds to a call: nothing of it is in the waterfall."""

    traced: float
    lines: float | None


@dataclass(frozen=True)
class Profile:
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
