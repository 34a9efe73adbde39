"""Share a run's time out: further visits and rounds go where intervals are widest.

These decisions rest on deviations alone and never on a mean. They move no figure, and the intervals
stay valid (stats.estimate).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from convbench.results import stats, summary
from convbench.results.model import ResultFile
from convbench.schedule.effort import MIN_ROUNDS, Effort
from convbench.schedule.session import Session, Unit

Arms = TypeVar("Arms")

NARROW = 0.03
"""Half width of a speedup's interval, as a share of the speedup, below which it gets no extra
visits: 3 %."""

MORE = 2
"""Largest factor by which a (layer, pass) with wide intervals has more sweeps than others."""

SPARE = 0.25
"""Largest number of extra visits for wide intervals, as a share of the visits due in a round."""

LARGE = 100
"""Largest number of (layer, pass)es whose deviations are computed after each round. More of them
would take too long."""


def sweeps_of(
    session: Session, units: Mapping[Unit, Arms], effort: Effort, number: int
) -> dict[Unit, int]:
    """Return how many sweeps each (layer, pass) gets in a round; wide intervals get more."""
    sweeps = dict.fromkeys(units, effort.visits)
    if not MIN_ROUNDS < number <= effort.rounds or len(units) > LARGE:
        return sweeps
    final = stats.t_quantile(0.995, effort.rounds - 1) / effort.rounds**0.5
    widths = {
        unit: final * deviation
        for unit, deviation in _deviations(session).items()
        if unit in units and final * deviation > NARROW
    }
    spare = round(SPARE * len(units) * effort.visits)
    while widths and spare > 0:
        # A round's variance falls as its sweeps grow.
        widest = max(widths, key=lambda unit: widths[unit] * (effort.visits / sweeps[unit]) ** 0.5)
        sweeps[widest] += 1
        spare -= 1
        if sweeps[widest] == MORE * effort.visits:
            del widths[widest]
    return sweeps


def still_wide(session: Session, units: dict[Unit, Arms]) -> dict[Unit, Arms]:
    """Return the (layer, pass)es that have an interval wider than `--precision` asks for."""
    assert session.precision is not None
    wide = summary.wider_than(session.result(), session.benchmarks, session.precision.target)
    names = {key[:2] for key in wide}
    return {unit: arms for unit, arms in units.items() if (unit[0].name, unit[1]) in names}


def _deviations(session: Session) -> dict[Unit, float]:
    """Return how much the speedups of each (layer, pass) vary from round to round.

    The figure is the largest standard deviation of their logarithms.
    """
    result: ResultFile = session.result()
    units = {(unit[0].name, unit[1]): unit for unit in session.units}
    found: dict[Unit, float] = {}
    for key, ratio in summary.speedups(result, session.benchmarks).items():
        unit = units.get((key[0], key[1]))  # type: ignore[arg-type]
        if unit is not None and len(ratio.logs) > 1:
            deviation = ratio.estimate.error * len(ratio.logs) ** 0.5
            found[unit] = max(found.get(unit, 0.0), deviation)
    return found
