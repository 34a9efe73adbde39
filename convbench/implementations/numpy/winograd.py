"""winograd: compute 3x3 kernels by fewer multiplications, on tiles of the output.

F(2x2, 3x3) takes 16 multiplications where a direct convolution takes 36, F(4x4, 3x3) 36 instead of
144: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (arXiv:1509.09308). With
matrices A, B and G, an output tile is A [(G k G') * (B d B')] A', where d is the tile of the input
that it is computed from, and the products of all channels are summed before A is applied. Both
sides of a transform together are one matrix, the Kronecker product of its matrix with itself, on
the flattened tile; so everything here is a matrix product.

The gradient to the input is the same with the kernel flipped and its axes exchanged. That to the
kernel is the transpose of the same three transforms: G' sum of [(B d B') * (A' e A)] G.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from convbench.implementations.contract import Stage
from convbench.implementations.numpy.shared.correlation import (
    Block,
    BlockSize,
    Correlation,
    block_size,
    cut,
    even,
    phases,
    slab_shape,
    windows,
)
from convbench.implementations.numpy.shared.cost import product_s
from convbench.implementations.numpy.shared.products import multiply, multiply_wide, part_rows
from convbench.implementations.numpy.shared.scratch import Scratch
from convbench.implementations.numpy.shared.threaded import NumpyAlgorithm, Threaded, bias_step
from convbench.implementations.numpy.shared.threads import in_threads, worthwhile
from convbench.problem.layer import Layer, Pass
from convbench.problem.operands import Operands
from convbench.problem.rounding import gamma
from convbench.problem.unsupported import Unsupported

Array = NDArray[np.floating[Any]]
Item = TypeVar("Item")

TILES_BYTES = 4 * 1024**2
"""Bytes of the tiles that a thread gathers at a time in a stage of all threads. Each call of NumPy
takes the interpreter's lock, so few long calls are better: 256 channels of 28x28 on two threads
take 10.2 ms with 1 MiB, 9.1 with 2, 9.0 with 4 (measured)."""

SMALL_KERNEL_BYTES = 2560 * 1024
"""Largest transformed kernel in bytes that stays in the cache, so that each thread takes stages of
its own. For 3x3 kernels on 64 channels of 56x56 that takes 2.0 ms instead of 3.5 (measured). BLAS
would pack all of a larger kernel in every thread."""

OWN_STAGE_BYTES = 8 * 1024**2
"""Bytes of transformed tiles and products in a stage of one thread. They are more than its L2 cache
holds, for the same reason: 128 channels of 56x56 on one thread take 23.7 ms with 2 MiB, 22.5 with
4, 20.6 with 8; on two threads 13.8, 11.1 and 10.4 (measured, 2 MiB of L2)."""

STAGE_BYTES = 32 * 1024**2
"""The same in a stage of all threads, which wait for each other between its steps."""


class Transform(NamedTuple):
    """The matrices of F(m, 3) along one axis: A (m, m + 2), B (m + 2, m + 2) and G (m + 2, 3)."""

    a: tuple[tuple[float, ...], ...]
    b: tuple[tuple[float, ...], ...]
    g: tuple[tuple[float, ...], ...]


F2 = Transform(
    a=((1, 1, 1, 0), (0, 1, -1, -1)),
    b=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
    g=((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
)
F4 = Transform(
    a=((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
    b=(
        (4, 0, -5, 0, 1, 0),
        (0, -4, -4, 1, 1, 0),
        (0, 4, -4, -1, 1, 0),
        (0, -2, -1, 2, 1, 0),
        (0, 2, -1, -2, 1, 0),
        (0, 4, 0, -5, 0, 1),
    ),
    g=(
        (1 / 4, 0, 0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0, 0, 1),
    ),
)


class Matrices(NamedTuple):
    """The two-dimensional transforms: A (m m, t t), B (t t, t t) and G (t t, 9), t = m + 2."""

    a: Array
    b: Array
    g: Array

    @property
    def roundings(self) -> int:
        """Most that a product of operands goes through in the three transforms.

        A sum of n terms makes n at most, zeros are exact, and G's own elements are rounded once.
        The kernel's gradient takes A and G transposed.
        """
        longest = (max(np.count_nonzero(m, axis=axis).max() for axis in (0, 1)) for m in self)
        return 1 + sum(int(length) for length in longest)

    @property
    def magnitudes(self) -> Matrices:
        return Matrices(*(np.abs(matrix) for matrix in self))


def matrices(transform: Transform, dtype: str) -> Matrices:
    one = [np.array(matrix, np.float64) for matrix in transform]
    return Matrices(*(np.kron(matrix, matrix).astype(dtype) for matrix in one))


class Winograd(NumpyAlgorithm):
    """F(4x4, 3x3)."""

    name = "winograd"
    _transform = F4

    def unsupported(self, layer: Layer, pass_: Pass) -> Unsupported | None:
        if layer.kernel_size != (3, 3):
            return Unsupported("the transforms are those of 3x3 kernels", ("kernel_size",))
        if layer.strides != (1, 1) or layer.dilation_rate != (1, 1):
            return Unsupported(
                "tiles of windows side by side: strides and dilation_rate must be 1",
                ("strides", "dilation_rate"),
            )
        if layer.groups > 1:
            return Unsupported(
                "a group has too few channels to pay for the transforms: groups must be 1",
                ("groups",),
            )
        return None

    def exact(self, layer: Layer, pass_: Pass) -> bool:
        return False

    def error_bound(self, layer: Layer, pass_: Pass, operands: Operands) -> NDArray[np.float64]:
        """gamma_n times the algorithm itself on magnitudes, in double precision.

        Every product of operands comes to the result as a sum over the paths through the three
        transforms; on a path it is multiplied by elements of A, B and G and goes through at most n
        roundings: those of the transforms, of the sum over channels (or tiles), its own, and that
        of the bias. Each rounding is a factor 1 + d with |d| <= u, and n of them are off by at most
        gamma_n = n u / (1 - n u): Higham, "Accuracy and Stability of Numerical Algorithms", 2nd
        ed., lemma 3.1. So the error is at most gamma_n times the same sum of magnitudes.
        """
        exact = matrices(self._transform, "float64")
        summed = {
            Pass.FORWARD: layer.channels,
            Pass.INPUT_GRADIENT: layer.filters,
            Pass.KERNEL_GRADIENT: layer.terms(pass_),
        }[pass_]
        n = exact.roundings + summed + 2
        twin = prepared(replace(layer, dtype="float64"), pass_, 1, exact.magnitudes)
        twin.load(operands.magnitudes)
        return np.asarray(twin.run()) * gamma(n, layer.dtype)

    def cost_s(self, layer: Layer, pass_: Pass, threads: int) -> float:
        c = _correlation(layer, pass_)
        elements, step = len(self._transform.b) ** 2, len(self._transform.a)
        tiles = c.batch_size * math.prod(-(-size // step) for size in c.output_size)
        steps = [
            product_s(elements, 9, c.channels * c.filters, c.itemsize),
            product_s(elements, elements, tiles * c.channels, c.itemsize),
            elements * product_s(tiles, c.channels, c.filters, c.itemsize),
            product_s(step**2, elements, tiles * c.filters, c.itemsize),
        ]
        return sum(steps) / threads

    def prepare(self, layer: Layer, pass_: Pass, threads: int) -> Threaded:
        return prepared(layer, pass_, threads, matrices(self._transform, layer.dtype))


class SmallTiles(Winograd):
    """F(2x2, 3x3): fewer multiplications saved, half the error, and tiles that fit small images."""

    name = "winograd-2x2"
    _transform = F2


@dataclass(frozen=True)
class Tiles:
    """Overlapping tiles of an input, `size` wide, one for each tile of `step` of the output."""

    correlation: Correlation

    @staticmethod
    def of(correlation: Correlation, size: int, step: int) -> Tiles:
        rows, columns = (-(-length // step) for length in correlation.output_size)
        return Tiles(
            replace(
                correlation,
                kernel_size=(size, size),
                strides=(step, step),
                output_size=(rows, columns),
            )
        )

    def gather(self, x: Array, block: Block, scratch: Scratch) -> Array:
        """(size * size, tiles * channels) of a block of tile rows, zeros beyond the input."""
        c = self.correlation
        view = windows(cut(c, x, block, scratch), c, block)[0]
        images, rows, columns, size, _, channels = view.shape
        tiles = scratch.array("tiles", size, size, images, rows, columns, channels)
        tiles[...] = view.transpose(3, 4, 0, 1, 2, 5)
        return tiles.reshape(size * size, -1)

    def reserve(self, size: BlockSize, scratch: Scratch) -> None:
        c = self.correlation
        taps = math.prod(c.kernel_size)
        scratch.array("tiles", taps * size.images * size.rows * c.output_size[1] * c.channels)
        if c.is_padded:
            scratch.array("slab", *slab_shape(c, size))


class TileStage(NamedTuple):
    """Blocks of tile rows that are transformed and multiplied together."""

    blocks: list[tuple[Block, slice]]  # and which of the stage's tiles are a block's
    tiles: int


Work = Callable[[Item, Scratch], None]


class Team:
    """Threads that do a stage together, each in scratch memory of its own: all of them, or one."""

    def __init__(self, scratch: list[Scratch]) -> None:
        self._scratch = scratch
        self.shared = Scratch(scratch[0].dtype)

    def parts(self, elements: int) -> list[slice]:
        """Elements of a tile for `deal`, in few parts, for each call of NumPy takes a lock.

        Twice as many as threads, so that one which is held up does not keep the others waiting.
        """
        threads = len(self._scratch)
        return even(elements, 1 if threads == 1 else 2 * threads)

    def deal(self, items: Iterable[Item], work: Work[Item]) -> None:
        """Calls work(item, scratch) for each item, in whichever thread is free."""
        items = list(items)
        left = iter(items)

        def some(thread: int) -> None:
            for item in left:
                work(item, self._scratch[thread])

        in_threads(some, min(len(self._scratch), len(items)))


class PreparedWinograd(Threaded):
    """What the passes share: the tiles in stages, and the memory that threads reuse.

    Where the kernel is small, each thread takes stages of its own. Else all threads transform
    blocks of a stage's tiles, then multiply, each some of the elements of a tile; so that BLAS
    packs the kernel once, and its products are as long as a stage.
    """

    def __init__(
        self,
        layer: Layer,
        correlation: Correlation,
        threads: int,
        transforms: Matrices,
        *inside: str,
    ) -> None:
        super().__init__(layer, threads, *inside)
        c = self._c = correlation
        self._transforms = transforms
        self._elements, self._step = len(transforms.b), math.isqrt(len(transforms.a))
        self._inputs = Tiles.of(c, self._step + 2, self._step)
        kernel_bytes = self._elements * c.channels * c.filters * c.itemsize
        if kernel_bytes <= SMALL_KERNEL_BYTES:
            self._teams = [Team([scratch]) for scratch in self._scratch]
            self._stage_bytes = OWN_STAGE_BYTES
        else:
            self._teams = [Team(self._scratch)]
            self._stage_bytes = STAGE_BYTES
        self._everybody = Team(self._scratch)
        grid = self._inputs.correlation
        row = grid.output_size[1] * self._elements * max(c.channels, c.filters) * c.itemsize
        # A stage of one thread is one block: each call of NumPy takes the interpreter's lock.
        budget = TILES_BYTES if len(self._teams) == 1 else self._stage_bytes // 2
        self._size = block_size(grid, row, budget, 2 * self._threads)
        self._tile_stages = list(self._in_stages())
        for scratch in self._scratch:
            self._inputs.reserve(self._size, scratch)
        most = max(stage.tiles for stage in self._tile_stages)
        for team in self._teams:
            team.shared.array("inputs", self._elements * most * c.channels)
            team.shared.array("outputs", self._elements * most * c.filters)

    def stages(self) -> Iterator[Stage]:
        yield Stage("gather", "copy", self._inputs, "gather")
        yield Stage("transform", "arithmetic", self, "_transformed")

    def _in_stages(self) -> Iterator[TileStage]:
        """Whole blocks, as many as the bytes of a stage hold, and something for every team."""
        grid, c = self._inputs.correlation, self._c
        across = grid.output_size[1]
        most = self._stage_bytes // (self._elements * (c.channels + c.filters) * c.itemsize)
        most = min(most, -(-grid.positions // len(self._teams)))
        blocks: list[tuple[Block, slice]] = []
        tiles = 0
        for block in self._size.blocks(self._inputs.correlation):
            more = (block.last - block.first) * (block.end - block.row) * across
            if blocks and tiles + more > most:
                yield TileStage(blocks, tiles)
                blocks, tiles = [], 0
            blocks.append((block, slice(tiles, tiles + more)))
            tiles += more
        yield TileStage(blocks, tiles)

    def _memory(self) -> list[Scratch]:
        shared = (team.shared for team in (*self._teams, self._everybody))
        return [*self._scratch, *shared]

    def _in_teams(self, stage: Callable[[TileStage, Team], None]) -> None:
        """Which stages a team does is fixed, so that a call repeats itself to the last bit."""
        teams = self._teams

        def some(index: int) -> None:
            for each in self._tile_stages[index :: len(teams)]:
                stage(each, teams[index])

        if len(teams) == 1:
            some(0)
        else:
            in_threads(some, len(teams))

    def _transformed(
        self, stage: TileStage, team: Team, x: Array, tiles: Tiles, matrix: Array, name: str
    ) -> Array:
        """(elements, tiles, channels) of a stage: the matrix times each tile of `x`."""
        channels = tiles.correlation.channels
        result = team.shared.array(name, len(matrix), stage.tiles * channels)

        def work(item: tuple[Block, slice], scratch: Scratch) -> None:
            block, span = item
            target = result[:, span.start * channels : span.stop * channels]
            multiply_wide(matrix, tiles.gather(x, block, scratch), out=target)

        team.deal(stage.blocks, work)
        return result.reshape(len(matrix), stage.tiles, channels)


class Correlating(PreparedWinograd):
    """The passes whose result is an image; `flipped` for the input gradient."""

    _multiply = staticmethod(multiply)

    def __init__(
        self,
        layer: Layer,
        correlation: Correlation,
        threads: int,
        transforms: Matrices,
        flipped: bool,
    ) -> None:
        super().__init__(
            layer,
            correlation,
            threads,
            transforms,
            "transform the kernel",
            "gather and transform tiles",
            "matrix products",
            "transform the products",
            "" if flipped else bias_step(layer),
        )
        c = self._c
        self._flipped = flipped
        self._is_copied = flipped and part_rows(c.channels, c.filters) is not None
        if self._is_copied:
            self.call_bytes = self._elements * c.kernel_bytes // 9
        self._everybody.shared.array("kernel", self._elements * c.channels * c.filters)
        tiles = self._size.images * self._size.rows * self._inputs.correlation.output_size[1]
        for scratch in self._scratch:
            scratch.array("result", self._step**2 * tiles * c.filters)

    def stages(self) -> Iterator[Stage]:
        yield from super().stages()
        yield Stage("transform", "arithmetic", self, "_transformed_kernel")
        yield Stage("scatter", "arithmetic", self, "_write")
        yield Stage("product", "product", self, "_multiply")

    def run(self) -> object:
        c = self._c
        output = self.result(c.batch_size, *c.output_size, c.filters)
        kernel = self._transformed_kernel()
        x = self._error if self._flipped else self._x

        def one(stage: TileStage, team: Team) -> None:
            inputs = self._transformed(stage, team, x, self._inputs, self._transforms.b, "inputs")
            products = team.shared.array("outputs", self._elements, stage.tiles, c.filters)

            def multiplied(part: slice, _: Scratch) -> None:
                self._multiply(inputs[part], kernel[part], out=products[part])

            def finish(item: tuple[Block, slice], scratch: Scratch) -> None:
                self._write(output, products, *item, scratch)

            team.deal(team.parts(self._elements), multiplied)
            team.deal(stage.blocks, finish)

        self._in_teams(one)
        return output

    def _transformed_kernel(self) -> Array:
        """(elements, channels, filters) of the correlation, a view."""
        # Both axes of the kernel backwards are its nine positions backwards.
        matrix = self._transforms.g[:, ::-1] if self._flipped else self._transforms.g
        matrix = np.ascontiguousarray(matrix)
        kernel = self._kernel.reshape(9, -1)
        result = self._everybody.shared.array("kernel", self._elements, kernel.shape[1])

        def work(part: slice, _: Scratch) -> None:
            multiply_wide(matrix, kernel[:, part], out=result[:, part])

        threads = worthwhile(self._threads, 2 * matrix.size * kernel.shape[1])
        self._everybody.deal(even(kernel.shape[1], threads), work)
        result = result.reshape(self._elements, *self._kernel.shape[2:])
        if not self._flipped:
            return result
        flipped = result.transpose(0, 2, 1)
        return np.ascontiguousarray(flipped) if self._is_copied else flipped

    def _write(
        self, output: Array, products: Array, block: Block, tiles: slice, scratch: Scratch
    ) -> None:
        """Transforms the products of a block into its part of the output, cut at the edges."""
        filters, step = self._c.filters, self._step
        flat = products.reshape(self._elements, -1)
        part = flat[:, tiles.start * filters : tiles.stop * filters]
        found = scratch.array("result", step**2, part.shape[1])
        multiply_wide(self._transforms.a, part, out=found)
        across = self._inputs.correlation.output_size[1]
        images, rows = block.last - block.first, block.end - block.row
        found = found.reshape(step, step, images, rows, across, filters)
        if self._bias is not None:
            found += self._bias
        target = output[block.first : block.last, block.row * step : block.end * step]
        whole_rows, whole_columns = target.shape[1] // step, target.shape[2] // step
        within = target[:, : whole_rows * step, : whole_columns * step]
        tiled = within.reshape(images, whole_rows, step, whole_columns, step, filters)
        tiled[...] = found[:, :, :, :whole_rows, :whole_columns].transpose(2, 3, 0, 4, 1, 5)
        bottom = target[:, whole_rows * step :]
        for i in range(bottom.shape[1]):
            for j in range(step):
                every = bottom[:, i, j::step]
                every[...] = found[i, j, :, whole_rows, : every.shape[1]]
        right = target[:, : whole_rows * step, whole_columns * step :]
        for j in range(right.shape[2]):
            for i in range(step):
                right[:, i::step, j] = found[i, j, :, :whole_rows, whole_columns]


class KernelGradient(PreparedWinograd):
    _matmul = np.matmul

    def __init__(
        self, layer: Layer, correlation: Correlation, threads: int, transforms: Matrices
    ) -> None:
        super().__init__(
            layer,
            correlation,
            threads,
            transforms,
            "gather and transform tiles of both operands",
            "matrix products",
            "sum over the stages",
            "transform the sums",
        )
        c = self._c
        outputs = replace(c, input_size=c.output_size, channels=c.filters, origin=(0, 0))
        self._outputs = Tiles.of(outputs, self._step, self._step)
        for scratch in self._scratch:
            self._outputs.reserve(self._size, scratch)
            if len(self._tile_stages) > len(self._teams):
                most = max(part.stop - part.start for part in self._teams[0].parts(self._elements))
                scratch.array("product", most, c.channels, c.filters)
        for team in self._teams:
            self._sums(team)

    def stages(self) -> Iterator[Stage]:
        yield from super().stages()
        yield Stage("gather", "copy", self._outputs, "gather")
        yield Stage("product", "product", self, "_matmul")

    def _sums(self, team: Team) -> Array:
        return team.shared.array("sums", self._elements, self._c.channels, self._c.filters)

    def run(self) -> object:
        transposed = np.ascontiguousarray(self._transforms.a.T)

        def one(stage: TileStage, team: Team) -> None:
            inputs = self._transformed(
                stage, team, self._x, self._inputs, self._transforms.b, "inputs"
            )
            errors = self._transformed(
                stage, team, self._error, self._outputs, transposed, "outputs"
            )
            sums = self._sums(team)
            is_first = stage in self._tile_stages[: len(self._teams)]

            def summed(part: slice, scratch: Scratch) -> None:
                transposed = inputs[part].transpose(0, 2, 1)
                if is_first:
                    self._matmul(transposed, errors[part], out=sums[part])
                    return
                product = scratch.array("product", *sums[part].shape)
                sums[part] += self._matmul(transposed, errors[part], out=product)

            team.deal(team.parts(self._elements), summed)

        self._in_teams(one)
        sums = self._sums(self._teams[0])
        for other in self._teams[1 : len(self._tile_stages)]:
            sums += self._sums(other)
        gradient = self.result(*self._layer.kernel_shape).reshape(9, -1)
        matrix, flat = np.ascontiguousarray(self._transforms.g.T), sums.reshape(self._elements, -1)

        def finish(part: slice, _: Scratch) -> None:
            multiply_wide(matrix, flat[:, part], out=gradient[:, part])

        threads = worthwhile(self._threads, 2 * matrix.size * gradient.shape[1])
        self._everybody.deal(even(gradient.shape[1], threads), finish)
        return gradient.reshape(self._layer.kernel_shape)


def prepared(
    layer: Layer, pass_: Pass, threads: int, transforms: Matrices
) -> Correlating | KernelGradient:
    correlation = _correlation(layer, pass_)
    if pass_ is Pass.KERNEL_GRADIENT:
        return KernelGradient(layer, correlation, threads, transforms)
    flipped = pass_ is Pass.INPUT_GRADIENT
    return Correlating(layer, correlation, threads, transforms, flipped)


def _correlation(layer: Layer, pass_: Pass) -> Correlation:
    """Of the output gradient for the input gradient, else that of the forward pass."""
    if pass_ is not Pass.INPUT_GRADIENT:
        return Correlation.of(layer)
    (phase,) = phases(layer)  # strides are 1
    assert phase.correlation is not None
    return phase.correlation
