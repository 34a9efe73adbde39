"""Meter memory: what one cell holds between calls, and the peak of one call.

This runs in a process of its own, never beside timing, since tracing slows every call. meters.py
has the methods. This module chooses a method for a cell, decides whether to trust it, and puts the
figures together.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import numpy as np

from convbench.implementations.contract import Implementation, Prepared
from convbench.machine.usage import forget_peak_resident, peak_resident_bytes, resident_bytes
from convbench.measure.blas_buffers import BlasBuffers, BuffersUnseenError
from convbench.measure.meters import (
    CALLS,
    METERS,
    Metered,
    Timeline,
    arrays_left,
    highest,
    memray_peaks,
    rss_timeline,
    traced_peak,
)
from convbench.problem import operands as operands_of
from convbench.problem.layer import Layer, Pass
from convbench.problem.operands import Operands
from convbench.results.model import Memory
from convbench.runtimes.contract import Meters, Method, Runtime

CROSS_CHECK_S = 2.0
"""Longest call in seconds that is repeated under tracemalloc."""

CROSS_CHECK_RATIO, CROSS_CHECK_BYTES = 0.01, 16 * 1024
"""Part of the peak, plus bytes, by which tracemalloc may see more than memray. tracemalloc also
counts Python objects of up to 512 bytes, which come from pymalloc's arenas: 0.2 to 4 KiB a call in
loops over NumPy slices. A larger difference means that the kernel works on such objects. memray may
see more without doubt, since it sees the malloc of C libraries too."""

UNSEEN_RATIO, UNSEEN_BYTES = 0.1, 2 * 2**20
"""Part of what a meter sees, plus bytes, by which resident memory may grow beyond it. Pages are
whole, stacks and pymalloc's arenas grow by the megabyte. A larger growth is memory that no meter
sees: from a malloc that was called by its address, or mapped."""

TEST_BYTES = 2**20
"""Number of bytes that are allocated to test a meter."""

TIMELINE_POINTS = 20
"""Most points of a timeline that a result keeps."""


def meter(
    implementation: Implementation,
    layer: Layer,
    pass_: Pass,
    threads: int,
    operands: Operands,
    rss_seconds: float = 0.2,
) -> Memory:
    """Meter one cell: bytes held between calls, the peak of a call, and a timeline of RSS.

    - Held memory was allocated by `prepare` or the first call, and is still alive after that call:
      workspaces (also lazily allocated ones), data of compiled code, caches. Operands, which `load`
      allocates, do not count.
    - The peak is that of one call after warm-up. It includes the result, unless the implementation
      returns a buffer that it holds, and the memory that BLAS packs matrices into.

    Memory of child processes is not seen. Memory that all cells of the process share (lazy imports,
    thread pools) is allocated in a rehearsal on a small layer and does not count.
    """
    _rehearse(implementation, layer, pass_, threads)
    with imported_alone(implementation) as (alone, arrays_bytes):
        return _meter(alone, layer, pass_, threads, operands, rss_seconds, arrays_bytes)


def _meter(
    implementation: Implementation,
    layer: Layer,
    pass_: Pass,
    threads: int,
    operands: Operands,
    rss_seconds: float,
    arrays_bytes: int,
) -> Memory:
    def prepare() -> Prepared:
        return implementation.prepare(layer, pass_, threads)

    runtime = implementation.runtime
    method = _method(runtime.meters())
    before = resident_bytes()
    metered = METERS[method](prepare, operands)
    doubt = _doubt(method, runtime) or _cross_check(method, runtime, metered)
    if implementation.is_own and method != "rss":
        held = resident_bytes() - before - layer.operand_bytes(pass_)
        doubt = doubt or _unseen(method, metered, held)
    buffers = None
    if method != "rss" and runtime.meters().packs_in_numpys_blas:
        buffers, unseen = _emptied_buffers(threads)
        doubt = doubt or unseen
    timeline = rss_timeline(metered.prepared.run, rss_seconds)
    packed_bytes = buffers.touched_bytes() if buffers else 0
    call_peak_bytes = metered.call_peak_bytes + packed_bytes
    held_bytes = metered.held_bytes + arrays_bytes
    return Memory(
        peak_bytes=held_bytes + call_peak_bytes,
        held_bytes=held_bytes,
        call_peak_bytes=call_peak_bytes,
        method=f"{method} ({doubt})" if doubt else method,
        exact=method != "rss" and doubt is None,
        predicted_bytes=implementation.workspace_bytes(layer, pass_, threads)
        + layer.result_bytes(pass_),
        naive_im2col_bytes=layer.columns_bytes,
        rss_peak_bytes=highest(timeline),
        rss_timeline=_thinned(timeline, TIMELINE_POINTS),
        grows_bytes=metered.grows_bytes,
        garbage_bytes=metered.garbage_bytes,
    )


@contextmanager
def imported_alone(implementation: Implementation) -> Iterator[tuple[Implementation, int]]:
    """Yield own code with state of its own, and the bytes of NumPy's arrays that its import made.

    Code that was called before holds what it kept for other layers.
    """
    if not implementation.is_own:
        yield implementation, 0
        return
    with contextlib.ExitStack() as stack:
        arrays_bytes, alone = arrays_left(lambda: stack.enter_context(implementation.alone()))
        yield alone, arrays_bytes


@functools.cache
def self_test(runtime: Runtime) -> str | None:
    """Test whether each meter of this process sees 1 MiB when 1 MiB is allocated.

    Return None if they all do, and a sentence about those that do not otherwise. Call it after the
    runtime was started, since a first operation may fix the runtime's number of threads.
    """
    methods = _available(runtime.meters())
    faults = [_test(method, runtime) for method in methods]
    if not methods:
        faults = [f"memray does not run here, and nothing else sees the memory of {runtime.name}"]
    return "; ".join(fault for fault in faults if fault) or None


# The choice of a method, and whether to trust it


def _method(meters: Meters) -> Method:
    return next(iter(_available(meters)), "rss")


def _available(meters: Meters) -> list[Method]:
    """Return the methods that see the runtime's arrays and run on this system, the best first."""
    return [method for method in meters.seen_by if method != "memray" or _memray_runs()]


