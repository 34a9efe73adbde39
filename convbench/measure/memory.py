"""The memory meter: what one cell holds between calls, and the peak of one call.

It runs in a process of its own, never beside timing: tracing slows every call. Three methods:

- memray sees every request to the C allocators, from any thread and any library: exact. Python
  objects of up to 512 bytes (pymalloc's) and mappings do not count, see `_phases`.
- tracemalloc sees Python's and NumPy's requests only: exact for NumPy, blind to TensorFlow. It is
  the fallback, and the cross-check on memray for everything but TensorFlow.
- rss, resident pages sampled by memory-profiler: never exact, and the last resort.

memray and tracemalloc count bytes as requested. Pages that were never touched count; rounding up
by the allocator does not.
"""

from __future__ import annotations

import functools
import gc
import logging
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from convbench import operands as operands_of
from convbench.implementations.contract import Implementation, Prepared
from convbench.layer import Layer, Pass
from convbench.operands import Operands
from convbench.results import Memory

if TYPE_CHECKING:
    from memray import AllocationRecord

Method = Literal["memray", "tracemalloc", "rss"]
Timeline = tuple[tuple[float, int], ...]
T = TypeVar("T")

ENVIRONMENT = {"TF_ONEDNN_USE_SYSTEM_ALLOCATOR": "1"}
"""What must be set before TensorFlow is imported. Else its CPU allocator hands out parts of a pool
of its own, and the bytes of tensors are not seen: 30 KB instead of 1,210 KB for one Conv2D."""

CALLS = 3
"""Measured calls, of which the median counts."""

SLOW_S = 1.0
"""No further call is measured once the measured calls have taken this long."""

CROSS_CHECK_S = 2.0
"""A call that takes longer is not repeated under tracemalloc."""

CROSS_CHECK_RATIO, CROSS_CHECK_BYTES = 0.01, 16 * 1024
"""tracemalloc also counts Python objects of up to 512 bytes, which come from pymalloc's arenas:
0.2 to 4 KiB a call in loops over NumPy slices. More means that the kernel works on such objects."""

BLAS_JOBS_BYTES = 512 * 1024
"""OpenBLAS takes its job table from malloc in every threaded GEMM, unseen by tracemalloc: exactly
64 threads * 64 * 16 words of 8 bytes in the build that NumPy ships (driver/level3/level3_thread.c,
`job_t`; MAX_CPU_NUMBER 64). memray counts it, since it is there."""

TEST_BYTES = 2**20
TEST_SLACK_BYTES, TEST_SLACK_TENSORFLOW_BYTES = 4 * 1024, 32 * 1024
"""What a meter may see beyond 1 MiB. An eager TensorFlow op also allocates its bookkeeping."""

MARK_BYTES = 104_729
"""The size of a block that is allocated only to mark a place in memray's records: a prime, so no
array of floats has it, and below malloc's mmap threshold, so it does not move that."""

INTERVAL_S = 0.01
TIMELINE_POINTS = 20


@dataclass(frozen=True)
class _Metered:
    """`call_s` is the time of one call under the meter."""

    prepared: Prepared
    held_bytes: int
    call_peak_bytes: int
    call_s: float


def meter(
    implementation: Implementation,
    layer: Layer,
    pass_: Pass,
    threads: int,
    operands: Operands,
    rss_seconds: float = 0.2,
) -> Memory:
    """Measures one cell: bytes held between calls, the peak of a call, and the timeline of RSS.

    Held is what `prepare` or the first call allocated and is alive after that call: workspaces
    (also lazily allocated ones), compiled code's data, caches. What `load` allocates are operands
    and do not count. The peak is that of one call after warm-up, its result included; the result
    of an implementation that returns a buffer of its own is in what is held.

    Memory of child processes is not seen. What is shared by all cells of the process (lazy
    imports, thread pools) is allocated in a rehearsal on a small layer and does not count.
    """
    _rehearse(implementation, layer, pass_, threads)

    def prepare() -> Prepared:
        return implementation.prepare(layer, pass_, threads)

    runtime = implementation.runtime
    method = _method(runtime)
    metered = _METERS[method](prepare, operands)
    doubt = _doubt(method, runtime) or _cross_check(method, runtime, metered)
    timeline = rss_timeline(metered.prepared.run, rss_seconds)
    return Memory(
        peak_bytes=metered.held_bytes + metered.call_peak_bytes,
        held_bytes=metered.held_bytes,
        call_peak_bytes=metered.call_peak_bytes,
        method=f"{method} ({doubt})" if doubt else method,
        exact=method != "rss" and doubt is None,
        predicted_bytes=implementation.workspace_bytes(layer, pass_, threads)
        + layer.result_bytes(pass_),
        naive_im2col_bytes=layer.columns_bytes,
        rss_peak_bytes=_peak(timeline),
        rss_timeline=_thinned(timeline, TIMELINE_POINTS),
    )


