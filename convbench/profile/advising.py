"""At most three things to change, the one with the largest predicted gain first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from convbench.profile.document import Advice, Step
from convbench.profile.findings import Examination, Line, Work
from convbench.profile.ladder import file_of
from convbench.profile.waterfall import Given, uses_products

MOST = 3
WORTH = 1.05
"""Nothing that gains less is advised."""

UNSURE = 1.25
"""A prediction is the time so many times up and down."""

CHANGES = {
    "python calls": "make fewer and larger calls: loop over kernel positions or blocks, not pixels",
    "temporaries": "write into an array that is there (out=), or do two passes over it in one",
    "fresh pages": "allocate the arrays once and reuse them: out=, or a workspace of the object's",
    "element-wise arithmetic": "exchange multiply-and-sum for a matrix product: gather the windows "
    "into the rows of a matrix (im2col), then one np.matmul",
    "layout": "copy long runs: keep channels last, or gather whole kernel rows at a time",
    "dtype": "compute in float32: cast the operands once, outside",
    "threads": "let products use all threads; deal blocks of images to threads of your own",
    "BLAS kernels": "unset the variable that pins BLAS to another CPU's kernels",
    "algorithm": "take an algorithm with fewer multiplications or copies: Winograd for 3x3, mec "
    "for small layers",
}

TRIED = {"dtype", "threads", "BLAS kernels"}
"""Causes whose change the experiments have measured as such."""


@dataclass(frozen=True)
class _Gain:
    step: Step
    left_s: float


def advice(given: Given, steps: tuple[Step, ...], lines: tuple[Line, ...]) -> tuple[Advice, ...]:
    """What each cause alone would save, as far as it can be told apart."""
    found = [gain for step in steps if (gain := _gain(given, step)) is not None]
    found.sort(key=lambda gain: gain.left_s)
    chosen = [gain for gain in found if given.time_s / gain.left_s >= WORTH][:MOST]
    return tuple(_advice(given, gain, lines) for gain in chosen)


def _gain(given: Given, step: Step) -> _Gain | None:
    """The time with this cause alone gone: its own seconds taken from the whole."""
    if step.cause not in CHANGES or step.factor <= 1:
        return None
    if step.cause == "algorithm":
        return None
    saved = step.left_s * (step.factor - 1)
    if step.cause in ("dtype", "threads", "BLAS kernels") and not uses_products(given.found):
        # Arithmetic element by element runs on one thread, but half the bytes take half the time.
        if step.cause != "dtype" or given.found.dtype == "float32":
            return None
        saved = 0.5 * sum(one.seconds for one in given.found.work)
    left = max(given.time_s - saved, given.time_s / 1e6)
    return _Gain(step, left)


def _advice(given: Given, gain: _Gain, lines: tuple[Line, ...]) -> Advice:
    cause = gain.step.cause
    line = _line(given.found, cause, lines)
    return Advice(
        cause=cause,
        change=CHANGES[cause],
        predicted_s=(gain.left_s / UNSURE, gain.left_s * UNSURE),
        read=file_of(cause),
        file=line.file if line else "",
        number=line.number if line else 0,
        line=line.text.strip() if line else "",
    )


def _line(found: Examination, cause: str, lines: tuple[Line, ...]) -> Line | None:
    """The line that has most of the cause."""
    by_place = {(line.file, line.number): line for line in lines}
    if cause == "python calls":
        loops = [line for line in lines if line.calls]
        return max(loops, key=lambda line: line.calls, default=None)
    parts = {
        "temporaries": lambda one: one.traffic,
        "fresh pages": lambda one: one.bytes,
        "layout": lambda one: one.layout,
        "element-wise arithmetic": lambda one: one.rest if one.kind == "arithmetic" else 0.0,
        "dtype": lambda one: one.seconds if one.kind in ("product", "arithmetic") else 0.0,
        "threads": lambda one: one.seconds if one.kind == "product" else 0.0,
    }
    weigh = parts.get(cause)
    if weigh is None:
        return None
    for one in _heaviest(found.work, weigh):
        if one.line in by_place:
            return by_place[one.line]
    return None


def _heaviest(work: tuple[Work, ...], weigh: object) -> Iterator[Work]:
    assert callable(weigh)
    yield from sorted((one for one in work if weigh(one) > 0), key=lambda one: -weigh(one))
