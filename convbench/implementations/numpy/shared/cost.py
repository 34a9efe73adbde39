"""Predict what an algorithm's steps take on a typical core; only the order of the sums is meant.

Rates are those of one AVX-512 core of 2024, rounded. `auto` times what comes out near the fastest.
"""

from __future__ import annotations

FLOPS_PER_S = 150e9
"""FLOP/s of a matrix product in single precision."""

BYTES_PER_S = 30e9
"""Copied from cache to cache."""

START_S = 3e-6
"""Seconds of a call of NumPy with the Python around it."""


def product_s(rows: int, terms: int, columns: int, itemsize: int) -> float:
    """Of (rows, terms) times (terms, columns): its FLOPs, and packing both and writing the result.

    Packing is what makes thin products slow.
    """
    packed = rows * terms + terms * columns + 2 * rows * columns
    flops = 2 * rows * terms * columns * itemsize / 4
    return flops / FLOPS_PER_S + moved_s(packed * itemsize) + START_S


def moved_s(nbytes: float) -> float:
    """Of so many bytes read and written."""
    return nbytes / BYTES_PER_S
