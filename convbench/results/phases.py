"""Tell calm visits from disturbed ones by the probes beside them, and set the disturbed ones aside.

The probes do not see the arm, so that leaving out visits by their probes does not favour quick
samples. It changes what is measured from "the machine with whatever its neighbours do" to "the
machine while it is calm". Every sample stays in the result file.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import replace

from convbench.results.model import LOAD, Benchmarks, Phases, Probe, RoundSamples

CALM = 1.3
"""Ratio to the calm machine's time above which the interpreter's loop tells of a disturbed visit,
on any CPU, before or after the visit. (Measured: a calm loop varies by a factor of 1.1, a neighbour
slows it by 1.5 to 1.9.)"""

CALM_QUANTILE = 0.05
"""Quantile of the loops on the quickest CPU in a whole run that stands for the calm machine."""


def calm_loop_s(benchmarks: Benchmarks) -> float | None:
    """Return the seconds that the loop takes when the machine is calm; None without probes."""
    quickest = sorted(
        probe.quickest_loop_s
        for runs in benchmarks.values()
        for run in runs
        for pair in run.probes
        for probe in pair
    )
    return quickest[int(CALM_QUANTILE * len(quickest))] if quickest else None


def is_disturbed(pair: Iterable[Probe], calm_s: float) -> bool:
    """Return whether a neighbour was there before or after a visit."""
    return any(probe.slowest_loop_s > CALM * calm_s for probe in pair)


def with_calm(benchmarks: Benchmarks) -> Benchmarks:
    """Return the benchmarks with the calm visits of each round filled in (RoundSamples.calm)."""
    calm_s = calm_loop_s(benchmarks)
    if calm_s is None:
        return benchmarks
    return {
        name: tuple(replace(run, calm=_calm(run, calm_s)) for run in runs)
        for name, runs in benchmarks.items()
    }


def phases(benchmarks: Benchmarks) -> Phases | None:
    """Count the disturbed visits, and those of them that are set aside; None without probes."""
    calm_s = calm_loop_s(benchmarks)
    if calm_s is None:
        return None
    all_runs = [run for runs in benchmarks.values() for run in runs if run.probes]
    loads = [float(run.metadata[LOAD]) for run in all_runs if LOAD in run.metadata]
    return Phases(
        visits=sum(len(run.probes) for run in all_runs),
        disturbed=sum(is_disturbed(pair, calm_s) for run in all_runs for pair in run.probes),
        set_aside=sum(
            len(run.visits) - len(calm) for run in all_runs if (calm := _calm(run, calm_s))
        ),
        load=statistics.median(loads) if loads else None,
    )


def _calm(run: RoundSamples, calm_s: float) -> tuple[int, ...]:
    """Return the calm visits of a round that has disturbed ones too; empty where all are alike."""
    calm = tuple(index for index, pair in enumerate(run.probes) if not is_disturbed(pair, calm_s))
    return calm if len(calm) < len(run.visits) else ()
