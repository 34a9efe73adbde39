"""Keep what a training knows so far: cells, samples, losses, accuracies, where it is saved."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from convbench.machine.description import Caution, Machine, Software
from convbench.results import file as result_file
from convbench.results.model import (
    SCHEMA,
    ArmTraining,
    Cell,
    ResultFile,
    RoundSamples,
    Step,
    Training,
)
from convbench.results.summary import summarise
from convbench.suites.suite import Suite
from convbench.training.arms import KERAS, Connected, Setup, Summary, Trained, thinned
from convbench.training.following import Departure
from convbench.training.trainer import State
from convbench.training.weights_file import described

MOST_LOSSES = 200
"""Number of losses that are kept of a training. Each is the mean of its part."""


@dataclass
class TrainingSession:
    """What is known of a training so far, and where it is saved."""

    setup: Setup
    arms: tuple[str, ...]
    epochs: int
    steps: int | None
    threads: int
    effort: str
    path: Path
    machine: Machine
    software: Software
    environment: dict[str, str]
    metadata: dict[str, str | int | float]
    tune: bool = True
    time_wrong: bool = False
    cells: dict[str, Cell] = field(default_factory=dict)
    benchmarks: dict[str, tuple[RoundSamples, ...]] = field(default_factory=dict)
    cautions: tuple[Caution, ...] = ()
    followed: dict[str, tuple[int, str, Departure | None]] = field(default_factory=dict)
    trained: dict[str, list[Trained]] = field(default_factory=dict)
    accuracies: dict[str, list[float]] = field(default_factory=dict)
    summaries: dict[str, list[Summary]] = field(default_factory=dict)
    connected: Connected | None = None
    state: State | None = None  # of the first arm that is not Keras, after its last training

    def __post_init__(self) -> None:
        for name in self.arms:
            self.cells[name] = Cell(self.setup.network.name, Step.TRAINING, name, "pending")

    @property
    def subject(self) -> str | None:
        """The first arm that is not Keras."""
        return next((name for name in self.arms if name not in KERAS), None)

    def update(self, name: str, **changes: Any) -> Cell:
        self.cells[name] = replace(self.cells[name], **changes)
        return self.cells[name]

    def result(self) -> ResultFile:
        network = self.setup.network
        bare = ResultFile(
            schema_=SCHEMA,
            suite=Suite(network.name, (), self.arms, (), source=network.source),
            machine=self.machine,
            software=self.software,
            environment=self.environment,
            warnings=self.cautions,
            threads=self.threads,
            effort=self.effort,
            seed=self.setup.seed,
            rounds=0,
            cells=tuple(self.cells.values()),
            tune=self.tune,
            training=self._training(),
        )
        return summarise(bare, self.benchmarks)

    def save(self) -> Path:
        saved = result_file.Saved(self.result(), self.benchmarks, self.metadata)
        self.path = result_file.save(self.path, saved)
        return self.path

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
