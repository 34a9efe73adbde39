"""Change the weights in a step, by Keras's definitions, on one vector of all of them.

Scalars are rounded to the weights' dtype where Keras rounds them: in float32, 1 - beta_2 ** t loses
digits in Keras, and so it does here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.training.network import SGD, Adam, Optimizer

Array = NDArray[np.floating[Any]]


class Update(ABC):
    """An optimiser at work on a vector of weights.

    `state` has the optimiser's vectors by name, of the weights' shape. `steps` counts the steps
    that were taken.
    """

    def __init__(self, weights: Array, names: tuple[str, ...]) -> None:
        self.steps = 0
        self.state = {name: np.zeros_like(weights) for name in names}
        self._weights = weights
        self._scratch = np.empty_like(weights)
        self._another = np.empty_like(weights)

    def step(self, gradients: Array) -> None:
        """Change the weights in place by one step."""
        self.steps += 1
        self._step(gradients)

    @abstractmethod
    def _step(self, gradients: Array) -> None: ...


class SGDUpdate(Update):
    """Gradient descent, as `network.SGD` defines it."""

    def __init__(self, weights: Array, optimizer: SGD) -> None:
        super().__init__(weights, ("momentum",) if optimizer.momentum else ())
        self._optimizer = optimizer

    def _step(self, gradients: Array) -> None:
        given, weights = self._optimizer, self._weights
        change = np.multiply(gradients, given.learning_rate, out=self._scratch)
        if given.momentum:
            kept = _by_way_of_float32(given.momentum)
            momentum = self.state["momentum"]
            momentum *= kept
            momentum -= change
            if not given.nesterov:
                weights += momentum
                return
            weights += np.multiply(momentum, kept, out=self._another)
        weights -= change


class AdamUpdate(Update):
    """Adam, as `network.Adam` defines it."""

    def __init__(self, weights: Array, optimizer: Adam) -> None:
        super().__init__(weights, ("momentum", "velocity"))
        self._optimizer = optimizer

    def _step(self, gradients: Array) -> None:
        given, scratch, another = self._optimizer, self._scratch, self._another
        mean, square = self.state["momentum"], self.state["velocity"]
        number = self._weights.dtype.type
        steps = number(self.steps)
        beta_1 = number(_by_way_of_float32(given.beta_1))
        beta_2 = number(_by_way_of_float32(given.beta_2))
        one_less_beta_1, one_less_beta_2 = 1 - np.power(beta_1, steps), 1 - np.power(beta_2, steps)
        rate = number(given.learning_rate) * np.sqrt(one_less_beta_2) / one_less_beta_1

        np.subtract(gradients, mean, out=scratch)
        scratch *= 1 - given.beta_1
        mean += scratch
        np.multiply(gradients, gradients, out=scratch)
        scratch -= square
        scratch *= 1 - given.beta_2
        square += scratch
        np.sqrt(square, out=scratch)
        scratch += given.epsilon
        np.multiply(mean, rate, out=another)
        another /= scratch
        self._weights -= another


def _by_way_of_float32(value: float) -> float:
    """Round a setting as Keras does for some settings, whatever the dtype of the weights."""
    return float(np.float32(value))


def update_of(optimizer: Optimizer, weights: Array) -> Update:
    """Return an optimiser that changes these weights."""
    if isinstance(optimizer, SGD):
        return SGDUpdate(weights, optimizer)
    return AdamUpdate(weights, optimizer)
