"""Put together the variables of a worker from those of the caller, the runtime and the suite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from convbench.machine.cautions import relevant_environment
from convbench.runtimes import runtimes
from convbench.runtimes.contract import Runtime


@dataclass(frozen=True)
class Environment:
    """What all workers of a session have: the caller's variables, and what a suite changes of them.

    Where several name a variable, later ones of these win: defaults of ours and of the runtime, the
    caller, the runtime, the suite (`changes`, whose None unsets it), and, in a worker that meters
    memory, what the runtime's meters need.
    """

    caller: Mapping[str, str]
    changes: Mapping[str, str | None]

    def of(
        self, runtime: Runtime, threads: int, defaults: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """The variables of a worker. `defaults` are for what nobody else says anything of."""
        ours = {**(defaults or {}), **runtime.default_variables()}
        return self._with({**ours, **self.caller, **runtime.variables(threads)})

    def metering(
        self, runtime: Runtime, threads: int, defaults: Mapping[str, str]
    ) -> dict[str, str]:
        """The variables of a worker that meters memory."""
        return {**self.of(runtime, threads, defaults), **runtime.meter_variables()}

    def of_all(self, threads: int) -> dict[str, str]:
        """The variables of all runtimes' workers together."""
        defaults: dict[str, str] = {}
        variables: dict[str, str] = {}
        for runtime in runtimes():
            defaults |= runtime.default_variables()
            variables |= runtime.variables(threads)
        return self._with({**defaults, **self.caller, **variables})

    def recorded(self, threads: int) -> dict[str, str]:
        """Those of them that change what is measured, for the record of a result file."""
        patterns = [each for runtime in runtimes() for each in runtime.relevant_variables]
        return relevant_environment(self.of_all(threads), patterns)

    def without(self, names: Iterable[str]) -> Environment:
        """The same, with these variables unset."""
        return replace(self, changes={**self.changes, **dict.fromkeys(names)})

    def _with(self, variables: Mapping[str, str]) -> dict[str, str]:
        merged = {**variables, **self.changes}
        return {name: value for name, value in merged.items() if value is not None}
