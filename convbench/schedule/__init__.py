"""The order of a run: calibrate, check and meter, then time in rounds and blocks; prints nothing.

`run` drives worker processes and yields events. Agreement comes before timing: a wrong cell is
never ranked. While cells are checked and metered the runtimes work side by side; in the timing
phase exactly one arm runs at a time, and every other worker is stopped.
"""

from __future__ import annotations

import time
from collections.abc import Generator

from convbench.measure.process import kill_all
from convbench.schedule.calibrating import describe
from convbench.schedule.checking import agree
from convbench.schedule.effort import EFFORTS
from convbench.schedule.events import Event, Saved
from convbench.schedule.options import Options
from convbench.schedule.session import Session
from convbench.schedule.timing import measure_rounds

__all__ = ["Options", "Session", "describe", "run"]


def run(session: Session, options: Options) -> Generator[Event, None, None]:
    """Brings the session as far as its effort and the budget allow.

    Saves after the agreement phase and after every (round, layer, pass). Close the generator to
    stop early: workers are killed, and what was saved stays.
    """
    started = time.monotonic()
    try:
        if session.machine.calibration is None:
            seconds = EFFORTS[session.effort].calibration_s
            found = yield from describe(options.environment, session.threads, seconds)
            session.machine, session.software = found.machine, found.software
            session.caution(*found.warnings)
        yield from agree(session, options)
        yield Saved(session.save())
        yield from measure_rounds(session, options, started)
    finally:
        kill_all()
