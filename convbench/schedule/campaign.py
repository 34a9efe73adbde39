"""Run the gate on pairs of arms whose difference is known, for `convbench noise`.

In every (layer, pass) of a suite, an implementation runs beside itself: once unchanged, and once
slowed by each of some known parts of its own time. Each arm has a process of its own. The verdicts
come from `gate`, after the same looks as in a gate's run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise

from convbench import gate
from convbench.gate import Terms, Verdict
from convbench.implementations.variants import Variant
from convbench.machine.calibration import neighbour_load
from convbench.noise.trials import Level, NoiseRun, Trial
from convbench.results import summary
from convbench.results.file import Saved
from convbench.results.model import SEEN_DELAY, Time, benchmark_name
from convbench.schedule.events import Event
from convbench.schedule.looks import run_and_judge
from convbench.schedule.options import Options
from convbench.schedule.session import Session, Unit
from convbench.suites.suite import Suite


@dataclass(frozen=True)
class Pairs:
    """The implementation `subject`, and its copies whose slowdown is known.

    `slowed` names the copies by the part of its own time by which each is slowed: 0.02 is 2 %
    slower, and 0 is the copy that is as fast as `subject`.
    """

    subject: str
    slowed: dict[float, str]

    @classmethod
    def of(cls, subject: str, injected: Sequence[float]) -> Pairs:
        """Return the pairs of `subject` with an equal copy, and one for each slowdown."""
        names = {0.0: f"{subject} again"}
        names |= {part: f"{subject} +{part * 100:g}%" for part in injected}
        return cls(subject, names)

    @property
    def variants(self) -> tuple[Variant, ...]:
        """The copies of the subject, for a registry."""
        return tuple(Variant(name, self.subject, part) for part, name in self.slowed.items())

    def suite(self, suite: Suite) -> Suite:
        """Return the suite with the pairs added to its implementations.

        Its other implementations stay, because their figures show how sessions differ.
        """
        names = (self.subject, *self.slowed.values(), *suite.implementations)
        return replace(suite, implementations=tuple(dict.fromkeys(names)))


def campaign_run(
    session: Session, options: Options, pairs: Pairs, together: bool = True
) -> Generator[Event, None, NoiseRun]:
    """Measure the pairs from the first round to the last, and return the verdict on each.

    Each pair is a job with one rule. With `together`, jobs that judge all layers at once are tried
    as well.
    """
    started, date = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    load = neighbour_load().share
    jury = _Jury(session, pairs, together)
    yield from run_and_judge(session, options, jury.judge)
    saved = session.saved()
    return NoiseRun(
        date=date,
        first_look_s=jury.times[0] - started,
        seconds=time.monotonic() - started,
        rounds=saved.result.rounds,
        load=load,
        trials=tuple(jury.trials(saved)),
        speedups=tuple(_speedups(saved, pairs)),
        times=tuple(_times(saved, pairs)),
    )


@dataclass(frozen=True)
class _Job:
    """A job with `rules` rules. The one in question is on `unit`, which is slowed by `injected`.

    If there are more rules, they are on units that are not slowed.
    """

    unit: Unit
    injected: float
    rules: int


@dataclass
class _Jury:
    """The judge of every job at every look. A job that the first look decides has no second."""

    session: Session
    pairs: Pairs
    together: bool
    looks: list[dict[_Job, list[Verdict]]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def judge(self, saved: Saved, alpha: float) -> list[Verdict]:
        """Return the verdicts of all jobs at this look, and keep them with its time."""
        self.times.append(time.monotonic())
        found = {**self._alone(saved, alpha), **self._together(saved, alpha)}
        self.looks.append(found)
        return [verdict for verdicts in found.values() for verdict in verdicts]

    @property
    def _units(self) -> list[Unit]:
        """Every (layer, pass) that the subject can compute. Each has one question for each pair."""
        cells = self.session.cells
        return [
            unit
            for unit in self.session.units
            if cells[unit[0].name, unit[1], self.pairs.subject].status != "unsupported"
        ]

    def _alone(self, saved: Saved, alpha: float) -> dict[_Job, list[Verdict]]:
        """Judge each pair as if nothing else had been run."""
        return {
            _Job(unit, part, 1): Terms(versions=(name, self.pairs.subject)).verdicts(
                _only(saved, unit), alpha
            )
            for unit in self._units
            for part, name in self.pairs.slowed.items()
        }

    def _together(self, saved: Saved, alpha: float) -> dict[_Job, list[Verdict]]:
        """Judge all units in one job, in which either none is slowed or one of them is.

        The verdict in question comes first. If no unit is slowed, every verdict is in question, and
        the job is listed under each unit.
        """
        units = self._units
        if len(units) <= 1 or not self.together:
            return {}
        questions = {
            part: Terms(versions=(name, self.pairs.subject)).questions(saved)
            for part, name in self.pairs.slowed.items()
        }
        jobs = {}
        for part, slowed in questions.items():
            for i, unit in enumerate(units):
                others = [question for j, question in enumerate(questions[0.0]) if j != i]
                verdicts = gate.decide([slowed[i], *others], alpha)
                jobs[_Job(unit, part, len(units))] = verdicts
        return jobs

    def trials(self, saved: Saved) -> list[Trial]:
        """Return one trial for each job, with the verdict of the last look at it."""
        return [self._trial(job, saved) for job in self.looks[0]]

    def _trial(self, job: _Job, saved: Saved) -> Trial:
        first = self.looks[0][job]
        looked_again = len(self.looks) > 1 and any(map(gate.is_open, first))
        last = gate.after_second_look(first, self.looks[1][job]) if looked_again else first
        verdict, evidence, before = last[0], last[0].evidence, first[0].evidence
        layer, pass_ = job.unit
        name = benchmark_name(layer.name, pass_, self.pairs.slowed[job.injected])
        seen = [
            float(run.metadata[SEEN_DELAY])
            for run in saved.benchmarks.get(name, ())
            if SEEN_DELAY in run.metadata
        ]
        return Trial(
            layer=layer.name,
            pass_=pass_,
            injected=job.injected,
            seen=statistics.median(seen) if seen else 0.0,
            rules=job.rules,
            outcome=verdict.outcome,
            looks=2 if looked_again else 1,
            slowdown=None if evidence is None else evidence.estimate,
            faster=evidence is not None and evidence.upper_bound < 1,
            detects=None if before is None else before.minimum_detectable,
        )


def _only(saved: Saved, unit: Unit) -> Saved:
    """Return the result as if the run had measured this (layer, pass) alone."""
    layer, pass_ = unit
    cells = tuple(c for c in saved.result.cells if (c.layer, c.pass_) == (layer.name, pass_))
    return replace(saved, result=replace(saved.result, cells=cells))


def _speedups(saved: Saved, pairs: Pairs) -> list[Level]:
    """Return how much faster the subject is than the other implementations of the suite.

    In a suite without others, the ratio of each of its cells to the next takes their place. It
    compares two different computations, too, and sessions disturb it in the same way.
    """
    found = {
        "/".join(key): ratio
        for key, ratio in summary.speedups(saved.result, saved.benchmarks).items()
        if key[2] == pairs.subject
    }
    names = [time.benchmark for time in _times_of(saved, pairs.subject)]
    found = found or {
        f"{arm} over {versus}": summary.ratio_of(saved.benchmarks, arm, versus)
        for arm, versus in pairwise(names)
    }
    return [
        Level(what, ratio.estimate.log, ratio.estimate.error)
        for what, ratio in found.items()
        if ratio.logs
    ]


def _times(saved: Saved, pairs: Pairs) -> list[Level]:
    return [
        Level(time.benchmark, estimate.log, estimate.error)
        for time in _times_of(saved, pairs.subject)
        for estimate in [summary.time_of(saved.benchmarks, time.benchmark)]
    ]


def _times_of(saved: Saved, implementation: str) -> list[Time]:
    cells = [cell for cell in saved.result.cells if cell.implementation == implementation]
    return [cell.time for cell in cells if cell.time is not None]
