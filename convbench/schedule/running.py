"""Run a session, from whatever it has to the end: describe, agree, time."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import replace

from convbench.measure.process import kill_all
from convbench.schedule.calibrating import describe_once
from convbench.schedule.checking import agree
from convbench.schedule.events import CellSettled, Event, Saved
from convbench.schedule.options import Options
from convbench.schedule.session import Session
from convbench.schedule.timing import measure_rounds


def check(session: Session, options: Options) -> Generator[Event, None, None]:
    """Check every cell of the session, and do nothing else. Nothing is saved."""
    try:
        yield from agree(session, replace(options, metering=False))
    finally:
        kill_all()


def run(session: Session, options: Options) -> Generator[Event, None, None]:
    """Bring the session as far as its effort and the budget allow.

    The result file is saved after the agreement phase and after every (round, layer, pass). Close
    the generator to stop early: its workers are killed, and the saved file stays.
    """
    started = time.monotonic()
    try:
        yield from describe_once(session, options)
        for event in agree(session, options):
            yield event
            if isinstance(event, CellSettled) and (path := session.keep()):
                yield Saved(path)
        yield Saved(session.save())
        yield from measure_rounds(session, options, started)
    finally:
        kill_all()
