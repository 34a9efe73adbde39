"""Run an implementation once more under another name, in a process of its own.

The variant is an exact copy (A against A), another version of the code's file, or a copy that is
slowed by a known part of its own time. A gate compares two versions, and trials with copies show
whether the gate can be trusted.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.implementations.contract import Float64, Implementation, Ledger, Prepared
from convbench.problem.layer import Layer, Pass
from convbench.problem.operands import Operands
from convbench.problem.unsupported import Unsupported


@dataclass(frozen=True)
class Variant:
    """An implementation under another name.

    `of` is what runs: a registered name, or FILE.py:NAME. Each call waits for `delay` times as long
    as it took.
    """

    name: str
    of: str
    delay: float = 0.0


class VariantImplementation(Implementation):
    """The implementation behind a variant, with a runtime that no other implementation shares."""

    def __init__(self, variant: Variant, inner: Implementation) -> None:
        self.name = variant.name
        self.runtime = inner.runtime.apart(variant.name)
        self.is_own = inner.is_own
        self._variant = variant
        self._inner = inner

    def fresh(self) -> VariantImplementation:
        return VariantImplementation(self._variant, self._inner.fresh())

    def other_layouts(self) -> Iterator[tuple[str, Implementation]]:
        for options, other in self._inner.other_layouts():
            yield options, VariantImplementation(self._variant, other)

    def unsupported(self, layer: Layer, pass_: Pass) -> Unsupported | None:
        return self._inner.unsupported(layer, pass_)

    def chosen(self, layer: Layer, pass_: Pass, threads: int) -> Implementation:
        chosen = self._inner.chosen(layer, pass_, threads)
        return self if chosen is self._inner else chosen

    def exact(self, layer: Layer, pass_: Pass) -> bool | None:
        return self._inner.exact(layer, pass_)

    def error_bound(self, layer: Layer, pass_: Pass, operands: Operands) -> Float64 | None:
        return self._inner.error_bound(layer, pass_, operands)

    def workspace_bytes(self, layer: Layer, pass_: Pass, threads: int) -> int:
        return self._inner.workspace_bytes(layer, pass_, threads)

    def prepare(self, layer: Layer, pass_: Pass, threads: int) -> Prepared:
        prepared = self._inner.prepare(layer, pass_, threads)
        delay = self._variant.delay
        return Delayed(prepared, delay) if delay else prepared


class Delayed:
    """A Prepared that keeps the CPU busy after each call, for `delay` times the call's own time."""

    def __init__(
        self, inner: Prepared, delay: float, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._inner = inner
        self._delay = delay
        self._clock = clock
        self._slowed: list[float] = []  # seconds of each call over those without the wait
        self.buffers = inner.buffers
        self.ledger = Ledger(
            (*inner.ledger.inside, f"a wait of {delay:.3g} times its own time"),
            inner.ledger.outside,
        )

    @property
    def seen_delay(self) -> float:
        """The delay that was reached: the median over all calls since `load`, or 0 without calls.

        It is the median because a call that lost its CPU while waiting tells nothing about others.
        """
        return statistics.median(self._slowed) - 1 if self._slowed else 0.0

    def load(self, operands: Operands) -> None:
        self._inner.load(operands)
        self._slowed.clear()

    def run(self) -> object:
        clock = self._clock
        start = clock()
        result = self._inner.run()
        own_s = clock() - start
        until = start + own_s * (1 + self._delay)
        now = clock()
        while now < until:
            now = clock()
        self._slowed.append((now - start) / own_s)
        return result

    def to_numpy(self, result: object) -> NDArray[np.floating[Any]]:
        return self._inner.to_numpy(result)
