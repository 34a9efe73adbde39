"""Confirm figures by plain loops: the same call in a process of its own, while no other runs.

`convbench run --confirm` is for a reader who doubts figures from short visits. The loops are spread
over the rounds of a run, so that a slow spell of the host does not meet all of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from convbench.measure.clock import Plan
from convbench.measure.messages import Sampled, UnansweredError, Visit
from convbench.results.model import PLAIN, benchmark_name
from convbench.schedule.events import Event, Progress, Saved
from convbench.schedule.options import Options
from convbench.schedule.session import CellKey, Session, round_samples
from convbench.schedule.workers import Workers

LOOP_PLAN = Plan(wake_s=0.3, sample_s=0.01, visit_s=0.6, least=3)
"""Plan of a plain loop: 0.3 s of calls without the clock, then 60 samples of 10 ms."""


def confirm(session: Session, options: Options, number: int, rounds: int) -> Iterator[Event]:
    """Run the plain loops that are due after round `number` of `rounds`."""
    timed = [key for key in session.cells if session.rounds_of(benchmark_name(*key))]
    due = [
        key
        for index, key in enumerate(timed)
        if index % rounds == (number - 1) % rounds
        and not session.rounds_of(benchmark_name(*key) + PLAIN)
    ]
    if not due:
        return
    for key in due:
        name = benchmark_name(*key) + PLAIN
        yield Progress("timing", f"round {number}: plain loop of {key[0]} {key[1]} {key[2]}")
        sampled = _plain(session, options, key)
        if sampled is not None:
            session.add(name, round_samples(number, [sampled], (0,)))
    yield Saved(session.save())


def _plain(session: Session, options: Options, key: CellKey) -> Sampled | None:
    """Run one loop in a fresh process, and return its samples.

    Returns None if the loop fails: a cell that keeps failing is reported by its rounds.
    """
    request = Visit(session.layer(key[0]), key[1], key[2], LOOP_PLAN)
    try:
        return Workers.of(session, options).ask_once(session.runtime_of(key[2]), request)
    except UnansweredError:
        return None
