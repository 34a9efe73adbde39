"""Meter a cell's memory in three ways, each of which misses something.

- memray sees every request to the C allocators, from any thread and any library, and is exact.
  Python objects of up to 512 bytes (pymalloc's) and mappings do not count; `_phases` says why.
- tracemalloc sees the requests of Python and NumPy only: it is exact for NumPy and blind to
  TensorFlow. It is the fallback, and the cross-check on memray for everything but TensorFlow.
- rss counts resident pages, which memory-profiler samples. It is never exact, and the last resort.

memray and tracemalloc count the bytes that were requested. Pages that were never touched count; the
allocator's rounding up does not.
"""

from __future__ import annotations

import gc
import logging
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from convbench.implementations.contract import Prepared
from convbench.problem.operands import Operands
from convbench.runtimes.contract import Method

if TYPE_CHECKING:
    from tracemalloc import Snapshot

    from memray import AllocationRecord

Timeline = tuple[tuple[float, int], ...]
"""Resident memory over time, as (seconds since the start, bytes)."""

T = TypeVar("T")

CALLS = 3
"""Number of measured calls, of which the median counts."""

SLOW_S = 1.0
"""Seconds after which no further call is measured."""

MARK_BYTES = 104_729
"""Size in bytes of a block that is allocated only to mark a place in memray's records. It is a
prime, so no array of floats has this size. It is below malloc's mmap threshold, so it does not
change the threshold."""

INTERVAL_S = 0.01
"""Seconds between two samples of resident memory."""


@dataclass(frozen=True)
class Metered:
    """The memory of one cell. `call_s` is the time of a call under the meter, in seconds.

    Each call leaves `grows_bytes` behind, and `garbage_bytes` to the garbage collector. The peak of
    a call does not include them.
    """

    prepared: Prepared
    held_bytes: int
    call_peak_bytes: int
    call_s: float
    grows_bytes: int = 0
    garbage_bytes: int = 0


def rss_timeline(run: Callable[[], object], seconds: float) -> Timeline:
    """Sample resident memory every INTERVAL_S while `run` is called in a loop, at least once.

    The figures count pages of the whole process: they include the interpreter, its libraries, and
    memory that was freed but not given back. A buffer that lives shorter than the interval may be
    missed. A thread takes the samples, since memory-profiler would fork to watch a function, and a
    process with TensorFlow's threads does not survive that.
    """
    from memory_profiler import memory_usage

    samples: list[tuple[float, float]] = []
    done = threading.Event()
    chunk_s = 5 * INTERVAL_S  # sampling may go on for this long after the last call

    def sample() -> None:
        while True:
            samples.extend(memory_usage(os.getpid(), INTERVAL_S, timeout=chunk_s, timestamps=True))
            if done.is_set():
                return

    sampler = threading.Thread(target=sample, name="rss", daemon=True)
    started, deadline = time.time(), time.perf_counter() + seconds
    sampler.start()
    try:
        while True:
            run()
            if time.perf_counter() >= deadline:
                break
        ended = time.time()
    finally:
        done.set()
        sampler.join()
    inside = [sample for sample in samples if sample[1] <= ended] or samples[:1]
    return tuple((max(at - started, 0.0), round(mib * 2**20)) for mib, at in inside)


# memray


def _with_memray(prepare: Callable[[], Prepared], operands: Operands) -> Metered:
    """Meter a cell with memray.

    All of it happens under one Tracker, since each costs 11 ms, or 320 ms in a process with
    TensorFlow.
    """
    calls_s: list[float] = []

    def cell(mark: Callable[[], None]) -> Prepared:
        prepared = prepare()
        mark()
        prepared.load(operands)
        mark()
        prepared.run()
        gc.collect()
        while len(calls_s) < CALLS and sum(calls_s) < SLOW_S:
            mark()
            start = time.perf_counter()
            prepared.run()
            calls_s.append(time.perf_counter() - start)
            mark()
            gc.collect()
        return prepared

    prepared, phases = _tracked(cell, operand_phase=1)
    calls = [
        _Call(call.start_bytes, call.peak_bytes, call.end_bytes, collected.end_bytes)
        for call, collected in zip(phases[3::2], phases[4::2], strict=True)
    ]
    return _metered(prepared, phases[2].end_bytes, calls, min(calls_s))


