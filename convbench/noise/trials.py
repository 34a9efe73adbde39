"""Sum up trials of the gate: is this machine good enough to gate on?

A trial is one verdict on one pair of arms whose true difference is known: none (A against A), or a
slowdown that was put in. The file keeps every trial, and every session's speedups and times, so
that campaigns of several days add up. Figures are derived from these anew each time.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from convbench.compare import Deviations
from convbench.gate import Outcome
from convbench.machine.description import Machine, Software
from convbench.problem.layer import Pass
from convbench.results import stats
from convbench.results.between_runs import TWO_RUNS, Between, Seen, between_runs
from convbench.suites.suite import FILE_NAMES

SCHEMA = "convbench-noise/1"

_CONFIG = {**FILE_NAMES, "allow_inf_nan": False}


@dataclass(frozen=True)
class Trial:
    """One verdict in a job of `rules` rules, all others of which are A against A.

    `injected` is the fraction by which the arm was slowed, 0 for A against A; `seen` is the slowing
    by the worker's own clock. `slowdown` is the gate's estimate, and `faster` says whether the gate
    would claim a speed-up. `detects` is the gate's minimum detectable effect.
    """

    layer: str
    pass_: Pass
    injected: float
    seen: float
    rules: int
    outcome: Outcome
    looks: int
    slowdown: float | None
    faster: bool
    detects: float | None

    __pydantic_config__ = _CONFIG


@dataclass(frozen=True)
class Level:
    """One figure of one session: its log, with the log's standard error within the session."""

    what: str
    log: float
    error: float

    __pydantic_config__ = _CONFIG


@dataclass(frozen=True)
class NoiseRun:
    """One run of the gate on known pairs.

    `first_look_s` and `seconds` reach from its start to the verdicts of its first look and of its
    last one. `load` is the share of the CPUs that other processes took before the run.
    """

    date: str
    first_look_s: float
    seconds: float
    rounds: int
    load: float
    trials: tuple[Trial, ...]
    speedups: tuple[Level, ...]
    times: tuple[Level, ...]

    __pydantic_config__ = _CONFIG


@dataclass(frozen=True)
class NoiseFile:
    """All runs of the gate on one machine. `implementation` is the one that ran against itself."""

    schema_: str
    machine: Machine
    software: Software
    environment: dict[str, str]
    suite: str
    implementation: str
    threads: int
    effort: str
    runs: tuple[NoiseRun, ...] = ()

    __pydantic_config__ = _CONFIG

    @property
    def deviations(self) -> Deviations | None:
        """Difference between two sessions; None where too few have figures in common."""
        speedup = _between_sessions(run.speedups for run in self.runs)
        time = _between_sessions(run.times for run in self.runs)
        if speedup is None or time is None:
            return None
        return Deviations(
            speedup=TWO_RUNS * speedup.deviation,
            time=TWO_RUNS * time.deviation,
            degrees=min(speedup.degrees, time.degrees),
        )


@dataclass(frozen=True)
class Power:
    """Outcomes of the trials with one slowdown, in jobs of `rules` rules.

    `found` counts the trials that were reported as regressed, `missed` those that were said to
    hold, and `faster` those for which a speed-up would have been claimed.
    """

    injected: float
    seen: float
    rules: int
    trials: int
    found: int
    missed: int
    inconclusive: int
    unreliable: int
    faster: int


@dataclass(frozen=True)
class Alarms:
    """Outcomes of jobs of `rules` clean rules. A false alarm is a job with any regression.

    `upper` is the one-sided 95 % upper bound of the rate of false alarms.
    """

    rules: int
    jobs: int
    false_alarms: int
    upper: float
    held: int
    inconclusive: int
    unreliable: int


@dataclass(frozen=True)
class Figures:
    """Figures that a noise file gives."""

    alarms: tuple[Alarms, ...]
    power: tuple[Power, ...]
    detects: float | None
    first_look_s: float
    seconds: float
    deviations: Deviations | None


def figures(file: NoiseFile) -> Figures:
    """Derive the figures of a noise file. Raises ValueError for a file without runs."""
    trials = [trial for run in file.runs for trial in run.trials]
    sizes = sorted({trial.rules for trial in trials})
    slowed = sorted({(trial.injected, trial.rules) for trial in trials if trial.injected})
    detects = [t.detects for t in trials if t.rules == 1 and not t.injected and t.detects]
    return Figures(
        alarms=tuple(_alarms(rules, list(_clean_jobs(file.runs, rules))) for rules in sizes),
        power=tuple(
            _power(part, rules, [t for t in trials if (t.injected, t.rules) == (part, rules)])
            for part, rules in slowed
        ),
        detects=statistics.median(detects) if detects else None,
        first_look_s=statistics.median(run.first_look_s for run in file.runs),
        seconds=statistics.median(run.seconds for run in file.runs),
        deviations=file.deviations,
    )


def _clean_jobs(runs: Iterable[NoiseRun], rules: int) -> Iterator[list[Outcome]]:
    """Yield the outcomes of each A/A job. With one rule each trial is a job, else each run is."""
    for run in runs:
        outcomes = [t.outcome for t in run.trials if t.rules == rules and not t.injected]
        if rules == 1:
            yield from ([outcome] for outcome in outcomes)
        elif outcomes:
            yield outcomes


def _alarms(rules: int, jobs: Sequence[list[Outcome]]) -> Alarms:
    def having(outcome: Outcome) -> int:
        return sum(outcome in job for job in jobs)

    false_alarms = having("regressed")
    return Alarms(
        rules=rules,
        jobs=len(jobs),
        false_alarms=false_alarms,
        upper=stats.proportion_upper(false_alarms, len(jobs)),
        held=sum(set(job) == {"holds"} for job in jobs),
        inconclusive=having("inconclusive"),
        unreliable=having("unreliable"),
    )


def _power(injected: float, rules: int, trials: Sequence[Trial]) -> Power:
    outcomes = [trial.outcome for trial in trials]
    return Power(
        injected=injected,
        seen=statistics.median(trial.seen for trial in trials),
        rules=rules,
        trials=len(trials),
        found=outcomes.count("regressed"),
        missed=outcomes.count("holds"),
        inconclusive=outcomes.count("inconclusive"),
        unreliable=outcomes.count("unreliable"),
        faster=sum(trial.faster for trial in trials),
    )


def _between_sessions(sessions: Iterable[tuple[Level, ...]]) -> Between | None:
    """Derive how much sessions differ in the figures that they share; None where too few do."""
    figures: dict[str, dict[int, Seen]] = {}
    for number, levels in enumerate(sessions):
        for level in levels:
            figures.setdefault(level.what, {})[number] = Seen(level.log, level.error)
    return between_runs(figures.values())
