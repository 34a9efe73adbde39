"""Define what an implementation is: the contract of every way to compute a pass.

An implementation states what it cannot do, whether its arithmetic is exact on integers, and how
much memory it expects to need. Its `prepare` returns a `Prepared`, which computes one pass of one
layer as often as asked. Work that depends on the kernel's values belongs inside `run`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from convbench.errors import ImplementationError
from convbench.problem.layer import Layer, Pass
from convbench.problem.operands import Operands
from convbench.problem.unsupported import Unsupported
from convbench.runtimes.contract import Runtime

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Ledger:
    """The steps inside the clock and those outside, as short phrases in the order of the steps.

    If the implementation chooses among others, `took` is the name of the one that it chose.
    """

    inside: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    took: str | None = None


class WrongResultError(ImplementationError):
    """A result that no pass can have. `result` is the array, or its text if it is no array."""

    def __init__(self, message: str, result: NDArray[Any]) -> None:
        super().__init__(message)
        self.result = result


class Prepared(Protocol):
    """One pass of one layer, ready to run: buffers allocated, graphs traced, tuning done."""

    @property
    def buffers(self) -> tuple[NDArray[np.floating[Any]], ...]:
        """Arrays that calls reuse. The checker fills them with NaN between two calls."""
        ...

    @property
    def ledger(self) -> Ledger: ...

    def load(self, operands: Operands) -> None:
        """Copy the operands into arrays of the native layout, outside the clock.

        If an operand already has that layout, take `operands.own(array)`, which makes a copy only
        if one is needed.
        """
        ...

    def run(self) -> object:
        """Compute from the operands that were loaded last. Return when the result is complete."""
        ...

    def to_numpy(self, result: object) -> NDArray[np.floating[Any]]:
        """Return the result of `run` as NHWC, or (kh, kw, in, out) for the kernel gradient.

        Raises WrongResultError for a result that the pass cannot have.
        """
        ...


@runtime_checkable
class Lending(Prepared, Protocol):
    """A Prepared that passes its operands to people's own code, in that code's layouts."""

    @property
    def letters(self) -> dict[str, str]:
        """Axes of `input`, `kernel`, `output_gradient` and `result`, in the code's order."""
        ...

    def modified(self) -> tuple[str, ...]:
        """Return the names of the operands whose values the code has changed since `load`."""
        ...


class Implementation(Protocol):
    """Base class of the ways to compute the passes of a layer.

    Implementations of one `runtime` share a worker process. `is_own` marks people's own code: only
    a worker runs its file or calls a method that runs it, and what the code prints, warns of and
    raises is kept for its author.
    """

    name: str
    runtime: Runtime
    is_own: bool = False

    def fresh(self) -> Implementation:
        """Return the same implementation with new state, if it may remember earlier calls."""
        return self

    @contextmanager
    def alone(self) -> Iterator[Implementation]:
        """Yield the same implementation with state of its own, which goes with the `with` block."""
        yield self

    def other_layouts(self) -> Iterator[tuple[str, Implementation]]:
        """Yield copies with other axes, each with the options that state them.

        There are none if the user has stated the axes.
        """
        return iter(())

    def unsupported(self, layer: Layer, pass_: Pass) -> Unsupported | None:
        """Return why this pass of this layer cannot be computed, or None if it can."""
        ...

    def chosen(self, layer: Layer, pass_: Pass, threads: int) -> Implementation:
        """Return the implementation that computes this: itself, unless it chooses among others.

        The check then asks the chosen implementation about exactness and bounds, not this one.
        """
        return self

    def exact(self, layer: Layer, pass_: Pass) -> bool | None:
        """Say whether the pass only sums products, so that results on integers must be equal.

        The answer is None if that is not known. The check then accepts rounding errors on integers.
        """
        ...

    def error_bound(self, layer: Layer, pass_: Pass, operands: Operands) -> Float64 | None:
        """Return the largest absolute error that each element may have where `exact` is False.

        The shape is NHWC, or (kh, kw, in, out) for the kernel gradient. The bound is derived for
        the algorithm and names its source; a tuned constant is no bound. None means the bound of
        direct sums.
        """
        return None

    def workspace_bytes(self, layer: Layer, pass_: Pass, threads: int) -> int:
        """Predict the bytes beyond the operands and the result at the peak of a call."""
        ...

    def prepare(self, layer: Layer, pass_: Pass, threads: int) -> Prepared:
        """Allocate, trace and tune, outside the clock."""
        ...


StageKind = Literal["copy", "product", "arithmetic"]
"""Kinds of work of a stage: it moves elements, multiplies matrices, or does other arithmetic."""


@dataclass(frozen=True)
class Stage:
    """A named part of a call that a profile may time: a method that `run` calls on its owner.

    The owner is the Prepared itself or an object that it holds. During a profile the owner gets an
    attribute of the method's name which times the method, so the owner needs a `__dict__`. The
    method may be a function that the class holds (`_multiply = staticmethod(np.matmul)`). Several
    methods may belong to one stage. If one stage calls another, the time counts for the inner one.
    """

    name: str
    kind: StageKind
    owner: object
    method: str


@runtime_checkable
class Staged(Protocol):
    """A Prepared that names its stages, so that a profile can divide a call's time among them."""

    def stages(self) -> Iterable[Stage]:
        """Return every stage of this pass, in the order in which a table shows them."""
        ...


@runtime_checkable
class Costed(Implementation, Protocol):
    """Base class of the implementations that predict their time, so that `auto` can choose them."""

    def cost_s(self, layer: Layer, pass_: Pass, threads: int) -> float:
        """Predict the seconds of a call. Only the comparison with other candidates matters."""
        ...
