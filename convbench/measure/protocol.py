"""What the parent and a worker say to each other: frozen values through a pipe of their own."""

from __future__ import annotations

from dataclasses import dataclass

from convbench.implementations.contract import Ledger
from convbench.implementations.variants import Variant
from convbench.layer import Layer, Pass
from convbench.machine import BlasLibrary
from convbench.results import Agreement


@dataclass(frozen=True)
class Start:
    """The first message. `variants` are the names that the registry does not know.

    `cpus` are those that the worker may use, empty for all that its parent may.
    """

    runtime: str
    threads: int
    seed: int
    variants: tuple[Variant, ...] = ()
    cpus: tuple[int, ...] = ()


@dataclass(frozen=True)
class Ready:
    """The worker has imported its runtime and capped its threads."""

    blas: tuple[BlasLibrary, ...]


@dataclass(frozen=True)
class Check:
    layer: Layer
    pass_: Pass
    implementation: str


@dataclass(frozen=True)
class Checked:
    """`call_s` is the time of one warm call: rough, since several workers check at a time."""

    agreement: Agreement
    call_s: float
    ledger: Ledger


@dataclass(frozen=True)
class Meter:
    """Answered by a results.Memory."""

    layer: Layer
    pass_: Pass
    implementation: str
    rss_seconds: float


@dataclass(frozen=True)
class Calibrate:
    """Answered by a machine.Calibration."""

    threads: tuple[int, ...]
    seconds: float


@dataclass(frozen=True)
class WarmUp:
    """Prepare, load and call until steady; answered by a clock.Warm."""

    layer: Layer
    pass_: Pass
    implementation: str
    sample_s: float


@dataclass(frozen=True)
class Sample:
    """Time `loops` calls of what was warmed up; answered by seconds a call."""

    implementation: str
    loops: int


@dataclass(frozen=True)
class Release:
    """Forget what was prepared; answered by a Released."""


@dataclass(frozen=True)
class Released:
    """The worker's largest resident memory so far in bytes, and by implementation the delay that
    a slowed one came out with (see implementations.variants)."""

    max_rss: int
    delays: dict[str, float]


@dataclass(frozen=True)
class Failure:
    """The answer when a request raised: one sentence, with the place in the user's code."""

    reason: str


Request = Start | Check | Meter | Calibrate | WarmUp | Sample | Release
