"""Run and judge: one look at the rounds and, where that leaves something open, a second.

The looks share the false alarms that a job may have (gate.look_alpha). A second look is taken only
because a verdict is open, never because one is close to what somebody hopes for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace

from convbench import gate
from convbench.gate import Verdict
from convbench.results.file import Saved
from convbench.schedule.effort import EFFORTS
from convbench.schedule.events import Event
from convbench.schedule.options import Options
from convbench.schedule.running import run
from convbench.schedule.session import Session

Judge = Callable[[Saved, float], list[Verdict]]
"""Function from a result and a level of false alarms to the verdicts on that result.

It answers the same questions in the same order each time."""


@dataclass(frozen=True)
class Judged:
    """The final verdicts, and the number of looks that they took."""

    verdicts: tuple[Verdict, ...]
    looks: int


def run_and_judge(
    session: Session, options: Options, judge: Judge
) -> Generator[Event, None, Judged]:
    """Measure and judge; if a verdict is open and time is left, measure more and judge again.

    `options.budget_s`, in seconds, covers both looks.
    """
    started = time.monotonic()
    yield from run(session, options)
    first = judge(session.saved(), gate.look_alpha())
    left_s = None
    if options.budget_s is not None:
        left_s = options.budget_s - (time.monotonic() - started)
    rounds, made = EFFORTS[session.effort].rounds, session.result().rounds
    cut_short = made < rounds
    if not any(map(gate.is_open, first)) or cut_short or (left_s is not None and left_s <= 0):
        return Judged(tuple(first), 1)
    yield from run(session, replace(options, rounds=gate.SECOND_LOOK * rounds, budget_s=left_s))
    if session.result().rounds == made:  # the budget had no room for a round
        return Judged(tuple(first), 1)
    second = judge(session.saved(), gate.look_alpha())
    return Judged(tuple(gate.after_second_look(first, second)), gate.LOOKS)
