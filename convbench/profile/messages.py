"""Ask a worker to take a cell apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from convbench import implementations
from convbench.measure.messages import Request
from convbench.problem.layer import Layer, Pass
from convbench.profile.findings import Counted, Examination, Products

if TYPE_CHECKING:
    from convbench.measure.bench import Bench


@dataclass(frozen=True)
class Examine(Request[Examination]):
    """Take a cell apart: trace it, make it small, replay it piece by piece."""

    layer: Layer
    pass_: Pass
    implementation: str

    def answer(self, bench: Bench) -> Examination:
        from convbench.own_code.saying import is_theirs
        from convbench.profile import experiments

        is_own = implementations.own_code(self.implementation) is not None
        return experiments.examine(
            implementations.get(self.implementation),
            self.layer,
            self.pass_,
            bench.threads,
            bench.seed,
            is_theirs if is_own else _is_ours,
        )


@dataclass(frozen=True)
class TimeCall(Request[float]):
    """Time a call on any layer, roughly, in seconds."""

    layer: Layer
    pass_: Pass
    implementation: str

    def answer(self, bench: Bench) -> float:
        from convbench.profile import experiments

        implementation = implementations.get(self.implementation)
        cell = self.layer, self.pass_, bench.threads, bench.seed
        return experiments.time_call(implementation, *cell)


@dataclass(frozen=True)
class Count(Request[Counted]):
    """Count hardware and software events of a call."""

    layer: Layer
    pass_: Pass
    implementation: str

    def answer(self, bench: Bench) -> Counted:
        from convbench.profile import experiments

        implementation = implementations.get(self.implementation)
        cell = self.layer, self.pass_, bench.threads, bench.seed
        return experiments.count_call(implementation, *cell)


@dataclass(frozen=True)
class TimeProducts(Request[Products]):
    """Time the matrix product that a pass comes to."""

    layer: Layer
    pass_: Pass
    dtypes: tuple[str, ...]

    def answer(self, bench: Bench) -> Products:
        from convbench.profile.products import products

        return products(self.layer, self.pass_, bench.threads, [*self.dtypes])


def _is_ours(file: str) -> bool:
    """Whether a file is one of the built-in implementations'."""
    return file.startswith(implementations.__path__[0])