def _memray_runs() -> bool:
    try:
        import memray  # noqa: F401
    except ImportError:  # no wheel for this platform, or a library that is missing
        return False
    return True


def _doubt(method: Method, runtime: Runtime) -> str | None:
    if method == "rss":
        return None
    needed = runtime.meters().variables
    missing = [f"{k}={v}" for k, v in needed.items() if os.environ.get(k) != v]
    if missing:
        return f"{' '.join(missing)} is not set"
    return self_test(runtime)


def _cross_check(method: Method, runtime: Runtime, metered: Metered) -> str | None:
    """Hold memray's peak of a call against tracemalloc's, if both see the runtime's arrays.

    Return None if they agree, and otherwise what tracemalloc sees.
    """
    is_seen = "tracemalloc" in runtime.meters().seen_by
    if method != "memray" or not is_seen or metered.call_s > CROSS_CHECK_S:
        return None
    seen = traced_peak(metered.prepared.run)
    slack = CROSS_CHECK_RATIO * metered.call_peak_bytes + CROSS_CHECK_BYTES
    if seen - metered.call_peak_bytes - metered.grows_bytes - metered.garbage_bytes <= slack:
        return None
    return f"tracemalloc sees {seen / 2**20:.1f} MiB"


def _unseen(method: Method, metered: Metered, held_bytes: int) -> str | None:
    """Hold what a meter sees of own code against resident memory. Return None if it is enough.

    `held_bytes` is how much resident memory has grown since before `prepare`.
    """
    calls = (1 + CALLS) * (metered.grows_bytes + metered.garbage_bytes)
    beyond = [_beyond(held_bytes, metered.held_bytes + calls)]
    idle = resident_bytes()
    if forget_peak_resident():
        metered.prepared.run()
        rise = peak_resident_bytes() - idle
        seen = metered.call_peak_bytes + metered.grows_bytes + metered.garbage_bytes
        beyond.append(_beyond(rise, seen))
    most = max(beyond)
    if most <= 0:
        return None
    return f"resident memory grows by {most / 2**20:.1f} MiB more than {method} sees"


def _beyond(resident: int, seen: int) -> int:
    """Return by how much resident memory exceeds what was seen, or 0 if that is no more than pages
    and arenas explain."""
    return resident - seen if resident > (1 + UNSEEN_RATIO) * seen + UNSEEN_BYTES else 0


@functools.cache
def _test(method: Method, runtime: Runtime) -> str | None:
    runs = [_array, runtime.allocation(TEST_BYTES)]
    for run in runs:
        run()  # the first call may allocate more than later ones
    seen = memray_peaks(runs) if method == "memray" else [traced_peak(run) for run in runs]
    slack = runtime.meters().slack_bytes
    for peak in seen:
        if not TEST_BYTES <= peak <= TEST_BYTES + slack:
            return f"{method} saw {peak:,} bytes where {TEST_BYTES:,} were allocated"
    return None


def _array() -> object:
    return np.empty(TEST_BYTES, np.uint8)


# The rest of a measurement


def _emptied_buffers(threads: int) -> tuple[BlasBuffers | None, str | None]:
    """Return BLAS's buffers, emptied for the calls that count; or None, and a sentence that says
    why they cannot be counted."""
    try:
        buffers = BlasBuffers(threads)
        buffers.forget()
    except (BuffersUnseenError, OSError) as error:
        return None, f"without BLAS's buffers: {error}"
    return buffers, None


def _rehearse(implementation: Implementation, layer: Layer, pass_: Pass, threads: int) -> None:
    """Call an implementation on a small layer, once a process for each implementation and pass.

    The call makes its lazy imports, thread pools and compilers. Without it the first XLA cell of a
    process would hold 2 MiB more than the second.
    """
    key = implementation.runtime, implementation.name, pass_
    small = _small(layer)
    if key in _REHEARSED or implementation.unsupported(small, pass_):
        return
    _REHEARSED.add(key)
    # An exception that matters is raised on the layer itself too.
    with suppress(Exception), implementation.alone() as alone:
        prepared = alone.prepare(small, pass_, threads)
        prepared.load(operands_of.floats(small, pass_, seed=0))
        prepared.run()


_REHEARSED: set[tuple[Runtime, str, Pass]] = set()


def _small(layer: Layer) -> Layer:
    """Return a small layer of the same kind, with other shapes.

    With the same shapes, what an implementation caches by shape would not count for the layer.
    """
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


def _thinned(timeline: Timeline, points: int) -> Timeline:
    """Return at most `points` points: the highest one of each stretch, so that the peak stays."""
    stretch = -(-len(timeline) // points)
    return tuple(
        max(timeline[i : i + stretch], key=lambda point: point[1])
        for i in range(0, len(timeline), stretch)
    )
