"""Time the stages that an implementation declares, while it is profiled.

For the time of a call each owner of a stage has an attribute of its own that times the method; no
class and no module changes, and afterwards the owners are as before. Time in a stage that another
one calls is the other's. Each thread has its own clock; stages are summed over the threads.
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
"""Name of the time that no stage covers: dealing out blocks, starting threads, the Python in
between."""


class _Clock(threading.local):
    """The seconds that stages have taken inside each stage that one thread is in."""

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
    """What was prepared says of its stages; empty for what names none."""
    return tuple(prepared.stages()) if isinstance(prepared, Staged) else ()


def timed_stages(prepared: Prepared, calls: int = 5) -> tuple[StageTime, ...]:
    """Seconds of a call by stage, the median call's; empty for what names no stages."""
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
            # Not setattr: an owner may be a frozen dataclass.
            attributes, method = vars(stage.owner), stage.method
            undo.append(_restoring(attributes, method))
            attributes[method] = timers.wrapped(stage.name, getattr(stage.owner, method))
        yield
    finally:
        for restore in reversed(undo):
            restore()


def _restoring(attributes: dict[str, Any], name: str) -> Callable[[], object]:
    """What makes an attribute again as it is now: another value, or none."""
    if name not in attributes:
        return lambda: attributes.pop(name, None)
    value = attributes[name]
    return lambda: attributes.__setitem__(name, value)
