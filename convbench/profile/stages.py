"""Time the stages that an implementation declares, while it is profiled.

During a timed call, each owner of a stage has an attribute of its own in place of the method, which
times it. No class or module changes, and afterwards the owners are as before. If one stage calls
another, the time counts for the inner one. Each thread has its own clock, and the times of a stage
are summed over the threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from convbench.implementations.contract import Prepared, Stage, Staged
from convbench.profile.findings import StageTime

OTHER = "other"
"""Name of the time that no stage covers: dealing out blocks, starting threads, and the Python in
between."""


class _Clock(threading.local):
    """One thread's open stages: for each, the seconds that other stages took inside it."""

    def __init__(self) -> None:
        self.inner: list[float] = []


class _Timers:
    def __init__(self) -> None:
        self._clock = _Clock()
        self._lock = threading.Lock()
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}

    def wrapped(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        inner = self._clock

        def timed(*args: Any, **kwargs: Any) -> Any:
            inner.inner.append(0.0)
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                took = time.perf_counter() - start
                own = took - inner.inner.pop()
                if inner.inner:
                    inner.inner[-1] += took
                with self._lock:
                    self.seconds[stage] = self.seconds.get(stage, 0.0) + own
                    self.calls[stage] = self.calls.get(stage, 0) + 1

        return timed


def declared_stages(prepared: Prepared) -> tuple[Stage, ...]:
    """Return the stages that a prepared object declares: none if it has no `stages`."""
    return tuple(prepared.stages()) if isinstance(prepared, Staged) else ()


def timed_stages(prepared: Prepared, calls: int = 5) -> tuple[StageTime, ...]:
    """Return the seconds of each stage in one call, the median of `calls`. Empty without stages."""
    declared = declared_stages(prepared)
    if not declared:
        return ()
    found = []
    for _ in range(calls):
        timers = _Timers()
        with _timed(declared, timers):
            start = time.perf_counter()
            prepared.run()
            took = time.perf_counter() - start
        found.append((took, timers))
    took, timers = sorted(found, key=lambda each: each[0])[calls // 2]
    times = [
        StageTime(name, timers.seconds[name], timers.calls[name])
        for name in dict.fromkeys(stage.name for stage in declared)
        if name in timers.seconds
    ]
    other = took - sum(one.seconds for one in times)
    return (*times, *([StageTime(OTHER, other, 1)] if other > 0 else []))


@contextmanager
def _timed(stages: Iterable[Stage], timers: _Timers) -> Iterator[None]:
    undo: list[Callable[[], object]] = []
    try:
        for stage in stages:
            # An owner may be a frozen dataclass, which refuses setattr.
            attributes, method = vars(stage.owner), stage.method
            undo.append(_restoring(attributes, method))
            attributes[method] = timers.wrapped(stage.name, getattr(stage.owner, method))
        yield
    finally:
        for restore in reversed(undo):
            restore()


def _restoring(attributes: dict[str, Any], name: str) -> Callable[[], object]:
    """Return a function that gives an attribute its present value again, or removes it."""
    if name not in attributes:
        return lambda: attributes.pop(name, None)
    value = attributes[name]
    return lambda: attributes.__setitem__(name, value)
