"""Compute the layers beside the convolution in NumPy, forward and backward.

Activations are (batch, height, width, channels) or (batch, features), C-contiguous. A layer returns
memory of its own, and overwrites it at its next call.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.implementations.numpy.shared.scratch import Scratch
from convbench.implementations.numpy.shared.threads import in_threads
from convbench.problem.layer import Dtype
from convbench.training.network import Place, pooling

Array = NDArray[np.floating[Any]]

ELEMENTS_OF_A_THREAD = 250_000
"""Smallest number of elements for which a thread pays for its start. They take some 80 us.
(Measured with 100,000 instead: a step of 32 images took longer than in one thread, and a step of
128 images took 0.8 of the time.)"""


class ConnectedLayer(ABC):
    """A layer at its place in a network, ready to compute.

    `parameters` and `gradients` are views of the model's vectors, named `kernel` and `bias`.
    `backward` writes the gradients, which are means over the batch, like the loss.
    """

    def __init__(
        self,
        place: Place,
        parameters: dict[str, Array],
        gradients: dict[str, Array],
        dtype: Dtype,
        threads: int,
    ) -> None:
        self.place = place
        self.parameters = parameters
        self.gradients = gradients
        self._threads = threads
        self._scratch = Scratch(dtype)

    @abstractmethod
    def forward(self, x: Array) -> Array:
        """Return the activations of the layer for its input `x`."""

    @abstractmethod
    def backward(self, gradient: Array, to_input: bool) -> Array | None:
        """Write the gradients of the parameters, and return the gradient of the input.

        `gradient` is that of the output of the last `forward`. Without `to_input`, no layer before
        this one has parameters, and None is returned.
        """

    def _in_parts(self, work: Callable[[slice], object], rows: int, elements: int) -> None:
        """Call `work` with slices that make up all rows, in threads if the elements are many."""
        threads = max(1, min(self._threads, rows, elements // ELEMENTS_OF_A_THREAD))

        def part(index: int) -> object:
            return work(slice(rows * index // threads, rows * (index + 1) // threads))

        in_threads(part, threads)


class ConnectedReLU(ConnectedLayer):
    """The layer max(x, 0), whose gradient at 0 is 0, as in TensorFlow.

    np.maximum with an array of zeros takes a third of the time that it takes with the number 0,
    for which NumPy 2.4 has no vector loop (measured: 12.7 instead of 44.5 us for 16 images of
    24x24x16).
    """

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._zeros = np.zeros(self.place.input_shape, self._scratch.dtype)

    def forward(self, x: Array) -> Array:
        y = self._y = self._scratch.array("y", *x.shape)
        zeros = self._zeros
        self._in_parts(lambda rows: np.maximum(x[rows], zeros, out=y[rows]), len(x), x.size)
        return y

    def backward(self, gradient: Array, to_input: bool) -> Array | None:
        if not to_input:
            return None
        y, passed = self._y, self._scratch.array("passed", *gradient.shape)
        self._in_parts(
            lambda rows: np.multiply(gradient[rows], y[rows] > 0, out=passed[rows]), len(y), y.size
        )
        return passed


class ConnectedMaxPooling2D(ConnectedLayer):
    """The layer that returns the largest element of each window.

    If several elements are largest, the gradient goes to the first of them, row by row, as in
    TensorFlow. Padding is -inf, which is never the largest.
    """

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._windows = pooling(self.place)

    def forward(self, x: Array) -> Array:
        self._x = self._padded(x)
        self._y = self._scratch.array("y", len(x), *self.place.output_shape)
        first, *others = self._positions(self._x)
        np.copyto(self._y, first)
        for position in others:
            np.maximum(self._y, position, out=self._y)
        return self._y

    def backward(self, gradient: Array, to_input: bool) -> Array | None:
        if not to_input:
            return None
        whole = self._scratch.array("gradient", *self._x.shape)
        whole[:] = 0
        open_ = np.ones(gradient.shape, bool)
        for x, to in zip(self._positions(self._x), self._positions(whole), strict=True):
            largest = (x == self._y) & open_
            to += gradient * largest
            open_ &= ~largest
        (top, _), (left, _) = self._windows.pads
        height, width = self._windows.input_size
        if whole.shape[1:3] == (height, width):
            return whole
        return np.ascontiguousarray(whole[:, top : top + height, left : left + width])

    def _positions(self, x: Array) -> list[Array]:
        """Return an array for each place in a window, row by row: that element of all windows."""
        (kh, kw), (sh, sw) = self._windows.kernel_size, self._windows.strides
        out_h, out_w = self._windows.output_size
        return [
            x[:, i : i + (out_h - 1) * sh + 1 : sh, j : j + (out_w - 1) * sw + 1 : sw]
            for i in range(kh)
            for j in range(kw)
        ]

    def _padded(self, x: Array) -> Array:
        (top, _), (left, _) = self._windows.pads
        batch, height, width, channels = x.shape
        padded = self._scratch.array("x", batch, *self._windows.padded_size, channels)
        if padded.shape != x.shape:
            padded[:] = -np.inf
        padded[:, top : top + height, left : left + width] = x
        return padded


class ConnectedFlatten(ConnectedLayer):
    """The layer that makes an image a row of features. It returns views and copies nothing."""

    def forward(self, x: Array) -> Array:
        return x.reshape(len(x), -1)

    def backward(self, gradient: Array, to_input: bool) -> Array | None:
        return gradient.reshape(len(gradient), *self.place.input_shape) if to_input else None


class ConnectedDense(ConnectedLayer):
    """The layer x @ kernel + bias, for inputs `x` (batch, features)."""

    def forward(self, x: Array) -> Array:
        self._x = x
        kernel, bias = self.parameters["kernel"], self.parameters.get("bias", 0)
        y = self._scratch.array("y", len(x), kernel.shape[1])
        self._in_parts(lambda rows: np.matmul(x[rows], kernel, out=y[rows]), len(x), x.size)
        y += bias
        return y

    def backward(self, gradient: Array, to_input: bool) -> Array | None:
        x, kernel = self._x, self.parameters["kernel"]
        to_kernel = self.gradients["kernel"]
        self._in_parts(
            lambda rows: np.matmul(x[:, rows].T, gradient, out=to_kernel[rows]),
            len(to_kernel),
            x.size,
        )
        if "bias" in self.gradients:
            np.sum(gradient, axis=0, out=self.gradients["bias"])
        if not to_input:
            return None
        to_x = self._scratch.array("to_x", *x.shape)
        self._in_parts(
            lambda rows: np.matmul(gradient[rows], kernel.T, out=to_x[rows]), len(x), x.size
        )
        return to_x
