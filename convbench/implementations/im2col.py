"""im2col: gather the windows into the rows of a matrix, then one matrix product.

The method of Chellapilla, Puri and Simard, "High Performance Convolutional Neural Networks for
Document Processing" (2006). Layout NHWC, so that the output of the product is the output of the
layer. The matrix is never built whole: blocks of images, or of output rows of one image, whose
columns stay in the L2 cache, go through one buffer that `prepare` allocates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.implementations.contract import Costed, Ledger, Prepared
from convbench.layer import Layer, Pass
from convbench.operands import Operands
from convbench.tuning import cache_bytes

Array = NDArray[np.floating[Any]]
NO_PADS = ((0, 0), (0, 0))

FLOPS_PER_S = 100e9
"""Of one thread in float32, half as many in float64; roughly, to rank candidates by."""

BYTES_PER_S = 10e9


class Im2col(Costed):
    name = "im2col"
    runtime = "numpy"

    def unsupported(self, layer: Layer, pass_: Pass) -> str | None:
        return None

    def exact(self, layer: Layer, pass_: Pass) -> bool:
        return True

    def workspace_bytes(self, layer: Layer, pass_: Pass, threads: int) -> int:
        """The columns of one block, and the block's padded images where there are pads."""
        images, rows = block_size(layer)
        positions = images * rows * layer.output_size[1]
        elements = positions * math.prod(layer.kernel_size) * layer.channels
        if layer.pads != NO_PADS:
            elements += images * math.prod(layer.padded_size) * layer.channels
        if layer.groups > 1 and pass_ is Pass.FORWARD:
            elements += positions * layer.filters  # the product, before its groups are interleaved
        if pass_ is Pass.KERNEL_GRADIENT:
            elements += math.prod(
                layer.kernel_shape
            )  # the product of one block, before it is added
        return elements * layer.itemsize

    def cost_s(self, layer: Layer, pass_: Pass, threads: int) -> float:
        """The products at the rate of a core, and the columns, operands and result as copies."""
        products = layer.flops * (layer.itemsize // 4) / (FLOPS_PER_S * threads)
        arrays = layer.operand_bytes(pass_) + layer.result_bytes(pass_)
        return products + (layer.columns_bytes + arrays) / BYTES_PER_S

    def prepare(self, layer: Layer, pass_: Pass, threads: int) -> Prepared:
        kinds: dict[Pass, Callable[[Layer], Prepared]] = {
            Pass.FORWARD: Forward,
            Pass.INPUT_GRADIENT: InputGradient,
            Pass.KERNEL_GRADIENT: KernelGradient,
        }
        return kinds[pass_](layer)


def block_size(layer: Layer) -> tuple[int, int]:
    """(images, output rows) of a block: whole images while their columns fill half of L2."""
    row = layer.output_size[1] * math.prod(layer.kernel_size) * layer.channels * layer.itemsize
    budget = max(cache_bytes().l2 // 2, row)
    rows = min(budget // row, layer.output_size[0])
    if rows < layer.output_size[0]:
        return 1, rows
    return min(max(budget // (row * rows), 1), layer.batch_size), rows


class PreparedIm2col:
    """Buffers and views of one pass; a subclass a pass says what is done with a block."""

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        self._images, self._rows = block_size(layer)
        groups = layer.groups
        self._terms = math.prod(layer.kernel_size) * layer.channels // groups
        positions = self._images * self._rows * layer.output_size[1]
        dtype = np.dtype(layer.dtype)
        self._columns = np.empty((groups, positions, self._terms), dtype)
        # Where the (kw, channels) of a kernel row lie side by side, they are copied as one element:
        # NumPy does that a fifth to a third faster than the floats that they are made of.
        self._run: np.dtype[np.void] | None = None
        if groups == 1 and layer.dilation_rate[1] == 1:
            self._run = np.dtype((np.void, layer.kernel_size[1] * layer.channels * layer.itemsize))
        self._padded: Array | None = None
        if layer.pads != NO_PADS:
            shape = (self._images, *layer.padded_size, layer.channels)
            self._padded = np.empty(shape, dtype)

    @property
    def buffers(self) -> tuple[Array, ...]:
        """Everything that a call reuses: columns, padded images, and what a pass adds."""
        arrays = (self._columns, self._padded, *self._own_buffers())
        return tuple(array for array in arrays if array is not None)

    def _own_buffers(self) -> tuple[Array, ...]:
        return ()

    def _ledger(self, *inside: str) -> Ledger:
        padding = ("pad the block's images",) if self._padded is not None else ()
        return Ledger(
            (*padding, *inside),
            ("copy of the operands into NHWC", "allocation of the buffers"),
        )

    def _blocks(self) -> list[tuple[int, int, int, int]]:
        """(first image, last image, first row, last row) of every block, ends excluded."""
        batch, out_h = self._layer.batch_size, self._layer.output_size[0]
        return [
            (image, min(image + self._images, batch), row, min(row + self._rows, out_h))
            for image in range(0, batch, self._images)
            for row in range(0, out_h, self._rows)
        ]

    def _interior(self, images: int) -> Array:
        """The part of the padded buffer that is not pads, for that many images."""
        assert self._padded is not None
        (top, _), (left, _) = self._layer.pads
        height, width = self._layer.input_size
        return self._padded[:images, top : top + height, left : left + width]

    def _zero_pads(self) -> None:
        """Zeroes the border of the padded buffer; the interior is written block by block."""
        if self._padded is None:
            return
        (top, _), (left, _) = self._layer.pads
        height, width = self._layer.input_size
        self._padded[:, :top] = 0
        self._padded[:, top + height :] = 0
        self._padded[:, top : top + height, :left] = 0
        self._padded[:, top : top + height, left + width :] = 0

    def _windows(self, images: Array, rows: slice) -> Array:
        """A view (groups, images, rows, out width, kh, kw, channels) of padded images' windows.

        np.ndarray over the buffer is as_strided at a tenth of its cost, paid at every block.
        """
        layer = self._layer
        per_group = layer.channels // layer.groups
        (stride_h, stride_w), (dilation_h, dilation_w) = layer.strides, layer.dilation_rate
        image, row, column, channel = images.strides
        lengths = (layer.groups, len(images), rows.stop - rows.start, layer.output_size[1])
        steps = (per_group * channel, image, row * stride_h, column * stride_w)
        return np.ndarray(
            (*lengths, *layer.kernel_size, per_group),
            images.dtype,
            buffer=images,
            offset=rows.start * stride_h * row,
            strides=(*steps, row * dilation_h, column * dilation_w, channel),
        )

    def _gather(self, x: Array, block: tuple[int, int, int, int]) -> Array:
        """The block's columns (groups, positions, terms), gathered from `x` (NHWC)."""
        first, last, row, end = block
        source = x[first:last]
        if self._padded is not None:
            if row == 0:
                self._interior(last - first)[...] = source
            source = self._padded[: last - first]
        windows = self._windows(source, slice(row, end))
        columns = self._columns[:, : math.prod(windows.shape[1:4])]
        if self._run is None:
            columns.reshape(windows.shape)[...] = windows
        else:
            runs = np.ndarray(
                windows.shape[1:5],
                self._run,
                buffer=source,
                offset=row * self._layer.strides[0] * source.strides[1],
                strides=windows.strides[1:5],
            )
            columns.view(self._run).reshape(runs.shape)[...] = runs
        return columns

    def _kernel_matrix(self, kernel: Array) -> Array:
        """A view (groups, terms, filters of a group) of a kernel (kh, kw, in, out)."""
        layer = self._layer
        return kernel.reshape(self._terms, layer.groups, -1).transpose(1, 0, 2)

    def _positions(self, array: Array, block: tuple[int, int, int, int]) -> Array:
        """A view (positions, filters) of a block of the output or of its gradient."""
        first, last, row, end = block
        return array[first:last, row:end].reshape(-1, self._layer.filters)

    def _grouped(self, positions: Array) -> Array:
        """A view (groups, positions, filters of a group) of (positions, filters)."""
        return positions.reshape(len(positions), self._layer.groups, -1).transpose(1, 0, 2)


class Forward(PreparedIm2col):
    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        self._product = None
        if layer.groups > 1:
            shape = (layer.groups, self._columns.shape[1], layer.filters // layer.groups)
            self._product = np.empty(shape, layer.dtype)
        bias = ("add the bias",) if layer.use_bias else ()
        self.ledger = self._ledger("gather columns", "matrix product", *bias)

    def _own_buffers(self) -> tuple[Array, ...]:
        return () if self._product is None else (self._product,)

    def load(self, operands: Operands) -> None:
        assert operands.input is not None
        assert operands.kernel is not None
        self._x = operands.own(operands.input)
        self._kernel = operands.own(operands.kernel)
        self._bias = None if operands.bias is None else operands.own(operands.bias)

    def run(self) -> object:
        layer = self._layer
        kernel = self._kernel_matrix(self._kernel)
        output = np.empty((layer.batch_size, *layer.output_shape), layer.dtype)
        self._zero_pads()
        for block in self._blocks():
            columns = self._gather(self._x, block)
            target = self._positions(output, block)
            if self._product is None:
                np.matmul(columns[0], kernel[0], out=target)
            else:
                product = self._product[:, : len(target)]
                self._grouped(target)[...] = np.matmul(columns, kernel, out=product)
            if self._bias is not None:
                target += self._bias
        return output

    def to_numpy(self, result: object) -> Array:
        return np.asarray(result)


class InputGradient(PreparedIm2col):
    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        cut = ("cut the pads",) if self._padded is not None else ()
        self.ledger = Ledger(
            ("matrix product into columns", "add the columns into the windows", *cut),
            ("copy of the operands into NHWC", "allocation of the buffers"),
        )

    def load(self, operands: Operands) -> None:
        assert operands.output_gradient is not None
        assert operands.kernel is not None
        self._error = operands.own(operands.output_gradient)
        self._kernel = operands.own(operands.kernel)

    def run(self) -> object:
        layer = self._layer
        kernel = self._kernel_matrix(self._kernel).transpose(0, 2, 1)
        gradient = np.empty((layer.batch_size, *layer.input_shape), layer.dtype)
        for block in self._blocks():
            first, last, row, end = block
            target = gradient[first:last] if self._padded is None else self._padded[: last - first]
            if row == 0:
                target[...] = 0
            error = self._grouped(self._positions(self._error, block))
            columns = np.matmul(error, kernel, out=self._columns[:, : error.shape[1]])
            self._scatter(columns, target, slice(row, end))
            if self._padded is not None and end == layer.output_size[0]:
                gradient[first:last] = self._interior(last - first)
        return gradient

    def _scatter(self, columns: Array, target: Array, rows: slice) -> None:
        """Adds columns into the windows that they belong to (col2im), a kernel position at a time.

        Windows overlap, but those of one kernel position do not, so that `+=` is right.
        """
        windows = self._windows(target, rows)
        parts = columns.reshape(windows.shape)
        for p in range(self._layer.kernel_size[0]):
            for q in range(self._layer.kernel_size[1]):
                windows[..., p, q, :] += parts[..., p, q, :]

    def to_numpy(self, result: object) -> Array:
        return np.asarray(result)


class KernelGradient(PreparedIm2col):
    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        shape = (layer.groups, self._terms, layer.filters // layer.groups)
        self._product = np.empty(shape, layer.dtype)
        self.ledger = self._ledger("gather columns", "matrix product", "sum over the blocks")

    def _own_buffers(self) -> tuple[Array, ...]:
        return (self._product,)

    def load(self, operands: Operands) -> None:
        assert operands.input is not None
        assert operands.output_gradient is not None
        self._x = operands.own(operands.input)
        self._error = operands.own(operands.output_gradient)

    def run(self) -> object:
        self._zero_pads()
        gradient = np.zeros_like(self._product)
        for block in self._blocks():
            columns = self._gather(self._x, block).transpose(0, 2, 1)
            error = self._grouped(self._positions(self._error, block))
            gradient += np.matmul(columns, error, out=self._product)
        return gradient

    def to_numpy(self, result: object) -> Array:
        return np.asarray(result).transpose(1, 0, 2).reshape(self._layer.kernel_shape)
