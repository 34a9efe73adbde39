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
from convbench.training.trainer import State, Trainer

Array = NDArray[np.floating[Any]]

KERAS = {"keras": False, "keras-xla": True}
"""The ways to run Keras `fit`, and whether they are compiled by XLA."""

WARM_UP_STEPS = 20


@dataclass(frozen=True)
class Setup:
    """What is trained. `data` is a name or a path (`training.data.load`), `images` how many of them
    at most. `weights` are where it starts, None: drawn from `seed`. `shuffle` is which order of the
    images our network sees; Keras's `fit` draws its own every time."""

    network: Network
    data: str
    images: int | None
    seed: int
    weights: dict[str, Array] | None = None
    shuffle: int = 0

    def initial_weights(self) -> dict[str, Array]:
        return self.weights or initial_weights(self.network, self.seed)


@dataclass(frozen=True)
class Connected:
    """What the data is, and whether the implementation only sums products where it is used, as own
    code is taken to do."""

    data: str
    note: str
    images: int
    held_out: int
    steps_an_epoch: int
    exact: bool


@dataclass(frozen=True)
class Trained:
    """Steps that were taken, their time, and the loss of each where it is known."""

    steps: int
    seconds: float
    losses: tuple[float, ...] = ()


@dataclass(frozen=True)
class Summary:
    """Seconds a phase of all timed steps, None for Keras; by layer and pass what `auto` took."""

    phases: dict[str, float] | None
    took: dict[str, str]


class Arm(Protocol):
    """One training. `follow` and `train` go on from wherever it is."""

    connected: Connected

    def follow(self, state: State | None = None) -> tuple[float, dict[str, Array]]:
        """The next step of the seeded batches: the loss before it and the weights after it.

        With `state` it is a step from there, of the same batch.
        """
        ...

    def train(self, steps: int, seconds: float) -> Trained:
        """So many steps, or fewer if `seconds` have passed where that can be told."""
        ...

    def warm_up(self) -> None:
        """Whatever the first steps cost: allocation, trials, tracing, compilation."""
        ...

    def restart(self) -> None:
        """From the initial weights again; what was compiled and allocated stays."""
        ...

    def resume(self, state: State) -> None: ...

    def accuracy(self) -> float: ...

    def summary(self) -> Summary: ...

    def state(self) -> State | None: ...


def connect(setup: Setup, implementation: str, threads: int, registry: Registry) -> Arm:
    """Loads the data and connects the network. Raises TrainingError where that cannot be."""
    network = setup.network
    data = _loaded(setup.data, network.input_shape, network.classes, setup.seed, setup.images)
    if implementation in KERAS:
        return KerasArm(setup, data, implementation, threads)
    return NumpyArm(setup, data, implementation, threads, registry)


_loaded = functools.lru_cache(maxsize=1)(load)
"""A worker that connects another network of the same images has them already."""


class NumpyArm:
    """Our network, with that implementation's convolutions."""

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
        """Also with the last batch of an epoch, if it is smaller."""
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
    """`fit` as people call it: on arrays, shuffled, without a word."""

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
        """Whole epochs, or part of one; it cannot be stopped in between."""
        size, epoch = self._model.network.batch_size, self.connected.steps_an_epoch
        started = time.perf_counter()
        for _ in range(steps // epoch):
            self._model.fit(self._data.images, self._data.labels)
        if rest := steps % epoch:
            self._model.fit(self._data.images[: rest * size], self._data.labels[: rest * size])
        return Trained(steps, time.perf_counter() - started)

    def warm_up(self) -> None:
        """Traces and compiles, also for the last batch of an epoch, if it is smaller."""
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
    return Connected(data.name, data.note, images, held_out, steps, exact)


def _endless(data: Dataset, network: Network, seed: int) -> Iterator[NDArray[np.int64]]:
    """The batches that a Trainer takes, epoch after epoch."""
    epoch = 0
    while True:
        yield from batches(len(data.images), network.batch_size, epoch, seed)
        epoch += 1


def in_float64(setup: Setup) -> Setup:
    weights = setup.initial_weights()
    return replace(
        setup,
        network=replace(setup.network, dtype="float64"),
        weights={name: array.astype(np.float64) for name, array in weights.items()},
    )


def thinned(losses: Sequence[float], most: int) -> tuple[float, ...]:
    """Means of as many equal parts as `most`."""
    values = np.asarray(losses, np.float64)
    if len(values) <= most:
        return tuple(map(float, values))
    return tuple(float(part.mean()) for part in np.array_split(values, most))
