"""Describe a wrong result that no known mistake explains: where it is wrong, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from convbench.agreement.check.systematic import trend
from convbench.agreement.check.trial import OUR_LETTERS, Array
from convbench.agreement.diagnosis.computation import Computation, Float64
from convbench.problem.layer import Layer, Pass
from convbench.results.model import Explanation, MistakeKind

UNEXPLAINED = "no mistake that convbench knows explains it"

MINOR = 0.05
"""Smallest effect of an offset on results that counts, as a part of the effect of a factor; and the
same the other way round."""

CLOSE_FACTOR = 0.01
"""Largest distance from 1 of a factor that `linear` reports. `_constant_factor` finds factors that
are further from 1, and needs all draws."""

_AXES = {
    Pass.FORWARD: ("image", "row", "column", "filter"),
    Pass.INPUT_GRADIENT: ("image", "row", "column", "channel"),
    Pass.KERNEL_GRADIENT: ("row", "column", "channel", "filter"),
}
_CAUSE_OF_AXIS = {
    "image": "one-image-only",
    "filter": "one-filter-only",
    "channel": "one-channel-only",
}


def pattern(draws: Sequence[tuple[Array, Computation]], layer: Layer, pass_: Pass) -> Explanation:
    """Return an explanation that is told from what several draws look like.

    A draw is the result that was seen and the right computation. `causes` of the explanation is
    empty if even this tells nothing.
    """
    seen = [result for result, _ in draws]
    right = [computation.result() for _, computation in draws]
    if seen[0].shape != right[0].shape:
        return _told("", "shape", UNEXPLAINED)
    wrong = np.zeros(right[0].shape, bool)
    for result, expected in zip(seen, right, strict=True):
        scale = float(np.abs(expected).max(initial=1.0))
        with np.errstate(invalid="ignore"):
            wrong |= ~(np.abs(result - expected) <= 1e-5 * scale)
    if told := linear(seen[-1], right[-1]):  # the last draw has floats, the smallest numbers
        return told
    if not wrong.any():
        sentence = f"{UNEXPLAINED}: its errors are small, but larger than rounding errors"
        return _told("", "small errors", sentence)
    where = region(wrong, pass_)
    at = " and ".join(_bounded(wrong, pass_))
    if all(bool(np.isinf(result[wrong]).all()) for result in seen):
        sentence = f"the result is infinite in {where}, as after a division by zero or an overflow"
        return _told("", f"infinite {at}", sentence)
    unwritten = all(
        bool(((result[wrong] == 0) | ~np.isfinite(result[wrong])).all()) for result in seen
    )
    if unwritten and not wrong.all():
        cause = _cause_of_unwritten(wrong, pass_)
        return _told(cause, f"seen {at}", f"the result is never written in {where}")
    if unwritten:
        sentence = "the result is never written, or is added to memory that was never cleared"
        return _told("never-written", "everywhere", sentence)
    if along := _bias_along(draws):
        sentence = f"the bias that is added depends on the {along} and not on the filter"
        return _told("bias-on-the-wrong-axis", f"seen {along}", sentence)
    if factor := _constant_factor(seen, right):
        return _scaled(factor, reproduces=True)
    if pass_ is not Pass.KERNEL_GRADIENT and _only_at_the_border(wrong, layer, pass_):
        sentence = f"the border is wrong ({where}) and the interior is right"
        return _told("border-wrong", "", sentence)
    if pass_ is Pass.FORWARD and (seam := _seam(wrong)):
        every, what = seam
        sentence = f"the seams of tiles of {every} {what} are wrong and the rest is right ({where})"
        return _told("tile-seams", what, sentence)
    sentence = UNEXPLAINED
    if not wrong.all():
        sentence += f"; it is wrong in {where}"
    return _told("", at, sentence)


def _seam(wrong: NDArray[np.bool_]) -> tuple[int, str] | None:
    """Return the distance at which wrong rows or columns repeat, and which of both they are.

    Return None if they do not. At most half of them may be wrong, and each must be there twice.
    """
    for axis, what in ((1, "rows"), (2, "columns")):
        is_wrong = np.asarray(wrong.any(tuple(a for a in range(4) if a != axis)))
        for every in range(3, len(is_wrong) // 2 + 1):
            classes = np.unique(np.flatnonzero(is_wrong) % every)
            repeated = np.isin(np.arange(len(is_wrong)) % every, classes)
            if 2 * len(classes) <= every and np.array_equal(is_wrong, repeated):
                return every, what
    return None


def _told(cause: str, variant: str, sentence: str) -> Explanation:
    return Explanation.of([MistakeKind(cause, variant)], sentence, reproduces=False)


def linear(seen: Array, right: Float64) -> Explanation | None:
    """Explain errors that are an offset, or a factor close to 1, or return None if they are not."""
    found = trend(seen, right)
    if found is None:
        return None
    offset, scaled = abs(found.offset), abs(found.slope) * float(np.abs(right).max())
    if scaled < MINOR * offset:
        sentence = f"{found.offset:.3g} is added to every element"
        return _told("constant-added", "", sentence)
    if offset < MINOR * scaled < MINOR * CLOSE_FACTOR * float(np.abs(right).max()):
        return _scaled(1 + found.slope, reproduces=False)
    return None


def _scaled(factor: float, reproduces: bool) -> Explanation:
    told, beyond = f"{factor:.6g}", factor - 1
    if told == "1":  # six digits do not tell the factor from 1
        told = f"(1 {'+' if beyond > 0 else '-'} {abs(beyond):.2g})"
    sentence = f"every element is {told} times what it should be"
    return Explanation.of([MistakeKind("wrong-scale", "seen")], sentence, reproduces)


def region(wrong: NDArray[np.bool_], pass_: Pass) -> str:
    """Return the smallest block of all wrong elements: `image 1, the first row (3 of 18 elements)`.

    An axis that is wrong from end to end is not named.
    """
    parts = [
        _numbers(name, found, wrong.shape[_AXES[pass_].index(name)])
        for name, found in _bounded(wrong, pass_).items()
    ]
    count = f"{np.count_nonzero(wrong)} of {wrong.size} elements"
    return f"{', '.join(parts)} ({count})" if parts else count


def _bounded(wrong: NDArray[np.bool_], pass_: Pass) -> dict[str, list[int]]:
    """Return by axis the places where something is wrong, but for axes where it is everywhere."""
    places = {}
    for axis, name in enumerate(_AXES[pass_]):
        others = tuple(a for a in range(wrong.ndim) if a != axis)
        found = np.flatnonzero(wrong.any(others))
        if 0 < len(found) < wrong.shape[axis]:
            places[name] = found.tolist()
    return places


def _numbers(name: str, found: list[int], size: int) -> str:
    if found == [size - 1]:
        return f"the last {name}"
    if found == [0]:
        return f"the first {name}"
    if len(found) == 1:
        return f"{name} {found[0]}"
    if found == list(range(found[0], found[-1] + 1)):
        return f"{name}s {found[0]} to {found[-1]}"
    return f"{name}s {', '.join(map(str, found[:6]))}{', ...' if len(found) > 6 else ''}"


def _cause_of_unwritten(wrong: NDArray[np.bool_], pass_: Pass) -> str:
    """Return the cause, which has a name of its own for whole images, filters or channels."""
    for axis, name in enumerate(_AXES[pass_]):
        others = tuple(a for a in range(wrong.ndim) if a != axis)
        whole = wrong.all(others)
        if name in _CAUSE_OF_AXIS and np.array_equal(whole, wrong.any(others)):
            return _CAUSE_OF_AXIS[name]
    return "never-written"


def _bias_along(draws: Sequence[tuple[Array, Computation]]) -> str | None:
    """Return the only axis along which the added bias varies, or None if there is no such axis."""
    for axis, name in ((2, "column"), (1, "row"), (0, "image")):
        others = tuple(a for a in range(4) if a != axis)
        if all(_varies_along(result, computation, others) for result, computation in draws):
            return name
    return None


def _varies_along(result: Array, computation: Computation, others: tuple[int, ...]) -> bool:
    if computation.bias is None:
        return False
    added = result - replace(computation, bias_times=0.0).result()
    spread = float((added.max(others) - added.min(others)).max())
    return spread <= 1e-5 * float(np.abs(result).max(initial=1.0)) and bool(np.ptp(added) > 0)


def _constant_factor(seen: Sequence[Array], right: Sequence[Float64]) -> float | None:
    factors = []
    for result, expected in zip(seen, right, strict=True):
        at = np.abs(expected) > 0.01 * np.abs(expected).max(initial=0)
        if not at.any() or not np.isfinite(result).all():
            return None
        factor = float(np.median(result[at] / expected[at]))
        scale = float(np.abs(result).max(initial=0))
        if not factor or np.abs(result - factor * expected).max() > 1e-5 * scale:
            return None
        factors.append(factor)
    is_constant = max(factors) - min(factors) <= 1e-4 * abs(factors[0])
    return factors[0] if is_constant else None


def _only_at_the_border(wrong: NDArray[np.bool_], layer: Layer, pass_: Pass) -> bool:
    """Tell whether wrong elements lie only on the outer ring or where windows leave the input."""
    assert OUR_LETTERS[pass_] == "NHWC"
    height, width = wrong.shape[1:3]
    reach = [1, 1]
    if pass_ is Pass.FORWARD:
        for axis in (0, 1):
            pads, stride = max(layer.pads[axis]), layer.strides[axis]
            reach[axis] = max(-(-pads // stride), 1)
    else:
        reach = [span - 1 or 1 for span in layer.effective_kernel_size]
    rows, columns = np.arange(height), np.arange(width)
    inner = ((rows >= reach[0]) & (rows < height - reach[0]))[:, None] & (
        (columns >= reach[1]) & (columns < width - reach[1])
    )[None, :]
    return bool(inner.any()) and not wrong[:, inner].any()
