"""Name at most three things to change, the one with the largest predicted gain first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from convbench.profile.document import Advice, Step
from convbench.profile.findings import Examination, Line, Work
from convbench.profile.ladder import file_of
from convbench.profile.waterfall import Given, uses_products

MOST = 3
"""Largest number of changes that are advised."""

WORTH = 1.05
"""Smallest gain for which a change is advised: the time before over the time after."""

UNSURE = 1.25
"""Factor by which a prediction may be off: its range is the time divided and multiplied by it."""

CHANGES = {
    "python calls": "make fewer and larger calls: loop over kernel positions or blocks, not pixels",
    "temporaries": "write into an existing array (out=), or do two passes over an array in one",
    "fresh pages": "allocate the arrays once and reuse them: use out=, or keep a workspace",
    "element-wise arithmetic": "replace multiply-and-sum with a matrix product: gather the windows "
    "into the rows of a matrix (im2col), then call np.matmul once",
    "layout": "copy long runs: keep channels last, or gather whole kernel rows at a time",
    "dtype": "compute in float32, and cast the operands once, before the computation",
    "threads": "let products use all threads, and deal blocks of images to threads of your own",
    "BLAS kernels": "unset the variable that pins BLAS to another CPU's kernels",
    "algorithm": "use an algorithm with fewer multiplications: Winograd's, on tiles of images",
}
"""Change that is advised for each cause. The sentence is printed after the cause and a colon."""

MANY_CALLS = 100
"""Number of NumPy calls above which a Python loop is assumed to make them."""


@dataclass(frozen=True)
class _Gain:
    cause: str
    left_s: float


def advice(given: Given, steps: tuple[Step, ...], lines: tuple[Line, ...]) -> tuple[Advice, ...]:
    """Return at most MOST changes, ordered by the time that each alone would leave, least first."""
    found = []
    explained_s = steps[0].left_s * steps[0].factor
    for step in steps:
        if step.cause == "algorithm":
            left = _winograd_s(given)
        elif step.cause in CHANGES:
            # The unexplained time is taken to be spread evenly over all that was found.
            saved = _saved(given, step) * given.time_s / explained_s
            left = max(given.time_s - saved, given.time_s / 1e6)
        else:
            continue
        if given.time_s / left >= WORTH:
            found.append(_Gain(step.cause, left))
    found.sort(key=lambda gain: gain.left_s)
    return tuple(_advice(gain, given.found, lines) for gain in found[:MOST])


def _saved(given: Given, step: Step) -> float:
    """Return the seconds that a change saves: the time of its cause, less what the change costs."""
    found = given.found
    scale = given.time_s / found.call_s
    has_products = uses_products(found)
    others = sum(one.seconds for one in found.work if one.kind != "product") * scale
    saved = step.left_s * (step.factor - 1)
    copied = sum(one.bytes for one in found.work if one.kind == "copy")
    is_gathered = copied >= found.layer.columns_bytes
    gather_s = 0.0 if is_gathered else found.gather_s * scale  # the windows were only views
    if step.cause == "python calls" and has_products and found.calls > MANY_CALLS:
        return saved - gather_s
    if step.cause == "element-wise arithmetic" and not has_products:
        # A product keeps its sums in registers, so that the temporaries go with the arithmetic.
        # BLAS deals the product to all threads by itself.
        traffic = sum(one.traffic for one in found.work if one.kind == "arithmetic")
        seconds, many = found.products.seconds, found.products.threads
        on_all = seconds[found.dtype, 1] - seconds[found.dtype, many]
        return saved + (traffic + on_all) * scale - gather_s
    if step.cause == "dtype" and not has_products:
        return scale * sum(one.seconds * (1 - 1 / one.dtype_factor) for one in found.work)
    if step.cause == "threads":
        alone = 0.0 if found.own_threads > 1 else others * (1 - 1 / found.products.threads)
        return saved + alone if has_products else 0.0
    return saved


def _winograd_s(given: Given) -> float:
    """Return the seconds of Winograd's algorithm; code that is not mostly products keeps its time.

    The time is scaled by how much longer the code took in the run than in the experiments.
    """
    found = given.found
    products = sum(one.rest for one in found.work if one.kind == "product")
    if given.winograd_s is None or products < found.call_s / 2:
        return given.time_s
    whole = given.layer.flops / found.layer.flops
    return given.winograd_s * given.time_s / (found.call_s * whole)


def _advice(gain: _Gain, found: Examination, lines: tuple[Line, ...]) -> Advice:
    cause = gain.cause
    line = _line(found, cause, lines)
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
    """Return the line that has most of the cause, or None if no line can be named."""
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