@dataclass(frozen=True)
class _Call:
    """Bytes alive before a call, at its highest point, after it, and after garbage is collected."""

    before: int
    peak: int
    after: int
    collected: int


def _metered(prepared: Prepared, held: int, calls: Sequence[_Call], call_s: float) -> Metered:
    """Put the calls of a cell together. What is left by some calls only is not left by each."""
    grows = max(min(call.collected - call.before for call in calls), 0)
    garbage = max(min(call.after - call.collected for call in calls), 0)
    peak = _median(call.peak - call.before for call in calls)
    return Metered(prepared, max(held, 0), max(peak - grows - garbage, 0), call_s, grows, garbage)


def memray_peaks(runs: Sequence[Callable[[], object]]) -> list[int]:
    """Return the peak of each call in bytes, as memray sees it."""

    def calls(mark: Callable[[], None]) -> None:
        for run in runs:
            run()
            mark()

    _, phases = _tracked(calls)
    return [phase.rise_bytes for phase in phases[: len(runs)]]


@dataclass
class _Phase:
    """Bytes alive at the start of a phase, at its highest point and at its end. Operands do not
    count."""

    start_bytes: int
    peak_bytes: int
    end_bytes: int

    @property
    def rise_bytes(self) -> int:
        return self.peak_bytes - self.start_bytes


def _tracked(
    work: Callable[[Callable[[], None]], T], operand_phase: int | None = None
) -> tuple[T, list[_Phase]]:
    """Run `work` under memray, and return its result and its phases.

    `work` is given a function, and calls it between two phases. What is allocated in phase
    `operand_phase` does not count.
    """
    import memray

    marks = 0

    def mark() -> None:
        nonlocal marks
        marks += 1
        np.empty(MARK_BYTES, np.uint8)

    memray.set_log_level(logging.ERROR)  # type: ignore[attr-defined]  # its stub leaves it out
    with tempfile.TemporaryDirectory(prefix="convbench-memory-") as directory:
        records = Path(directory) / "records"
        destination = memray.FileDestination(records, compress_on_exit=False)
        with memray.Tracker(destination=destination):
            mark()
            result = work(mark)
            mark()
        with memray.FileReader(records) as reader:
            phases = _phases(reader.get_allocation_records(), operand_phase)
    if len(phases) != marks:
        raise RuntimeError(f"the memory meter set {marks} marks and found {len(phases)}")
    return result, phases[:-1]


def _phases(records: Iterable[AllocationRecord], operand_phase: int | None) -> list[_Phase]:
    """Return the phases that marks separate in memray's records. Records before the first mark do
    not count.

    Mappings do not count either. They are pymalloc's arenas, OpenBLAS's buffers (32 MiB at the
    first GEMM) and compiled code: the process keeps them, in lumps that say nothing about the cell.
    When malloc maps a large block, memray records the malloc and not the mapping. memray's
    ready-made high-water mark would not do: it merges allocators that share a stack, as all native
    threads do, so mappings cannot be told apart.
    """
    from memray import AllocatorType

    mappings = {AllocatorType.MMAP, AllocatorType.MUNMAP}
    phases: list[_Phase] = []
    alive: dict[int, int] = {}
    total = 0
    for record in records:
        allocator, size = record.allocator, record.size
        if allocator in mappings:
            continue
        if size == MARK_BYTES and allocator == AllocatorType.MALLOC:
            phases.append(_Phase(total, total, total))
            continue
        if not phases:
            continue
        total -= alive.pop(record.address, 0)
        if allocator != AllocatorType.FREE and len(phases) - 1 != operand_phase:
            alive[record.address] = size
            total += size
        phase = phases[-1]
        phase.end_bytes = total
        if total > phase.peak_bytes:
            phase.peak_bytes = total
    return phases


