"""winograd: compute 3x3 kernels with fewer multiplications, on tiles of the output.

The method is that of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks"
(arXiv:1509.09308). F(2x2, 3x3) takes 16 multiplications where a direct convolution takes 36, and
F(4x4, 3x3) takes 36 instead of 144. With matrices A, B and G, an output tile is
A [(G k G') * (B d B')] A', where k is the kernel and d the tile of the input below the output tile.
The products of all channels are summed before A is applied. The left and the right factor of a
transform together are one matrix on the flattened tile, the Kronecker product of the factor with
itself. So every step is a matrix product.

The input gradient is computed in the same way, with the kernel flipped and its axes exchanged. The
kernel gradient uses the three transforms transposed: G' sum of [(B d B') * (A' e A)] G, where e is
the tile of the output gradient.
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
take 10.2 ms with 1 MiB, 9.1 with 2, and 9.0 with 4 (measured)."""

SMALL_KERNEL_BYTES = 2560 * 1024
"""Largest transformed kernel in bytes for which each thread does its own stages. Such a kernel
stays in the cache: 3x3 kernels on 64 channels of 56x56 take 2.0 ms instead of 3.5 (measured). BLAS
would pack the whole of a larger kernel in every thread."""

OWN_STAGE_BYTES = 8 * 1024**2
"""Bytes of transformed tiles and products in a stage of one thread. They exceed the L2 cache, since
few long calls are better: 128 channels of 56x56 on one thread take 23.7 ms with 2 MiB, 22.5 with 4
and 20.6 with 8, and on two threads 13.8, 11.1 and 10.4 (measured with 2 MiB of L2)."""

STAGE_BYTES = 32 * 1024**2
"""Bytes of transformed tiles and products in a stage of all threads. There are few such stages,
since the threads wait for each other between the steps."""


class Transform(NamedTuple):
    """The matrices of F(m, 3) on one axis: A (m, m + 2), B (m + 2, m + 2) and G (m + 2, 3)."""

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
    """The transforms in two dimensions: A (m m, t t), B (t t, t t), G (t t, 9), where t = m + 2."""

    a: Array
    b: Array
    g: Array

    @property
    def roundings(self) -> int:
        """Largest number of roundings of a product of operands in the three transforms.

        A sum of n terms has at most n roundings, zeros are exact, and the elements of G are rounded
        once. Both axes count, since the kernel gradient uses A and G transposed.
        """
        longest = (max(np.count_nonzero(m, axis=axis).max() for axis in (0, 1)) for m in self)
        return 1 + sum(int(length) for length in longest)

    @property
    def magnitudes(self) -> Matrices:
        return Matrices(*(np.abs(matrix) for matrix in self))


def matrices(transform: Transform, dtype: str) -> Matrices:
    """Return the two-dimensional transforms, the Kronecker products of the matrices."""
    one = [np.array(matrix, np.float64) for matrix in transform]
    return Matrices(*(np.kron(matrix, matrix).astype(dtype) for matrix in one))


