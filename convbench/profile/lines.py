"""Time the user's code line by line with line_profiler, and tell from the trace what NumPy did."""

from __future__ import annotations

import linecache
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from types import CodeType

from convbench.profile.findings import Line
from convbench.profile.tracing import Trace

MAX_LINES = 40
"""Largest number of lines that are kept. They are the slowest ones."""


def timed_lines(
    run: Callable[[], object], trace: Trace, is_theirs: Callable[[str], bool]
) -> tuple[tuple[Line, ...], float | None]:
    """Return the slowest lines in their order, and the seconds of the timed call with its overhead.

    `is_theirs` tells the code's own files. If the call reaches none of their functions, there are
    no lines, and the seconds are None.
    """
    from line_profiler import LineProfiler

    functions = _functions(run, is_theirs)
    if not functions:
        return (), None
    profiler = LineProfiler()
    for function in functions:
        profiler.add_function(function)
    run()
    start = time.perf_counter()
    profiler.runcall(run)  # type: ignore[no-untyped-call]
    took = time.perf_counter() - start
    stats = profiler.get_stats()
    seconds: dict[tuple[str, int], float] = defaultdict(float)
    hits: Counter[tuple[str, int]] = Counter()
    for (file, _, _), timings in stats.timings.items():
        for number, count, total in timings:
            seconds[file, number] += total * stats.unit
            hits[file, number] += count
    inside: dict[tuple[str, int], float] = defaultdict(float)
    calls: Counter[tuple[str, int]] = Counter()
    allocated: Counter[tuple[str, int]] = Counter()
    for call in trace.calls:
        operation = trace.operations[call.operation]
        inside[operation.line] += call.seconds
        calls[operation.line] += 1
        allocated[operation.line] += operation.fresh
    heaviest = sorted(seconds, key=lambda line: -seconds[line])[:MAX_LINES]
    found = tuple(
        Line(
            file,
            number,
            linecache.getline(file, number).rstrip(),
            seconds[file, number],
            inside[file, number],
            hits[file, number],
            calls[file, number],
            allocated[file, number],
        )
        for file, number in sorted(heaviest)
    )
    return found, took


def _functions(
    run: Callable[[], object], is_theirs: Callable[[str], bool]
) -> list[Callable[..., object]]:
    """Return the Python functions of the code's own files that a call of `run` reaches."""
    import gc
    import sys
    from types import FrameType, FunctionType
    from typing import Any

    met: set[CodeType] = set()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and is_theirs(frame.f_code.co_filename):
            met.add(frame.f_code)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(before)
    is_frozen = gc.get_freeze_count() > 0
    gc.unfreeze()  # the collector does not list frozen objects
    found: list[Callable[..., object]] = [
        f for f in gc.get_objects() if isinstance(f, FunctionType) and f.__code__ in met
    ]
    if is_frozen:
        gc.freeze()
    return found
