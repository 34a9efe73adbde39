"""Hold how a session is run, as far as that does not change what is measured."""

from __future__ import annotations

from dataclasses import dataclass

from convbench.measure.environment import Environment
from convbench.results.model import Status


@dataclass(frozen=True)
class Options:
    """`environment` is the workers'. `budget_s` is for everything, `timeout_s` for one
    answer of a worker. `time_wrong` times wrong cells too; they are never ranked. `rounds` is how
    many there shall be in the end, None as many as the effort has.

    `comparing` is for telling versions of one code apart: the same time in more and shorter
    visits, all arms on the same CPUs, and the suite's first implementation as the twin everywhere.
    `confirm` adds a plain loop of each cell in a process of its own.

    Not `metering`: cells are only checked.
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
