"""Make a call of NumPy once more in other conditions, to tell what its time is made of."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import threadpoolctl

from convbench.profile.findings import Work
from convbench.profile.operations import Example, Operation

SECONDS = 0.03
"""Seconds of a replay. The time of a call is the least of all calls that fit, at least two."""

TURN_S = 1e-3
"""Seconds of one turn. A turn makes a short call several times."""


def least_s(call: Callable[[], object], seconds: float = SECONDS) -> float:
    """Return the least time of a call, in seconds."""
    return least_each(call, seconds=seconds)[0]


def least_each(*calls: Callable[[], object], seconds: float = SECONDS) -> list[float]:
    """Return the least time of each call, in seconds.

    The calls take turns, so that a process that takes the CPU away slows all of them. A turn makes
    a short call several times, since the first one finds caches and vector units as other calls
    left them.
    """
    least = [math.inf] * len(calls)
    end = time.perf_counter() + seconds * len(calls)
    for call in calls:
        call()
    turns = 0
    while turns < 2 or (time.perf_counter() < end and turns < 1000):
        for index, call in enumerate(calls):
            until = time.perf_counter() + TURN_S
            while True:
                start = time.perf_counter()
                call()
                now = time.perf_counter()
                least[index] = min(now - start, least[index])
                if now > until:
                    break
        turns += 1
    return least


@functools.cache
def copy_s(nbytes: int) -> float:
    """Return the seconds to copy bytes between existing arrays, less the price of the call."""
    if nbytes < 1024:
        return 0.0
    source, target = np.ones(nbytes, np.uint8), np.ones(nbytes, np.uint8)
    call_s = least_s(lambda: np.copyto(target[:1], source[:1]))
    return max(least_s(lambda: np.copyto(target, source)) - call_s, 0.0)


def parted(
    work: Work, operation: Operation, example: Example, once: int, threads: int, is_fed: bool
) -> Work:
    """Return the work with its parts filled in.

    `once` is the number of written bytes that are the result's own, and `is_fed` says that a
    strided copy wrote an operand.
    """
    left = work.seconds
    if operation.kind == "product":
        return _parted_product(work, operation, example, threads, is_fed)
    arrays = [a for a in (*example.arguments, example.result) if isinstance(a, np.ndarray)]
    floats = {a.dtype for a in arrays if a.dtype.kind == "f"}
    if operation.kind == "copy" and len(floats) > 1:
        return replace(work, cast=left)
    if operation.kind == "copy" and len(arrays) > 1 and all(a.flags.c_contiguous for a in arrays):
        return replace(work, traffic=left)
    moved = max(operation.written - once / work.calls, 0)
    if operation.kind == "arithmetic" and operation.dtype == "float64":
        work = replace(work, dtype_factor=_in_single(example))
    traffic = min(copy_s(int(moved)) * work.calls, left)
    left -= traffic
    layout = left if operation.kind == "copy" else 0.0
    return replace(work, traffic=traffic, layout=layout)


def _in_single(example: Example) -> float:
    """Return how many times as fast a call is on arrays of float32."""
    if "out" in example.keywords:
        return 1.0
    singles = [
        _single(a) if isinstance(a, np.ndarray) and a.dtype == np.float64 else a
        for a in example.arguments
    ]
    try:
        double_s, single_s = least_each(
            lambda: example.function(*example.arguments, **example.keywords),
            lambda: example.function(*singles, **example.keywords),
        )
    except Exception:  # noqa: BLE001 - a call that cannot be replayed gains nothing
        return 1.0
    return max(double_s / single_s, 1.0)


def _single(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return an array as float32 with the same strides in elements: a view of copied memory."""
    base = array
    while isinstance(base.base, np.ndarray):
        base = base.base
    if base is array or base.dtype != array.dtype or not base.flags.forc:
        return array.astype(np.float32)
    memory = base.ravel(order="K").astype(np.float32)
    starts = (a.__array_interface__["data"][0] for a in (array, base))
    offset = (next(starts) - next(starts)) // 2
    strides = tuple(stride // 2 for stride in array.strides)
    return np.ndarray(array.shape, np.float32, memory, offset, strides)


def _parted_product(
    work: Work, operation: Operation, example: Example, threads: int, is_fed: bool
) -> Work:
    """Fill in a product's hidden copies, dtype and threads, by timing products without them."""
    left = work.seconds
    factors = [a for a in example.arguments if isinstance(a, np.ndarray)][:2]
    if len(factors) < 2 or left <= 0:
        return work
    takes_out = "out" in example.keywords or operation.name == "matmul"
    out = example.result if takes_out and isinstance(example.result, np.ndarray) else None
    contiguous = [np.ascontiguousarray(a) for a in factors]

    def product(arrays: list[Any], into: Any) -> Callable[[], object]:
        left_over = iter(arrays)
        given = [next(left_over, a) if isinstance(a, np.ndarray) else a for a in example.arguments]
        keywords = {**example.keywords, **({} if into is None else {"out": into})}
        return functools.partial(example.function, *given, **keywords)

    def timed(count: int, *calls: Callable[[], object]) -> list[float]:
        with threadpoolctl.threadpool_limits(count, user_api="blas"):
            return least_each(*calls)

    try:
        plain_out = None if out is None else np.empty(out.shape, out.dtype)
        ours = product(contiguous, plain_out)
        as_it_is, plain = timed(threads, product(factors, out), ours)
        # A transposed operand costs BLAS nothing, so that small savings do not count as layout.
        layout = left * max(1 - plain / as_it_is, 0.0) if as_it_is > 1.1 * plain else 0.0
        left -= layout
        dtype_factor = 1.0
        if operation.dtype != "float32":
            singles = [a.astype(np.float32) for a in contiguous]
            single_out = None if out is None else np.empty(out.shape, np.float32)
            plain, single = timed(threads, ours, product(singles, single_out))
            dtype_factor = max(plain / single, 1.0)
        threads_factor = 1.0
        if threads > 1:
            (alone,) = timed(1, ours)
            in_place = left / work.calls
            # In the code it took as long as on one thread, so that something holds BLAS back.
            if alone > 1.25 * plain and in_place > (alone * plain) ** 0.5:
                threads_factor = alone / plain
        if is_fed:  # a strided copy leaves the caches in a worse state for the product
            alone_s = (plain if layout else as_it_is) * threads_factor
            layout += max(left - alone_s * work.calls, 0.0)
    except Exception:  # noqa: BLE001 - a call that cannot be replayed has no parts
        return work
    return replace(work, layout=layout, dtype_factor=dtype_factor, threads_factor=threads_factor)
