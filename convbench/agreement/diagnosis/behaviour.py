"""Tell whether a result depends on more than its operands: earlier calls, threads, chance.

The experiments run copies of the code's module, each of which has its own state. The same calls in
the same order must give the same results in every copy, and a repeated call must repeat its result.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from convbench.agreement.check.case import Case
from convbench.agreement.check.checker import is_wrong
from convbench.agreement.check.deviation import fits
from convbench.agreement.check.trial import GARBAGE, Array, Seen, harder
from convbench.agreement.diagnosis.computation import Float64
from convbench.problem.values import READS
from convbench.results.model import Explanation, MistakeKind

LOCK_S = 5.0
"""Longest that a thread waits for another one, in seconds, so that no two wait forever."""

COPIES = 2
"""Number of copies of the code's module that make the same calls."""


def behaviour(case: Case) -> Explanation | None:
    """Explain what a wrong result depends on besides its operands, or return None if on nothing.

    The check must have found something wrong on this layer.
    """

    def sequence() -> list[Seen]:
        trial = case.fresh().trial()
        return [trial.call(first), trial.call(), trial.call(second), trial.call(first)]

    first, second = case.integers(0), case.integers(1)
    values = (first, first, second, first)
    runs = [sequence() for _ in range(COPIES)]
    modified = sorted({name for seen in runs[0] for name in seen.modified})
    if modified:
        what = " and ".join(modified)
        return _told(
            "modifies-operands", "", f"it writes into {what}: operands belong to the caller"
        )
    if not all(_same(a, b) for run in runs[1:] for a, b in zip(runs[0], run, strict=True)):
        with _one_at_a_time() as started:
            serial = [sequence() for _ in range(COPIES)]
        steady = all(_same(a, b) for run in serial[1:] for a, b in zip(serial[0], run, strict=True))
        if started and steady:
            return _told(
                "depends-on-threads",
                "",
                "its threads race: the same calls give different results, and equal results when "
                "the threads run one after the other",
            )
        return _told(
            "not-deterministic", "", "the same calls on the same operands give different results"
        )
    one, again, other, back = runs[0]
    alone = case.fresh().trial().call(second)
    if not (_same(one, again) and _same(one, back) and _same(other, alone)):
        expected = case.right(first).expected
        return _told("depends-on-previous-call", *_what_is_kept(runs[0], expected))
    is_right = all(
        fits(case.right(given), seen) for given, seen in zip(values, runs[0], strict=True)
    )
    if is_right and not is_wrong(case.fresh()):
        return _told(
            "depends-on-previous-call",
            "only after others",
            "it is right in a fresh process and wrong after other calls: it keeps state between "
            "calls",
        )
    return None


def unsafe_for_threads(case: Case) -> bool:
    """Tell whether two threads that call at once, each with its own operands, get wrong results.

    The code must be right when one thread calls it. Code that raises counts as safe: it may only
    need the main thread.
    """
    calls = 20
    draws = [case.integers(0), case.integers(1)]
    prepared = [case.implementation.prepare(case.layer, case.pass_, 1) for _ in draws]
    for given, ready in zip(draws, prepared, strict=True):
        ready.load(given)
    expected = [np.array(ready.to_numpy(ready.run())) for ready in prepared]
    results: list[list[Array]] = [[], []]
    raised: list[Exception] = []
    barrier = threading.Barrier(len(draws))

    def work(index: int) -> None:
        ready = prepared[index]
        barrier.wait(LOCK_S)
        for _ in range(calls):
            try:
                results[index].append(np.array(ready.to_numpy(ready.run())))
            except Exception as error:  # noqa: BLE001 - it may raise anything
                raised.append(error)

    workers = [threading.Thread(target=work, args=(index,)) for index in range(len(draws))]
    with harder(case.implementation.runtime, GARBAGE):
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    if raised:
        return False
    return not all(
        np.allclose(result, right, rtol=1e-4, atol=0.5)
        for found, right in zip(results, expected, strict=True)
        for result in found
    )


def hidden(case: Case) -> tuple[str, ...]:
    """Return which of NaN and infinity in the images do not reach all results that depend on them.

    Code that raises on such values hides nothing.
    """
    drawn = case.integers(0)
    name = READS[case.pass_][0]
    trial = replace(case, threads=1).trial()
    found = []
    for what, value in (("NaN", np.nan), ("infinity", np.inf)):
        images = getattr(drawn, name).copy()
        images[tuple(size // 2 for size in images.shape)] = value
        given = replace(drawn, **{name: images})
        with np.errstate(all="ignore"):
            expected = case.right(given).expected
            try:
                result = trial.call(given).result
            except Exception:  # noqa: BLE001 - it may refuse such values as it likes
                continue
        if result is not None and np.isfinite(result[~np.isfinite(expected)]).any():
            found.append(what)
    return tuple(found)


def _told(cause: str, variant: str, sentence: str) -> Explanation:
    return Explanation.of([MistakeKind(cause, variant)], sentence, reproduces=False)


def _what_is_kept(seen: list[Seen], expected: Float64) -> tuple[str, str]:
    """Return the variant of `depends-on-previous-call`, and the sentence that explains it."""
    one, again, other, _ = (s.result for s in seen)
    if one is not None and again is not None and other is not None:
        if np.allclose(again, 2 * expected):
            return (
                "adds up",
                "each call adds to the result of the call before: a buffer is not cleared",
            )
        if np.array_equal(other, one):
            return (
                "earlier result",
                "it returns the result of an earlier call, whatever its operands are",
            )
    return "", "its result depends on earlier calls: it keeps state between calls"


def _same(one: Seen, other: Seen) -> bool:
    return _equal(one.raw, other.raw)


def _equal(one: Array, other: Array) -> bool:
    """Tell whether two results are equal up to the rounding of sums in another order."""
    if one.shape != other.shape:
        return False
    if one.dtype.kind not in "fiu" or other.dtype.kind not in "fiu":
        return bool(np.array_equal(one, other))
    scale = float(np.abs(one[np.isfinite(one)]).max(initial=1.0))
    with np.errstate(all="ignore"):  # a warning would be of this comparison, not of the code
        return bool(np.allclose(one, other, rtol=0, atol=1e-6 * scale, equal_nan=True))


@contextmanager
def _one_at_a_time() -> Iterator[list[str]]:
    """Run threads that start inside the `with` one after the other. Yield a list of their names."""
    lock, started = threading.Lock(), list[str]()
    start = threading.Thread.start

    def serial_start(thread: threading.Thread) -> None:
        run = thread.run
        started.append(thread.name)

        def alone() -> None:
            has_it = lock.acquire(timeout=LOCK_S)
            try:
                run()
            finally:
                if has_it:
                    lock.release()

        thread.run = alone  # type: ignore[method-assign]
        start(thread)

    threading.Thread.start = serial_start  # type: ignore[method-assign, assignment]
    try:
        yield started
    finally:
        threading.Thread.start = start  # type: ignore[method-assign]
