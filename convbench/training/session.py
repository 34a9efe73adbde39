"""Keep what a training knows so far: cells, samples, losses, accuracies, where it is saved."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from convbench.measure.messages import Failure
from convbench.results.model import ArmTraining, Cell, ResultFile, Step, Training
from convbench.schedule.session import BaseSession
from convbench.training.arms import KERAS, Connected, Setup, Summary, Trained, thinned
from convbench.training.following import Departure
from convbench.training.trainer import State
from convbench.training.weights_file import described

MOST_LOSSES = 200
"""Largest number of losses that are kept of a training. Each is the mean over a part of it."""


@dataclass(kw_only=True)
class TrainingSession(BaseSession[str]):
    """The state of a training so far. Its suite has no layers, and names the arms.

    It is not resumed from its result file, as other sessions are, but from the weights that
    `--save` wrote, because a training goes on at a step and not at a round. `state` is that of the
    subject after its last training.
    """

    setup: Setup
    epochs: int
    steps: int | None
    followed: dict[str, tuple[int, str, Departure | None]] = field(default_factory=dict)
    trained: dict[str, list[Trained]] = field(default_factory=dict)
    accuracies: dict[str, list[float]] = field(default_factory=dict)
    summaries: dict[str, list[Summary]] = field(default_factory=dict)
    connected: Connected | None = None
    state: State | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.arms:
            self.cells[name] = Cell(self.setup.network.name, Step.TRAINING, name, "pending")

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the implementations that are trained, Keras included."""
        return self.suite.implementations

    @property
    def subject(self) -> str | None:
        """Name of the first arm that is not Keras, or None."""
        return next((name for name in self.arms if name not in KERAS), None)

    def fail(self, name: str, failure: Failure) -> Cell:
        """Settle an arm as failed, and return its cell."""
        return self.update(name, status="failed", reason=failure.reason, said=failure.said)

    def _bare(self) -> ResultFile:
        return replace(super()._bare(), training=self._training())

    def _training(self) -> Training:
        found = self.connected
        return Training(
            network=described(self.setup.network),
            data=found.data if found else self.setup.data,
            note=found.note if found else "",
            images=found.images if found else 0,
            held_out=found.held_out if found else 0,
            epochs=self.epochs,
            steps_an_epoch=found.steps_an_epoch if found else 0,
            arms=tuple(self._arm(name) for name in self.arms),
        )

    def _arm(self, name: str) -> ArmTraining:
        steps, dtype, worst = self.followed.get(name, (0, self.setup.network.dtype, None))
        trained = self.trained.get(name, [])
        summaries = self.summaries.get(name, [])
        all_steps = sum(one.steps for one in trained)
        phases = None
        if summaries and all(one.phases is not None for one in summaries):
            names = summaries[0].phases or {}
            totals = {key: sum((one.phases or {})[key] for one in summaries) for key in names}
            phases = {key: total / all_steps for key, total in totals.items()}
        return ArmTraining(
            implementation=name,
            steps=trained[-1].steps if trained else 0,
            followed=steps,
            followed_in=dtype,
            over_bound=worst.over_bound if worst else None,
            phases=phases,
            losses=thinned(trained[-1].losses, MOST_LOSSES) if trained else (),
            accuracies=tuple(self.accuracies.get(name, ())),
            took=summaries[-1].took if summaries else {},
        )
