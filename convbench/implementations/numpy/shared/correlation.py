"""Describe the correlations that the NumPy algorithms compute, and the blocks of their output.

The forward pass of a layer is one correlation. With strides of 1, the gradient to its input is a
correlation too: that of the output gradient with the kernel flipped and its axes exchanged. With
larger strides, the input positions fall into phases by the remainders of their coordinates, and
each phase is a correlation with the taps that reach it: Shi et al., "Is the deconvolution layer the
same as a convolutional layer?" (arXiv:1609.07009).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from convbench.implementations.numpy.shared.scratch import Scratch
from convbench.problem.layer import Layer, Pair

Array = NDArray[np.floating[Any]]


NO_PADS = ((0, 0), (0, 0))


@dataclass(frozen=True)
class Correlation:
    """A sum of products: output (n, i, j, f) sums kernel[p, q, c, f] times elements of the input.

    The element of the input is (n, top + i sh + p dh, left + j sw + q dw, c), where (sh, sw) are
    the strides, (dh, dw) the dilation, and (top, left) is the `origin`, negative if the first
    windows begin on pads. Elements outside the input are zero. The kernel is (kh, kw, channels of a
    group, filters). The input may have more channels than the correlation, whose channels begin at
    `first_channel`.
    """

    batch_size: int
    input_size: Pair
    channels: int
    filters: int
    kernel_size: Pair
    strides: Pair
    dilation_rate: Pair
    groups: int
    origin: Pair
    output_size: Pair
    dtype: str
    first_channel: int = 0

    @staticmethod
    def of(layer: Layer) -> Correlation:
        """Return the forward pass of a layer as a correlation."""
        (top, _), (left, _) = layer.pads
        return Correlation(
            layer.batch_size,
            layer.input_size,
            layer.channels,
            layer.filters,
            layer.kernel_size,
            layer.strides,
            layer.dilation_rate,
            layer.groups,
            (-top, -left),
            layer.output_size,
            layer.dtype,
        )

    @property
    def itemsize(self) -> int:
        return np.dtype(self.dtype).itemsize

    @property
    def terms(self) -> int:
        """Number of products that an element of the output sums up."""
        return math.prod(self.kernel_size) * self.channels // self.groups

    @property
    def positions(self) -> int:
        """Number of output positions in the whole batch."""
        return self.batch_size * math.prod(self.output_size)

    @property
    def flops(self) -> int:
        return 2 * self.positions * self.terms * self.filters

    @property
    def kernel_bytes(self) -> int:
        return self.terms * self.filters * self.itemsize

    @property
    def is_matrix(self) -> bool:
        """Whether the input is its own columns: a 1x1 kernel that meets every position once."""
        same = self.strides == (1, 1) and self.output_size == self.input_size
        return self.kernel_size == (1, 1) and self.origin == (0, 0) and same

    def reach(self, rows: int, columns: int) -> Pair:
        """Return how many input rows and columns the windows of `rows` x `columns` outputs span."""
        (kh, kw), (sh, sw), (dh, dw) = self.kernel_size, self.strides, self.dilation_rate
        return (rows - 1) * sh + (kh - 1) * dh + 1, (columns - 1) * sw + (kw - 1) * dw + 1

    @property
    def is_padded(self) -> bool:
        """Whether any window reaches beyond the input."""
        spans = self.reach(*self.output_size)
        return any(
            start < 0 or start + span > size
            for start, span, size in zip(self.origin, spans, self.input_size, strict=True)
        )


@dataclass(frozen=True)
class Phase:
    """A phase of the input gradient: the positions that share their remainders by the strides.

    `target` selects the rows and columns of the phase, and `taps` the rows and columns of the
    kernel that reach it, the last one first. `correlation` computes the phase from the output
    gradient. It is None if no tap reaches the phase, whose elements are then zero.
    """

    target: tuple[slice, slice]
    taps: tuple[slice, slice]
    correlation: Correlation | None

    def kernel(self, kernel: Array, groups: int) -> Array:
        """Return the phase's taps of a layer's kernel.

        The view is (groups, channels of a group, kh, kw, filters of a group).
        """
        taps = kernel[self.taps]
        grouped = taps.reshape(*taps.shape[:3], groups, -1)
        return grouped.transpose(3, 2, 0, 1, 4)


def phases(layer: Layer) -> tuple[Phase, ...]:
    """Return the phases of a layer's input gradient. Together they write every element once."""
    rows, columns = (_phases(layer, axis) for axis in (0, 1))
    return tuple(_phase(layer, row, column) for row in rows for column in columns)


