"""Measure trainings: each implementation follows Keras first, then rounds of whole trainings.

A round starts a fresh worker for every arm, in random order one at a time: each connects, warms up
and trains from the initial weights, in the round's order of the images. A round gives one figure an
arm, seconds a step, and one accuracy.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from convbench.errors import ConvbenchError, TrainingError
from convbench.implementations.registry import REGISTRY
from convbench.machine import usage
from convbench.measure.messages import Answer, CellFailedError, Request, Start
from convbench.measure.process import Worker, WorkerLostError, kill_all
from convbench.results.model import TWIN, Agreement, RoundSamples, Step, benchmark_name
from convbench.schedule.calibrating import describe
from convbench.schedule.effort import EFFORTS
from convbench.schedule.events import CellSettled, Event, PhaseStarted, Progress, Saved
from convbench.schedule.options import Options
from convbench.training.arms import KERAS, Setup, Trained, in_float64
from convbench.training.following import Departure, Following
from convbench.training.messages import (
    Accuracy,
    Connect,
    Follow,
    GetState,
    GoOn,
    Restart,
    Summarise,
    Train,
)
from convbench.training.session import TrainingSession
from convbench.training.trainer import State

FOLLOWED = {"smoke": 10}
"""Steps that are compared with Keras's, by effort; else FOLLOWED_STEPS."""

FOLLOWED_STEPS = 100
FOLLOWED_S = 60.0
"""Seconds for which steps are followed at the most, but LEAST_STEPS in any case."""

LEAST_STEPS = 3

ARM_S = {"smoke": 1.0, "quick": 3.0, "standard": 20.0, "rigorous": 60.0}
"""An arm that would train for longer in a round trains for so long, and is extrapolated."""

PROBED_STEPS = 10
"""Steps that tell how many fit."""

CHUNK_S = 0.5
"""Progress is told so often."""


def train(session: TrainingSession, options: Options) -> Generator[Event, None, None]:
    """Follows Keras, then trains in rounds. Saves after every round. Close it to stop early."""
    try:
        if session.machine.calibration is None:
            seconds = EFFORTS[session.effort].calibration_s
            found = yield from describe(options.environment, session.threads, seconds)
            session.machine, session.software = found.machine, found.software
            session.cautions = (*session.cautions, *found.warnings)
        yield from _follow_all(session, options)
        yield Saved(session.save())
        rounds = options.rounds or EFFORTS[session.effort].rounds
        arms = len(session.arms) + 1
        yield PhaseStarted("training", rounds * arms * 4)
        began = time.monotonic()
        for number in range(1, rounds + 1):
            for event in _Round(session, options, number).run():
                if isinstance(event, Progress) and number > 1:
                    left = (time.monotonic() - began) / (number - 1) * (rounds - number + 1)
                    event = replace(event, left_s=left)
                yield event
            yield Saved(session.save())
    finally:
        kill_all()


def _start(session: TrainingSession, options: Options, implementation: str) -> Worker:
    runtime = REGISTRY.get(implementation).runtime
    start = Start(runtime, session.threads, session.setup.seed, tune=session.tune)
    return Worker(start, options.environment.of(runtime, session.threads))


def _ask(worker: Worker, request: Request[Answer], options: Options) -> Answer:
    """Raises TrainingError for what is the user's to mend, CellFailedError for what crashed."""
    worker.wait_ready()
    try:
        return worker.ask(request, options.timeout_s)
    except CellFailedError as failed:
        if failed.failure.is_usage:
            raise TrainingError(failed.failure.reason, failed.failure.hint) from None
        raise


# Following Keras


def _follow_all(session: TrainingSession, options: Options) -> Iterator[Event]:
    names = [name for name in session.arms if name not in KERAS]
    steps = FOLLOWED.get(session.effort, FOLLOWED_STEPS)
    versus = any(name in KERAS for name in session.arms)
    yield PhaseStarted("agreement", len(names) * (steps + 1))
    led = _Led(session, options)
    for name in names:
        if not versus:
            session.update(name, status="ok")
            continue
        try:
            yield from _follow(session, options, led, name, steps)
        except (CellFailedError, WorkerLostError) as error:
            said = error.failure.said if isinstance(error, CellFailedError) else ()
            session.update(name, status="failed", reason=str(error), said=said)
            led.end()  # whichever worker it was, the next implementation finds none that is lost
        yield CellSettled(session.cells[name])
    led.end()
    for name in session.arms:
        if name in KERAS:
            session.update(name, status="ok")


