"""Run an implementation once more under another name, in a process of its own.

As it is (A against A), as another version of its file, or slowed by a known part of its own time:
what a gate compares, and what shows whether a gate can be trusted.
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
    """`of` is what runs: a registered name, or FILE.py:NAME. `delay` is a part of its own time."""

    name: str
    of: str
    delay: float = 0.0


class VariantImplementation(Implementation):
    """The implementation that a variant stands for; its runtime is the variant's alone."""

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
    """Waits after each call, busily, for `delay` times as long as the call took."""

    def __init__(
        self, inner: Prepared, delay: float, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._inner = inner
        self._delay = delay
        self._clock = clock
        self._slowed: list[float] = []  # seconds of each call over its own
        self.buffers = inner.buffers
        self.ledger = Ledger(
            (*inner.ledger.inside, f"a wait of {delay:.3g} times its own time"),
            inner.ledger.outside,
        )

    @property
    def seen_delay(self) -> float:
        """The delay as it came out: the median over all calls since `load`, 0 before the first.

        The median, since a call that lost its CPU while it waited says nothing of the others.
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
