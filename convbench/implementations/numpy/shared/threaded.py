"""Define the base classes of the NumPy algorithms: operands in NHWC, threads, and their memory."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.implementations.contract import Costed, Ledger, Stage
from convbench.implementations.numpy.shared.scratch import Scratch
from convbench.implementations.numpy.shared.threads import worthwhile
from convbench.problem.layer import Layer, Pass
from convbench.problem.operands import Operands
from convbench.runtimes.numpy import NumPy

Array = NDArray[np.floating[Any]]

OURS = 3
"""Reference count of an array that nobody but this module has. The references are an attribute, a
variable, and the argument of sys.getrefcount."""


class Threaded(ABC):
    """One pass of one layer on threads of our own. A subclass reserves memory and computes."""

    call_bytes = 0  # bytes that a call allocates beside its result

    # `load` sets those of the operands that the pass reads.
    _x: Array
    _kernel: Array
    _error: Array
    _bias: Array | None

    def __init__(self, layer: Layer, threads: int, *inside: str, flops: int | None = None) -> None:
        """Take the layer, and as many of the threads as pay.

        `inside` are the ledger's phrases. `flops` is the work of the pass, if it differs from the
        layer's FLOPs.
        """
        self._layer = layer
        self._threads = worthwhile(threads, layer.flops if flops is None else flops)
        self._scratch = [Scratch(layer.dtype) for _ in range(self._threads)]
        self._last: Array | None = None  # the last result
        outside = ("copy of the operands into NHWC", "allocation of the buffers")
        self.ledger = Ledger(tuple(step for step in inside if step), outside)

    @property
    def buffers(self) -> tuple[Array, ...]:
        """Scratch memory, and the last result if nobody else refers to it any more."""
        own = tuple(array for scratch in self._memory() for array in scratch.buffers)
        last = self._last
        return (*own, last) if last is not None and sys.getrefcount(last) == OURS else own

    @property
    def workspace_bytes(self) -> int:
        """Bytes of the buffers and of what a call allocates, without the result."""
        own = (array.nbytes for scratch in self._memory() for array in scratch.buffers)
        return sum(own) + self.call_bytes

    def _memory(self) -> list[Scratch]:
        return self._scratch

    def result(self, *shape: int) -> Array:
        """Return an array to write the result into.

        The last result is reused if nobody else refers to it any more, not even by a view. New
        pages cost as much as the work: 7 of 10 ms for a result of 51 MB (measured).
        """
        last = self._last
        if last is None or sys.getrefcount(last) > OURS:
            last = self._last = np.empty(shape, self._layer.dtype)
        return last

    def load(self, operands: Operands) -> None:
        """Keep the arrays in their layout."""
        given = operands.input, operands.kernel, operands.bias, operands.output_gradient
        kept: list[Any] = [None if array is None else operands.own(array) for array in given]
        self._x, self._kernel, self._bias, self._error = kept

    @abstractmethod
    def run(self) -> object: ...

    def stages(self) -> Iterable[Stage]:
        """Return the stages of this pass. There are none unless a subclass names them."""
        return ()

    def to_numpy(self, result: object) -> Array:
        return np.asarray(result)


class NumpyAlgorithm(Costed):
    """Base class of the implementations whose passes are Threaded. They only sum products."""

    runtime = NumPy()

    def exact(self, layer: Layer, pass_: Pass) -> bool:
        return True

    def workspace_bytes(self, layer: Layer, pass_: Pass, threads: int) -> int:
        """Return the bytes that `prepare` allocates. Nothing touches them, so no page is used."""
        return self.prepare(layer, pass_, threads).workspace_bytes

    @abstractmethod
    def prepare(self, layer: Layer, pass_: Pass, threads: int) -> Threaded: ...


def add_bias(target: Array, bias: Array) -> None:
    """Add the bias to a part of the output, (images, rows, columns, filters), in place.

    The bias is added to whole rows, since the filters alone are short runs: 32 images of 26x26x8
    take 22 us instead of 71 (measured).
    """
    images, rows, columns, filters = target.shape
    if target.strides[2] != filters * target.itemsize:
        target += bias
        return
    lines = target.reshape(images, rows, columns * filters)
    lines += np.tile(bias, columns)


def bias_step(layer: Layer) -> str:
    """Return the ledger's phrase for adding the bias. It is empty if the layer has none."""
    return "add the bias" if layer.use_bias else ""
