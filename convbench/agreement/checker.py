"""The verdict on one cell: is what the implementation computes the convolution?

Two checks. *Exact integers* at full size: every sum is an integer that a float holds, so that an
implementation which only sums products must give the very same numbers. *Floats* on a cut copy of
the layer, against the a-priori bound. Each check loads twice, with different values, and poisons
the implementation's buffers with NaN before each call, so that a result which depends on an
earlier call, or that was never written, shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench import operands
from convbench.agreement import oracle
from convbench.agreement.bound import cut, gamma
from convbench.implementations.contract import Implementation
from convbench.layer import Layer, Pass
from convbench.operands import Operands
from convbench.results import Agreement

Array = NDArray[np.floating[Any]]

MISTRUSTED_ZEROS = 0.7
"""A check proves nothing when more than this part of what it could tell apart is zero."""

ROUNDING = 0.5
"""Integers off by less than this, in code that declares nothing, may be rounding."""


@dataclass(frozen=True)
class _Comparison:
    """The largest deviation of two loads' results; `problem` is a sentence, or None."""

    problem: str | None
    max_abs_error: float
    error_over_bound: float
    zeros: float  # part of the expected result that is zero where it need not be


def check(
    implementation: Implementation, layer: Layer, pass_: Pass, threads: int, seed: int
) -> Agreement:
    """Runs both checks. What the implementation raises is the caller's to report."""
    integers = _compare(
        implementation, layer, pass_, threads, seed, operands.exact_integers, exactly=True
    )
    small = cut(layer, pass_)
    floats = _compare(implementation, small, pass_, threads, seed, operands.floats, exactly=False)

    exact = implementation.exact(layer, pass_)
    declares_nothing = ":" in implementation.name
    equal = integers.problem is None
    only_rounds = declares_nothing and integers.max_abs_error < ROUNDING and floats.problem is None
    integers_count = exact or declares_nothing
    problem = floats.problem
    if integers_count and not equal and not only_rounds:
        problem = integers.problem

    mistrusted = integers.zeros > MISTRUSTED_ZEROS or floats.zeros > MISTRUSTED_ZEROS
    verdict = Agreement(
        exact=equal if integers_count else None,
        error_over_bound=_finite(floats.error_over_bound),
        max_abs_error=_finite(floats.max_abs_error),
        verdict="agrees",
    )
    if problem is not None:
        return replace(verdict, verdict="wrong", diagnosis=problem)
    if mistrusted:
        part = max(integers.zeros, floats.zeros)
        return replace(
            verdict,
            verdict="mistrusted",
            diagnosis=f"{part:.0%} of the right result is zero, so that agreeing proves nothing",
        )
    return verdict


def _compare(
    implementation: Implementation,
    layer: Layer,
    pass_: Pass,
    threads: int,
    seed: int,
    draw: Callable[[Layer, Pass, int], Operands],
    exactly: bool,
) -> _Comparison:
    """Loads and runs twice with different values, then compares both results."""
    prepared = implementation.prepare(layer, pass_, threads)
    drawn = [draw(layer, pass_, 2 * seed), draw(layer, pass_, 2 * seed + 1)]
    results = []
    for values in drawn:
        prepared.load(values)
        for buffer in prepared.buffers:
            buffer.fill(np.nan)
        results.append(np.array(prepared.to_numpy(prepared.run())))
    # Compared only now: a result that the next call overwrites is then a copy of its own.
    comparisons = [
        _deviation(layer, pass_, values, result, exactly)
        for values, result in zip(drawn, results, strict=True)
    ]
    return _Comparison(
        problem=next((c.problem for c in comparisons if c.problem is not None), None),
        max_abs_error=max(c.max_abs_error for c in comparisons),
        error_over_bound=max(c.error_over_bound for c in comparisons),
        zeros=max(c.zeros for c in comparisons),
    )


def _deviation(
    layer: Layer, pass_: Pass, values: Operands, result: Array, exactly: bool
) -> _Comparison:
    shape = layer.result_shape(pass_)
    if result.shape != shape:
        found, wanted = (" x ".join(map(str, s)) for s in (result.shape, shape))
        return _Comparison(f"the result is {found}, expected {wanted}", np.inf, np.inf, 0.0)
    if result.dtype.kind not in "fiu":
        return _Comparison(f"the result has dtype {result.dtype}", np.inf, np.inf, 0.0)
    expected = oracle.expected(layer, pass_, values)
    with np.errstate(invalid="ignore"):
        error = np.abs(result - expected)
    reached = np.broadcast_to(_reached(layer, pass_), shape)
    zeros = float(np.mean(expected[reached] == 0)) if reached.any() else 0.0
    unwritten = int(np.count_nonzero(np.isnan(error)))
    if unwritten:
        sentence = f"{unwritten} of {error.size} elements are NaN: never written, or computed so"
        return _Comparison(sentence, np.inf, np.inf, zeros)
    largest = float(error.max())
    if exactly:
        bad = error > 0
        over = largest
    else:
        bound = gamma(layer, pass_) * oracle.magnitude(layer, pass_, values)
        bad = error > bound
        ratio = np.divide(error, bound, out=np.zeros_like(error), where=bound > 0)
        over = float(np.inf if (bad & (bound == 0)).any() else ratio.max())
    if not bad.any():
        return _Comparison(None, largest, over, zeros)
    where = np.unravel_index(int(np.argmax(bad)), shape)
    sentence = (
        f"{np.count_nonzero(bad)} of {bad.size} elements differ, the first at "
        f"{tuple(int(i) for i in where)}: found {result[where]:.6g}, expected {expected[where]:.6g}"
    )
    return _Comparison(sentence, largest, over, zeros)


def _reached(layer: Layer, pass_: Pass) -> NDArray[np.bool_]:
    """Which elements are a sum of anything at all, with one image, channel and filter.

    With strides larger than the kernel most of an input gradient is zero and has to be.
    """
    plain = replace(
        layer,
        batch_size=1,
        input_shape=(*layer.input_size, 1),
        filters=1,
        groups=1,
        use_bias=False,
        dtype="float64",
    )
    ones = Operands(
        np.ones((1, *plain.input_shape)),
        np.ones(plain.kernel_shape),
        None,
        np.ones((1, *plain.output_shape)),
    )
    return oracle.expected(plain, pass_, ones) > 0


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