def rss_timeline(run: Callable[[], object], seconds: float) -> Timeline:
    """(seconds since the start, bytes) every 10 ms while `run` is called in a loop, at least once.

    This is page-level and of the whole process: the interpreter, its libraries and memory that
    was freed but not given back are in it, and a buffer that lives shorter than the interval may
    be missed. A thread samples: memory-profiler would fork for a function, which a process with
    TensorFlow's threads does not survive.
    """
    from memory_profiler import memory_usage

    samples: list[tuple[float, float]] = []
    done = threading.Event()
    chunk_s = 5 * INTERVAL_S  # how long sampling may go on after the last call

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


@functools.cache
def self_test(runtime: str) -> str | None:
    """None, or in a sentence which meter of this process does not give 1 MiB back for 1 MiB.

    Call it after the runtime's threads were set: the first op fixes TensorFlow's.
    """
    methods: tuple[Method, ...] = ("memray",) if _memray_runs() else ()
    if runtime != "tensorflow":
        methods += ("tracemalloc",)
    faults = [_test(method, runtime) for method in methods]
    if not methods:
        faults = ["memray does not run here, and nothing else sees TensorFlow's memory"]
    return "; ".join(fault for fault in faults if fault) or None


# The choice of a method, and whether to trust it


def _method(runtime: str) -> Method:
    if _memray_runs():
        return "memray"
    return "rss" if _runs_tensorflow(runtime) else "tracemalloc"


def _memray_runs() -> bool:
    try:
        import memray  # noqa: F401
    except ImportError:  # no wheel for this platform, or a library that is missing
        return False
    return True


def _runs_tensorflow(runtime: str) -> bool:
    """The user's own code, a runtime of its own, may compute with TensorFlow too."""
    return runtime == "tensorflow" or "tensorflow" in sys.modules


def _doubt(method: Method, runtime: str) -> str | None:
    if method == "rss":
        return None
    if _runs_tensorflow(runtime):
        missing = [f"{k}={v}" for k, v in ENVIRONMENT.items() if os.environ.get(k) != v]
        if missing:
            return f"{' '.join(missing)} is not set"
    return self_test(runtime)


def _cross_check(method: Method, runtime: str, metered: _Metered) -> str | None:
    """memray's peak of a call against tracemalloc's; not for TensorFlow, which that cannot see."""
    if method != "memray" or _runs_tensorflow(runtime) or metered.call_s > CROSS_CHECK_S:
        return None
    seen = _traced_peak(metered.prepared.run)
    slack = CROSS_CHECK_RATIO * metered.call_peak_bytes + CROSS_CHECK_BYTES
    if -slack <= metered.call_peak_bytes - seen <= slack + BLAS_JOBS_BYTES:
        return None
    return f"tracemalloc sees {seen / 2**20:.1f} MiB"


@functools.cache
def _test(method: Method, runtime: str) -> str | None:
    runs: list[Callable[[], object]] = [_array]
    slack = TEST_SLACK_BYTES
    if runtime == "tensorflow":
        runs.append(_tensor_op())
        slack = TEST_SLACK_TENSORFLOW_BYTES
    for run in runs:
        run()  # what only the first call needs
    seen = _memray_peaks(runs) if method == "memray" else [_traced_peak(run) for run in runs]
    for peak in seen:
        if not TEST_BYTES <= peak <= TEST_BYTES + slack:
            return f"{method} saw {peak:,} bytes where {TEST_BYTES:,} were allocated"
    return None


def _array() -> object:
    return np.empty(TEST_BYTES, np.uint8)