class _Led:
    """The workers whose Keras is followed, each started when it is first needed.

    They serve one implementation after the other, since importing TensorFlow takes seconds.
    """

    def __init__(self, session: TrainingSession, options: Options) -> None:
        self._session, self._options = session, options
        self._workers: dict[str, Worker] = {}

    def connect(self, dtype: str, setup: Setup) -> Worker:
        """Keras in that precision, at the initial weights of `setup`."""
        if dtype not in self._workers:
            self._workers[dtype] = _start(self._session, self._options, "keras")
        try:
            _ask(self._workers[dtype], Connect(setup, "keras"), self._options)
        except (CellFailedError, WorkerLostError):
            self._workers.pop(dtype).kill()
            raise
        return self._workers[dtype]

    def end(self) -> None:
        for worker in self._workers.values():
            worker.kill()
        self._workers.clear()


def _follow(
    session: TrainingSession, options: Options, led: _Led, name: str, steps: int
) -> Iterator[Event]:
    """An implementation that is not exact follows in float64: see training.following.

    So does own code that departs in float32, since it may be of that kind.
    """
    yield Progress("agreement", f"{name}: connecting")
    ours = _start(session, options, name)
    connected = _ask(ours, Connect(session.setup, name), options)
    session.connected = connected
    setup = session.setup if connected.exact else in_float64(session.setup)
    following = yield from _compared(options, led, name, ours, setup, steps)
    is_own = REGISTRY.get(name).is_own
    if following.departed and is_own and setup.network.dtype == "float32":
        in_double = in_float64(setup)
        again = yield from _compared(options, led, name, ours, in_double, steps)
        if not again.departed:
            following, setup = again, in_double
    ours.kill()
    worst, departed = following.departed or following.worst, following.departed
    assert worst is not None
    session.followed[name] = following.steps, setup.network.dtype, worst
    why = _departure(departed) if departed else None
    session.update(
        name,
        status="wrong" if departed else "ok",
        reason=why,
        agreement=Agreement(
            exact=None,
            error_over_bound=worst.over_bound if math.isfinite(worst.over_bound) else None,
            max_abs_error=worst.error if math.isfinite(worst.error) else None,
            verdict="wrong" if departed else "agrees",
            diagnosis=why,
        ),
    )


def _compared(
    options: Options, led: _Led, name: str, ours: Worker, setup: Setup, steps: int
) -> Generator[Event, None, Following]:
    """From the initial weights: as many steps as there is time for, or up to a departure."""
    _ask(ours, Connect(setup, name), options)
    exact = led.connect("float64", in_float64(setup))
    rounded = led.connect("float32", setup) if setup.network.dtype == "float32" else None
    following, began = Following(), time.monotonic()
    for step in range(1, steps + 1):
        before = _ask(ours, GetState(), options) if rounded else None
        loss, after = _ask(ours, Follow(), options)
        _, right = _ask(exact, Follow(before), options)
        if before is None or rounded is None:
            following.compare(after, right)
        else:
            _, as_rounded = _ask(rounded, Follow(before), options)
            following.compare_step(before.weights, after, right, as_rounded)
        yield Progress("agreement", f"{name}: step {step} of {steps}, loss {loss:.4f}")
        if following.departed or (step >= LEAST_STEPS and time.monotonic() - began > FOLLOWED_S):
            break
    return following


def _departure(departed: Departure) -> str:
    return (
        f"departs from Keras at step {departed.step}, in {departed.parameter}: off by "
        f"{departed.error:.2g}, where rounding explains {departed.bound:.2g}"
    )


# Rounds


