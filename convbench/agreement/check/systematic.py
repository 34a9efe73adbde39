"""Find errors that are no rounding: a constant that is added, a factor that is not 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

EXPLAINED = 0.9
"""Part of the squared errors that a trend must account for. An offset and a factor account in the
mean for 2 / n of the squared errors of n roundings, so that this much is no accident."""

FEWEST = 30
"""Fewest errors from which a trend is told, not counting those below 1 % of the largest. With
fewer, a trend can be an accident: two elements always lie on a line, however many others are
zero."""


@dataclass(frozen=True)
class Trend:
    """The line on which a result lies: right * (1 + `slope`) + `offset`, up to rounding."""

    offset: float
    slope: float


def trend(result: NDArray[np.floating[Any]], right: NDArray[np.float64]) -> Trend | None:
    """Return what the errors of a result have in common, or None if they look like rounding."""
    expected, found = right.ravel(), result.astype(np.float64).ravel()
    if expected.size < FEWEST or not np.isfinite(found).all():
        return None
    error = found - expected
    size = np.abs(error)
    largest, scale = float(size.max()), float(np.abs(expected).max())
    if largest == 0 or np.count_nonzero(size > 0.01 * largest) < FEWEST:
        return None
    error /= largest  # so that no square is too large or too small for a float
    terms = np.stack([np.ones_like(expected), expected / (scale or 1)], axis=1)
    (offset, slope), *_ = np.linalg.lstsq(terms, error)
    rest = error - terms @ (offset, slope)
    if float(rest @ rest) > (1 - EXPLAINED) * float(error @ error):
        return None
    return Trend(float(offset) * largest, float(slope) * largest / (scale or 1))
