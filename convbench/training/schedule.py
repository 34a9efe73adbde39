"""Measure trainings: each implementation follows Keras first, then rounds of whole trainings.

A round starts a fresh worker for every arm. The arms take turns in a random order: each connects,
warms up and trains from the initial weights, in the round's order of the images. For each arm, a
round gives its seconds a step and its accuracy.

Workers are started, described and ordered as in schedule.timing. A round is different: an arm has a
worker of its own and is visited once, for all steps of a training. So a lost worker is not
replaced, and there are no sweeps and no budget.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

from convbench.errors import ConvbenchError
from convbench.measure.messages import UnansweredError
from convbench.measure.process import Worker, kill_all
from convbench.results.model import TWIN, RoundSamples, Step, benchmark_name
from convbench.schedule.calibrating import describe_once
from convbench.schedule.effort import EFFORTS
from convbench.schedule.events import CellSettled, Event, PhaseStarted, Progress, Saved
from convbench.schedule.options import Options
from convbench.schedule.session import circumstances
from convbench.training.arms import KERAS, Trained
from convbench.training.checking import LEAST_STEPS, follow_all
from convbench.training.messages import (
    Accuracy,
    Connect,
    GetState,
    GoOn,
    Restart,
    Summarise,
    Train,
)
from convbench.training.session import TrainingSession
from convbench.training.trainer import Source, State
from convbench.training.workers import TrainingWorkers

ARM_S = {"smoke": 1.0, "quick": 3.0, "standard": 20.0, "rigorous": 60.0}
"""Seconds that an arm trains for in a round, by effort. Longer trainings stop there, and the time
of an epoch is extrapolated."""

PROBED_STEPS = 10
"""Number of steps that are tried to tell how many fit into ARM_S."""

CHUNK_S = 0.5
"""Seconds between two reports of progress."""


def train(session: TrainingSession, options: Options) -> Generator[Event, None, None]:
    """Compare all arms with Keras, then train them in rounds.

    The result file is saved after every round. Close the generator to stop early.
    """
    try:
        yield from describe_once(session, options)
        yield from follow_all(session, options)
        yield Saved(session.save())
        rounds = options.rounds or EFFORTS[session.effort].rounds
        arms = len(session.arms) + 1
        yield PhaseStarted("training", rounds * arms * 4)
        workers, began = TrainingWorkers.of(session, options), time.monotonic()
        for number in range(1, rounds + 1):
            for event in _Round(session, options, workers, number).run():
                if isinstance(event, Progress) and number > 1:
                    left = (time.monotonic() - began) / (number - 1) * (rounds - number + 1)
                    event = replace(event, left_s=left)
                yield event
            yield Saved(session.save())
    finally:
        kill_all()


@dataclass
class _Round:
    """One round of trainings: every arm trains once, and the subject once more as its twin."""

    session: TrainingSession
    options: Options
    workers: TrainingWorkers
    number: int

    def run(self) -> Iterator[Event]:
        session = self.session
        names = [n for n in session.arms if session.cells[n].status in self.options.timed]
        arms = [(name, False) for name in names]
        subject = session.subject
        if subject in names and session.cells[subject].status == "ok":
            arms.append((subject, True))
        order = session.random_of(self.number).sample(arms, len(arms))
        crew = self.workers.start_all({arm: session.runtime_of(arm[0]) for arm in order})
        for place, ((name, twin), worker) in enumerate(crew.items()):
            try:
                with worker.token():
                    yield from self._train(worker, name, twin, place)
            except KeyboardInterrupt:
                if name == session.subject:
                    with worker.token():
                        session.state = self.workers.state_of(worker)
                raise
            except UnansweredError as error:
                if not twin:
                    yield CellSettled(session.fail(name, error.failure))
            worker.kill()

    def _train(self, worker: Worker, name: str, twin: bool, place: int) -> Iterator[Event]:
        session, ask = self.session, self.workers.ask
        where = f"round {self.number}: {name}{' once more' if twin else ''}"
        yield Progress("training", f"{where}, warming up")
        setup = replace(session.setup, shuffle=self.number - 1)
        connected = ask(worker, Connect(setup, name, warm=True))
        session.connected = connected
        whole = session.steps or session.epochs * connected.steps_an_epoch
        steps = yield from self._steps(worker, name, whole, where)
        done, seconds = 0, 0.0
        losses: list[float] = []
        while done < steps:
            chunk = math.inf if name in KERAS else CHUNK_S
            part = ask(worker, Train(steps - done, chunk))
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
            metadata=circumstances(),
        )
        benchmark = benchmark_name(session.setup.network.name, Step.TRAINING, name)
        session.add(benchmark + (TWIN if twin else ""), samples)
        if twin:
            return
        session.trained.setdefault(name, []).append(Trained(done, seconds, tuple(losses)))
        session.summaries.setdefault(name, []).append(ask(worker, Summarise()))
        if done == session.epochs * connected.steps_an_epoch:
            yield Progress("training", f"{where}, held-out images")
            accuracy = ask(worker, Accuracy())
            session.accuracies.setdefault(name, []).append(accuracy)
        if name == session.subject:
            session.state = ask(worker, GetState())

    def _steps(
        self, worker: Worker, name: str, whole: int, where: str
    ) -> Generator[Event, None, int]:
        """Return the number of steps that an arm trains for: `whole`, or those that fit ARM_S.

        Later rounds take as many steps as the first.
        """
        session, ask = self.session, self.workers.ask
        before = session.trained.get(name)
        if before:
            return before[0].steps
        probed = ask(worker, Train(PROBED_STEPS, ARM_S[session.effort]))
        yield Progress("training", f"{where}, {probed.steps} steps tried")
        ask(worker, Restart())
        fit = int(ARM_S[session.effort] * probed.steps / probed.seconds)
        return min(whole, max(fit, LEAST_STEPS))


# One training, to be saved


def train_once(
    session: TrainingSession, options: Options, resumed: State | None
) -> Generator[Event, None, None]:
    """Train the subject to the end, without comparison, and leave its state in `session.state`.

    Close the generator to stop early: the state after the last chunk of steps is fetched first.
    Raises ConvbenchError if `resumed` is the state of a training with other images or batches.
    """
    name = session.subject
    assert name is not None
    workers = TrainingWorkers.of(session, options)
    ask, worker = workers.ask, workers.start(session.runtime_of(name))
    try:
        yield PhaseStarted("training", 1)
        yield Progress("training", f"{name}: warming up")
        connected = ask(worker, Connect(session.setup, name, warm=True))
        session.connected = connected
        if resumed is not None:
            _refuse_another(resumed, connected.source, connected.steps_an_epoch)
            ask(worker, GoOn(resumed))
        done = len(resumed.losses) if resumed else 0
        whole = session.steps or session.epochs * connected.steps_an_epoch
        seconds, losses = 0.0, list(resumed.losses if resumed else ())
        first = done
        while done < whole:
            part = ask(worker, Train(whole - done, CHUNK_S))
            if done == first:
                yield PhaseStarted("training", math.ceil((whole - done) / part.steps))
            done, seconds = done + part.steps, seconds + part.seconds
            losses += part.losses
            left = seconds / (done - first) * (whole - done)
            what = f"{name}: step {done} of {whole}, loss {losses[-1]:.4f}"
            yield Progress("training", what, left)
        if done > first:
            session.trained[name] = [Trained(done - first, seconds, tuple(losses))]
            session.summaries[name] = [ask(worker, Summarise())]
        session.accuracies[name] = [ask(worker, Accuracy())]
        session.update(name, status="ok")
    finally:
        session.state = workers.state_of(worker)
        kill_all()


def _refuse_another(resumed: State, source: Source, steps: int) -> None:
    """Raise ConvbenchError if a saved training drew its batches from something else.

    A file of an earlier version does not tell the source. It is refused if its steps do not make
    epochs of `steps` batches.
    """
    if resumed.source is not None:
        if resumed.source == source:
            return
        found, expected = _told(resumed.source), _told(source)
        if found == expected:
            expected = f"the {source.images} images that are given now, which are others"
    elif resumed.batch > steps or len(resumed.losses) != resumed.epoch * steps + resumed.batch:
        found = f"{len(resumed.losses)} steps as {resumed.epoch} epochs and {resumed.batch} batches"
        expected = f"epochs of {steps} batches, as these images make"
    else:
        return
    raise ConvbenchError(
        f"the saved training cannot go on: found {found}, expected {expected}",
        hint="with --resume, give the --data, --images and --batch-size of that training",
    )


def _told(source: Source) -> str:
    return f"{source.images} images in batches of {source.batch_size}"