def _tensor_op() -> Callable[[], object]:
    import tensorflow as tf

    with tf.device("CPU:0"):
        zeros = tf.zeros(TEST_BYTES // 4)

    def run() -> object:
        with tf.device("CPU:0"):
            return tf.math.negative(zeros)

    return run


# memray


def _with_memray(prepare: Callable[[], Prepared], operands: Operands) -> _Metered:
    """Under one Tracker, which costs 11 ms, and 320 ms in a process with TensorFlow."""
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
        return prepared

    prepared, phases = _tracked(cell, operand_phase=1)
    return _Metered(
        prepared,
        held_bytes=phases[2].end_bytes,
        call_peak_bytes=_median(phase.rise_bytes for phase in phases[3:]),
        call_s=min(calls_s),
    )


def _memray_peaks(runs: Sequence[Callable[[], object]]) -> list[int]:
    """The peak of each call, in bytes."""

    def calls(mark: Callable[[], None]) -> None:
        for run in runs:
            run()
            mark()

    _, phases = _tracked(calls)
    return [phase.rise_bytes for phase in phases[: len(runs)]]


@dataclass
class _Phase:
    """Bytes alive when it began, at its highest, and at its end; operands excluded."""

    start_bytes: int
    peak_bytes: int
    end_bytes: int

    @property
    def rise_bytes(self) -> int:
        return self.peak_bytes - self.start_bytes


def _tracked(
    work: Callable[[Callable[[], None]], T], operand_phase: int | None = None
) -> tuple[T, list[_Phase]]:
    """What `work` returns, and its phases, which it separates by calling what it is given."""
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
    """Walks all records in order. Those before the first mark do not count.

    Nor do mappings: they are pymalloc's arenas, OpenBLAS's buffers (32 MiB at the first GEMM), code
    of a compiler: what the process keeps, in lumps that say nothing of the cell. malloc's own
    mappings for large blocks are not recorded as such; the malloc is. memray's ready-made
    high-water mark would not do: it merges allocators that share a stack, and all native
    threads do, so that mappings cannot be told apart.
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


def _with_tracemalloc(prepare: Callable[[], Prepared], operands: Operands) -> _Metered:
    with _tracing() as current:
        before = current()
        prepared = prepare()
        prepare_end = current()
        prepared.load(operands)
        load_end = current()
        prepared.run()
        gc.collect()
        held = prepare_end - before + current() - load_end
        start = time.perf_counter()
        peaks = [_traced_peak(prepared.run)]
        call_s = time.perf_counter() - start
        if call_s * CALLS < SLOW_S:
            peaks += [_traced_peak(prepared.run) for _ in range(CALLS - 1)]
    return _Metered(prepared, max(held, 0), _median(peaks), call_s)


def _traced_peak(run: Callable[[], object]) -> int:
    import tracemalloc

    with _tracing() as current:
        before = current()
        tracemalloc.reset_peak()
        run()
        return tracemalloc.get_traced_memory()[1] - before


@contextmanager
def _tracing() -> Iterator[Callable[[], int]]:
    """tracemalloc runs inside, and outside as before. Gives what returns the traced bytes."""
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


def _with_rss(prepare: Callable[[], Prepared], operands: Operands) -> _Metered:
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
    return _Metered(
        prepared,
        held_bytes=max(prepare_end - before + warm - load_end, 0),
        call_peak_bytes=max(_peak(timeline) - warm, 0),
        call_s=time.perf_counter() - start,
    )


def _rss_bytes() -> int:
    from memory_profiler import memory_usage

    mib: float = memory_usage(os.getpid(), interval=0.0)[0]
    return round(mib * 2**20)


# The pieces that all three share


def _rehearse(implementation: Implementation, layer: Layer, pass_: Pass, threads: int) -> None:
    """Once a process for each implementation and pass: lazy imports, thread pools, compilers.

    The first XLA cell of a process would hold 2 MiB more than the second without it.
    """
    key = implementation.runtime, implementation.name, pass_
    small = _small(layer)
    if key in _REHEARSED or implementation.unsupported(small, pass_):
        return
    _REHEARSED.add(key)
    # What is wrong with the implementation shows on the layer itself, or is not ours to tell.
    with suppress(Exception):
        prepared = implementation.prepare(small, pass_, threads)
        prepared.load(operands_of.floats(small, pass_, seed=0))
        prepared.run()


_REHEARSED: set[tuple[str, str, Pass]] = set()


def _small(layer: Layer) -> Layer:
    """Another layer of the same kind; never the same shapes, for what is cached by shape counts."""
    height, width = (
        min(size, span + stride)
        for size, span, stride in zip(
            layer.input_size, layer.effective_kernel_size, layer.strides, strict=True
        )
    )
    return replace(
        layer,
        input_shape=(height, width, layer.channels),
        batch_size=1 if layer.batch_size > 1 else 2,
    )


def _median(peaks: Iterable[int]) -> int:
    return round(statistics.median(peaks))


def _peak(timeline: Timeline) -> int:
    return max(size for _, size in timeline)


def _thinned(timeline: Timeline, points: int) -> Timeline:
    """At most so many points: the highest of each stretch, so that the peak stays."""
    stretch = -(-len(timeline) // points)
    return tuple(
        max(timeline[i : i + stretch], key=lambda point: point[1])
        for i in range(0, len(timeline), stretch)
    )


_METERS: dict[Method, Callable[[Callable[[], Prepared], Operands], _Metered]] = {
    "memray": _with_memray,
    "tracemalloc": _with_tracemalloc,
    "rss": _with_rss,
}
