"""Run the agreement phase: check every cell, then meter it, each runtime in its own processes.

The runtimes work side by side, because no time that is taken here goes into the result.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from convbench.agreement.diagnosis.search import with_explanation
from convbench.errors import ImplementationError
from convbench.implementations.contract import Implementation
from convbench.machine.description import Caution, available_memory
from convbench.measure.messages import (
    CellFailedError,
    Check,
    Checked,
    Failure,
    Meter,
    Refused,
)
from convbench.measure.process import WorkerLostError, kill_all
from convbench.problem.layer import Layer, Pass
from convbench.problem.unsupported import Unsupported
from convbench.results.model import Cell, CellLedger, Memory, Status
from convbench.runtimes.contract import Runtime
from convbench.schedule.effort import EFFORTS
from convbench.schedule.events import CellSettled, Event, PhaseStarted, Progress
from convbench.schedule.explaining import explain
from convbench.schedule.options import Options
from convbench.schedule.session import CellKey, Session
from convbench.schedule.workers import Workers
from convbench.suites.suite import KERAS_WAYS

GIB = 2**30

OPERAND_COPIES, RESULT_COPIES, STATED_COPIES = 6, 20, 8
"""How many copies of the operands and of the result a check holds in memory, at most.

Operands are drawn twice, loaded, and kept in float64. Results are those of three calls; two draws
each add, in float64, what is expected, how far off it may be, and the errors. An implementation
that states a bound on its own errors adds STATED_COPIES of the result. Measured on 1 GiB: 5.3, 19.9
and 7 copies."""

STATUS_OF_VERDICT: dict[str, Status] = {
    "agrees": "ok",
    "wrong": "wrong",
    "mistrusted": "skipped",
}
"""Status of a cell by the verdict on it. A cell whose check proves nothing is not timed."""

LANE_CELLS = 100
"""Smallest number of cells for which a further worker of the same runtime pays for its start."""

SLEEPY_BLAS = {"OPENBLAS_THREAD_TIMEOUT": "4"}
"""Variable that puts idle OpenBLAS threads to sleep at once, which leaves the cores to other
workers. No result is timed here, so the time to wake the threads up does not matter."""


@dataclass(frozen=True)
class _Lane:
    """Cells of one runtime that one worker process checks, or meters, one after the other."""

    runtime: Runtime
    metering: bool
    keys: tuple[CellKey, ...]


@dataclass(frozen=True)
class _Started:
    """The news that a lane begins a cell."""

    lane: _Lane
    key: CellKey


class _NotAsked:
    """The answer to a cell for which no time was left."""


@dataclass(frozen=True)
class _Answered:
    """The answer to a cell of a lane: a Checked or a Memory, or else why there is none."""

    lane: _Lane
    key: CellKey
    answer: Checked | Memory | Refused | Failure | _NotAsked


def agree(session: Session, options: Options) -> Iterator[Event]:
    """Check and meter every pending cell, each runtime in processes of its own.

    Raises ImplementationError if somebody's own code cannot be used at all.
    """
    pending = [key for key, cell in session.cells.items() if cell.status == "pending"]
    phases = (False, True) if options.metering else (False,)
    yield PhaseStarted("agreement", len(phases) * len(pending))
    room = _Room(available_memory())
    runtimes: dict[Runtime, list[CellKey]] = {}
    for key in pending:
        implementation = session.registry.get(key[2])
        layer, pass_ = session.layer(key[0]), key[1]
        if reason := _why_not(implementation, layer, pass_):
            yield CellSettled(_refused(session, key, reason))
        elif _needed_bytes(session, key) > room.total:
            too_large = _does_not_fit(session, key, room.total)
            yield CellSettled(session.update(key, status="skipped", reason=too_large))
        else:
            runtimes.setdefault(implementation.runtime, []).append(key)

    session.caution(*_depthwise_cautions(session))
    # The runtimes that take longest to start come first: others fill the gaps.
    share = session.machine.logical_cpus // max(len(runtimes) * len(phases), 1)
    lanes = [
        _Lane(runtime, metering, part)
        for runtime in sorted(runtimes, key=lambda each: each.import_s, reverse=True)
        for metering in phases
        for part in _parts(runtimes[runtime], share)
    ]
    checked: dict[CellKey, Checked | Failure] = {}
    metered: dict[CellKey, Memory | Failure | None] = {}
    for step in _side_by_side(session, options, lanes, room):
        if isinstance(step, _Started):
            verb = "metering" if step.lane.metering else "checking"
            yield Progress("agreement", f"{verb} {step.key[0]} {step.key[1]} {step.key[2]}")
            continue
        answer = step.answer
        if isinstance(answer, Failure) and answer.is_usage:
            raise ImplementationError(f"{step.key[2]}: {answer.reason}", hint=answer.hint)
        if isinstance(answer, _NotAsked):
            why = f"not asked, since the {options.budget_s:g} s of --budget were over"
            yield CellSettled(session.update(step.key, status="skipped", reason=why))
            continue
        if isinstance(answer, Refused):
            if not step.lane.metering:
                yield CellSettled(_refused(session, step.key, answer.unsupported))
        elif step.lane.metering:
            assert not isinstance(answer, Checked)
            metered[step.key] = answer
        else:
            assert not isinstance(answer, Memory)
            checked[step.key] = answer
        if not options.metering:
            metered[step.key] = None
        if step.key in checked and step.key in metered:
            yield CellSettled(_settle(session, step.key, checked[step.key], metered[step.key]))
    explain(session, checked)


def _why_not(implementation: Implementation, layer: Layer, pass_: Pass) -> Unsupported | None:
    """Return why an implementation cannot compute a cell, or None if no reason is known yet.

    Own code is not asked here: only a worker runs somebody's file.
    """
    if missing := implementation.runtime.missing():
        return Unsupported(f"{missing.what} is not installed: {missing.install}", ("runtime",))
    return None if implementation.is_own else implementation.unsupported(layer, pass_)


def _parts(keys: list[CellKey], lanes: int) -> list[tuple[CellKey, ...]]:
    """Divide the cells of a runtime among `lanes` lanes, or among fewer if they are few.

    Each lane must have enough cells to pay for the start of its worker.
    """
    count = max(min(lanes, len(keys) // LANE_CELLS), 1)
    return [tuple(keys[start::count]) for start in range(count)]


def _depthwise_cautions(session: Session) -> list[Caution]:
    """Warn users of Keras who write depthwise layers as Conv2D with groups."""
    names = [layer.name for layer in session.suite.layers if layer.is_depthwise]
    if not names or not set(KERAS_WAYS) & set(session.suite.implementations):
        return []
    return [
        Caution(
            f"{', '.join(names)}: Keras is run as DepthwiseConv2D, not as Conv2D with groups",
            "on the CPU, Conv2D with groups=channels computes the same result tens of times more "
            "slowly: write DepthwiseConv2D in your model",
        )
    ]


def _settle(
    session: Session,
    key: CellKey,
    checked: Checked | Failure,
    metered: Memory | Failure | None,
) -> Cell:
    if isinstance(checked, Failure):
        return session.update(
            key,
            status="failed",
            reason=checked.reason,
            said=checked.said,
            said_left_out=checked.said_left_out,
            raised=checked.raised,
        )
    session.call_s[key] = checked.call_s
    agreement = checked.agreement
    if checked.explanations:
        agreement = with_explanation(agreement, checked.explanations[0])
    status = STATUS_OF_VERDICT[agreement.verdict]
    reason = None if status == "ok" else agreement.diagnosis
    if isinstance(metered, Failure) and status == "ok":
        reason = f"memory not metered: {metered.reason}"
    return session.update(
        key,
        status=status,
        reason=reason,
        agreement=agreement,
        ledger=CellLedger(checked.ledger.inside, checked.ledger.outside, checked.ledger.took),
        memory=metered if isinstance(metered, Memory) else None,
        said=checked.said,
        said_left_out=checked.said_left_out,
    )


def _side_by_side(
    session: Session, options: Options, lanes: list[_Lane], room: _Room
) -> Iterator[_Started | _Answered]:
    """Run the lanes, and yield what they report as it comes.

    As many lanes run at a time as there are CPUs, and at least two. Closing the iterator stops the
    lanes, and cells without an answer stay pending.
    """
    steps: queue.SimpleQueue[_Started | _Answered | None] = queue.SimpleQueue()
    stop = threading.Event()

    def drive(lane: _Lane) -> None:
        try:
            for step in _each_cell(session, options, lane, room):
                if stop.is_set():
                    return
                steps.put(step)
        finally:
            steps.put(None)

    with ThreadPoolExecutor(max(2, session.machine.logical_cpus)) as pool:
        futures = [pool.submit(drive, lane) for lane in lanes]
        try:
            running = len(lanes)
            while running:
                step = steps.get()
                if step is None:
                    running -= 1
                else:
                    yield step
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            while not all(future.done() for future in futures):
                kill_all()  # a lane that waits for its worker learns that the worker is gone
                time.sleep(0.02)
        for future in futures:
            future.result()


def _each_cell(
    session: Session, options: Options, lane: _Lane, room: _Room
) -> Iterator[_Started | _Answered]:
    """Yield the start of each cell, then its answer.

    A cell whose worker is lost fails, and the next cell gets a new worker.
    """
    variables = options.environment.metering if lane.metering else options.environment.of
    environment = variables(lane.runtime, session.threads, SLEEPY_BLAS)
    workers, worker = Workers.of(session, options), None
    answer: Checked | Memory | Refused | Failure
    deadline = math.inf
    if options.budget_s is not None and not options.metering:
        deadline = time.monotonic() + options.budget_s
    try:
        for key in lane.keys:
            if time.monotonic() > deadline:
                yield _Answered(lane, key, _NotAsked())
                continue
            yield _Started(lane, key)
            with room.taken(_needed_bytes(session, key)):
                try:
                    worker = worker or workers.start(lane.runtime, environment)
                    answer = workers.ask(worker, _request(session, lane, key, options.metering))
                except CellFailedError as failed:
                    answer = failed.failure
                except WorkerLostError as lost:
                    worker, answer = None, lost.failure
            yield _Answered(lane, key, answer)
    finally:
        if worker is not None:
            worker.kill()


def _request(session: Session, lane: _Lane, key: CellKey, timed: bool) -> Check | Meter:
    layer, pass_, name = session.layer(key[0]), key[1], key[2]
    if lane.metering:
        return Meter(layer, pass_, name, EFFORTS[session.effort].rss_s)
    return Check(layer, pass_, name, timed=timed)


class _Room:
    """Bytes of memory that were free when the phase started, shared by the lanes."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._free = total
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, nbytes: int) -> Iterator[None]:
        """Wait until `nbytes` bytes are free, and reserve them for the `with` block."""
        with self._changed:
            self._changed.wait_for(lambda: nbytes <= self._free)
            self._free -= nbytes
        try:
            yield
        finally:
            with self._changed:
                self._free += nbytes
                self._changed.notify_all()


def _needed_bytes(session: Session, key: CellKey) -> int:
    layer, pass_ = session.layer(key[0]), key[1]
    implementation = session.registry.get(key[2])
    workspace = implementation.workspace_bytes(layer, pass_, session.threads)
    copies = RESULT_COPIES + STATED_COPIES * (not implementation.exact(layer, pass_))
    return (
        OPERAND_COPIES * layer.operand_bytes(pass_) + copies * layer.result_bytes(pass_) + workspace
    )


def _refused(session: Session, key: CellKey, unsupported: Unsupported) -> Cell:
    return session.update(
        key, status="unsupported", reason=unsupported.why, unsupported=unsupported
    )


def _does_not_fit(session: Session, key: CellKey, free: int) -> str:
    layer, pass_ = session.layer(key[0]), key[1]
    operands, result = layer.operand_bytes(pass_), layer.result_bytes(pass_)
    return (
        f"its check needs about {_needed_bytes(session, key) / GIB:.1f} GiB (several copies of "
        f"{operands / GIB:.1f} GiB of operands and {result / GIB:.1f} GiB of result, and "
        f"workspace), but {free / GIB:.1f} GiB are free"
    )
