"""Build a network that trains: connect its layers, hold its weights, take its steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.errors import TrainingError
from convbench.implementations.contract import Implementation
from convbench.implementations.numpy.auto import Auto
from convbench.implementations.numpy.shared.threaded import NumpyAlgorithm
from convbench.implementations.numpy.shared.threads import in_threads
from convbench.training.convolution import ConnectedConv2D
from convbench.training.layers import (
    ConnectedDense,
    ConnectedFlatten,
    ConnectedLayer,
    ConnectedMaxPooling2D,
    ConnectedReLU,
)
from convbench.training.loss import softmax_cross_entropy
from convbench.training.network import (
    Conv2D,
    Dense,
    Flatten,
    Kind,
    MaxPooling2D,
    Network,
    Place,
    ReLU,
    Shape,
)
from convbench.training.optimizers import update_of
from convbench.training.phases import Phase, Phases

Array = NDArray[np.floating[Any]]
Labels = NDArray[np.int64]

PIECE = 64
"""Largest number of images that a thread takes through the network at a time."""

OTHERS: dict[type[Kind], type[ConnectedLayer]] = {
    ReLU: ConnectedReLU,
    MaxPooling2D: ConnectedMaxPooling2D,
    Flatten: ConnectedFlatten,
    Dense: ConnectedDense,
}
"""Classes that compute the layers beside the convolution."""


class Replica:
    """The layers of a network with memory of their own, for one thread's part of a batch.

    `parameters` are shared with the model. `gradients` belong to the replica, and are those of the
    part that it computed last.
    """

    def __init__(
        self,
        network: Network,
        implementation: Implementation,
        threads: int,
        parameters: Mapping[str, Array],
    ) -> None:
        self.phases = Phases()
        self.gradient = np.zeros(network.parameter_count, network.dtype)
        self.sum = np.zeros_like(self.gradient)
        self.gradients = _views(self.gradient, network.parameters)
        self.layers = [
            self._connected(place, network, implementation, threads, parameters)
            for place in network.places
        ]
        self.first = next(i for i, layer in enumerate(self.layers) if layer.parameters)

    def _connected(
        self,
        place: Place,
        network: Network,
        implementation: Implementation,
        threads: int,
        parameters: Mapping[str, Array],
    ) -> ConnectedLayer:
        names = {name: f"{place.name}/{name}" for name in place.parameters}
        own = {name: parameters[full] for name, full in names.items()}
        gradients = {name: self.gradients[full] for name, full in names.items()}
        given = (place, own, gradients, network.dtype, threads)
        if isinstance(place.kind, Conv2D):
            return ConnectedConv2D(*given, implementation, self.phases)
        return OTHERS[type(place.kind)](*given)

    def prepare(self, images: int, training: bool) -> None:
        """Prepare the convolutions for parts of `images` images.

        Replicas are prepared one after the other, because trials of algorithms are timed.
        """
        for index, layer in enumerate(self.layers):
            if isinstance(layer, ConnectedConv2D):
                layer.prepare(images, training, to_input=index > self.first)

    def forward(self, images: Array) -> Array:
        """Return the outputs of the last layer, (images, classes)."""
        x = images
        for layer in self.layers:
            x = layer.forward(x)
            self.phases.lap(Phase.OTHER_LAYERS)
        return x

    def add(self, images: Array, labels: Labels, batch: int) -> float:
        """Add the gradient of some images to `sum`. Return what they add to the batch's loss."""
        loss, gradient = softmax_cross_entropy(self.forward(images), labels, batch)
        for index in range(len(self.layers) - 1, self.first - 1, -1):
            back = self.layers[index].backward(gradient, to_input=index > self.first)
            if back is not None:
                gradient = back
            self.phases.lap(Phase.OTHER_LAYERS)
        self.sum += self.gradient
        return loss


