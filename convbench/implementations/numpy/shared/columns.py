"""Gather the columns of a correlation: a matrix with one row for each output position."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.implementations.contract import Stage
from convbench.implementations.numpy.shared.correlation import (
    Block,
    BlockSize,
    Correlation,
    block_size,
    copy_runs,
    cut,
    slab_shape,
    windows,
)
from convbench.implementations.numpy.shared.scratch import Scratch

Array = NDArray[np.floating[Any]]

MAX_BYTES = 2 * 1024**2 - 64 * 1024
"""Most bytes of a thread's buffers, whatever the batch: 2 MiB together with NumPy's own buffers.
Even blocks larger than the L2 cache gain from more memory, since BLAS packs the kernel anew for
every product. 3x3 kernels on 512 channels take 5.3 ms with 2 MiB and 8.3 with 0.5 (measured)."""


ONES_TERMS = 256
"""Most terms for which a product with one more term takes less time than adding the bias
afterwards. 27 terms and 64 filters take 68 us instead of 84 (measured)."""

BIAS_IN_KERNEL = "the bias is a row of the kernel"
"""Phrase of a ledger."""


def columns_size(
    correlation: Correlation,
    parts: int,
    taken: int = 0,
    has_product: bool = False,
    has_ones: bool = False,
) -> BlockSize:
    """Return the largest block size whose buffers fit MAX_BYTES without the `taken` bytes.

    The buffers are the columns (see Columns), the padded input and, if there is one, the product.
    """
    c = correlation
    if c.is_matrix and not has_product:  # nothing is copied
        return block_size(c, 1, c.positions, parts)

    def held(rows: int) -> int:
        """Return the bytes for `rows` rows of one image."""
        # A large output counts too, so that it is still in the cache when its bias is added.
        is_large = c.filters > c.terms * c.groups and not has_ones
        elements = rows * c.output_size[1] * c.filters if has_product or is_large else 0
        if not c.is_matrix:
            elements += rows * c.output_size[1] * (c.terms + has_ones) * c.groups
        if c.is_padded:
            elements += math.prod(slab_shape(c, BlockSize(1, rows)))
        return elements * c.itemsize

    budget, height = MAX_BYTES - taken, c.output_size[0]
    if c.is_matrix:  # leave room for the columns of other phases
        budget //= 3
    if held(height) <= budget:
        return block_size(c, math.ceil(held(height) / height), budget, parts)
    each = held(2) - held(1)
    return block_size(c, each, budget - (held(1) - each), parts)


@dataclass(frozen=True)
class Columns:
    """The columns of blocks, in the scratch memory of the thread that asks.

    `has_ones` puts a 1 after the terms of each row, so that a product with a kernel whose last row
    is the bias also adds the bias. It needs one group, and an input that is not its own columns.
    """

    correlation: Correlation
    has_ones: bool = False

    _cut = staticmethod(cut)

    def stages(self) -> Iterator[Stage]:
        yield Stage("pad", "copy", self, "_cut")
        yield Stage("gather", "copy", self, "gather")

    def reserve(self, size: BlockSize, scratch: Scratch) -> None:
        """Allocate the memory that the largest block needs."""
        c = self.correlation
        if c.is_matrix:
            return
        if c.is_padded:
            scratch.array("slab", *slab_shape(c, size))
        positions = size.images * size.rows * c.output_size[1]
        scratch.array("columns", c.groups, positions, c.terms + self.has_ones)

    def gather(self, x: Array, block: Block, scratch: Scratch) -> Array:
        """Return the block's columns, (groups, positions, terms), of `x` (NHWC, C-contiguous)."""
        c = self.correlation
        if c.is_matrix:
            rows = x[block.first : block.last, block.row : block.end]
            flat = rows.reshape(-1, x.shape[3])[:, c.first_channel : c.first_channel + c.channels]
            return flat.reshape(-1, c.groups, c.terms).transpose(1, 0, 2)
        found = self._cut(c, x, block, scratch)
        view = windows(found, c, block)
        positions = math.prod(view.shape[1:4])
        columns = scratch.array("columns", c.groups, positions, c.terms + self.has_ones)
        if self.has_ones:
            columns[:, :, c.terms] = 1
        is_part = c.channels < x.shape[3] and c.kernel_size[1] > 1
        if c.groups > 1 or c.dilation_rate[1] > 1 or is_part:
            _as_windows(columns, view.shape)[...] = view
            return columns
        # The (kw, channels) of a kernel row lie side by side and are copied as one run.
        target = columns[0, :, : c.terms].reshape(*view.shape[1:5], -1)
        copy_runs(found, view.strides[1:5], target)
        return columns


def _as_windows(columns: Array, shape: tuple[int, ...]) -> Array:
    """Return a view (groups, images, rows, columns, kh, kw, channels), without any ones."""
    groups, images, rows, width, *window = shape
    parts = columns[:, :, : math.prod(window)].reshape(groups, images, rows, width, -1)
    return parts.reshape(*shape)


def by_group(array: Array, groups: int) -> Array:
    """Return a view (groups, positions, filters of a group) of (images, rows, columns, filters)."""
    return array.reshape(-1, groups, array.shape[3] // groups).transpose(1, 0, 2)
