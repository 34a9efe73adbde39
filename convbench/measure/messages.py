"""Define the requests of a parent to its worker, and the answers to them, as frozen values.

A request is a class of its own. It names the type of its answer, and knows how the worker computes
it (`answer`). So an add-on brings its own requests, and the worker need not know them. Only the
worker calls `answer`, which imports what it needs.
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
    """A question of a parent to its worker. The type argument is the type of the answer."""

    def answer(self, bench: Bench) -> Answer:
        """Compute the answer, in the worker. An exception costs only this request."""
        raise NotImplementedError


# Starting


@dataclass(frozen=True)
class Start:
    """The first message to a worker.

    `registry` has the implementations that requests name. `cpus` are the CPUs that the worker may
    use; an empty tuple means all that its parent may use. Without `tune`, implementations that
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
    """The answer to Start: the worker has imported its runtime and capped its threads."""

    blas: tuple[BlasLibrary, ...]


@dataclass(frozen=True)
class Failure:
    """The answer of a worker whose request raised an exception.

    `reason` is one sentence, with the place in the user's code. `said` has the lines that the code
    printed before, without `said_left_out` further lines, and the user's frames of the exception.
    `is_usage` means that no layer can be computed, because the thing that was named is not there or
    cannot be called.
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
    """The answer to Check and Meter if own code turns out not to support the layer."""

    unsupported: Unsupported


@dataclass(frozen=True)
class Checked:
    """The answer to Check.

    `call_s` is the time of one warm call in seconds; it is rough, since several workers check at a
    time. `said` has the lines that own code printed or warned with, without `said_left_out` further
    lines. Each of `explanations` explains a wrong result on its own; the likeliest comes first.
    """

    agreement: Agreement
    call_s: float
    ledger: Ledger
    said: tuple[str, ...] = ()
    said_left_out: int = 0
    explanations: tuple[Explanation, ...] = ()


@dataclass(frozen=True)
class Check(Request[Checked | Refused]):
    """Hold a cell against the oracle. If it is `timed`, also clock one call at full size."""

    layer: Layer
    pass_: Pass
    implementation: str
    timed: bool = True

    def answer(self, bench: Bench) -> Checked | Refused:
        return bench.check(self)


@dataclass(frozen=True)
class Meter(Request[Memory | Refused]):
    """Meter a cell's memory. Its resident memory is sampled for `rss_seconds`."""

    layer: Layer
    pass_: Pass
    implementation: str
    rss_seconds: float

    def answer(self, bench: Bench) -> Memory | Refused:
        return bench.meter(self)


# Timing


@dataclass(frozen=True)
class Calibrate(Request[Calibration]):
    """Measure the machine's peaks with each of these numbers of threads, in `seconds` in all."""

    threads: tuple[int, ...]
    seconds: float

    def answer(self, bench: Bench) -> Calibration:
        from convbench.machine.calibration import calibrate

        return calibrate(self.threads, self.seconds)


@dataclass(frozen=True)
class Sampled:
    """The answer to Visit: the times, and the probes before and after the visit.

    `is_first` marks the first visit of the arm in its worker, and `is_fresh` one that loaded new
    operands. `wrong` says what is wrong with the result of the last call, if it was checked.
    """

    visited: Visited
    probes: tuple[Probe, Probe]
    is_first: bool = True
    is_fresh: bool = True
    wrong: str | None = None


@dataclass(frozen=True)
class Visit(Request[Sampled]):
    """Wake an arm up and sample it. An arm that is new is prepared first.

    Most visits load new operands before anything else. If the arm `is_right`, the result of a call
    after the last sample is checked.
    """

    layer: Layer
    pass_: Pass
    implementation: str
    plan: Plan
    is_right: bool = True

    def answer(self, bench: Bench) -> Sampled:
        return bench.visit(self)


@dataclass(frozen=True)
class Released:
    """The answer to Release.

    `max_rss` is the worker's largest resident memory so far in bytes. `delays` has the delay that
    each slowed implementation really had (see implementations.variants).
    """

    max_rss: int
    delays: dict[str, float]


@dataclass(frozen=True)
class Release(Request[Released]):
    """Forget the arms that were prepared."""

    def answer(self, bench: Bench) -> Released:
        return bench.release()
