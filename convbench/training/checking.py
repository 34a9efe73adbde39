"""Run the agreement phase of a training: each implementation follows Keras, step by step.

schedule.checking is another module because it checks each cell for itself. Here Keras is the
oracle, and its workers take every step beside the worker of the implementation.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator

from convbench.measure.messages import UnansweredError
from convbench.measure.process import Worker
from convbench.results.model import Agreement
from convbench.runtimes.contract import Runtime
from convbench.schedule.events import CellSettled, Event, PhaseStarted, Progress
from convbench.schedule.options import Options
from convbench.training.arms import KERAS, Setup, in_float64
from convbench.training.following import Departure, Following
from convbench.training.messages import Connect, Follow, GetState
from convbench.training.session import TrainingSession
from convbench.training.workers import TrainingWorkers

FOLLOWED = {"smoke": 10}
"""Number of steps that are compared with Keras's, by effort. Others compare FOLLOWED_STEPS."""

FOLLOWED_STEPS = 100
"""Number of steps that are compared with Keras's, unless FOLLOWED has another for the effort."""

FOLLOWED_S = 60.0
"""Seconds after which no further step is compared, once LEAST_STEPS are."""

LEAST_STEPS = 3
"""Smallest number of steps that are compared, and that an arm trains for in a round."""


def follow_all(session: TrainingSession, options: Options) -> Iterator[Event]:
    """Compare every implementation with Keras, if Keras is among the arms."""
    names = [name for name in session.arms if name not in KERAS]
    steps = FOLLOWED.get(session.effort, FOLLOWED_STEPS)
    versus = any(name in KERAS for name in session.arms)
    yield PhaseStarted("agreement", len(names) * (steps + 1))
    workers = TrainingWorkers.of(session, options)
    led = _Led(workers, session.runtime_of("keras"))
    for name in names:
        if not versus:
            session.update(name, status="ok")
            continue
        try:
            yield from _follow(session, workers, led, name, steps)
        except UnansweredError as error:
            session.fail(name, error.failure)
            led.end()  # one of Keras's workers may be lost: the next implementation starts new ones
        yield CellSettled(session.cells[name])
    led.end()
    for name in session.arms:
        if name in KERAS:
            session.update(name, status="ok")


class _Led:
    """The workers of the Keras models to compare with, each started when it is first needed.

    They serve one implementation after the other, because importing TensorFlow takes seconds.
    """

    def __init__(self, workers: TrainingWorkers, keras: Runtime) -> None:
        self._workers, self._keras = workers, keras
        self._crew: dict[str, Worker] = {}

    def connect(self, dtype: str, setup: Setup) -> Worker:
        """Return the worker for `dtype`, whose Keras model stands at the initial weights."""
        if dtype not in self._crew:
            self._crew[dtype] = self._workers.start(self._keras)
        try:
            self._workers.ask(self._crew[dtype], Connect(setup, "keras"))
        except UnansweredError:
            self._crew.pop(dtype).kill()
            raise
        return self._crew[dtype]

    def end(self) -> None:
        """Kill all of the workers."""
        for worker in self._crew.values():
            worker.kill()
        self._crew.clear()


def _follow(
    session: TrainingSession, workers: TrainingWorkers, led: _Led, name: str, steps: int
) -> Iterator[Event]:
    """Compare one implementation with Keras, and settle its cell.

    An implementation that is not exact is compared in float64: see training.following. Own code
    that departs in float32 is compared once more in float64, since it may not be exact either.
    """
    yield Progress("agreement", f"{name}: connecting")
    with workers.one(session.runtime_of(name)) as ours:
        connected = workers.ask(ours, Connect(session.setup, name))
        session.connected = connected
        setup = session.setup if connected.exact else in_float64(session.setup)
        following = yield from _compared(workers, led, name, ours, setup, steps)
        is_own = session.registry.get(name).is_own
        if following.departed and is_own and setup.network.dtype == "float32":
            in_double = in_float64(setup)
            again = yield from _compared(workers, led, name, ours, in_double, steps)
            if not again.departed:
                following, setup = again, in_double
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
    workers: TrainingWorkers, led: _Led, name: str, ours: Worker, setup: Setup, steps: int
) -> Generator[Event, None, Following]:
    """Compare up to `steps` steps from the initial weights, until a departure or FOLLOWED_S."""
    ask = workers.ask
    ask(ours, Connect(setup, name))
    exact = led.connect("float64", in_float64(setup))
    rounded = led.connect("float32", setup) if setup.network.dtype == "float32" else None
    following, began = Following(), time.monotonic()
    for step in range(1, steps + 1):
        before = ask(ours, GetState()) if rounded else None
        loss, after = ask(ours, Follow())
        _, right = ask(exact, Follow(before))
        if before is None or rounded is None:
            following.compare(after, right)
        else:
            _, as_rounded = ask(rounded, Follow(before))
            following.compare_step(before.weights, after, right, as_rounded)
        yield Progress("agreement", f"{name}: step {step} of {steps}, loss {loss:.4f}")
        if following.departed or (step >= LEAST_STEPS and time.monotonic() - began > FOLLOWED_S):
            break
    return following


def _departure(departed: Departure) -> str:
    return (
        f"departs from Keras at step {departed.step}, in {departed.parameter}: it is off by "
        f"{departed.error:.2g}, but rounding explains only {departed.bound:.2g}"
    )