class Winograd(NumpyAlgorithm):
    """F(4x4, 3x3), with the larger tiles, which save more multiplications."""

    name = "winograd"
    _transform = F4

    def unsupported(self, layer: Layer, pass_: Pass) -> Unsupported | None:
        if layer.kernel_size != (3, 3):
            return Unsupported(
                "kernel_size must be 3, since the transforms are those of 3x3 kernels",
                ("kernel_size",),
            )
        if layer.strides != (1, 1) or layer.dilation_rate != (1, 1):
            return Unsupported(
                "strides and dilation_rate must be 1, so that a tile's windows are adjacent",
                ("strides", "dilation_rate"),
            )
        if layer.groups > 1:
            return Unsupported(
                "groups must be 1, since a group has too few channels to pay for the transforms",
                ("groups",),
            )
        return None

    def exact(self, layer: Layer, pass_: Pass) -> bool:
        return False

    def error_bound(self, layer: Layer, pass_: Pass, operands: Operands) -> NDArray[np.float64]:
        """Return gamma_n times the result of the same algorithm on magnitudes, in double precision.

        Every product of operands reaches the result as a sum over the paths through the three
        transforms. On a path it is multiplied by elements of A, B and G and rounded at most n
        times: by the transforms, by the sum over channels (or tiles), by the product itself, and by
        the addition of the bias. Each rounding is a factor 1 + d with |d| <= u, and n of them are
        off by at most gamma_n = n u / (1 - n u): Higham, "Accuracy and Stability of Numerical
        Algorithms", 2nd ed., lemma 3.1. So the error is at most gamma_n times the same sum of
        magnitudes.
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
    """F(2x2, 3x3). It saves less work, but has half the error, and its tiles fit small images."""

    name = "winograd-2x2"
    _transform = F2


@dataclass(frozen=True)
class Tiles:
    """The tiles of an input that belong to the tiles of the output. They may overlap.

    The tiles of the output take the place of positions in `correlation`. Its kernel size is the
    size of a tile of the input, and its strides are the size of a tile of the output.
    """

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
        """Gather the tiles of a block of tile rows, (size * size, tiles * channels).

        Elements beyond the input are zero.
        """
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
    """Blocks of tile rows that are transformed and multiplied together.

    `blocks` has each block with its slice of the stage's tiles. `tiles` is the number of these
    tiles.
    """

    blocks: list[tuple[Block, slice]]
    tiles: int


Work = Callable[[Item, Scratch], None]


class Team:
    """Threads that do a stage together, each in its own scratch memory: all threads, or one."""

    def __init__(self, scratch: list[Scratch]) -> None:
        self._scratch = scratch
        self.shared = Scratch(scratch[0].dtype)

    def parts(self, elements: int) -> list[slice]:
        """Split the elements of a tile into few parts for `deal`, since calls of NumPy take a lock.

        There are twice as many parts as threads, so that a thread which is held up does not keep
        the others waiting.
        """
        threads = len(self._scratch)
        return even(elements, 1 if threads == 1 else 2 * threads)

    def deal(self, items: Iterable[Item], work: Work[Item]) -> None:
        """Call work(item, scratch) for each item, in the next thread that is free."""
        items = list(items)
        left = iter(items)

        def some(thread: int) -> None:
            for item in left:
                work(item, self._scratch[thread])

        in_threads(some, min(len(self._scratch), len(items)))


class PreparedWinograd(Threaded):
    """Base class of the passes: the stages of tiles, and the memory that threads reuse.

    If the kernel is small, each thread does its own stages. Otherwise all threads do a stage
    together: they transform blocks of its tiles, and then each multiplies some of the elements of
    the tiles. So BLAS packs the kernel only once, and the products are as long as a stage.
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
        # A stage of one thread is one block, since each call of NumPy takes the interpreter's lock.
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
        """Yield stages of as many whole blocks as fit, but with work for every team."""
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
        """Give each team a fixed set of stages, so that every call gives the same bits."""
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
        """Return the matrix times each tile of `x` of a stage: (elements, tiles, channels)."""
        channels = tiles.correlation.channels
        result = team.shared.array(name, len(matrix), stage.tiles * channels)

        def work(item: tuple[Block, slice], scratch: Scratch) -> None:
            block, span = item
            target = result[:, span.start * channels : span.stop * channels]
            multiply_wide(matrix, tiles.gather(x, block, scratch), out=target)

        team.deal(stage.blocks, work)
        return result.reshape(len(matrix), stage.tiles, channels)


class Correlating(PreparedWinograd):
    """The forward pass, and with `flipped` the input gradient."""

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
        """Return the transformed kernel, (elements, channels, filters) of the correlation."""
        # Flipping both axes of the kernel reverses its nine positions.
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
        """Transform the products of a block into its part of the output, cut off at the edges."""
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
    """Prepare a pass with these transforms."""
    correlation = _correlation(layer, pass_)
    if pass_ is Pass.KERNEL_GRADIENT:
        return KernelGradient(layer, correlation, threads, transforms)
    flipped = pass_ is Pass.INPUT_GRADIENT
    return Correlating(layer, correlation, threads, transforms, flipped)


def _correlation(layer: Layer, pass_: Pass) -> Correlation:
    """Return the correlation of the output gradient for the input gradient, else of the input."""
    if pass_ is not Pass.INPUT_GRADIENT:
        return Correlation.of(layer)
    (phase,) = phases(layer)  # strides are 1
    assert phase.correlation is not None
    return phase.correlation
