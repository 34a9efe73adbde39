"""A network that trains: its layers connected, its weights, and its steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.errors import TrainingError
from convbench.implementations.contract import Implementation
from convbench.implementations.threads import one_blas_thread
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

OTHERS: dict[type[Kind], type[ConnectedLayer]] = {
    ReLU: ConnectedReLU,
    MaxPooling2D: ConnectedMaxPooling2D,
    Flatten: ConnectedFlatten,
    Dense: ConnectedDense,
}


class Model:
    """A network whose convolutions an implementation computes, with that many threads.

    Weights, gradients and the optimiser's state are each one vector; parameters are views of it, in
    the order of `network.parameters`.
    """

    def __init__(
        self,
        network: Network,
        implementation: Implementation,
        threads: int,
        weights: Mapping[str, Array],
    ) -> None:
        self.network = network
        self.phases = Phases()
        self._weights = np.empty(network.parameter_count, network.dtype)
        self._gradients = np.zeros_like(self._weights)
        self.parameters = _views(self._weights, network.parameters)
        self.gradients = _views(self._gradients, network.parameters)
        self.update = update_of(network.optimizer, self._weights)
        self.set_weights(weights)
        self.layers = [self._connect(p, implementation, threads) for p in network.places]
        self._first = next(i for i, layer in enumerate(self.layers) if layer.parameters)

    def _connect(
        self, place: Place, implementation: Implementation, threads: int
    ) -> ConnectedLayer:
        own = [f"{place.name}/{name}" for name in place.parameters]
        parameters = {name.rpartition("/")[2]: self.parameters[name] for name in own}
        gradients = {name.rpartition("/")[2]: self.gradients[name] for name in own}
        given = (place, parameters, gradients, self.network.dtype, threads)
        if isinstance(place.kind, Conv2D):
            return ConnectedConv2D(*given, implementation, self.phases)
        return OTHERS[type(place.kind)](*given)

    def step(self, images: Array, labels: Labels) -> float:
        """One update; returns the loss before it. `images` are (batch, height, width, channels)."""
        with one_blas_thread():
            loss = self._forward_and_backward(images, labels)
        self.update.step(self._gradients)
        self.phases.lap(Phase.OPTIMISER)
        return loss

    def _forward_and_backward(self, images: Array, labels: Labels) -> float:
        """Dense layers too leave BLAS one thread: another would spin when it is done (OpenBLAS: for
        0.1 s) on the CPU that the convolution's threads need."""
        loss, gradient = softmax_cross_entropy(self.logits(images), labels)
        for index in range(len(self.layers) - 1, self._first - 1, -1):
            back = self.layers[index].backward(gradient, to_input=index > self._first)
            if back is not None:
                gradient = back
            self.phases.lap(Phase.OTHER_LAYERS)
        return loss

    def logits(self, images: Array) -> Array:
        """What the last layer gives: (batch, classes)."""
        x = images
        for layer in self.layers:
            x = layer.forward(x)
            self.phases.lap(Phase.OTHER_LAYERS)
        return x

    def by_parameter(self, vector: Array) -> dict[str, Array]:
        """Views of a vector of the weights' size."""
        return _views(vector, self.network.parameters)

    def set_weights(self, weights: Mapping[str, Array]) -> None:
        """Raises TrainingError for arrays that are not this network's."""
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
            raise TrainingError(f"weights of another network than {self.network.name}: {told}")
        for name, array in weights.items():
            np.copyto(self.parameters[name], array)


def initial_weights(network: Network, seed: int) -> dict[str, Array]:
    """Keras's defaults: kernels by Glorot and Bengio (Understanding the difficulty of training deep
    feedforward neural networks, 2010, equation 16), uniform; biases 0. float32 values in any dtype,
    so that networks of both start equal.
    """
    weights: dict[str, Array] = {}
    for index, (name, shape) in enumerate(network.parameters.items()):
        if name.endswith("/bias"):
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
