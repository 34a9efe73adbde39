"""Compute a convolution whose every part is data, so that a mistake can change one part.

All three passes are computed from two selections. One says which input row meets which kernel row
for which output row; the other says the same of columns. As one-hot arrays they express any
strides, dilation and padding, and any mistake in these, and they make the gradients the adjoints of
the forward pass. The arrays become large, so this is for small layers only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from convbench.problem.layer import Layer, Pair, Pass
from convbench.problem.operands import Operands

Float64 = NDArray[np.float64]
Outside = Literal["zeros", "ones", "edge", "reflect", "symmetric", "wrap"]


@dataclass(frozen=True)
class Geometry:
    """Where windows lie: output i meets input `origin + i * strides + p * dilation` at kernel p.

    This holds for rows and for columns. `origin` is minus the pads at the top and left. `outside`
    says what lies beyond the input.
    """

    origin: Pair
    strides: Pair
    dilation: Pair
    outside: Outside = "zeros"

    @classmethod
    def of(cls, layer: Layer) -> Geometry:
        (top, _), (left, _) = layer.pads
        return cls((-top, -left), layer.strides, layer.dilation_rate)


@dataclass(frozen=True)
class Sizes:
    """Rows and columns of the input, of the kernel and of the output."""

    input: Pair
    kernel: Pair
    output: Pair

    @classmethod
    def of(cls, layer: Layer) -> Sizes:
        return cls(layer.input_size, layer.kernel_size, layer.output_size)


@dataclass(frozen=True)
class Computation:
    """One pass of a layer on given operands, float64, in our layouts (NHWC, HWIO).

    `sees` lists for each filter the channels that it sees. `taps` and `positions` are the weights
    of kernel and output positions: 1, or 0 for a position that is left out. `bias_times` is how
    often the bias is added. The result is `scale` times the sums, plus the bias, passed through
    each function of `after`. `whole`, where it is given, computes the sums in another way.
    """

    layer: Layer
    pass_: Pass
    geometry: Geometry
    sizes: Sizes
    x: Float64 | None
    kernel: Float64 | None
    error: Float64 | None
    bias: Float64 | None
    sees: tuple[tuple[int, ...], ...]
    taps: Float64
    positions: Float64
    scale: float = 1.0
    bias_times: float = 1.0
    after: tuple[Callable[[Float64], Float64], ...] = ()
    whole: Callable[[Computation], Float64] | None = None

    @classmethod
    def of(
        cls, layer: Layer, pass_: Pass, operands: Operands, sizes: Sizes | None = None
    ) -> Computation:
        """Return the right computation. `sizes` are the result's, if they are not the layer's."""
        sizes = sizes or Sizes.of(layer)
        return cls(
            layer=layer,
            pass_=pass_,
            geometry=Geometry.of(layer),
            sizes=sizes,
            x=_double(operands.input),
            kernel=_double(operands.kernel),
            error=_double(operands.output_gradient),
            bias=_double(operands.bias),
            sees=by_group(layer),
            taps=np.ones(sizes.kernel),
            positions=np.ones(sizes.output),
        )

    def at(self, **changes: Any) -> Computation:
        """Return the computation with these changes to its geometry."""
        return replace(self, geometry=replace(self.geometry, **changes))

    def then(self, function: Callable[[Float64], Float64]) -> Computation:
        """Return the computation whose result passes through one more function."""
        return replace(self, after=(*self.after, function))

    def result(self) -> Float64:
        """Return the result: NHWC, or (kh, kw, in, out) for the kernel gradient."""
        sums = self.whole(self) if self.whole is not None else self._sums()
        result = sums * self.scale
        if self.bias is not None:
            result = result + self.bias_times * self.bias
        for function in self.after:
            result = function(result)
        return result

    def selections(self) -> tuple[Float64, Float64]:
        """Return one-hot arrays: (out rows, kernel rows, input rows + 1), and the same of columns.

        The last input row and column stand for whatever lies beyond the input.
        """
        found = [
            _selection(
                self.sizes.input[axis],
                self.sizes.kernel[axis],
                self.sizes.output[axis],
                self.geometry,
                axis,
            )
            for axis in (0, 1)
        ]
        return found[0], found[1]

    def dense_kernel(self) -> Float64:
        """Return the kernel as (kh, kw, all channels, filters), zero where a filter does not see a
        channel."""
        assert self.kernel is not None
        if set(self.sees) == {tuple(range(self.layer.channels))}:  # every filter sees all channels
            return self.kernel * self.taps[:, :, None, None]
        dense = np.zeros((*self.kernel.shape[:2], self.layer.channels, self.kernel.shape[3]))
        for f, channels in enumerate(self.sees):
            for j, channel in enumerate(channels):
                dense[:, :, channel, f] += self.kernel[:, :, j, f]
        return dense * self.taps[:, :, None, None]

    def contributions(self) -> Float64:
        """Return what each output position adds to the input gradient at each tap, before the sum.

        The shape is (batch, out h, out w, kh, kw, channels).
        """
        assert self.error is not None
        error = self.error * self.positions[None, :, :, None]
        return np.tensordot(error, self.dense_kernel(), (3, 3))

    def _sums(self) -> Float64:
        rows, columns = self.selections()
        if self.pass_ is Pass.INPUT_GRADIENT:
            spread = np.tensordot(self.contributions(), rows, ((1, 3), (0, 1)))
            gradient = np.tensordot(spread, columns, ((1, 2), (0, 1))).transpose(0, 2, 3, 1)
            return np.ascontiguousarray(gradient[:, :-1, :-1])
        assert self.x is not None
        fill = 1.0 if self.geometry.outside == "ones" else 0.0
        images, height, width, channels = self.x.shape
        x = np.full((images, height + 1, width + 1, channels), fill)
        x[:, :-1, :-1] = self.x
        met = np.tensordot(np.tensordot(rows, x, (2, 1)), columns, (3, 2))
        # met: (out h, kh, batch, channels, out w, kw)
        if self.pass_ is Pass.FORWARD:
            sums = np.tensordot(met, self.dense_kernel(), ((1, 5, 3), (0, 1, 2)))
            return np.ascontiguousarray(
                sums.transpose(1, 0, 2, 3) * self.positions[None, :, :, None]
            )
        assert self.error is not None
        error = self.error * self.positions[None, :, :, None]
        dense = np.tensordot(met, error, ((2, 0, 4), (0, 1, 2))).transpose(0, 2, 1, 3)
        gradient = np.zeros((*self.sizes.kernel, len(self.sees[0]), len(self.sees)))
        for f, channels in enumerate(self.sees):
            gradient[:, :, :, f] = dense[:, :, list(channels), f]
        return gradient * self.taps[:, :, None, None]


def by_group(layer: Layer) -> tuple[tuple[int, ...], ...]:
    """Return the channels that each filter sees."""
    channels, filters = layer.channels // layer.groups, layer.filters // layer.groups
    return tuple(
        tuple(range(f // filters * channels, f // filters * channels + channels))
        for f in range(layer.filters)
    )


def _double(array: NDArray[np.floating[Any]] | None) -> Float64 | None:
    return None if array is None else array.astype(np.float64)


def _selection(size: int, taps: int, outputs: int, geometry: Geometry, axis: int) -> Float64:
    i, p = np.arange(outputs)[:, None], np.arange(taps)[None, :]
    at = geometry.origin[axis] + i * geometry.strides[axis] + p * geometry.dilation[axis]
    inside = (at >= 0) & (at < size)
    if geometry.outside == "edge":
        at = at.clip(0, size - 1)
    elif geometry.outside == "wrap":
        at = at % size
    elif geometry.outside == "reflect":
        at = _mirrored(at, max(2 * size - 2, 1), size)
    elif geometry.outside == "symmetric":
        at = at % (2 * size)
        at = np.where(at < size, at, 2 * size - 1 - at)
    else:
        at = np.where(inside, at, size)
    selection = np.zeros((outputs, taps, size + 1))
    selection[i, p, at] = 1
    return selection


def _mirrored(at: NDArray[np.int_], period: int, size: int) -> NDArray[np.int_]:
    at = at % period
    return np.where(at < size, at, period - at)
