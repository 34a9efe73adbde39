"""Share what prepared NumPy passes have in common: operands in NHWC, threads, their memory."""

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
"""References to an array that only this module has: an attribute, a variable, and an argument."""


class Threaded(ABC):
    """One pass of one layer on threads of our own; a subclass reserves memory and computes."""

    call_bytes = 0  # what a call allocates beside its result

    # Of the operands, those that the pass reads.
    _x: Array
    _kernel: Array
    _error: Array
    _bias: Array | None

    def __init__(self, layer: Layer, threads: int, *inside: str, flops: int | None = None) -> None:
        """`inside` are the ledger's phrases, `flops` what the pass is worth if not the layer's."""
        self._layer = layer
        self._threads = worthwhile(threads, layer.flops if flops is None else flops)
        self._scratch = [Scratch(layer.dtype) for _ in range(self._threads)]
        self._last: Array | None = None  # result
        outside = ("copy of the operands into NHWC", "allocation of the buffers")
        self.ledger = Ledger(tuple(step for step in inside if step), outside)

    @property
    def buffers(self) -> tuple[Array, ...]:
        """Scratch memory, and the last result where nobody else has it any more."""
        own = tuple(array for scratch in self._memory() for array in scratch.buffers)
        last = self._last
        return (*own, last) if last is not None and sys.getrefcount(last) == OURS else own

    @property
    def workspace_bytes(self) -> int:
        """Beside the result."""
        own = (array.nbytes for scratch in self._memory() for array in scratch.buffers)
        return sum(own) + self.call_bytes

    def _memory(self) -> list[Scratch]:
        return self._scratch

    def result(self, *shape: int) -> Array:
        """An array to write the result into: the last one where nobody else has it any more.

        Fresh pages cost as much as the work: 51 MB of them 7 of 10 ms. A view of a result keeps it.
        """
        last = self._last
        if last is None or sys.getrefcount(last) > OURS:
            last = self._last = np.empty(shape, self._layer.dtype)
        return last

    def load(self, operands: Operands) -> None:
        """Keeps the arrays as they are."""
        given = operands.input, operands.kernel, operands.bias, operands.output_gradient
        kept: list[Any] = [None if array is None else operands.own(array) for array in given]
        self._x, self._kernel, self._bias, self._error = kept

    @abstractmethod
    def run(self) -> object: ...

    def stages(self) -> Iterable[Stage]:
        """Those of this pass; none unless a subclass names them."""
        return ()

    def to_numpy(self, result: object) -> Array:
        return np.asarray(result)


class NumpyAlgorithm(Costed):
    """An implementation whose passes are Threaded; to be derived from. It only sums products."""

    runtime = NumPy()

    def exact(self, layer: Layer, pass_: Pass) -> bool:
        return True

    def workspace_bytes(self, layer: Layer, pass_: Pass, threads: int) -> int:
        """What is prepared allocates all that it needs, without touching it."""
        return self.prepare(layer, pass_, threads).workspace_bytes

    @abstractmethod
    def prepare(self, layer: Layer, pass_: Pass, threads: int) -> Threaded: ...


def add_bias(target: Array, bias: Array) -> None:
    """Adds it to a part of the output, (images, rows, columns, filters), in place.

    Row by row: filters are short runs. Measured: 32 images of 26x26x8 take 22 us instead of 71.
    """
    images, rows, columns, filters = target.shape
    if target.strides[2] != filters * target.itemsize:
        target += bias
        return
    lines = target.reshape(images, rows, columns * filters)
    lines += np.tile(bias, columns)


def bias_step(layer: Layer) -> str:
    """The forward pass's last step, if it has one."""
    return "add the bias" if layer.use_bias else ""
