"""Say what a parent can ask of a worker, and what the worker answers: frozen values.

A request is a class of its own. It names the type of its answer, and knows how the worker computes
it (`answer`), so that an add-on brings its requests along and the worker need not know of them.
Only the worker calls `answer`; what it needs is imported there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from convbench.implementations.contract import Ledger
from convbench.implementations.registry import Registry
from convbench.machine.description import BlasLibrary, Calibration
from convbench.problem.layer import Layer, Pass
from convbench.problem.unsupported import Unsupported
from convbench.results.model import Agreement, Explanation, Memory, Probe, Raised
from convbench.runtimes.contract import Runtime

if TYPE_CHECKING:
    from convbench.measure.bench import Bench
    from convbench.measure.clock import Plan, Visited

Answer = TypeVar("Answer", covariant=True)


class Request(Generic[Answer]):
    """What a parent asks of a worker. Its type argument is the type of the answer."""

    def answer(self, bench: Bench) -> Answer:
        """Compute the answer, in the worker. Whatever it raises costs this request only."""
        raise NotImplementedError


# Starting


@dataclass(frozen=True)
class Start:
    """The first message to a worker, which is told once.

    `registry` has the implementations that requests name. `cpus` are those that the
    worker may use; empty means all that its parent may use. Without `tune`, implementations that
    choose among others do so without trials.
    """

    runtime: Runtime
    threads: int
    seed: int
    registry: Registry
    cpus: tuple[int, ...] = ()
    tune: bool = True


@dataclass(frozen=True)
class Ready:
    """The worker has imported its runtime and capped its threads."""

    blas: tuple[BlasLibrary, ...]


@dataclass(frozen=True)
class Failure:
    """What a worker sends when a request raised: one sentence, with the place in the user's code.

    `said` is what the code printed before, without `said_left_out` further lines, and the user's
    frames of the exception. `is_usage` means that no layer can be computed, because what was named
    is not there or cannot be called.
    """

    reason: str
    said: tuple[str, ...] = ()
    said_left_out: int = 0
    is_usage: bool = False
    hint: str | None = None
    raised: Raised | None = None


class UnansweredError(Exception):
    """A request has no answer; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


class CellFailedError(UnansweredError):
    """A request raised. The worker sends the failure, the parent raises it, and both go on."""


# Checking


@dataclass(frozen=True)
class Refused:
    """What Check and Meter answer when own code turns out not to support the layer."""

    unsupported: Unsupported


@dataclass(frozen=True)
class Checked:
    """What a check found.

    `call_s` is the time of one warm call; it is rough, since several workers check at a time.
    `said` is what own code printed and warned of, without `said_left_out` further lines. Each of
    `explanations` explains a wrong result on its own; the likeliest comes first.
    """

    agreement: Agreement
    call_s: float
    ledger: Ledger
    said: tuple[str, ...] = ()
    said_left_out: int = 0
    explanations: tuple[Explanation, ...] = ()


@dataclass(frozen=True)
class Check(Request[Checked | Refused]):
    """Hold a cell against the oracle. Unless it is `timed`, no call at full size is clocked."""

    layer: Layer
    pass_: Pass
    implementation: str
    timed: bool = True

    def answer(self, bench: Bench) -> Checked | Refused:
        return bench.check(self)


@dataclass(frozen=True)
class Meter(Request[Memory | Refused]):
    """Meter a cell's memory."""

    layer: Layer
    pass_: Pass
    implementation: str
    rss_seconds: float

    def answer(self, bench: Bench) -> Memory | Refused:
        return bench.meter(self)


# Timing


@dataclass(frozen=True)
class Calibrate(Request[Calibration]):
    """Measure the machine's peaks with each of these numbers of threads."""

    threads: tuple[int, ...]
    seconds: float

    def answer(self, bench: Bench) -> Calibration:
        from convbench.machine.calibration import calibrate

        return calibrate(self.threads, self.seconds)


@dataclass(frozen=True)
class Sampled:
    """What a visit gave, and the probes before and after it."""

    visited: Visited
    probes: tuple[Probe, Probe]


@dataclass(frozen=True)
class Visit(Request[Sampled]):
    """Wake an arm up and sample it; an arm that is new is prepared first."""

    layer: Layer
    pass_: Pass
    implementation: str
    plan: Plan

    def answer(self, bench: Bench) -> Sampled:
        return bench.visit(self)


@dataclass(frozen=True)
class Released:
    """What Release answers.

    `max_rss` is the worker's largest resident memory so far in bytes. `delays` has, for each slowed
    implementation, the delay that it came out with (see implementations.variants).
    """

    max_rss: int
    delays: dict[str, float]


@dataclass(frozen=True)
class Release(Request[Released]):
    """Forget what was prepared."""

    def answer(self, bench: Bench) -> Released:
        return bench.release()