# tracemalloc

ARRAYS = 389047
"""Number of the domain under which NumPy tells tracemalloc of its arrays
(`numpy.lib.tracemalloc_domain`)."""


def arrays_left(work: Callable[[], T]) -> tuple[int, T]:
    """Return the bytes of NumPy's arrays that `work` made and that are still alive, and its result.

    Other memory does not count, such as the code of a module that it imports.
    """
    import tracemalloc

    with _tracing():
        before = _array_bytes(tracemalloc.take_snapshot())
        result = work()
        gc.collect()
        return max(_array_bytes(tracemalloc.take_snapshot()) - before, 0), result


def _array_bytes(snapshot: Snapshot) -> int:
    import tracemalloc

    arrays = snapshot.filter_traces([tracemalloc.DomainFilter(True, ARRAYS)])
    return sum(trace.size for trace in arrays.traces)


def _with_tracemalloc(prepare: Callable[[], Prepared], operands: Operands) -> Metered:
    with _tracing() as current:
        before = current()
        prepared = prepare()
        prepare_end = current()
        prepared.load(operands)
        load_end = current()
        prepared.run()
        gc.collect()
        held = prepare_end - before + current() - load_end
        calls, calls_s = list[_Call](), list[float]()
        while len(calls_s) < CALLS and sum(calls_s) < SLOW_S:
            start, idle = time.perf_counter(), current()
            rise = traced_peak(prepared.run)
            calls_s.append(time.perf_counter() - start)
            after = current()
            gc.collect()
            calls.append(_Call(idle, idle + rise, after, current()))
    return _metered(prepared, held, calls, min(calls_s))


def traced_peak(run: Callable[[], object]) -> int:
    """Return the peak of one call in bytes, as tracemalloc sees it."""
    import tracemalloc

    with _tracing() as current:
        before = current()
        tracemalloc.reset_peak()
        run()
        return tracemalloc.get_traced_memory()[1] - before


@contextmanager
def _tracing() -> Iterator[Callable[[], int]]:
    """Run tracemalloc inside the `with`, and yield a function that returns the traced bytes.

    If tracemalloc ran before, it goes on afterwards.
    """
    import tracemalloc

    ours = not tracemalloc.is_tracing()
    if ours:
        tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[0]
    finally:
        if ours:
            tracemalloc.stop()


# rss


def _with_rss(prepare: Callable[[], Prepared], operands: Operands) -> Metered:
    before = _rss_bytes()
    prepared = prepare()
    prepare_end = _rss_bytes()
    prepared.load(operands)
    load_end = _rss_bytes()
    prepared.run()
    gc.collect()
    warm = _rss_bytes()
    start = time.perf_counter()
    timeline = rss_timeline(prepared.run, 5 * INTERVAL_S)
    return Metered(
        prepared,
        held_bytes=max(prepare_end - before + warm - load_end, 0),
        call_peak_bytes=max(highest(timeline) - warm, 0),
        call_s=time.perf_counter() - start,
    )


def _rss_bytes() -> int:
    from memory_profiler import memory_usage

    mib: float = memory_usage(os.getpid(), interval=0.0)[0]
    return round(mib * 2**20)


def _median(peaks: Iterable[int]) -> int:
    return round(statistics.median(peaks))


def highest(timeline: Timeline) -> int:
    """Return the most bytes of a timeline."""
    return max(size for _, size in timeline)


METERS: dict[Method, Callable[[Callable[[], Prepared], Operands], Metered]] = {
    "memray": _with_memray,
    "tracemalloc": _with_tracemalloc,
    "rss": _with_rss,
}
