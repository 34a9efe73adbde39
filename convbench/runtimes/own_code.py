"""Start people's own code, which runs on NumPy and on whatever else it imports."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar

from convbench.runtimes import runtimes
from convbench.runtimes.contract import Meters, Method, Missing, Runtime
from convbench.runtimes.numpy import array_of, cap_blas, unwritten_is


@dataclass(frozen=True)
class OwnCodeRuntime(Runtime):
    """The runtime of one piece of own code, in a process that nothing else shares."""

    name = "own code"
    module = "numpy"
    packages: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    install = ""

    def missing(self) -> Missing | None:
        """Return None: what is missing shows only when the worker runs the code's file."""
        return None

    def variables(self, threads: int) -> Mapping[str, str]:
        """Return the variables of all runtimes, since the code may import any of them."""
        return _together(each.variables(threads) for each in runtimes())

    def default_variables(self) -> Mapping[str, str]:
        return _together(each.default_variables() for each in runtimes())

    def start(self, threads: int) -> None:
        cap_blas(threads)

    def meters(self) -> Meters:
        """Return the meters that see the arrays of every runtime which the code has imported."""
        known = [each.meters() for each in runtimes() if each.module in sys.modules]
        seen_by: tuple[Method, ...] = ("memray", "tracemalloc")
        return Meters(
            seen_by=tuple(m for m in seen_by if all(m in meters.seen_by for meters in known)),
            variables={k: v for meters in known for k, v in meters.variables.items()},
        )

    def meter_variables(self) -> Mapping[str, str]:
        """Return the variables of all runtimes, since the code's imports are not known yet."""
        return _together(each.meter_variables() for each in runtimes())

    def allocation(self, nbytes: int) -> Callable[[], object]:
        return array_of(nbytes)

    def poison(self, value: float) -> AbstractContextManager[None]:
        return unwritten_is(value)


def _together(each: Iterable[Mapping[str, str]]) -> dict[str, str]:
    return {name: value for variables in each for name, value in variables.items()}
