"""The order of a run: calibrate, check and meter, then time in rounds and blocks; prints nothing.

`run` drives worker processes and yields events. Agreement comes before timing: a wrong cell is
never ranked. While cells are checked and metered the runtimes work side by side; in the timing
phase exactly one arm runs at a time, and every other worker is stopped.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from convbench.calibration import neighbour_load, sgemm_rate_in
from convbench.machine import cautions
from convbench.measure.process import Worker, kill_all
from convbench.measure.protocol import Calibrate, Start
from convbench.schedule.checking import agree
from convbench.schedule.effort import EFFORTS
from convbench.schedule.events import Event, PhaseStarted, Progress, Saved
from convbench.schedule.options import Options
from convbench.schedule.session import Session
from convbench.schedule.timing import measure_rounds

__all__ = ["Options", "Session", "calibrate_session", "run"]


def run(session: Session, options: Options) -> Iterator[Event]:
    """Brings the session as far as its effort and the budget allow.

    Saves after the agreement phase and after every (round, layer, pass). Close the generator to
    stop early: workers are killed, and what was saved stays.
    """
    started = time.monotonic()
    try:
        yield from calibrate_session(session, options)
        yield from agree(session, options)
        yield Saved(session.save())
        yield from measure_rounds(session, options, started)
    finally:
        kill_all()


def calibrate_session(session: Session, options: Options) -> Iterator[Event]:
    """Measures the peaks, alone on the machine, and looks for what holds the libraries back."""
    if session.machine.calibration is not None:
        return
    yield PhaseStarted("machine", 2)
    yield Progress("machine", "load of other processes")
    load = neighbour_load()
    yield Progress("machine", "SGEMM, DGEMM, copies, calls and fresh pages")
    worker = Worker(Start("numpy", session.threads, session.seed), options.environment)
    counts = tuple(sorted({1, session.threads, session.machine.logical_cpus}))
    try:
        blas = worker.wait_ready().blas
        request = Calibrate(counts, EFFORTS[session.effort].calibration_s)
        session.machine = replace(
            session.machine, calibration=worker.ask(request, options.timeout_s)
        )
        session.software = replace(session.software, blas=blas)
    finally:
        worker.kill()
    session.caution(
        *cautions(
            session.machine,
            options.environment,
            session.threads,
            sgemm_rate_in,
            load=load,
            blas=session.software.blas,
        )
    )