class _Along(NamedTuple):
    """A phase along one axis."""

    target: slice
    taps: slice
    met: int  # number of taps
    origin: int
    dilation: int
    size: int  # number of input positions of this phase


def _phases(layer: Layer, axis: int) -> list[_Along]:
    """Return the phases along an axis.

    Input i meets output o by tap p where i + pad = stride * o + dilation * p.
    """
    stride, dilation = layer.strides[axis], layer.dilation_rate[axis]
    taps, pad, size = layer.kernel_size[axis], layer.pads[axis][0], layer.input_size[axis]
    common = math.gcd(stride, dilation)
    step, sparser = stride // common, dilation // common
    found = []
    for first in range(min(stride, size)):
        start = next((p for p in range(taps) if (first + pad - dilation * p) % stride == 0), None)
        target = slice(first, None, stride)
        length = len(range(first, size, stride))
        if start is None:
            found.append(_Along(target, slice(0, 0), 0, 0, 1, length))
            continue
        count = len(range(start, taps, step))
        last = start + (count - 1) * step
        before = start - step
        found.append(
            _Along(
                target,
                slice(last, before if before >= 0 else None, -step),
                count,
                (first + pad - dilation * last) // stride,
                sparser,
                length,
            )
        )
    return found


def _phase(layer: Layer, rows: _Along, columns: _Along) -> Phase:
    target, taps = (rows.target, columns.target), (rows.taps, columns.taps)
    if not rows.met or not columns.met:
        return Phase(target, taps, None)
    return Phase(
        target,
        taps,
        Correlation(
            layer.batch_size,
            layer.output_size,
            layer.filters,
            layer.channels,
            (rows.met, columns.met),
            (1, 1),
            (rows.dilation, columns.dilation),
            layer.groups,
            (rows.origin, columns.origin),
            (rows.size, columns.size),
            layer.dtype,
        ),
    )


class Block(NamedTuple):
    """Output rows `row` to `end` of the images `first` to `last`, both without the end."""

    first: int
    last: int
    row: int
    end: int

    @property
    def size(self) -> BlockSize:
        return BlockSize(self.last - self.first, self.end - self.row)


