"""Train in a worker: our network on an implementation, or Keras's, by the same steps."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from convbench.implementations.registry import Registry
from convbench.training.convolution import ConnectedConv2D
from convbench.training.data import Dataset, batches, load
from convbench.training.keras_model import KerasModel
from convbench.training.model import Model, initial_weights
from convbench.training.network import Network
from convbench.training.phases import Phase
from convbench.training.trainer import Source, State, Trainer, source_of

Array = NDArray[np.floating[Any]]

KERAS = {"keras": False, "keras-xla": True}
"""Ways to run Keras `fit`, and whether XLA compiles them."""

WARM_UP_STEPS = 20
"""Largest number of full batches that warm Keras up."""


@dataclass(frozen=True)
class Setup:
    """What is trained, on which images, and from which weights.

    `data` is a name or a path (see `training.data.load`), and `images` limits how many of its
    images are used. `weights` are the initial ones; None draws them from `seed`. `shuffle` numbers
    the order in which our network sees the images; Keras's `fit` draws its own order every time.
    """

    network: Network
    data: str
    images: int | None
    seed: int
    weights: dict[str, Array] | None = None
    shuffle: int = 0

    def initial_weights(self) -> dict[str, Array]:
        """Return the weights that the training starts from, by parameter."""
        return self.weights or initial_weights(self.network, self.seed)


@dataclass(frozen=True)
class Connected:
    """The data of a connected network, and whether its implementation is `exact`.

    An exact one only sums products in the layers where it is used. Own code is taken to be exact.
    """

    data: str
    note: str
    images: int
    held_out: int
    steps_an_epoch: int
    source: Source
    exact: bool


@dataclass(frozen=True)
class Trained:
    """The number of steps that were taken, their time, and their losses, if these are known."""

    steps: int
    seconds: float
    losses: tuple[float, ...] = ()


@dataclass(frozen=True)
class Summary:
    """Where the time of all timed steps went, and what `auto` chose.

    `phases` has the seconds of each phase, and is None for Keras. `took` has the implementation
    that was chosen, by layer and pass.
    """

    phases: dict[str, float] | None
    took: dict[str, str]


class Arm(Protocol):
    """One training in a worker. `follow` and `train` go on from where it stands."""

    connected: Connected

    def follow(self, state: State | None = None) -> tuple[float, dict[str, Array]]:
        """Take the next step of the seeded batches. Return the loss before it, the weights after.

        With `state`, the step starts from that state, with the same batch.
        """
        ...

    def train(self, steps: int, seconds: float) -> Trained:
        """Take `steps` steps, or fewer if `seconds` pass. Keras cannot be stopped in between."""
        ...

    def warm_up(self) -> None:
        """Pay what only the first steps cost: allocation, trials, tracing, compilation."""
        ...

    def restart(self) -> None:
        """Go back to the initial weights. Compiled functions and allocated memory stay."""
        ...

    def resume(self, state: State) -> None:
        """Go on from a saved state. Keras cannot: it raises TypeError."""
        ...

    def accuracy(self) -> float:
        """Return the fraction of the held-out images that is classified right."""
        ...

    def summary(self) -> Summary:
        """Return where the time of the steps went, and what was chosen."""
        ...

    def state(self) -> State | None:
        """Return where the training stands, or None for Keras, which keeps its own state."""
        ...


def connect(setup: Setup, implementation: str, threads: int, registry: Registry) -> Arm:
    """Load the data and connect the network. Raises TrainingError if one of them fails."""
    network = setup.network
    data = _loaded(setup.data, network.input_shape, network.classes, setup.seed, setup.images)
    if implementation in KERAS:
        return KerasArm(setup, data, implementation, threads)
    return NumpyArm(setup, data, implementation, threads, registry)


_loaded = functools.lru_cache(maxsize=1)(load)
"""Function like `load` that keeps the last dataset, for the next network of the same images."""


class NumpyArm:
    """Our network, whose convolutions one implementation computes."""

    def __init__(
        self,
        setup: Setup,
        data: Dataset,
        implementation: str,
        threads: int,
        registry: Registry,
    ) -> None:
        network = setup.network
        found = registry.get(implementation)
        weights = setup.initial_weights()
        self._trainer = Trainer(
            Model(network, found, threads, weights), data, setup.seed, setup.shuffle
        )
        self._start = self._trainer.state
        exact = self._trainer.model.is_exact
        self.connected = _connected(data, network, exact)

    def follow(self, state: State | None = None) -> tuple[float, dict[str, Array]]:
        loss = self._trainer.step()
        return loss, {name: a.copy() for name, a in self._trainer.model.parameters.items()}

    def train(self, steps: int, seconds: float) -> Trained:
        trainer = self._trainer
        first = len(trainer.losses)
        started = time.perf_counter()
        for _ in range(steps):
            trainer.step()
            if time.perf_counter() - started > seconds:
                break
        seconds = time.perf_counter() - started
        return Trained(len(trainer.losses) - first, seconds, tuple(trainer.losses[first:]))

    def warm_up(self) -> None:
        """Take a step of a full batch, and one of an epoch's last batch, if that is smaller."""
        size, images = self._trainer.model.network.batch_size, self._trainer.data.images
        for count in {size, len(images) % size or size}:
            self._trainer.model.step(
                images[:count].astype(self._trainer.model.network.dtype),
                self._trainer.data.labels[:count],
            )

    def restart(self) -> None:
        self._trainer.restore(self._start)
        self._trainer.model.phases.seconds = dict.fromkeys(Phase, 0.0)

    def resume(self, state: State) -> None:
        self._trainer.restore(state)

    def accuracy(self) -> float:
        return self._trainer.accuracy()

    def summary(self) -> Summary:
        model = self._trainer.model
        took = {
            f"{layer.place.name} {pass_}": name
            for layer in model.replicas[0].layers
            if isinstance(layer, ConnectedConv2D)
            for pass_, name in layer.took.items()
        }
        return Summary({str(k): v for k, v in model.phases.seconds.items()}, took)

    def state(self) -> State | None:
        return self._trainer.state


