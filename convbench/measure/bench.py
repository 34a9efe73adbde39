"""Compute a worker's answers: check, meter and time the cells of one runtime."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from convbench.agreement.check import checker
from convbench.agreement.check.case import Case
from convbench.agreement.check.spots import Spots
from convbench.agreement.diagnosis.diagnosing import Diagnosing
from convbench.errors import ImplementationError, TrainingError
from convbench.implementations.contract import Implementation, Prepared, WrongResultError
from convbench.implementations.registry import Registry
from convbench.implementations.variants import Delayed
from convbench.machine import tuning
from convbench.machine.usage import peak_resident_bytes
from convbench.measure import clock
from convbench.measure.messages import (
    CellFailedError,
    Check,
    Checked,
    Failure,
    Meter,
    Refused,
    Released,
    Sampled,
    Visit,
)
from convbench.measure.probes import probe
from convbench.own_code.saying import describe_exception, listening, place_of, trace
from convbench.problem import operands
from convbench.problem.layer import Layer, Pass
from convbench.results.model import Explanation, Memory, Raised

SLOW_CALL_S = 0.03
"""Shortest first call, in seconds, whose start-up is negligible beside the call itself."""


SAME_EVERY = 3
"""Every third visit of an arm keeps the operands of the visit before. Code that keeps results takes
far less for its first call then."""


@dataclass
class _Arm:
    """An arm that was visited: how often, and how many calls a sample has."""

    prepared: Prepared
    visits: int = 0
    loops: int | None = None


class Bench:
    """The state of a worker between requests.

    Arms that were visited stay prepared until they are released. `kept` is for the requests of
    add-ons: each add-on keeps what it needs under a key of its own.
    """

    def __init__(self, registry: Registry, threads: int, seed: int) -> None:
        self.registry = registry
        self.threads = threads
        self.seed = seed
        self.kept: dict[str, Any] = {}
        self._arms: dict[str, _Arm] = {}
        self._spots: dict[tuple[str, Pass], Spots] = {}
        self._last: str | None = None  # the arm that was visited last
        self._diagnosing = Diagnosing()

    def check(self, request: Check) -> Checked | Refused:
        """Check a cell, or tell why own code refuses it.

        Raises CellFailedError if own code raises, with what it printed before and its exception.
        """
        implementation = self.registry.get(request.implementation)
        if not implementation.is_own:
            return self._checked(implementation, request)
        answer: Checked | Refused | Failure
        with listening() as said:
            try:
                reason = implementation.unsupported(request.layer, request.pass_)
                answer = Refused(reason) if reason else self._checked(implementation, request)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - own code may raise anything
                answer = self._advised(failure_of(error), implementation, request)
        if isinstance(answer, Refused):
            return answer
        words = (*said.lines, *answer.said)
        answer = replace(answer, said=words, said_left_out=said.left_out)
        if isinstance(answer, Failure):
            raise CellFailedError(answer)
        return answer

    def meter(self, request: Meter) -> Memory | Refused:
        """Meter a cell's memory, or tell why own code refuses the cell."""
        from convbench.measure import memory

        implementation = self.registry.get(request.implementation)
        if implementation.is_own:
            reason = implementation.unsupported(request.layer, request.pass_)
            if reason is not None:
                return Refused(reason)
        return memory.meter(
            implementation,
            request.layer,
            request.pass_,
            self.threads,
            operands.floats(request.layer, request.pass_, self.seed),
            request.rss_seconds,
        )

    def visit(self, request: Visit) -> Sampled:
        """Visit an arm between two probes. An arm that is new is prepared first.

        Nothing but the calls that wake the arm up comes between loading operands and the clock.
        """
        name, layer, pass_ = request.implementation, request.layer, request.pass_
        if name not in self._arms:
            prepared = self.registry.get(name).prepare(layer, pass_, self.threads)
            self._arms[name] = _Arm(prepared)
        arm = self._arms[name]
        spots = self._spots.setdefault((layer.name, pass_), Spots(layer, pass_, self.seed))
        is_fresh = arm.visits % SAME_EVERY != SAME_EVERY - 1
        if is_fresh:
            arm.prepared.load(spots.fresh())
        if name != self._last:
            tuning.settle()
            self._last = name
        before = probe()
        visited = clock.visit(arm.prepared.run, request.plan, arm.loops)
        # Threads that still spin after the arm's calls would disturb the probe, which is to see
        # other processes only.
        after = probe() if tuning.is_quiet() else before
        wrong = None
        if request.is_right and is_fresh and (visited.call_s < SLOW_CALL_S or arm.visits == 0):
            wrong = _problem(spots, arm.prepared)
        is_first = arm.visits == 0
        arm.loops, arm.visits = visited.loops, arm.visits + 1
        return Sampled(visited, (before, after), is_first, is_fresh, wrong)

    def loaded(self, layer: Layer, pass_: Pass, name: str) -> Prepared:
        """Prepare a cell and load operands drawn from the seed."""
        prepared = self.registry.get(name).prepare(layer, pass_, self.threads)
        prepared.load(operands.floats(layer, pass_, self.seed))
        return prepared

    def release(self) -> Released:
        """Forget the prepared arms."""
        delays = {
            name: arm.prepared.seen_delay
            for name, arm in self._arms.items()
            if isinstance(arm.prepared, Delayed)
        }
        self._arms.clear()
        self._spots.clear()
        return Released(peak_resident_bytes(), delays)

    def _checked(self, implementation: Implementation, request: Check) -> Checked:
        case = self._case(implementation, request)
        agreement = checker.check(case)
        explanations: tuple[Explanation, ...] = ()
        if agreement.verdict == "wrong":
            explanations = self._diagnosing.explained(case)
        elif implementation.is_own:
            agreement = self._diagnosing.steady(agreement, case)
            if agreement.explanation is not None:
                explanations = (agreement.explanation,)
            else:
                agreement = self._diagnosing.remarked(agreement, case)
        prepared = implementation.prepare(request.layer, request.pass_, self.threads)
        call_s = 0.0
        if request.timed:
            prepared.load(operands.floats(request.layer, request.pass_, self.seed))
            call_s = clock.clock(prepared.run, 1)
            if call_s < SLOW_CALL_S:  # the first call of a short kernel is mostly start-up
                call_s = clock.clock(prepared.run, 1)
        return Checked(agreement, call_s, prepared.ledger, explanations=explanations)

    def _advised(self, failure: Failure, implementation: Implementation, request: Check) -> Failure:
        """Add to a failure the order of axes with which the code can be called, if there is one.

        A failure to use the code at all is returned as it is: other axes would not help.
        """
        if failure.is_usage:
            return failure
        advice = self._diagnosing.other_layout(self._case(implementation, request))
        return replace(failure, reason=f"{failure.reason}; {advice}") if advice else failure

    def _case(self, implementation: Implementation, request: Check) -> Case:
        return Case(implementation, request.layer, request.pass_, self.threads, self.seed)


def _problem(spots: Spots, prepared: Prepared) -> str | None:
    """Call once more, and return what is wrong with the result, or None."""
    try:
        return spots.problem(prepared.to_numpy(prepared.run()))
    except WrongResultError as error:
        return error.message


def failure_of(error: BaseException) -> Failure:
    """Return what the parent is told about an exception that a request raised."""
    if isinstance(error, CellFailedError):
        return error.failure
    if isinstance(error, ImplementationError | TrainingError):
        return Failure(error.message, is_usage=True, hint=error.hint)
    raised = Raised(type(error).__name__, place_of(error))
    return Failure(describe_exception(error), trace(error), raised=raised)
