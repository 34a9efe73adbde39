"""Hold how a session is run, as far as that does not change what is measured."""

from __future__ import annotations

from dataclasses import dataclass

from convbench.measure.environment import Environment
from convbench.results.model import Status


@dataclass(frozen=True)
class Options:
    """How a session is run.

    Workers start with `environment`. `budget_s` limits the whole run, or a check without anything
    else, and `timeout_s` one answer of a worker, both in seconds. `time_wrong` also times wrong
    cells, which are never ranked. `rounds` is the number of rounds that the session shall have in
    the end; None leaves it to the effort.

    `comparing` tells versions of one code apart: the same time is spent in more and shorter visits,
    all arms run on the same CPUs, and the suite's first implementation has the twin everywhere.
    `confirm` adds a plain loop of each cell in a process of its own. Without `metering`, cells are
    only checked.
    """

    environment: Environment
    budget_s: float | None = None
    timeout_s: float = 300.0
    time_wrong: bool = False
    rounds: int | None = None
    comparing: bool = False
    confirm: bool = False
    metering: bool = True

    @property
    def timed(self) -> tuple[Status, ...]:
        """Statuses of the cells that are timed."""
        return ("ok", "wrong") if self.time_wrong else ("ok",)