class KerasArm:
    """Keras's `fit` as people call it: on arrays, shuffled, and silent."""

    def __init__(self, setup: Setup, data: Dataset, way: str, threads: int) -> None:
        network = setup.network
        weights = setup.initial_weights()
        self._model = KerasModel(network, threads, weights, KERAS[way])
        self._data, self._weights = data, weights
        self._order = _endless(data, network, setup.seed)
        self._start = self._model.optimizer_state
        self.connected = _connected(data, network, exact=True)

    def follow(self, state: State | None = None) -> tuple[float, dict[str, Array]]:
        if state is not None:
            self._model.go_on_from(state)
        index = next(self._order)
        images = self._data.images[index].astype(self._model.network.dtype, copy=False)
        loss = self._model.step(images, self._data.labels[index])
        return loss, self._model.parameters

    def train(self, steps: int, seconds: float) -> Trained:
        """Train for whole epochs and the rest of `steps`. `fit` cannot be stopped in between."""
        size, epoch = self._model.network.batch_size, self.connected.steps_an_epoch
        started = time.perf_counter()
        for _ in range(steps // epoch):
            self._model.fit(self._data.images, self._data.labels)
        if rest := steps % epoch:
            self._model.fit(self._data.images[: rest * size], self._data.labels[: rest * size])
        return Trained(steps, time.perf_counter() - started)

    def warm_up(self) -> None:
        """Trace and compile for a full batch, and for an epoch's last batch, if that is smaller."""
        size, count = self._model.network.batch_size, len(self._data.images)
        some = min(count, WARM_UP_STEPS * size) // size * size + count % size
        self._model.fit(self._data.images[:some], self._data.labels[:some])
        self.accuracy()

    def restart(self) -> None:
        self._model.set_weights(self._weights)
        self._model.optimizer_state = self._start

    def resume(self, state: State) -> None:
        raise TypeError("Keras keeps its own state")

    def accuracy(self) -> float:
        right = 0
        images, labels = self._data.held_out_images, self._data.held_out_labels
        size = self._model.network.batch_size
        for start in range(0, len(images), size):
            found = self._model.logits(images[start : start + size]).argmax(axis=1)
            right += int((found == labels[start : start + size]).sum())
        return right / len(images)

    def summary(self) -> Summary:
        return Summary(None, {})

    def state(self) -> State | None:
        return None


def _connected(data: Dataset, network: Network, exact: bool) -> Connected:
    images, held_out = len(data.images), len(data.held_out_images)
    steps = -(-images // network.batch_size)
    source = source_of(data, network)
    return Connected(data.name, data.note, images, held_out, steps, source, exact)


def _endless(data: Dataset, network: Network, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield the batches that a Trainer takes, epoch after epoch."""
    epoch = 0
    while True:
        yield from batches(len(data.images), network.batch_size, epoch, seed)
        epoch += 1


def in_float64(setup: Setup) -> Setup:
    """Return the same training in float64, from the same initial weights."""
    weights = setup.initial_weights()
    return replace(
        setup,
        network=replace(setup.network, dtype="float64"),
        weights={name: array.astype(np.float64) for name, array in weights.items()},
    )


def thinned(losses: Sequence[float], most: int) -> tuple[float, ...]:
    """Return at most `most` losses. If there are more, each is the mean of an equal part."""
    values = np.asarray(losses, np.float64)
    if len(values) <= most:
        return tuple(map(float, values))
    return tuple(float(part.mean()) for part in np.array_split(values, most))
