"""Find the smallest layer on which code is wrong, and draw a picture of where."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from convbench.agreement.check.case import Case
from convbench.agreement.check.checker import is_wrong
from convbench.agreement.check.deviation import fits, place
from convbench.errors import LayerError
from convbench.problem.layer import Layer, Pass
from convbench.results.model import Example

SHRINK_S = 1.0
"""Seconds that are spent on making a layer smaller."""

MAX_ROWS, MAX_COLUMNS = 12, 32
"""Largest picture, in marks. A mark of a larger plane stands for several elements, and is wrong if
any of them is wrong."""


def smallest_example(case: Case, probe: Layer) -> Example | None:
    """Shrink the layer as long as the code stays wrong on it. The picture is of the probe.

    Return None if no number is wrong, but a shape or what the code does besides its result.
    """

    def wrong(candidate: Layer) -> bool:
        return case.on(candidate).is_supported and is_wrong(case.on(candidate))

    small = shrink(probe if wrong(probe) else case.layer, wrong, time.monotonic() + SHRINK_S)
    found, drawn = _wrong_elements(case.on(small)), _wrong_elements(case.on(probe))
    if found is None or drawn is None:
        return None
    bad, result, expected = found
    at = tuple(int(i) for i in np.unravel_index(int(np.argmax(bad)), bad.shape))
    value = float(result[at])
    where, picture = _picture(drawn[0], case.pass_)
    return Example(
        layer=small,
        place=place(case.pass_, at),
        found=value if np.isfinite(value) else None,
        expected=float(expected[at]),
        of=f"{where} of {probe.geometry()}",
        picture=picture,
    )


def shrink(layer: Layer, wrong: Callable[[Layer], bool], deadline: float) -> Layer:
    """Make one size smaller at a time, until none can be or `deadline` (time.monotonic) passes."""
    while True:
        for candidate in _smaller(layer):
            if time.monotonic() > deadline:
                return layer
            if wrong(candidate):
                layer = candidate
                break
        else:
            return layer


def _smaller(layer: Layer) -> Iterator[Layer]:
    """Yield layers that have less of one thing, the boldest steps first."""
    channels, filters = layer.channels // layer.groups, layer.filters // layer.groups
    size, (kh, kw) = layer.input_size, layer.kernel_size
    changes: list[dict[str, object]] = []
    if layer.groups > 1:
        changes.append(
            {"groups": 1, "input_shape": (*size, channels), "filters": filters},
        )
    changes += [
        {"use_bias": False},
        {"dtype": "float32"},
        {"padding": "valid"},
        {"strides": (1, 1)},
        {"dilation_rate": (1, 1)},
    ]
    changes += [{"batch_size": n} for n in _less(layer.batch_size)]
    changes += [{"input_shape": (*size, n * layer.groups)} for n in _less(channels)]
    changes += [{"filters": n * layer.groups} for n in _less(filters)]
    changes += [{"input_shape": (n, size[1], layer.channels)} for n in _less(size[0])]
    changes += [{"input_shape": (size[0], n, layer.channels)} for n in _less(size[1])]
    changes += [{"kernel_size": (n, kw)} for n in _less(kh)]
    changes += [{"kernel_size": (kh, n)} for n in _less(kw)]
    for change in changes:
        try:
            candidate = replace(layer, **change)  # type: ignore[arg-type]
        except LayerError:
            continue
        if candidate != layer:
            yield candidate


def _less(number: int) -> Iterator[int]:
    """Yield 1, half the number, and one less than the number."""
    yield from sorted({1, number // 2, number - 1} - {0, number})


def _wrong_elements(
    case: Case,
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]] | None:
    """Return (which are wrong, result, expected) for the first draw with a wrong element.

    Return None if there is no such draw, or if a result has a wrong shape.
    """
    trial = case.trial()
    for drawn in (case.integers(0), case.integers(1), case.floats(0), case.floats(1)):
        right, seen = case.right(drawn), trial.call(drawn)
        if seen.result is None:
            return None
        if fits(right, seen):
            continue
        scale = float(np.abs(right.expected).max(initial=1.0))
        with np.errstate(invalid="ignore"):
            bad = ~(np.abs(seen.result - right.expected) <= 1e-6 * scale)
        if bad.any():
            return bad, seen.result.astype(np.float64), right.expected
    return None


def _picture(bad: NDArray[np.bool_], pass_: Pass) -> tuple[str, tuple[str, ...]]:
    """Return the name and the rows of the plane that has right elements and most wrong ones.

    A plane that is wrong everywhere is shown if no other plane has a wrong element.
    """
    first = 0 if pass_ is Pass.KERNEL_GRADIENT else 1
    planes = np.moveaxis(bad, (first, first + 1), (-2, -1))
    counts = planes.sum((-2, -1))
    shown = np.where(counts == planes[0, 0].size, 1, counts + 1) * (counts > 0)
    one, other = (int(i) for i in np.unravel_index(int(np.argmax(shown)), counts.shape))
    names = {
        Pass.FORWARD: ("image", "filter"),
        Pass.INPUT_GRADIENT: ("image", "channel"),
        Pass.KERNEL_GRADIENT: ("channel", "filter"),
    }[pass_]
    plane = _coarser(planes[one, other])
    rows = tuple("".join("#" if element else "." for element in row) for row in plane)
    return f"{names[0]} {one}, {names[1]} {other}", rows


def _coarser(plane: NDArray[np.bool_]) -> NDArray[np.bool_]:
    for axis, most in ((0, MAX_ROWS), (1, MAX_COLUMNS)):
        if plane.shape[axis] > most:
            step = -(-plane.shape[axis] // most)
            starts = np.arange(0, plane.shape[axis], step)
            plane = np.logical_or.reduceat(plane, starts, axis)
    return plane
