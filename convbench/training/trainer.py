"""Train a model on its data, from and to a state that can be saved and resumed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.errors import TrainingError
from convbench.training.data import Dataset, batches
from convbench.training.model import Model
from convbench.training.network import Network
from convbench.training.phases import Phase

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Source:
    """What batches are drawn from: the number of images, their checksum, and the batch size."""

    images: int
    checksum: int
    batch_size: int


@dataclass(frozen=True)
class State:
    """Where a training stands: after `epoch` whole epochs and `batch` batches of the next one.

    `weights` and each vector of `optimizer` are given by parameter. `losses` has one loss for each
    step. `seed`, `shuffle` and the epoch decide the batches of `source`, so that a training that is
    resumed ends where it would have ended anyway. Files of earlier versions do not tell the source.
    """

    weights: dict[str, Array]
    optimizer: dict[str, dict[str, Array]]
    seed: int
    epoch: int = 0
    batch: int = 0
    losses: tuple[float, ...] = ()
    shuffle: int = 0
    source: Source | None = None


@dataclass
class Trainer:
    """A model and its data. `step` takes it over the data, batch by batch and epoch after epoch.

    Drawing a batch counts as the phase `data`.
    """

    model: Model
    data: Dataset
    seed: int
    shuffle: int = 0
    epoch: int = 0
    batch: int = 0
    losses: list[float] = field(default_factory=list)
    _batches: Iterator[NDArray[np.int64]] | None = field(default=None, init=False, repr=False)

    def step(self) -> float:
        """Take the next step, and return the loss before it."""
        phases = self.model.phases
        phases.start()
        if self._batches is None:
            self._batches = self._rest_of_the_epoch()
        index = next(self._batches)
        images, labels = self.data.images[index], self.data.labels[index]
        images = images.astype(self.model.network.dtype, copy=False)
        phases.lap(Phase.DATA)
        loss = self.model.step(images, labels)
        self.losses.append(loss)
        self.batch += 1
        if self.batch == self.steps_an_epoch:
            self.epoch, self.batch, self._batches = self.epoch + 1, 0, None
        return loss

    @property
    def steps_an_epoch(self) -> int:
        """Number of batches in an epoch. The last one may be smaller."""
        return -(-len(self.data.images) // self.model.network.batch_size)

    @property
    def source(self) -> Source:
        """What the batches are drawn from."""
        return source_of(self.data, self.model.network)

    def accuracy(self) -> float:
        """Return the fraction of the held-out images whose label has the largest logit."""
        size = self.model.network.batch_size
        images, labels = self.data.held_out_images, self.data.held_out_labels
        right = 0
        for start in range(0, len(images), size):
            batch = images[start : start + size].astype(self.model.network.dtype, copy=False)
            found = self.model.logits(batch).argmax(axis=1)
            right += int((found == labels[start : start + size]).sum())
        return right / len(images)

    @property
    def state(self) -> State:
        """Copy of where the training stands."""
        model = self.model
        return State(
            {name: array.copy() for name, array in model.parameters.items()},
            {
                name: {key: array.copy() for key, array in model.by_parameter(vector).items()}
                for name, vector in model.update.state.items()
            },
            self.seed,
            self.epoch,
            self.batch,
            tuple(self.losses),
            self.shuffle,
            self.source,
        )

    def restore(self, state: State) -> None:
        """Go on from a state. Raises TrainingError if it is another network's or optimiser's."""
        model = self.model
        model.set_weights(state.weights)
        if state.optimizer.keys() != model.update.state.keys():
            raise TrainingError(
                "the state of the optimiser is another optimiser's: found "
                f"{_listed(state.optimizer)}, expected {_listed(model.update.state)}"
            )
        for name, vector in model.update.state.items():
            for key, array in model.by_parameter(vector).items():
                np.copyto(array, state.optimizer[name][key])
        self.seed, self.shuffle = state.seed, state.shuffle
        self.epoch, self.batch = state.epoch, state.batch
        self.losses = list(state.losses)
        model.update.steps = len(state.losses)
        self._batches = None

    def _rest_of_the_epoch(self) -> Iterator[NDArray[np.int64]]:
        size = self.model.network.batch_size
        all_ = batches(len(self.data.images), size, self.epoch, self.seed, self.shuffle)
        for _ in range(self.batch):
            next(all_)
        return all_


def source_of(data: Dataset, network: Network) -> Source:
    """Return what the batches of a network are drawn from."""
    return Source(len(data.images), data.checksum, network.batch_size)


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(names) or "nothing"
