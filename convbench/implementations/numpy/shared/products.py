"""Multiply a long matrix by a small one, in parts that BLAS multiplies without copying them.

Before a product, BLAS packs both operands: it copies them into the order that its inner loop reads.
If the right operand is small, packing costs more than it saves. OpenBLAS does not pack products of
at most a million multiplications and additions (on processors with AVX-512, from version 0.3.17:
`kernel/x86_64/sgemm_small_kernel_permit_skylakex.c` in its source). So np.matmul gets a long
product as a stack of such parts. Measured on one core with AVX-512: 176 instead of 97 GFLOP/s for
27 terms and 64 filters, 57 instead of 31 for 400 terms and 6 filters. Other processors and
libraries get products of a few hundred rows, which cost them next to nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.implementations.numpy.shared.scratch import Scratch

Array = NDArray[np.floating[Any]]

AT_MOST = 1_000_000
"""Most multiply-adds (rows * terms * filters) of a product that OpenBLAS does not pack."""

LEAST_ROWS = 100
"""Fewest rows of a part. A part with fewer rows reads the small operand too often: parts of 106
rows (147 terms, 64 filters) are 1.3 times as fast as the whole product, parts of 61 rows (128
terms, 128 filters) 0.8 times as fast (measured)."""

NARROW, LEAST_ROWS_OF_NARROW = 32, 48
"""Most filters of a narrow product, and fewest rows of its parts. So few filters are at most a
third of the columns that a packed product works on at a time, so shorter parts pay too."""

MOST_SUMMED = 256
"""Most rows of a part in a sum over rows. Longer parts exceed the L1 cache by more: 72 terms and 16
filters take 0.51 ms in parts of 868 rows, and 0.44 in parts of 256 (measured)."""

SUMMED_BYTES = 512 * 1024
"""Bytes of the products of parts that are added up at a time. They stay in the L2 cache, and the
calls are fewer and longer than with 128 KiB. 147 terms and 64 filters of 4 images of 112x112 take
15.6 ms instead of 17.5, and on two threads 10.2 instead of 12.0 (measured)."""


def part_rows(terms: int, filters: int) -> int | None:
    """Return the rows of a part of a product (rows, terms) times (terms, filters).

    The answer is None if the product is best multiplied as a whole.
    """
    rows = AT_MOST // (terms * filters)
    return rows if rows >= (LEAST_ROWS_OF_NARROW if filters <= NARROW else LEAST_ROWS) else None


def multiply(left: Array, right: Array, out: Array) -> None:
    """Write the product of (rows, terms) and (terms, filters) into `out`. Earlier axes are stacks.

    If `right` is not C-contiguous, it is copied once, since BLAS would pack it for every part.
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
    """Write the product of (rows, terms) and (terms, columns) into `out`, where `left` is small."""
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
    """Return a view (..., parts, rows, columns). Splitting an axis never copies."""
    return matrix.reshape(*matrix.shape[:-2], -1, rows, matrix.shape[-1])


class SumOfProducts:
    """Products that sum over many rows: (rows, terms), transposed, times (rows, filters).

    They are computed in parts of some rows, which are added up. `reserve` allocates a thread's
    memory for the products of a few parts. Its size does not depend on the number of rows.
    """

    def __init__(self, terms: int, filters: int, itemsize: int) -> None:
        self._shape = terms, filters
        rows = part_rows(terms, filters)
        self._rows = None if rows is None else min(rows, MOST_SUMMED)
        fit = SUMMED_BYTES // (terms * filters * itemsize)
        self._parts = 0 if self._rows is None else max(fit, 1)

    @property
    def elements(self) -> int:
        """Number of elements of the memory: a product for each part, and one more."""
        return (self._parts + 1) * self._shape[0] * self._shape[1]

    def reserve(self, scratch: Scratch) -> Array:
        return scratch.array("products", self._parts + 1, *self._shape)

    def add(
        self, left: Array, right: Array, total: Array, scratch: Scratch, is_first: bool
    ) -> None:
        """Add a sum over rows to `total`, (terms, filters) and C-contiguous.

        If `is_first`, `total` is overwritten instead.
        """
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
        """Write the products of the parts and return their number. The last part may be shorter."""
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
