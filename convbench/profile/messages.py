"""Ask a worker to take a cell apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from convbench.implementations import contract
from convbench.measure.messages import Answer, Request
from convbench.problem.layer import Layer, Pass
from convbench.profile.findings import Counted, Examination, Products

if TYPE_CHECKING:
    from convbench.implementations.contract import Prepared
    from convbench.measure.bench import Bench


@dataclass(frozen=True)
class CellRequest(Request[Answer]):
    """Ask something about one cell. A subclass says what is asked."""

    layer: Layer
    pass_: Pass
    implementation: str

    def _loaded(self, bench: Bench) -> Prepared:
        return bench.loaded(self.layer, self.pass_, self.implementation)


@dataclass(frozen=True)
class Examine(CellRequest[Examination]):
    """Take a cell apart: trace it, shrink it, and replay it piece by piece."""

    def answer(self, bench: Bench) -> Examination:
        from convbench.own_code.saying import is_theirs
        from convbench.profile import experiments

        implementation = bench.registry.get(self.implementation)
        return experiments.examine(
            implementation,
            self.layer,
            self.pass_,
            bench.threads,
            bench.seed,
            is_theirs if implementation.is_own else _is_ours,
        )


@dataclass(frozen=True)
class TimeCall(CellRequest[float]):
    """Time a call on any layer roughly: the answer is the median of several samples, in seconds."""

    def answer(self, bench: Bench) -> float:
        from convbench.profile.experiments import seconds_of

        return seconds_of(self._loaded(bench).run)


@dataclass(frozen=True)
class Count(CellRequest[Counted]):
    """Count the hardware and software events of a warm call."""

    def answer(self, bench: Bench) -> Counted:
        from convbench.profile.counters import counted
        from convbench.profile.experiments import seconds_of

        run = self._loaded(bench).run
        return counted(run, seconds_of(run))


@dataclass(frozen=True)
class TimeProducts(Request[Products]):
    """Time the matrix product that a pass amounts to."""

    layer: Layer
    pass_: Pass
    dtypes: tuple[str, ...]

    def answer(self, bench: Bench) -> Products:
        from convbench.profile.products import products

        return products(self.layer, self.pass_, bench.threads, [*self.dtypes])


def _is_ours(file: str) -> bool:
    """Tell whether a file belongs to the built-in implementations."""
    return file.startswith(str(Path(contract.__file__).parent))
