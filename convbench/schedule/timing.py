"""Run the timing phase: rounds of fresh workers, visits in random order, one arm at a time.

A round starts a worker for each runtime and one for the twin, and all of them import before the
first one gets the token. Then every arm of each (layer, pass) is visited once or several times, in
a random order. A visit wakes the arm up and takes its samples. Results are saved after each
(layer, pass).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from convbench.machine.affinity import usable_cpus
from convbench.machine.description import Caution
from convbench.measure.clock import wake_s
from convbench.measure.messages import (
    CellFailedError,
    Release,
    Released,
    Sampled,
    UnansweredError,
    Visit,
)
from convbench.measure.process import Worker, WorkerLostError
from convbench.problem.layer import Layer
from convbench.results.model import SEEN_DELAY, TWIN, RoundSamples, benchmark_name
from convbench.results.summary import peak_rate
from convbench.runtimes.contract import Runtime
from convbench.schedule.budget import Budget, arm_s
from convbench.schedule.calibrating import calibrate_again
from convbench.schedule.confirming import confirm
from convbench.schedule.effort import EFFORTS, MIN_ROUNDS, Effort
from convbench.schedule.events import CellSettled, Event, PhaseStarted, Progress, Saved
from convbench.schedule.options import Options
from convbench.schedule.reuse import beyond_peak, reused
from convbench.schedule.session import CellKey, Session, Unit, round_samples
from convbench.schedule.sharing import still_wide, sweeps_of
from convbench.schedule.workers import Workers
from convbench.suites.suite import KERAS_WAYS


@dataclass(frozen=True)
class Arm:
    """One benchmark: a cell, or the twin of a cell. Arms of equal `runtime` share a worker."""

    key: CellKey
    runtime: Runtime
    twin: bool = False

    @property
    def name(self) -> str:
        """Name of the benchmark in the result file."""
        return benchmark_name(*self.key) + (TWIN if self.twin else "")


@dataclass
class _Taken:
    """The samples of an arm in one round: those of each visit, and its place in the sweep."""

    visits: list[Sampled] = field(default_factory=list)
    order: list[int] = field(default_factory=list)


Visits = dict[Arm, list[Sampled]]
"""Every visit to each arm so far in this run. They tell how long the arm takes to wake up, and
whether it keeps results."""


def measure_rounds(session: Session, options: Options, started: float) -> Iterator[Event]:
    """Measure as many rounds as are asked for, as long as the budget allows."""
    effort = EFFORTS[session.effort]
    if options.comparing:
        effort = effort.in_short_visits
    asked = options.rounds or effort.rounds
    first = asked
    if session.precision is not None:
        asked, first = MOST_ROUNDS, session.precision.first_rounds
    budget = Budget(options.budget_s, started)
    units = {unit: _arms(session, unit, options) for unit in session.units}
    units = {unit: arms for unit, arms in units.items() if arms}
    visits: Visits = {}
    yield PhaseStarted("timing", first * (1 + sum(map(len, units.values()))))
    for number in range(1, asked + 1):
        if number > first:
            units = still_wide(session, units)
            if not units:
                return
        missing = _missing(session, units, number)
        if not missing:  # a resumed session has this round already
            if options.confirm:
                yield from confirm(session, options, number, first)
            continue
        if number <= MIN_ROUNDS:
            needed = min(MIN_ROUNDS, asked) - number + 1
            yield from _drop_slowest(session, units, effort, budget, needed)
        predicted_s = _round_s(session, units, effort)
        if number > MIN_ROUNDS and not budget.allows(predicted_s):
            if session.precision is None:
                session.caution(_shortened(number - 1, asked))
            yield Saved(session.save())
            return
        missing = _missing(session, units, number)
        began = time.monotonic()
        later_s = (max(first, number) - number) * predicted_s
        sweeps = sweeps_of(session, missing, effort, number)
        for event in _Round(session, options, effort, number, missing, sweeps, visits).run():
            if isinstance(event, Progress):
                left_s = max(predicted_s * budget.scale - (time.monotonic() - began), 0.0)
                event = Progress(event.phase, event.what, left_s + later_s * budget.scale)
            yield event
        if len(missing) == len(units):
            budget.learn(predicted_s, time.monotonic() - began)
        if options.confirm:
            yield from confirm(session, options, number, first)


SLOW_CALL_S, SLOW_TIMES = 0.02, 10.0
"""Call time in seconds, and as a multiple of the quickest arm's. An arm above both is visited in
every other sweep only: its ratio to the others need not be known to a few per cent."""

MOST_ROUNDS = 200
"""Largest number of rounds that `--precision` makes, with or without a budget."""


def _missing(session: Session, units: dict[Unit, list[Arm]], number: int) -> dict[Unit, list[Arm]]:
    """Return the (layer, pass)es in which an arm lacks this round, with all of their arms.

    All of their arms are due, because arms are compared within a round.
    """
    return {
        unit: arms
        for unit, arms in units.items()
        if any(number not in session.rounds_of(arm.name) for arm in arms)
    }


def _arms(session: Session, unit: Unit, options: Options) -> list[Arm]:
    """Return the cells of a (layer, pass) that are to be timed, and the twin of one of them."""
    keys = [key for key in session.keys_of(unit) if session.cells[key].status in options.timed]
    runtimes = {key: session.runtime_of(key[2]) for key in keys}
    arms = [Arm(key, runtimes[key]) for key in keys]
    right = [key for key in keys if session.cells[key].status == "ok" and key in session.call_s]
    if right:
        key = _twin_key(session, right, options)
        apart = runtimes[key].apart(f"{runtimes[key].process}{TWIN}")
        arms.append(Arm(key, apart, twin=True))
    return arms


def _twin_key(session: Session, keys: list[CellKey], options: Options) -> CellKey:
    """Choose the cell that gets a twin: the fastest that is not Keras, or else the fastest of all.

    A resumed session keeps its choice. If versions are compared, the same implementation has the
    twin everywhere. Earlier computations leave their mark on the allocator of a process, so a twin
    whose process served other cells than its arm's can be steadily faster or slower (1 % measured).
    """
    for key in keys:
        if session.rounds_of(benchmark_name(*key) + TWIN):
            return key
    if options.comparing and keys[0][2] == session.suite.implementations[0]:
        return keys[0]
    numpy = [key for key in keys if key[2] not in KERAS_WAYS]
    return min(numpy or keys, key=session.call_s.__getitem__)


def _round_s(session: Session, units: dict[Unit, list[Arm]], effort: Effort) -> float:
    """Predict how many seconds a round takes, imports included."""
    arms = [arm for arms in units.values() for arm in arms]
    imports = sum(runtime.import_s for runtime in {arm.runtime for arm in arms})
    return imports + sum(arm_s(effort, session.call_s.get(arm.key, 0.0)) for arm in arms)


def _drop_slowest(
    session: Session, units: dict[Unit, list[Arm]], effort: Effort, budget: Budget, rounds: int
) -> Iterator[Event]:
    """Skip the slowest arms until `rounds` rounds fit the budget. One arm always stays."""
    round_s = _round_s(session, units, effort)
    unit_of = {arm: unit for unit, arms in units.items() for arm in arms}
    served = Counter(arm.runtime for arm in unit_of)
    by_time = sorted(
        (arm for arm in unit_of if not arm.twin),
        key=lambda arm: session.call_s.get(arm.key, 0.0),
        reverse=True,
    )
    for slowest in by_time[:-1]:
        if budget.allows(rounds * round_s):
            return
        unit = unit_of[slowest]
        call_s = session.call_s.get(slowest.key, 0.0)
        dropped = [arm for arm in units[unit] if arm.key == slowest.key]
        served.subtract(arm.runtime for arm in dropped)
        idle = {arm.runtime for arm in dropped if not served[arm.runtime]}
        imports_s = sum(runtime.import_s for runtime in idle)
        round_s -= len(dropped) * arm_s(effort, call_s) + imports_s
        units[unit] = [arm for arm in units[unit] if arm not in dropped]
        if not units[unit]:
            del units[unit]
        reason = (
            f"the budget of {budget.seconds:g} s does not allow at least "
            f"{rounds} rounds with this cell ({call_s * 1e3:.3g} ms a call)"
        )
        yield CellSettled(session.update(slowest.key, status="skipped", reason=reason))


def _shortened(rounds: int, asked: int) -> Caution:
    return Caution(
        f"the budget allowed {rounds} of {asked} rounds",
        "intervals are wider than they could be: give a larger --budget, or --resume the file",
        kind="budget",
    )


class _Round:
    """One round: it starts its workers, and visits every arm."""

    def __init__(
        self,
        session: Session,
        options: Options,
        effort: Effort,
        number: int,
        units: dict[Unit, list[Arm]],
        sweeps: dict[Unit, int],
        visits: Visits,
    ) -> None:
        self._session = session
        self._effort = effort
        self._number = number
        self._units = units
        self._sweeps = sweeps
        self._visits = visits
        self._random = session.random_of(number)
        cpus = self._same_cpus() if options.comparing else ()
        self._workers = replace(Workers.of(session, options), cpus=cpus)
        self._crew: dict[Runtime, Worker] = {}
        self._is_calibrated_again = False

    def run(self) -> Iterator[Event]:
        """Measure the round, and save the result after each (layer, pass)."""
        yield Progress("timing", f"round {self._number}: starting workers")
        try:
            arms_of = self._units.values()
            runtimes = {arm.runtime: arm.runtime for arms in arms_of for arm in arms}
            self._crew = self._workers.start_all(runtimes)
            for unit, arms in self._units.items():
                yield from self._unit(unit, arms)
                if path := self._session.keep():
                    yield Saved(path)
            yield Saved(self._session.save())
        finally:
            for worker in self._crew.values():
                worker.kill()

    def _same_cpus(self) -> tuple[int, ...]:
        """Draw as many CPUs as there are threads: the same for all arms, and new in every round.

        On a shared host one CPU can be slower than the next for seconds on end. An arm that the
        system happened to put there would seem slower than the others.
        """
        return tuple(sorted(self._random.sample(usable_cpus(), self._session.threads)))

    def _unit(self, unit: Unit, arms: list[Arm]) -> Iterator[Event]:
        """Visit every arm of a (layer, pass) in sweeps, and keep the samples."""
        taken = {arm: _Taken() for arm in arms}
        seldom = self._seldom(arms)
        for sweep in range(self._sweeps[unit]):
            taking_part = [arm for arm in taken if sweep % 2 == 0 or arm not in seldom]
            yield from self._sweep(unit, taking_part, taken)
        released = {each: self._release(worker) for each, worker in self._crew.items()}
        for arm, of_arm in taken.items():
            self._session.add(arm.name, self._run_of(arm, of_arm, released[arm.runtime]))
            if not arm.twin:
                self._session.call_s[arm.key] = of_arm.visits[-1].visited.call_s
            yield from self._is_no_computation(unit, arm)

    def _seldom(self, arms: list[Arm]) -> set[Arm]:
        """Return the arms that are far slower than the quickest; they join every other sweep."""
        call_s = {arm: self._session.call_s.get(arm.key, 0.0) for arm in arms}
        limit = max(SLOW_CALL_S, SLOW_TIMES * min(call_s.values()))
        return {arm for arm in arms if call_s[arm] > limit}

    def _sweep(self, unit: Unit, arms: list[Arm], taken: dict[Arm, _Taken]) -> Iterator[Event]:
        """Visit each of the arms once, in a random order. An arm that fails leaves `taken`."""
        layer, pass_ = unit
        for place, arm in enumerate(self._random.sample(arms, len(arms))):
            yield Progress("timing", f"round {self._number}: {layer.name} {pass_} {arm.key[2]}")
            answer = self._visit(unit, arm)
            if isinstance(answer, Sampled) and answer.wrong is not None:
                taken.pop(arm)
                yield from self._wrong(arm, answer.wrong)
            elif isinstance(answer, Sampled):
                self._visits.setdefault(arm, []).append(answer)
                taken[arm].visits.append(answer)
                taken[arm].order.append(place)
            else:
                del taken[arm]
                yield from self._fail(arm, answer)

    def _visit(self, unit: Unit, arm: Arm) -> Sampled | str:
        """Visit an arm while its worker alone runs. Return the samples, or why there are none.

        A worker that died is replaced, and the new one prepares its arms again.
        """
        layer, pass_ = unit
        earlier = [visit.visited for visit in self._visits.get(arm, [])]
        waking_s = wake_s(self._effort.wake_s, earlier)
        plan = self._effort.plan(waking_s, self._session.state)
        worker = self._crew[arm.runtime]
        is_right = self._session.cells[arm.key].status == "ok"
        try:
            with worker.token():
                return self._workers.ask(worker, Visit(layer, pass_, arm.key[2], plan, is_right))
        except CellFailedError as failed:
            return str(failed)
        except WorkerLostError as lost:
            self._crew |= self._workers.start_all({arm.runtime: arm.runtime})
            return str(lost)

    def _wrong(self, arm: Arm, problem: str) -> Iterator[Event]:
        """Settle an arm as wrong, whose check found it right, and leave it out from now on."""
        self._leave_out(arm.key)
        agreement = self._session.cells[arm.key].agreement
        reason = f"{problem}; the check found it right: it returns results of earlier operands"
        if agreement is not None:
            agreement = replace(agreement, verdict="wrong", diagnosis=reason)
        changes: dict[str, Any] = {"status": "wrong", "reason": reason, "agreement": agreement}
        yield CellSettled(self._session.update(arm.key, **changes))

    def _is_no_computation(self, unit: Unit, arm: Arm) -> Iterator[Event]:
        """Leave an arm unranked if its time cannot be that of a convolution."""
        layer, pass_ = unit
        visits = self._visits[arm]
        nbytes = layer.operand_bytes(pass_) + layer.result_bytes(pass_)
        if ratio := reused(visits, nbytes):
            reason = (
                f"it keeps results: a call with new operands takes {ratio:.0f} times as long as "
                "one with operands that it has seen"
            )
        elif ratio := self._beyond_peak(visits, layer):
            reason = (
                f"it is faster than it can be: its rate is {ratio:.0f} times the measured peak, "
                "and no algorithm saves that many multiplications; it keeps results, or computes "
                "later"
            )
        else:
            return
        if self._session.cells[arm.key].status == "ok":
            self._leave_out(arm.key)
            yield CellSettled(self._session.update(arm.key, status="skipped", reason=reason))

    def _beyond_peak(self, visits: Sequence[Sampled], layer: Layer) -> float | None:
        """Return how many times the peak is exceeded, or None where that is possible.

        Before that is told for the first time, the peak is measured again: a neighbour may have
        spoilt it.
        """
        ratio = self._over_peak(visits, layer)
        if ratio is None or self._is_calibrated_again:
            return ratio
        self._is_calibrated_again = True
        with suppress(UnansweredError):
            calibrate_again(self._session, self._workers)
        return self._over_peak(visits, layer)

    def _over_peak(self, visits: Sequence[Sampled], layer: Layer) -> float | None:
        peak = peak_rate(self._session.machine.calibration, layer, self._session.threads)
        return beyond_peak(visits, layer, peak) if peak else None

    def _leave_out(self, key: CellKey) -> None:
        """Leave all arms of a cell out of later rounds."""
        for arms in self._units.values():
            arms[:] = [arm for arm in arms if arm.key != key]

    def _fail(self, arm: Arm, reason: str) -> Iterator[Event]:
        """Settle an arm as failed, and leave it and its twin out of later rounds.

        If the twin alone fails, the cell stays.
        """
        for arms in self._units.values():
            arms[:] = [a for a in arms if a.key != arm.key or (arm.twin and not a.twin)]
        if not arm.twin:
            yield CellSettled(self._session.update(arm.key, status="failed", reason=reason))

    def _release(self, worker: Worker) -> Released | None:
        """Let a worker forget its prepared arms. Return its peak memory, or None if it died."""
        try:
            with worker.token():
                return self._workers.ask(worker, Release())
        except UnansweredError:
            return None  # the worker is dead: the next request finds out and replaces it

    def _run_of(self, arm: Arm, taken: _Taken, released: Released | None) -> RoundSamples:
        """Return the samples of an arm in this round, as the result file keeps them."""
        seen: dict[str, float] = {}
        if released is not None:
            seen["mem_max_rss"] = released.max_rss
            if arm.key[2] in released.delays:
                seen[SEEN_DELAY] = released.delays[arm.key[2]]
        return round_samples(self._number, taken.visits, tuple(taken.order), seen)
