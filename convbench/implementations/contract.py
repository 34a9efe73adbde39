"""Define what an implementation is: the contract of every way to compute a pass.

An implementation states what it cannot do, whether its arithmetic is exact on integers, and what
memory it expects to need; `prepare` returns a `Prepared`, which computes one pass of one layer as
often as asked. Work that depends on the kernel's values belongs inside `run`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
    """What the clock sees, and what it does not: short phrases in the order in which it happens.

    `took` names the implementation that one which chooses among others took.
    """

    inside: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    took: str | None = None


class WrongResultError(ImplementationError):
    """A result that cannot be that of the pass. `result` is it, or text for what is no array."""

    def __init__(self, message: str, result: NDArray[Any]) -> None:
        super().__init__(message)
        self.result = result


class Prepared(Protocol):
    """One pass of one layer, ready to run: buffers allocated, graphs traced, tuning done."""

    @property
    def buffers(self) -> tuple[NDArray[np.floating[Any]], ...]:
        """Arrays that are reused between calls. The checker fills them with NaN between calls."""
        ...

    @property
    def ledger(self) -> Ledger: ...

    def load(self, operands: Operands) -> None:
        """Copies the operands into arrays of its own, in its native layout; outside the clock.

        Where that layout is theirs, `operands.own(array)` saves the copy if it may be saved.
        """
        ...

    def run(self) -> object:
        """Computes from what was last loaded; returns when the result is complete."""
        ...

    def to_numpy(self, result: object) -> NDArray[np.floating[Any]]:
        """The result of `run` as NHWC, or (kh, kw, in, out) for the kernel gradient.

        Raises WrongResultError for one that cannot be the pass's.
        """
        ...


@runtime_checkable
class Lending(Prepared, Protocol):
    """One that hands its operands to somebody's code, in that code's layouts."""

    @property
    def letters(self) -> dict[str, str]:
        """The axes of `input`, `kernel`, `output_gradient` and `result` as the code has them."""
        ...

    def modified(self) -> tuple[str, ...]:
        """The operands that are not what was loaded any more."""
        ...


class Implementation(Protocol):
    """One way to compute the passes of a layer; to be derived from.

    Implementations of one `runtime` share a worker process. One that `is_own` is people's own code:
    its file is run, and so it is asked anything that runs it, in a worker only; and what it prints,
    warns of and raises is kept for its author.
    """

    name: str
    runtime: Runtime
    is_own: bool = False

    def fresh(self) -> Implementation:
        """The same with state of its own, for one that may remember something between calls."""
        return self

    def other_layouts(self) -> Iterator[tuple[str, Implementation]]:
        """The same with other axes, where nobody said which it has; each with how to say so."""
        return iter(())

    def unsupported(self, layer: Layer, pass_: Pass) -> Unsupported | None:
        """What keeps it from computing this pass of this layer; None where nothing does."""
        ...

    def chosen(self, layer: Layer, pass_: Pass, threads: int) -> Implementation:
        """What computes this: itself, unless it is one that chooses among others.

        What was chosen is checked, by what it says of itself, and not what may have been.
        """
        return self

    def exact(self, layer: Layer, pass_: Pass) -> bool | None:
        """Whether it only sums products, so that integers must come out equal.

        None where that is not known: the check then asks whether integers are off by rounding only.
        """
        ...

    def error_bound(self, layer: Layer, pass_: Pass, operands: Operands) -> Float64 | None:
        """The largest absolute error that each element may have where `exact` is False.

        NHWC, or (kh, kw, in, out) for the kernel gradient. Derived for the algorithm, with its
        source; a constant that was tuned is no bound. None: that of direct sums.
        """
        return None

    def workspace_bytes(self, layer: Layer, pass_: Pass, threads: int) -> int:
        """Predicted bytes beyond operands and result, at the peak of a call."""
        ...

    def prepare(self, layer: Layer, pass_: Pass, threads: int) -> Prepared:
        """Allocates, traces and tunes, outside the clock."""
        ...


StageKind = Literal["copy", "product", "arithmetic"]
"""What a stage does with elements: moves them, multiplies matrices, or computes otherwise."""


@dataclass(frozen=True)
class Stage:
    """A named part of a call that a profile may time: a method that `run` calls on its owner.

    The owner is what was prepared, or an object that it holds. For the time of a profile the owner
    has an attribute of that name which times the method, so the owner needs a `__dict__`. The
    method may be a function that the class holds (`_multiply = staticmethod(np.matmul)`). Several
    methods may be of one stage. Where one stage calls another, the time is the inner one's.
    """

    name: str
    kind: StageKind
    owner: object
    method: str


@runtime_checkable
class Staged(Protocol):
    """A Prepared that names its stages, so that a profile tells what a call's time goes into."""

    def stages(self) -> Iterable[Stage]:
        """Every stage of this pass, in the order in which a table shows them."""
        ...


@runtime_checkable
class Costed(Implementation, Protocol):
    """One that predicts its time, so that `auto` can choose it; to be derived from."""

    def cost_s(self, layer: Layer, pass_: Pass, threads: int) -> float:
        """Predicted seconds a call. What counts is how it compares with other candidates'."""
        ...
