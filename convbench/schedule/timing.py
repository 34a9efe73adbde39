"""The timing phase: rounds of fresh workers, blocks in random order, one arm at a time.

A round starts a worker for each runtime and one for the twin; all import before any of them gets
the token. Then for each (layer, pass): every arm prepares and warms up, and in each block every
arm gives one sample, in a random order. Results are saved after each (layer, pass).
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from convbench import implementations
from convbench.machine import Caution, usable_cpus
from convbench.measure.clock import Warm
from convbench.measure.process import CellFailedError, Worker, WorkerLostError
from convbench.measure.protocol import Release, Released, Sample, Start, WarmUp
from convbench.results import SEEN_DELAY, TWIN, RoundSamples, benchmark_name
from convbench.schedule.budget import Budget, arm_s, blocks_of, import_s
from convbench.schedule.effort import EFFORTS, MIN_ROUNDS, Effort
from convbench.schedule.events import CellSettled, Event, PhaseStarted, Progress, Saved
from convbench.schedule.options import Options
from convbench.schedule.session import CellKey, Session, Unit
from convbench.suite import KERAS_WAYS


@dataclass(frozen=True)
class Arm:
    """One benchmark: a cell, or the twin of one, and the worker (by name) that serves it."""

    key: CellKey
    twin: bool = False

    @property
    def name(self) -> str:
        return benchmark_name(*self.key) + (TWIN if self.twin else "")

    @property
    def runtime(self) -> str:
        return implementations.get(self.key[2]).runtime

    @property
    def worker(self) -> str:
        return self.runtime + (TWIN if self.twin else "")


@dataclass
class _Samples:
    """What an arm gave in this round of a (layer, pass)."""

    warm: Warm
    values: list[float] = field(default_factory=list)
    order: list[int] = field(default_factory=list)


def measure_rounds(session: Session, options: Options, started: float) -> Iterator[Event]:
    """As many rounds as are asked for and the budget allows."""
    effort = EFFORTS[session.effort]
    if options.comparing:
        effort = effort.in_short_samples
    asked = options.rounds or effort.rounds
    budget = Budget(options.budget_s, started)
    units = {unit: _arms(session, unit, options) for unit in session.units}
    units = {unit: arms for unit, arms in units.items() if arms}
    yield PhaseStarted("timing", asked * (1 + sum(map(len, units.values()))))
    for number in range(1, asked + 1):
        if not _missing(session, units, number):  # a resumed session has this round already
            continue
        if number <= MIN_ROUNDS:
            needed = min(MIN_ROUNDS, asked) - number + 1
            yield from _drop_slowest(session, units, effort, budget, needed)
        predicted_s = _round_s(session, units, effort)
        if number > MIN_ROUNDS and not budget.allows(predicted_s):
            session.caution(_shortened(number - 1, asked))
            yield Saved(session.save())
            return
        missing = _missing(session, units, number)
        began = time.monotonic()
        later_s = (asked - number) * predicted_s
        for event in _Round(session, options, effort, number, missing).run():
            if isinstance(event, Progress):
                left_s = max(predicted_s * budget.scale - (time.monotonic() - began), 0.0)
                event = Progress(event.phase, event.what, left_s + later_s * budget.scale)
            yield event
        if len(missing) == len(units):
            budget.learn(predicted_s, time.monotonic() - began)


def _missing(session: Session, units: dict[Unit, list[Arm]], number: int) -> dict[Unit, list[Arm]]:
    """The (layer, pass)es that lack an arm of this round: all their arms are due, together."""
    return {
        unit: arms
        for unit, arms in units.items()
        if any(number not in session.rounds_of(arm.name) for arm in arms)
    }


def _arms(session: Session, unit: Unit, options: Options) -> list[Arm]:
    """The cells of a (layer, pass) that are to be timed, and the twin of one of them."""
    timed = ("ok", "wrong") if options.time_wrong else ("ok",)
    keys = [key for key in session.keys_of(unit) if session.cells[key].status in timed]
    arms = [Arm(key) for key in keys]
    right = [key for key in keys if session.cells[key].status == "ok" and key in session.call_s]
    if right:
        arms.append(Arm(_twin_key(session, right, options), twin=True))
    return arms


def _twin_key(session: Session, keys: list[CellKey], options: Options) -> CellKey:
    """The fastest arm that is not Keras; without one the fastest of all.

    A resumed session keeps its own. Where versions are compared it is the same implementation
    everywhere: what a process computed before leaves its mark on the allocator, and a twin that
    served other cells than its arm can be steadily faster or slower (1 % measured).
    """
    for key in keys:
        if session.rounds_of(benchmark_name(*key) + TWIN):
            return key
    if options.comparing and keys[0][2] == session.suite.implementations[0]:
        return keys[0]
    numpy = [key for key in keys if key[2] not in KERAS_WAYS]
    return min(numpy or keys, key=session.call_s.__getitem__)


def _round_s(session: Session, units: dict[Unit, list[Arm]], effort: Effort) -> float:
    arms = [arm for arms in units.values() for arm in arms]
    imports = sum(import_s(runtime) for runtime in {arm.worker for arm in arms})
    return imports + sum(arm_s(effort, session.call_s.get(arm.key, 0.0)) for arm in arms)


def _drop_slowest(
    session: Session, units: dict[Unit, list[Arm]], effort: Effort, budget: Budget, rounds: int
) -> Iterator[Event]:
    """Skips the slowest arms until so many rounds fit the budget; one arm always stays."""
    round_s = _round_s(session, units, effort)
    unit_of = {arm: unit for unit, arms in units.items() for arm in arms}
    served = Counter(arm.worker for arm in unit_of)
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
        served.subtract(arm.worker for arm in dropped)
        idle = {arm.worker for arm in dropped if not served[arm.worker]}
        round_s -= len(dropped) * arm_s(effort, call_s) + sum(map(import_s, idle))
        units[unit] = [arm for arm in units[unit] if arm not in dropped]
        if not units[unit]:
            del units[unit]
        reason = (
            f"the budget of {budget.seconds:g} s does not allow the least of "
            f"{rounds} rounds with it ({call_s * 1e3:.3g} ms a call)"
        )
        yield CellSettled(session.update(slowest.key, status="skipped", reason=reason))


def _shortened(rounds: int, asked: int) -> Caution:
    return Caution(
        f"the budget allowed {rounds} of {asked} rounds",
        "intervals are wider than they could be; give a larger --budget, or --resume the file",
    )


class _Round:
    """One round: its workers, and what they are asked."""

    def __init__(
        self,
        session: Session,
        options: Options,
        effort: Effort,
        number: int,
        units: dict[Unit, list[Arm]],
    ) -> None:
        self._session = session
        self._options = options
        self._effort = effort
        self._number = number
        self._units = units
        self._workers: dict[str, Worker] = {}
        # Another order in every round, the same for the same seed.
        self._random = random.Random(f"{session.seed} {number}")
        self._cpus = self._same_cpus() if options.comparing else ()

    def run(self) -> Iterator[Event]:
        yield Progress("timing", f"round {self._number}: starting workers")
        try:
            for arm in [arm for arms in self._units.values() for arm in arms]:
                if arm.worker not in self._workers:
                    self._workers[arm.worker] = self._start(arm)
            for worker in list(self._workers.values()):
                self._wait_ready(worker)
            for unit, arms in self._units.items():
                yield from self._unit(unit, arms)
                if path := self._session.keep():
                    yield Saved(path)
            yield Saved(self._session.save())
        finally:
            for worker in self._workers.values():
                worker.kill()

    def _same_cpus(self) -> tuple[int, ...]:
        """As many CPUs as there are threads, the same for all arms, others in every round.

        On a shared host one CPU can be slower than the next for seconds on end; an arm that the
        system happened to put there would seem slower than the other.
        """
        return tuple(sorted(self._random.sample(usable_cpus(), self._session.threads)))

    def _start(self, arm: Arm) -> Worker:
        session = self._session
        known = implementations.known_names()
        start = Start(arm.runtime, session.threads, session.seed, known, self._cpus, session.tune)
        return Worker(start, self._options.environment)

    def _wait_ready(self, worker: Worker) -> None:
        try:
            worker.wait_ready()
        except WorkerLostError:
            return  # it shows again, with its reason, when the first cell is asked for
        worker.stop()

    def _unit(self, unit: Unit, arms: list[Arm]) -> Iterator[Event]:
        """Warms up every arm of a (layer, pass), then samples them in blocks."""
        layer, pass_ = unit
        where = f"round {self._number}: {layer.name} {pass_}"
        samples: dict[Arm, _Samples] = {}
        for arm in self._shuffled(arms):
            yield Progress("timing", f"{where} {arm.key[2]}")
            warm = self._warm_up(arm, samples)
            if isinstance(warm, Warm):
                samples[arm] = _Samples(warm)
            else:
                yield from self._fail(arm, warm)
        for block in range(self._effort.blocks):
            taking_part = [arm for arm in samples if self._takes_part(samples[arm].warm, block)]
            for place, arm in enumerate(self._shuffled(taking_part)):
                if arm not in samples:  # lost with a worker that this block broke
                    continue
                value = self._sample(arm, samples)
                if isinstance(value, float):
                    samples[arm].values.append(value)
                    samples[arm].order.append(place)
                else:
                    del samples[arm]
                    yield from self._fail(arm, value)
        released = {name: self._release(worker) for name, worker in self._workers.items()}
        for arm, taken in samples.items():
            if taken.values:
                self._session.add(arm.name, self._run_of(arm, taken, released[arm.worker]))
                if not arm.twin:
                    self._session.call_s[arm.key] = taken.warm.call_s

    def _shuffled(self, arms: list[Arm]) -> list[Arm]:
        return self._random.sample(arms, len(arms))

    def _takes_part(self, warm: Warm, block: int) -> bool:
        """Slow arms sit out most blocks; those that they do take part in are spread out."""
        blocks, share = self._effort.blocks, blocks_of(self._effort, warm.call_s)
        return (block * share) // blocks != ((block - 1) * share) // blocks

    def _warm_up(self, arm: Arm, samples: dict[Arm, _Samples]) -> Warm | str:
        """The arm, ready; or why not. Replaces a worker that died, with its other arms."""
        request = WarmUp(
            self._session.layer(arm.key[0]), arm.key[1], arm.key[2], self._effort.sample_s
        )
        warm = self._ask(arm, request, samples)
        return warm if isinstance(warm, Warm) else str(warm)

    def _sample(self, arm: Arm, samples: dict[Arm, _Samples]) -> float | str:
        value = self._ask(arm, Sample(arm.key[2], samples[arm].warm.loops), samples)
        return value if isinstance(value, float) else str(value)

    def _ask(self, arm: Arm, request: WarmUp | Sample, samples: dict[Arm, _Samples]) -> object:
        """The answer of the arm's worker, while it alone runs; or a reason."""
        worker = self._workers[arm.worker]
        try:
            with worker.token():
                return worker.ask(request, self._options.timeout_s)
        except CellFailedError as failed:
            return str(failed)
        except WorkerLostError as lost:
            self._replace_worker(arm, samples)
            return str(lost)

    def _replace_worker(self, culprit: Arm, samples: dict[Arm, _Samples]) -> None:
        """A new worker for what the culprit's worker served; arms that fail now are left out."""
        worker = self._workers[culprit.worker] = self._start(culprit)
        self._wait_ready(worker)
        for arm in [a for a in samples if a.worker == culprit.worker and a != culprit]:
            warm = self._warm_up(arm, {})
            if isinstance(warm, str):
                del samples[arm]

    def _fail(self, arm: Arm, reason: str) -> Iterator[Event]:
        """Settles the arm's cell; the arms of later rounds leave it out."""
        for arms in self._units.values():
            arms[:] = [a for a in arms if a.key != arm.key or (arm.twin and not a.twin)]
        if not arm.twin:
            yield CellSettled(self._session.update(arm.key, status="failed", reason=reason))

    def _release(self, worker: Worker) -> Released | None:
        try:
            with worker.token():
                released: Released = worker.ask(Release(), self._options.timeout_s)
        except (CellFailedError, WorkerLostError):
            return None  # dead already: the next request finds out and replaces it
        return released

    def _run_of(self, arm: Arm, taken: _Samples, released: Released | None) -> RoundSamples:
        seen: dict[str, float] = {}
        if released is not None:
            seen["mem_max_rss"] = released.max_rss
            if arm.key[2] in released.delays:
                seen[SEEN_DELAY] = released.delays[arm.key[2]]
        return RoundSamples(
            round=self._number,
            order=tuple(taken.order),
            loops=taken.warm.loops,
            values=tuple(taken.values),
            warmups=taken.warm.warmups,
            metadata={
                "date": datetime.now().isoformat(" "),
                "load_avg_1min": round(os.getloadavg()[0], 2),
                **seen,
            },
        )
