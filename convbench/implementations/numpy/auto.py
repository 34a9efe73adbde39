"""auto: take the NumPy implementation that is fastest on this layer and this machine.

A cost model leaves a few candidates, and a short trial in `prepare` chooses one of them. The result
is kept on disk, so every process of a run and every later run makes the same choice. With
`--no-tune` the cost model alone decides.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.implementations.contract import (
    Costed,
    Float64,
    Implementation,
    Ledger,
    Prepared,
    Stage,
    Staged,
)
from convbench.implementations.registry import REGISTRY
from convbench.machine import tuning
from convbench.problem.layer import Layer, Pass
from convbench.problem.operands import Operands, floats
from convbench.problem.unsupported import Unsupported
from convbench.runtimes.numpy import NumPy

CANDIDATES = (
    "im2col",
    "mec",
    "shift-gemm",
    "winograd",
    "winograd-2x2",
    "depthwise",
    "direct",
    "fft",
)
"""Implementations that `auto` chooses from. It leaves out names that the registry lacks and
implementations that predict no cost."""

WITHIN = 3.0
"""Factor over the lowest predicted time. Candidates with a longer predicted time are not tried."""

AT_MOST = 4
"""Largest number of candidates that are tried."""

TRIAL_S = 0.3
"""Seconds that a trial takes, for all candidates together."""


@dataclass(frozen=True)
class Choice:
    """The implementation that was chosen for a convolution, and how it was chosen.

    `times` has the seconds per call that a trial measured, by the candidate's name.
    """

    took: str
    how: str
    times: dict[str, float] = field(default_factory=dict)

    @property
    def phrase(self) -> str:
        """Phrase of the ledger: `took im2col by a trial (fft takes 2.10 times as long)`."""
        rest = ", ".join(
            f"{name} takes {seconds / self.times[self.took]:.2f} times as long"
            for name, seconds in self.times.items()
            if name != self.took
        )
        return f"took {self.took} {self.how}" + (f" ({rest})" if rest else "")


_CHOICES: dict[tuple[str, bool], Choice] = {}
"""Choices that this process has made, by the convolution and by whether trials were allowed."""

_LOCK = threading.RLock()


class Auto(Implementation):
    name = "auto"
    runtime = NumPy()

    def unsupported(self, layer: Layer, pass_: Pass) -> Unsupported | None:
        reasons = {}
        for name, candidate in _candidates().items():
            reason = candidate.unsupported(layer, pass_)
            if reason is None:
                return None
            reasons[name] = reason
        lacks = dict.fromkeys(key for reason in reasons.values() for key in reason.lacks)
        why = "; ".join(f"{name}: {reason.why}" for name, reason in reasons.items())
        return Unsupported(why, tuple(lacks))

    def chosen(self, layer: Layer, pass_: Pass, threads: int) -> Implementation:
        return _candidates()[choose(layer, pass_, threads).took]

    def exact(self, layer: Layer, pass_: Pass) -> bool:
        """Say whether all candidates are exact. The check asks the chosen one instead."""
        return all(c.exact(layer, pass_) for c in _possible(layer, pass_))

    def error_bound(self, layer: Layer, pass_: Pass, operands: Operands) -> Float64 | None:
        """Return the largest of the candidates' bounds."""
        stated = (c.error_bound(layer, pass_, operands) for c in _possible(layer, pass_))
        bounds = [bound for bound in stated if bound is not None]
        return functools.reduce(np.maximum, bounds) if bounds else None

    def workspace_bytes(self, layer: Layer, pass_: Pass, threads: int) -> int:
        """Return the bytes of the chosen implementation, or before the choice the most of any."""
        chosen = _chosen(layer, pass_, threads)
        names = _shortlist(layer, pass_, threads) if chosen is None else (chosen.took,)
        known = _candidates()
        return max(known[name].workspace_bytes(layer, pass_, threads) for name in names)

    def prepare(self, layer: Layer, pass_: Pass, threads: int) -> Prepared:
        choice = choose(layer, pass_, threads)
        return Taken(_candidates()[choice.took].prepare(layer, pass_, threads), choice)


class Taken:
    """The chosen implementation, ready to run. Its ledger also says how it was chosen."""

    def __init__(self, inner: Prepared, choice: Choice) -> None:
        self.load = inner.load
        self.run = inner.run  # not a method of ours, whose call the clock would see
        self.to_numpy = inner.to_numpy
        self._inner = inner
        outside = (choice.phrase, *inner.ledger.outside)
        self.ledger = Ledger(inner.ledger.inside, outside, choice.took)

    @property
    def buffers(self) -> tuple[NDArray[np.floating[Any]], ...]:
        return self._inner.buffers

    def stages(self) -> Iterable[Stage]:
        """Return the stages of the chosen implementation."""
        return self._inner.stages() if isinstance(self._inner, Staged) else ()


def choose(layer: Layer, pass_: Pass, threads: int) -> Choice:
    """Choose an implementation. The choice for a convolution stays as long as the process lives."""
    with _LOCK:
        choice = _chosen(layer, pass_, threads) or _choose(layer, pass_, threads)
        _CHOICES[_key(layer, pass_, threads)] = choice
        return choice


def _key(layer: Layer, pass_: Pass, threads: int) -> tuple[str, bool]:
    return tuning.convolution(layer, pass_, threads), tuning.trials_allowed()


def _chosen(layer: Layer, pass_: Pass, threads: int) -> Choice | None:
    return _CHOICES.get(_key(layer, pass_, threads))


def _possible(layer: Layer, pass_: Pass) -> list[Costed]:
    return [c for c in _candidates().values() if c.unsupported(layer, pass_) is None]


def _choose(layer: Layer, pass_: Pass, threads: int) -> Choice:
    names = _shortlist(layer, pass_, threads)
    if not tuning.trials_allowed():
        return Choice(names[0], "by the cost model")
    if len(names) == 1:
        return Choice(names[0], "by the cost model, which leaves no other")
    machine, key = tuning.fingerprint(), tuning.convolution(layer, pass_, threads)
    known = tuning.recall(machine, key)
    if known is not None and known.keys() == set(names):
        return Choice(next(iter(known)), "by an earlier trial", known)
    times = tuning.remember(machine, key, _trial(names, layer, pass_, threads))
    return Choice(next(iter(times)), "by a trial", times)


def _trial(names: tuple[str, ...], layer: Layer, pass_: Pass, threads: int) -> dict[str, float]:
    """Measure the seconds per call, the fastest first. All memory is freed afterwards."""
    known, drawn = _candidates(), floats(layer, pass_, seed=0)
    racing: dict[str, Prepared] = {}
    for name in names:
        racing[name] = known[name].prepare(layer, pass_, threads)
        racing[name].load(drawn)
    return tuning.fastest({name: prepared.run for name, prepared in racing.items()}, TRIAL_S)


def _shortlist(layer: Layer, pass_: Pass, threads: int) -> tuple[str, ...]:
    """Return the candidates that may be the fastest, in the order of their predicted time."""
    costs = {
        name: candidate.cost_s(layer, pass_, threads)
        for name, candidate in _candidates().items()
        if candidate.unsupported(layer, pass_) is None
    }
    ranked = sorted(costs, key=costs.__getitem__)
    return tuple(name for name in ranked[:AT_MOST] if costs[name] <= WITHIN * costs[ranked[0]])


def _candidates() -> dict[str, Costed]:
    found = {}
    for name in CANDIDATES:
        if name in REGISTRY.places:
            candidate = REGISTRY.get(name)
            if isinstance(candidate, Costed):
                found[name] = candidate
    return found
