"""Name how much is measured: rounds, visits and the length of each."""

from __future__ import annotations

from dataclasses import dataclass, replace

from convbench.measure.clock import Plan
from convbench.results.model import State

MIN_ROUNDS = 3
"""A budget never brings the rounds under this; then the slowest arms are skipped instead."""

SHORTER = 4
"""How many times as many visits are made, each as many times shorter, where versions of one code
are compared. The quickest samples decide there, and a neighbour should not hold a CPU during all of
them."""


@dataclass(frozen=True)
class Effort:
    """`rounds` of fresh processes, in each `visits` to every arm, in as many sweeps.

    Visits are short and many, so that the arms of a sweep meet the host in the same state: a
    neighbour comes and goes within 0.2 to 2 s. A visit wakes the arm up for `wake_s` at most, and
    takes samples of `sample_s` for `visit_s`; from an arm whose call is slow at least
    `slow_samples`, of one call each.
    """

    name: str
    rounds: int
    visits: int
    visit_s: float
    slow_samples: int
    rss_s: float
    calibration_s: float
    wake_s: float = 0.2
    sample_s: float = 0.0025

    @property
    def in_short_visits(self) -> Effort:
        """The same time in more and shorter visits."""
        return replace(self, visits=SHORTER * self.visits, visit_s=self.visit_s / SHORTER)

    def plan(self, wake_s: float, state: State) -> Plan:
        """A visit to an arm that needs `wake_s` to wake up."""
        return Plan(wake_s, self.sample_s, self.visit_s, self.slow_samples, state)


EFFORTS = {
    effort.name: effort
    for effort in (
        Effort("smoke", 1, 1, 0.020, 1, 0.05, 0.6, wake_s=0.05),
        Effort("quick", 5, 3, 0.015, 1, 0.2, 1.5),
        Effort("standard", 8, 3, 0.020, 1, 0.2, 1.5),
        Effort("rigorous", 16, 8, 0.040, 1, 1.0, 3.0),
    )
}
