"""Predict the time of an algorithm's steps on a typical core, so that algorithms can be ranked.

The rates are rounded figures of one AVX-512 core of 2024. They need to be right only within a small
factor, since `auto` measures all candidates that are predicted to be nearly the fastest.
"""

from __future__ import annotations

FLOPS_PER_S = 150e9
"""FLOP/s of a matrix product in single precision."""

BYTES_PER_S = 30e9
"""Bytes per second that are copied from cache to cache."""

START_S = 3e-6
"""Seconds that one call of NumPy costs, with the Python around it."""


def product_s(rows: int, terms: int, columns: int, itemsize: int) -> float:
    """Predict the seconds of (rows, terms) times (terms, columns).

    The prediction counts the FLOPs, the packing of both operands, which makes thin products slow,
    and the writing of the result.
    """
    packed = rows * terms + terms * columns + 2 * rows * columns
    flops = 2 * rows * terms * columns * itemsize / 4
    return flops / FLOPS_PER_S + moved_s(packed * itemsize) + START_S


def moved_s(nbytes: float) -> float:
    """Predict the seconds that it takes to read and write `nbytes` bytes."""
    return nbytes / BYTES_PER_S