def even(length: int, parts: int) -> list[slice]:
    """Split `length` into at most `parts` slices of nearly equal lengths, none of them empty."""
    edges = [length * i // parts for i in range(parts + 1)]
    return [slice(start, stop) for start, stop in pairwise(edges) if start < stop]


class BlockSize(NamedTuple):
    """Size of a block: some whole images, or some output rows of one image."""

    images: int
    rows: int

    def blocks(self, correlation: Correlation) -> Blocks:
        return Blocks(self, correlation)


class Blocks(Sequence[Block]):
    """The blocks of a correlation's output, in order.

    The list is made when it is first needed. A layer that is too large for any memory has millions
    of blocks, but it is prepared too, since that is how its workspace is predicted.
    """

    def __init__(self, size: BlockSize, correlation: Correlation) -> None:
        self._size = size
        self._batch, self._height = correlation.batch_size, correlation.output_size[0]

    def __len__(self) -> int:
        images, rows = self._size
        return math.ceil(self._batch / images) * math.ceil(self._height / rows)

    def __iter__(self) -> Iterator[Block]:
        return iter(self._listed)  # next() of a list's iterator is safe in threads

    @overload
    def __getitem__(self, index: int) -> Block: ...
    @overload
    def __getitem__(self, index: slice) -> list[Block]: ...
    def __getitem__(self, index: int | slice) -> Block | list[Block]:
        return self._listed[index]

    @cached_property
    def _listed(self) -> list[Block]:
        images, rows = self._size
        return [
            Block(image, min(image + images, self._batch), row, min(row + rows, self._height))
            for image in range(0, self._batch, images)
            for row in range(0, self._height, rows)
        ]


def block_size(correlation: Correlation, row_bytes: int, budget: int, parts: int = 1) -> BlockSize:
    """Return the largest block size whose output rows, of `row_bytes` each, fit the budget.

    The blocks are smaller if there would otherwise be fewer than `parts` of them.
    """
    batch, height = correlation.batch_size, correlation.output_size[0]
    rows = max(min(budget // row_bytes, math.ceil(batch * height / parts)), 1)
    if rows >= height:
        return BlockSize(min(rows // height, batch), height)
    return BlockSize(1, math.ceil(height / math.ceil(height / rows)))


class Cut(NamedTuple):
    """Memory (images, rows, columns, channels), and the offset in bytes of the first window."""

    memory: Array
    offset: int


def slab_shape(correlation: Correlation, size: BlockSize) -> tuple[int, int, int, int]:
    """Return the shape of the input that a block's windows meet.

    It is (images, rows, columns, channels), with pads.
    """
    reach = correlation.reach(size.rows, correlation.output_size[1])
    return (size.images, *reach, correlation.channels)


def cut(correlation: Correlation, x: Array, block: Block, scratch: Scratch) -> Cut:
    """Return the part of `x` (NHWC, C-contiguous) that the block's windows meet.

    It lies in the input itself if no window of the correlation reaches the pads. Otherwise it is a
    copy with zeros on the pads, in scratch memory that stays in the cache with the block.
    """
    c = correlation
    (height, width), (top, left) = c.input_size, c.origin
    top += block.row * c.strides[0]
    if not c.is_padded:
        image, row, column, _ = x.strides
        offset = block.first * image + top * row + left * column
        return Cut(x, offset + c.first_channel * c.itemsize)
    shape = slab_shape(c, block.size)
    _, rows, columns, _ = shape
    slab = scratch.array("slab", *shape)
    # Those rows and columns of the slab that lie in the input.
    above, below = min(max(-top, 0), rows), min(max(height - top, 0), rows)
    before, after = min(max(-left, 0), columns), min(max(width - left, 0), columns)
    if above:
        slab[:, :above] = 0
    if below < rows:
        slab[:, below:] = 0
    if before:
        slab[:, above:below, :before] = 0
    if after < columns:
        slab[:, above:below, after:] = 0
    slab[:, above:below, before:after] = x[
        block.first : block.last,
        top + above : top + below,
        left + before : left + after,
        c.first_channel : c.first_channel + c.channels,
    ]
    return Cut(slab, 0)


def windows(cut: Cut, correlation: Correlation, block: Block) -> Array:
    """Return a view (groups, images, rows, columns, kh, kw, channels of a group) of what was cut.

    np.ndarray on the memory does what as_strided does at a tenth of the time, which matters here
    because every block pays it.
    """
    c = correlation
    each = c.channels // c.groups
    (stride_h, stride_w), (dilation_h, dilation_w) = c.strides, c.dilation_rate
    image, row, column, channel = cut.memory.strides
    lengths = (c.groups, block.last - block.first, block.end - block.row, c.output_size[1])
    steps = (each * channel, image, row * stride_h, column * stride_w)
    return np.ndarray(
        (*lengths, *c.kernel_size, each),
        cut.memory.dtype,
        buffer=cut.memory,
        offset=cut.offset,
        strides=(*steps, row * dilation_h, column * dilation_w, channel),
    )


def copy_runs(found: Cut, strides: tuple[int, ...], target: Array) -> None:
    """Copy what was cut into `target`. The last axis is a run of adjacent elements in both.

    `strides` are the bytes from run to run along the other axes. A run is copied as one element,
    which is a fifth to a third faster in NumPy than a copy of its floats.
    """
    run = np.dtype((np.void, target.shape[-1] * target.itemsize))
    runs = np.ndarray(target.shape[:-1], run, found.memory, found.offset, strides)
    target.view(run)[..., 0] = runs
