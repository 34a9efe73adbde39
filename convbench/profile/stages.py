"""Time named stages of the built-in implementations, while one is profiled.

A stage is a function of an implementation's, wrapped for as long as `timed_stages` runs. Time in a
stage that another one calls is the other's. Each thread has its own clock; stages are summed over
the threads.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np

from convbench.profile.findings import Stage

PACKAGE = "convbench.implementations.numpy"

STAGES: dict[str, dict[str, tuple[str, ...]]] = {
    "im2col": {
        "pad": ("shared.columns:cut", "shared.column_products:cut"),
        "gather": ("shared.columns:Columns.gather", "shared.column_products:KernelRows._gather"),
        "product": (
            "im2col:np.matmul",
            "shared.column_products:multiply",
            "shared.products:SumOfProducts.add",
            "shared.col2im:multiply",
            "direct:PreparedDirect._multiply",
            "direct:PreparedDirect._sum",
        ),
        "scatter": ("shared.col2im:ColumnSums._add", "shared.column_products:KernelRows._write"),
        "reorder": ("im2col:copied", "shared.col2im:np.ascontiguousarray"),
        "bias": ("shared.column_products:add_bias", "direct:add_bias"),
    },
    "mec": {
        "pad": ("shared.lowered:cut",),
        "gather": ("shared.lowered:Lowered.windows",),
        "product": ("mec:np.matmul",),
        "reorder": ("shared.lowered:Lowered.matrix", "mec:np.ascontiguousarray"),
        "bias": ("mec:add_bias",),
    },
    "shift-gemm": {
        "gather": ("shift_gemm:Rows.of", "shift_gemm:copied_shifts"),
        "product": (
            "shift_gemm:np.matmul",
            "shift_gemm:multiply",
            "shared.images_innermost:multiply_wide",
        ),
        "scatter": (
            "shift_gemm:ProductAPosition._summed",
            "shift_gemm:ShiftedSum._summed",
            "shift_gemm:ShiftedCopies._summed",
            "shared.images_innermost:ImagesInnermost._write",
        ),
        "bias": ("shift_gemm:add_bias",),
    },
    "winograd": {
        "gather": ("winograd:Tiles.gather",),
        "transform": (
            "winograd:PreparedWinograd._transformed",
            "winograd:Correlating._transformed_kernel",
        ),
        "scatter": ("winograd:Correlating._write",),
        "product": ("winograd:np.matmul", "winograd:multiply"),
    },
    "fft": {
        "transform": ("fft:PreparedFft._transform", "fft:PreparedFft._back"),
        "product": ("fft:PreparedFft._multiply",),
        "reorder": ("fft:_planes",),
    },
    "direct": {
        "gather": ("direct:PreparedDirect._pixels",),
        "product": ("direct:PreparedDirect._multiply", "direct:PreparedDirect._sum"),
        "bias": ("direct:add_bias",),
    },
    "depthwise": {
        "gather": ("depthwise:Rows.of",),
        "product": ("depthwise:np.einsum",),
        "bias": ("depthwise:add_bias",),
    },
}
STAGES["winograd-2x2"] = STAGES["winograd"]

OTHER = "other"
"""Name of the time that no stage covers: dealing out blocks, starting threads, the Python in
between."""


class _Clock(threading.local):
    """Of one thread: the seconds that stages have taken inside of each open one."""

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

        @functools.wraps(function, updated=())
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


def timed_stages(
    implementation: str, run: Callable[[], object], calls: int = 5
) -> tuple[Stage, ...]:
    """Seconds of a call by stage, the median call's; empty for what has no stages."""
    if implementation not in STAGES:
        return ()
    found = []
    for _ in range(calls):
        timers = _Timers()
        with _wrapped(implementation, timers):
            start = time.perf_counter()
            run()
            took = time.perf_counter() - start
        found.append((took, timers))
    took, timers = sorted(found, key=lambda each: each[0])[calls // 2]
    stages = [
        Stage(name, timers.seconds[name], timers.calls[name])
        for name in STAGES[implementation]
        if name in timers.seconds
    ]
    other = took - sum(stage.seconds for stage in stages)
    return (*stages, *([Stage(OTHER, other, 1)] if other > 0 else []))


@contextmanager
def _wrapped(implementation: str, timers: _Timers) -> Iterator[None]:
    undo: list[tuple[Any, str, Any]] = []
    try:
        for stage, places in STAGES[implementation].items():
            for place in places:
                module_name, _, path = place.partition(":")
                owner: Any = import_module(f"{PACKAGE}.{module_name}")
                *owners, name = path.split(".")
                if owners == ["np"]:  # NumPy's own function, for that module alone
                    if not isinstance(vars(owner)["np"], SimpleNamespace):
                        undo.append((owner, "np", owner.np))
                        owner.np = SimpleNamespace(**vars(np))
                    owner = owner.np
                elif owners:
                    owner = getattr(owner, owners[0])
                function = getattr(owner, name)
                if owner is not getattr(import_module(f"{PACKAGE}.{module_name}"), "np", None):
                    undo.append((owner, name, function))
                setattr(owner, name, timers.wrapped(stage, function))
        yield
    finally:
        for owner, name, function in reversed(undo):
            setattr(owner, name, function)
