"""Multiply a long matrix by a small one, in parts that BLAS multiplies where they lie.

For a product BLAS copies both operands into the order that its inner loop reads. Of a small right
operand the copies cost more than they bring, and OpenBLAS leaves them out of products of at most a
million multiplications and additions (for processors with AVX-512:
`kernel/x86_64/sgemm_small_kernel_permit_skylakex.c` of its source, version 0.3.17 and later). So a
long product goes to np.matmul as a stack of such parts. Measured on one core with AVX-512, 27 terms
and 64 filters: 176 instead of 97 GFLOP/s; 400 terms and 6 filters: 57 instead of 31. Other kernels
and libraries see products of some hundred rows, which cost them next to nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.implementations.numpy.shared.scratch import Scratch

Array = NDArray[np.floating[Any]]

AT_MOST = 1_000_000
"""Multiplications and additions of a product that is not packed: rows * terms * filters."""

LEAST_ROWS = 100
"""A part with fewer rows reads the small operand too often. Measured: with 147 terms and 64 filters
(106 rows) 1.3 times as fast as the whole, with 128 and 128 (61 rows) 0.8 times."""

NARROW, LEAST_ROWS_OF_NARROW = 32, 48
"""Most filters of a narrow product, and the fewest rows from which on parts pay for it. So few
filters are a third of a packed product's columns or less."""

MOST_SUMMED = 256
"""Rows of a part of a sum over rows: more of both operands than the L1 cache holds (measured: 0.44
against 0.51 ms with 868 rows, for 72 terms and 16 filters)."""

SUMMED_BYTES = 512 * 1024
"""Bytes of the products of parts that are added up at a time. They stay in the L2 cache, in fewer
and longer calls than with 128 KiB: 15.6 ms instead of 17.5 for 147 terms and 64 filters of 4 images
of 112x112, and on two threads 10.2 instead of 12.0 (measured)."""


def part_rows(terms: int, filters: int) -> int | None:
    """Rows of a part; None where (rows, terms) times (terms, filters) is best multiplied whole."""
    rows = AT_MOST // (terms * filters)
    return rows if rows >= (LEAST_ROWS_OF_NARROW if filters <= NARROW else LEAST_ROWS) else None


def multiply(left: Array, right: Array, out: Array) -> None:
    """Writes (rows, terms) times (terms, filters) into `out`; more axes before are a stack.

    A `right` in another order of memory, which would be packed for every part, is copied.
    """
    rows, whole = left.shape[-2], 0
    part = part_rows(*right.shape[-2:])
    if part is not None and rows > part:
        whole = rows - rows % part
        right = np.ascontiguousarray(right)
        np.matmul(
            _in_parts(left[..., :whole, :], part),
            right[..., np.newaxis, :, :],
            out=_in_parts(out[..., :whole, :], part),
        )
    if whole < rows:
        np.matmul(left[..., whole:, :], right, out=out[..., whole:, :])


def multiply_wide(left: Array, right: Array, out: Array) -> None:
    """Writes (rows, terms) times (terms, columns) into `out`, where it is `left` that is small."""
    columns, whole = right.shape[-1], 0
    part = part_rows(left.shape[-1], left.shape[-2])
    if part is not None and columns > part:
        whole = columns - columns % part
        np.matmul(
            left,
            _in_parts(right[:, :whole].T, part).transpose(0, 2, 1),
            out=_in_parts(out[:, :whole].T, part).transpose(0, 2, 1),
        )
    if whole < columns:
        np.matmul(left, right[:, whole:], out=out[:, whole:])


def _in_parts(matrix: Array, rows: int) -> Array:
    """A view (..., parts, rows, columns); splitting an axis never copies."""
    return matrix.reshape(*matrix.shape[:-2], -1, rows, matrix.shape[-1])


class SumOfProducts:
    """Sums over rows: (rows, terms), transposed, times (rows, filters), in parts that are added up.

    The memory for a few products is a thread's; `reserve` allocates it, whatever the rows.
    """

    def __init__(self, terms: int, filters: int, itemsize: int) -> None:
        self._shape = terms, filters
        rows = part_rows(terms, filters)
        self._rows = None if rows is None else min(rows, MOST_SUMMED)
        fit = SUMMED_BYTES // (terms * filters * itemsize)
        self._parts = 0 if self._rows is None else max(fit, 1)

    @property
    def elements(self) -> int:
        """Of the memory: a product for each part, and one more."""
        return (self._parts + 1) * self._shape[0] * self._shape[1]

    def reserve(self, scratch: Scratch) -> Array:
        return scratch.array("products", self._parts + 1, *self._shape)

    def add(
        self, left: Array, right: Array, total: Array, scratch: Scratch, is_first: bool
    ) -> None:
        """Adds a sum to `total` (terms, filters), C-contiguous; the first one is written there."""
        products = self.reserve(scratch)
        if self._rows is None or len(left) <= self._rows:
            if is_first:
                np.matmul(left.T, right, out=total)
            else:
                total += np.matmul(left.T, right, out=products[0])
            return
        for start in range(0, len(left), self._parts * self._rows):
            some = slice(start, start + self._parts * self._rows)
            count = self._multiply(left[some], right[some], products[1:])
            if is_first:
                np.add.reduce(products[1 : 1 + count], axis=0, out=total)
                is_first = False
            else:
                products[0] = total
                np.add.reduce(products[: 1 + count], axis=0, out=total)

    def _multiply(self, left: Array, right: Array, products: Array) -> int:
        """Writes the products of parts; says how many there are. The last may be shorter."""
        assert self._rows is not None
        count, rest = divmod(len(left), self._rows)
        whole = count * self._rows
        if count:
            np.matmul(
                _in_parts(left[:whole], self._rows).transpose(0, 2, 1),
                _in_parts(right[:whole], self._rows),
                out=products[:count],
            )
        if rest:
            np.matmul(left[whole:].T, right[whole:], out=products[count])
        return count + bool(rest)