@dataclass
class _Round:
    session: TrainingSession
    options: Options
    number: int

    def run(self) -> Iterator[Event]:
        session = self.session
        timed = ("ok", "wrong") if session.time_wrong else ("ok",)
        names = [name for name in session.arms if session.cells[name].status in timed]
        arms = [(name, False) for name in names]
        subject = session.subject
        if subject in names and session.cells[subject].status == "ok":
            arms.append((subject, True))
        order = random.Random(f"{session.setup.seed} {self.number}").sample(arms, len(arms))
        workers = {arm: _start(session, self.options, arm[0]) for arm in order}
        for worker in workers.values():
            try:
                worker.wait_ready()
            except WorkerLostError:
                continue  # it shows again, with its reason, when it is asked
            worker.stop()
        for place, (name, twin) in enumerate(order):
            worker = workers[name, twin]
            try:
                with worker.token():
                    yield from self._train(worker, name, twin, place)
            except KeyboardInterrupt:
                if name == session.subject:
                    with worker.token():
                        session.state = _interrupted(worker, self.options)
                raise
            except (CellFailedError, WorkerLostError) as error:
                if not twin:
                    said = error.failure.said if isinstance(error, CellFailedError) else ()
                    cell = session.update(name, status="failed", reason=str(error), said=said)
                    yield CellSettled(cell)
            worker.kill()

    def _train(self, worker: Worker, name: str, twin: bool, place: int) -> Iterator[Event]:
        session, options = self.session, self.options
        where = f"round {self.number}: {name}{' once more' if twin else ''}"
        yield Progress("training", f"{where}, warming up")
        setup = replace(session.setup, shuffle=self.number - 1)
        connected = _ask(worker, Connect(setup, name, warm=True), options)
        session.connected = connected
        whole = session.steps or session.epochs * connected.steps_an_epoch
        steps = yield from self._steps(worker, name, whole, where)
        done, seconds = 0, 0.0
        losses: list[float] = []
        while done < steps:
            chunk = math.inf if name in KERAS else CHUNK_S
            part = _ask(worker, Train(steps - done, chunk), options)
            done, seconds = done + part.steps, seconds + part.seconds
            losses += part.losses
            loss = f", loss {losses[-1]:.4f}" if losses else ""
            yield Progress("training", f"{where}, step {done} of {steps}{loss}")
        samples = RoundSamples(
            round=self.number,
            order=(place,),
            loops=done,
            values=(seconds / done,),
            warmups=(),
            metadata={
                "date": datetime.now().isoformat(" "),
                "load_avg_1min": round(usage.load(), 2),
            },
        )
        benchmark = benchmark_name(session.setup.network.name, Step.TRAINING, name)
        benchmark += TWIN if twin else ""
        session.benchmarks[benchmark] = (*session.benchmarks.get(benchmark, ()), samples)
        if twin:
            return
        session.trained.setdefault(name, []).append(Trained(done, seconds, tuple(losses)))
        session.summaries.setdefault(name, []).append(_ask(worker, Summarise(), options))
        if done == session.epochs * connected.steps_an_epoch:
            yield Progress("training", f"{where}, held-out images")
            accuracy = _ask(worker, Accuracy(), options)
            session.accuracies.setdefault(name, []).append(accuracy)
        if name == session.subject:
            session.state = _ask(worker, GetState(), options)

    def _steps(
        self, worker: Worker, name: str, whole: int, where: str
    ) -> Generator[Event, None, int]:
        """All of them, or as many as fit ARM_S; in later rounds as many as in the first."""
        session = self.session
        before = session.trained.get(name)
        if before:
            return before[0].steps
        probed = _ask(worker, Train(PROBED_STEPS, ARM_S[session.effort]), self.options)
        yield Progress("training", f"{where}, {probed.steps} steps tried")
        _ask(worker, Restart(), self.options)
        fit = int(ARM_S[session.effort] * probed.steps / probed.seconds)
        return min(whole, max(fit, LEAST_STEPS))


# One training, to be saved


def train_once(
    session: TrainingSession, options: Options, resumed: State | None
) -> Generator[Event, None, None]:
    """Trains the first arm to the end, without comparison; `session.state` is where it is.

    Close it to stop early: the state of the last chunk of steps is fetched first.
    """
    name = session.subject
    assert name is not None
    worker = _start(session, options, name)
    try:
        yield PhaseStarted("training", 1)
        yield Progress("training", f"{name}: warming up")
        connected = _ask(worker, Connect(session.setup, name, warm=True), options)
        session.connected = connected
        if resumed is not None:
            _refuse_another(resumed, connected.steps_an_epoch)
            _ask(worker, GoOn(resumed), options)
        done = len(resumed.losses) if resumed else 0
        whole = session.steps or session.epochs * connected.steps_an_epoch
        seconds, losses = 0.0, list(resumed.losses if resumed else ())
        first = done
        while done < whole:
            part = _ask(worker, Train(whole - done, CHUNK_S), options)
            if done == first:
                yield PhaseStarted("training", math.ceil((whole - done) / part.steps))
            done, seconds = done + part.steps, seconds + part.seconds
            losses += part.losses
            left = seconds / (done - first) * (whole - done)
            what = f"{name}: step {done} of {whole}, loss {losses[-1]:.4f}"
            yield Progress("training", what, left)
        if done > first:
            session.trained[name] = [Trained(done - first, seconds, tuple(losses))]
            session.summaries[name] = [_ask(worker, Summarise(), options)]
        session.accuracies[name] = [_ask(worker, Accuracy(), options)]
        session.update(name, status="ok")
    finally:
        session.state = _interrupted(worker, options)
        kill_all()


def _refuse_another(resumed: State, steps: int) -> None:
    """What was interrupted goes on with the batches that it had. Raises ConvbenchError."""
    if resumed.batch > steps or len(resumed.losses) != resumed.epoch * steps + resumed.batch:
        raise ConvbenchError(
            f"the weights are those of {len(resumed.losses)} steps, {resumed.epoch} epochs and "
            f"{resumed.batch} batches; expected epochs of {steps} batches, as these images make",
            hint="--resume wants the options that the training had: --data, --images, --batch-size",
        )


def _interrupted(worker: Worker, options: Options) -> State | None:
    """Where a training stands, after the steps that it was asked for last; None if it is gone."""
    try:
        worker.settle(options.timeout_s)
        return worker.ask(GetState(), options.timeout_s)
    except (CellFailedError, WorkerLostError):
        return None  # why, is told by whatever ended the training
