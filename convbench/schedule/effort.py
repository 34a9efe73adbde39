"""Name how much is measured: rounds, visits and the length of each."""

from __future__ import annotations

from dataclasses import dataclass, replace

from convbench.measure.clock import Plan
from convbench.results.model import State

MIN_ROUNDS = 3
"""Smallest number of rounds that a budget leaves. A smaller budget skips the slowest arms."""

SHORTER = 4
"""Factor by which visits become more numerous and shorter if versions of one code are compared.
The quickest samples decide such a comparison, and a neighbour is less likely to hold a CPU during
all of many short visits."""


@dataclass(frozen=True)
class Effort:
    """How much is measured: `rounds` rounds of fresh processes, with `visits` sweeps in each.

    A sweep visits every arm once. Visits are short and many, so that the arms of a sweep meet the
    host in the same state: a neighbour comes and goes within 0.2 to 2 s. A visit wakes the arm up
    for at most `wake_s` seconds, and then takes samples of `sample_s` seconds for `visit_s`
    seconds. An arm with slow calls gives at least `slow_samples` samples, of one call each. Memory
    is metered for `rss_s` seconds a cell, and the machine's peaks for `calibration_s` in all.
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
        """The effort that takes the same time, in more and shorter visits."""
        return replace(self, visits=SHORTER * self.visits, visit_s=self.visit_s / SHORTER)

    def plan(self, wake_s: float, state: State) -> Plan:
        """Return the plan of a visit to an arm that needs `wake_s` seconds to wake up."""
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
"""Efforts by name."""