class Model:
    """A network whose convolutions one implementation computes, in `threads` threads.

    The weights, the gradients and each of the optimiser's states are one vector. Parameters are
    views of it, in the order of `network.parameters`.

    If the implementation is one of convbench's own, each thread takes its part of the batch through
    the whole network, in pieces of at most PIECE images. The output of one layer is then in the
    core's cache when the next layer reads it, and no thread waits in between. Other implementations
    get the whole batch, as their authors expect.
    """

    def __init__(
        self,
        network: Network,
        implementation: Implementation,
        threads: int,
        weights: Mapping[str, Array],
    ) -> None:
        self.network = network
        self._weights = np.empty(network.parameter_count, network.dtype)
        self.parameters = _views(self._weights, network.parameters)
        self.update = update_of(network.optimizer, self._weights)
        self.set_weights(weights)
        self._splits = isinstance(implementation, NumpyAlgorithm | Auto)
        given = (network, implementation, 1 if self._splits else threads, self.parameters)
        self.replicas = [Replica(*given) for _ in range(threads if self._splits else 1)]
        self._ready: set[tuple[int, bool]] = set()

    @property
    def gradients(self) -> dict[str, Array]:
        """The gradients of the last step, by parameter."""
        return self.by_parameter(self.replicas[0].sum)

    @property
    def is_exact(self) -> bool:
        """Whether every convolution only sums products, in the algorithms that are chosen."""
        piece = self._pieces(self.network.batch_size)[0][0]
        return all(
            layer.is_exact(piece.stop - piece.start, to_input=index > self.replicas[0].first)
            for index, layer in enumerate(self.replicas[0].layers)
            if isinstance(layer, ConnectedConv2D)
        )

    @property
    def phases(self) -> Phases:
        """The phases of the first thread, with the time that it waits for the others."""
        return self.replicas[0].phases

    def step(self, images: Array, labels: Labels) -> float:
        """Take one step, and return the loss before it.

        `images` are (batch, height, width, channels), and `labels` are (batch,).
        """
        losses = [0.0] * len(self.replicas)

        def work(replica: Replica, thread: int, piece: slice) -> None:
            losses[thread] += replica.add(images[piece], labels[piece], len(images))

        for replica in self.replicas:
            replica.sum[:] = 0
        self._in_pieces(work, len(images), training=True)
        for other in self.replicas[1:]:
            self.replicas[0].sum += other.sum
        self.update.step(self.replicas[0].sum)
        self.phases.lap(Phase.OPTIMISER)
        return sum(losses)

    def logits(self, images: Array) -> Array:
        """Return the outputs of the last layer, (batch, classes)."""
        found = np.empty((len(images), self.network.classes), self.network.dtype)

        def work(replica: Replica, thread: int, piece: slice) -> None:
            found[piece] = replica.forward(images[piece])

        self._in_pieces(work, len(images), training=False)
        return found

    def _in_pieces(
        self, work: Callable[[Replica, int, slice], None], images: int, training: bool
    ) -> None:
        """Call `work` with a replica, its number, and a slice of the images, for all images."""
        pieces = self._pieces(images)
        for size in {piece.stop - piece.start for of_thread in pieces for piece in of_thread}:
            if (size, training) not in self._ready:
                for replica in self.replicas:
                    replica.prepare(size, training)
                self._ready.add((size, training))
                self.phases.start()

        def thread(number: int) -> None:
            replica = self.replicas[number]
            if number:  # the clock of the first replica has run since the step began
                replica.phases.start()
            for piece in pieces[number]:
                work(replica, number, piece)

        if self._splits:
            in_threads(thread, len(pieces))
        else:
            thread(0)
        self.phases.lap(Phase.WAITING)

    def _pieces(self, images: int) -> list[list[slice]]:
        """Return the pieces of a batch of `images` images, for each thread that gets any."""
        if not self._splits:
            return [[slice(0, images)]]
        threads = min(len(self.replicas), images)
        parts = []
        for start, stop in pairwise(images * i // threads for i in range(threads + 1)):
            count = -(-(stop - start) // PIECE)
            edges = [start + (stop - start) * i // count for i in range(count + 1)]
            parts.append([slice(*edge) for edge in pairwise(edges)])
        return parts

    def by_parameter(self, vector: Array) -> dict[str, Array]:
        """Return the views of each parameter into a vector of the weights' size."""
        return _views(vector, self.network.parameters)

    def set_weights(self, weights: Mapping[str, Array]) -> None:
        """Copy weights in. Raises TrainingError if their names or shapes are another network's."""
        expected = self.network.parameters
        found = {name: array.shape for name, array in weights.items()}
        if found != expected:
            wrong = sorted(
                name for name in found | expected if found.get(name) != expected.get(name)
            )
            told = "; ".join(
                f"{name}: found {found.get(name, 'none')}, expected {expected.get(name, 'none')}"
                for name in wrong
            )
            raise TrainingError(f"these are not weights of {self.network.name}: {told}")
        for name, array in weights.items():
            np.copyto(self.parameters[name], array)


def initial_weights(network: Network, seed: int) -> dict[str, Array]:
    """Draw weights as Keras does by default: kernels after Glorot and Bengio, and biases of 0.

    Kernels are uniform in the limits of equation 16 of Glorot and Bengio, Understanding the
    difficulty of training deep feedforward neural networks (2010). The values are those of float32
    in any dtype, so that a float64 network starts equal to a float32 one.
    """
    weights: dict[str, Array] = {}
    parameters = [
        (f"{place.name}/{kind}", kind, shape)
        for place in network.places
        for kind, shape in place.parameters.items()
    ]
    for index, (name, kind, shape) in enumerate(parameters):
        if kind == "bias":
            weights[name] = np.zeros(shape, network.dtype)
            continue
        field = math.prod(shape[:-2])
        limit = math.sqrt(6 / (field * shape[-2] + field * shape[-1]))
        draw = np.random.default_rng([seed, index]).uniform(-limit, limit, shape)
        weights[name] = draw.astype(np.float32).astype(network.dtype)
    return weights


def _views(vector: Array, shapes: Mapping[str, Shape]) -> dict[str, Array]:
    views, start = {}, 0
    for name, shape in shapes.items():
        size = math.prod(shape)
        views[name] = vector[start : start + size].reshape(shape)
        start += size
    return views
