"""Put together the variables of a worker from those of the caller, the runtime and the suite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from convbench.machine.cautions import relevant_environment
from convbench.runtimes import runtimes
from convbench.runtimes.contract import Runtime


@dataclass(frozen=True)
class Environment:
    """The variables that a session's workers start from: the caller's, and a suite's changes.

    A variable may be set in several places. The last of these wins: our defaults, the runtime's
    defaults, the caller, the runtime, the suite (`changes`; None unsets a variable), and, in a
    worker that meters memory, the needs of the runtime's meters.
    """

    caller: Mapping[str, str]
    changes: Mapping[str, str | None]

    def of(
        self, runtime: Runtime, threads: int, defaults: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """Return the variables of a worker. `defaults` are for variables that nobody else sets."""
        ours = {**(defaults or {}), **runtime.default_variables()}
        return self._with({**ours, **self.caller, **runtime.variables(threads)})

    def metering(
        self, runtime: Runtime, threads: int, defaults: Mapping[str, str]
    ) -> dict[str, str]:
        """Return the variables of a worker that meters memory."""
        return {**self.of(runtime, threads, defaults), **runtime.meter_variables()}

    def of_all(self, threads: int) -> dict[str, str]:
        """Return the variables of the workers of all runtimes together."""
        defaults: dict[str, str] = {}
        variables: dict[str, str] = {}
        for runtime in runtimes():
            defaults |= runtime.default_variables()
            variables |= runtime.variables(threads)
        return self._with({**defaults, **self.caller, **variables})

    def recorded(self, threads: int) -> dict[str, str]:
        """Return those variables of all workers that change figures, for the result file."""
        patterns = [each for runtime in runtimes() for each in runtime.relevant_variables]
        return relevant_environment(self.of_all(threads), patterns)

    def without(self, names: Iterable[str]) -> Environment:
        """Return the same environment with these variables unset."""
        return replace(self, changes={**self.changes, **dict.fromkeys(names)})

    def _with(self, variables: Mapping[str, str]) -> dict[str, str]:
        merged = {**variables, **self.changes}
        return {name: value for name, value in merged.items() if value is not None}
