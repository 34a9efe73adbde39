"""The agreement phase: every cell checked, then metered, each runtime in processes of its own.

Nothing is timed here for a result, so that the runtimes work side by side.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from convbench import implementations
from convbench.layer import Layer, Pass
from convbench.machine import available_memory
from convbench.measure.memory import ENVIRONMENT as METER_ENVIRONMENT
from convbench.measure.process import CellFailedError, Worker, WorkerLostError, kill_all
from convbench.measure.protocol import Check, Checked, Meter, Start
from convbench.results import CellLedger, Memory, Status
from convbench.schedule.effort import EFFORTS
from convbench.schedule.events import CellSettled, Event, PhaseStarted, Progress
from convbench.schedule.options import Options
from convbench.schedule.session import CellKey, Session

CHECK_COPIES = 7
"""A check holds operands and results some seven times: drawn twice, loaded, and in float64."""


STATUS_OF_VERDICT: dict[str, Status] = {
    "agrees": "ok",
    "wrong": "wrong",
    "mistrusted": "skipped",
}


def agree(session: Session, options: Options) -> Iterator[Event]:
    """Checks and meters every pending cell, each runtime in processes of its own."""
    pending = [key for key, cell in session.cells.items() if cell.status == "pending"]
    yield PhaseStarted("agreement", len(pending))
    lanes: dict[str, list[CellKey]] = {}
    for key in pending:
        implementation = implementations.get(key[2])
        layer, pass_ = session.layer(key[0]), key[1]
        reason = implementation.unsupported(layer, pass_)
        if reason is not None:
            yield _settle(session, key, "unsupported", reason)
            continue
        reason = _does_not_fit(layer, pass_, key[2], session.threads)
        if reason is not None:
            yield _settle(session, key, "skipped", reason)
            continue
        lanes.setdefault(implementation.runtime, []).append(key)

    events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()

    def lane(runtime: str, keys: list[CellKey]) -> None:
        try:
            for event in _check_lane(session, options, runtime, keys):
                events.put(event)
            for event in _meter_lane(session, options, runtime, keys):
                events.put(event)
        finally:
            events.put(None)

    with ThreadPoolExecutor(max(1, len(lanes))) as pool:
        futures = [pool.submit(lane, runtime, keys) for runtime, keys in lanes.items()]
        try:
            running = len(futures)
            while running:
                event = events.get()
                if event is None:
                    running -= 1
                else:
                    yield event
        finally:
            kill_all()  # so that the pool does not wait for workers that nobody listens to
        for future in futures:
            future.result()
    for key in pending:
        yield CellSettled(session.cells[key])


def _check_lane(
    session: Session, options: Options, runtime: str, keys: list[CellKey]
) -> Iterator[Event]:
    for key, answer in _each_cell(session, options, runtime, keys, metering=False):
        if isinstance(answer, str):
            session.update(key, status="failed", reason=answer)
        elif answer is None:
            yield Progress("agreement", f"checking {_label(key)}")
        elif isinstance(answer, Checked):
            session.call_s[key] = answer.call_s
            agreement = answer.agreement
            status = STATUS_OF_VERDICT[agreement.verdict]
            session.update(
                key,
                status=status,
                reason=None if status == "ok" else agreement.diagnosis,
                agreement=agreement,
                ledger=CellLedger(answer.ledger.inside, answer.ledger.outside),
            )


def _meter_lane(
    session: Session, options: Options, runtime: str, keys: list[CellKey]
) -> Iterator[Event]:
    right = [key for key in keys if session.cells[key].status in ("ok", "wrong")]
    for key, answer in _each_cell(session, options, runtime, right, metering=True):
        if answer is None:
            yield Progress("agreement", f"metering {_label(key)}")
        elif isinstance(answer, str):
            # The check went well, so that what failed is the meter or the memory of the machine.
            session.update(key, reason=f"memory not metered: {answer}")
        elif isinstance(answer, Memory):
            session.update(key, memory=answer)


def _each_cell(
    session: Session, options: Options, runtime: str, keys: list[CellKey], metering: bool
) -> Iterator[tuple[CellKey, object]]:
    """For each cell None when it starts, then its answer, or a reason (str) when it has none.

    A worker that is lost costs its cell; the next cell gets a new worker.
    """
    environment = {**options.environment, **(METER_ENVIRONMENT if metering else {})}
    start = Start(runtime, session.threads, session.seed)
    worker: Worker | None = None
    try:
        for key in keys:
            yield key, None
            layer, pass_, name = session.layer(key[0]), key[1], key[2]
            request = (
                Meter(layer, pass_, name, EFFORTS[session.effort].rss_s)
                if metering
                else Check(layer, pass_, name)
            )
            try:
                worker = worker or Worker(start, environment)
                worker.wait_ready()
                yield key, worker.ask(request, options.timeout_s)
            except CellFailedError as failed:
                yield key, str(failed)
            except WorkerLostError as lost:
                worker = None
                yield key, str(lost)
    finally:
        if worker is not None:
            worker.kill()


def _does_not_fit(layer: Layer, pass_: Pass, name: str, threads: int) -> str | None:
    """Why a cell cannot be measured in the memory that is free, with the figures; or None."""
    arrays = layer.operand_bytes(pass_) + layer.result_bytes(pass_)
    workspace = implementations.get(name).workspace_bytes(layer, pass_, threads)
    needed, free = CHECK_COPIES * arrays + workspace, available_memory()
    if needed <= free:
        return None
    gib = 2**30
    return (
        f"needs about {needed / gib:.1f} GiB ({CHECK_COPIES} times {arrays / gib:.1f} GiB of "
        f"operands and result while checked, {workspace / gib:.1f} GiB of workspace), "
        f"{free / gib:.1f} GiB are free"
    )


def _settle(session: Session, key: CellKey, status: Status, reason: str) -> CellSettled:
    return CellSettled(session.update(key, status=status, reason=reason))


def _label(key: CellKey) -> str:
    return f"{key[0]} {key[1]} {key[2]}"
