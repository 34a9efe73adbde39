"""Draw the arrays that a pass reads: uniform floats, or integers whose float sums are exact.

Layouts are the canonical ones: NHWC for the input and the output gradient, (kh, kw, in, out) for
the kernel. An implementation copies the arrays into its own layout in `Prepared.load`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.problem.layer import Layer, Pass

Array = NDArray[np.floating[Any]]
_Draw = Callable[[str, tuple[int, ...]], "Array"]

MAX_INTEGER = 32
"""Largest absolute value of a drawn integer (benchdnn's range for f32). Zero is not drawn."""

EXACT_INTEGERS = {"float32": 2**24, "float64": 2**53}
"""Number up to which a dtype holds every integer, so that sums of integers do not round."""


@dataclass(frozen=True)
class Operands:
    """The arrays that one pass reads, all C-contiguous. Arrays that it does not read are None.

    Shapes: `input` (batch, height, width, channels), `kernel` (kh, kw, channels/groups, filters),
    `bias` (filters,), `output_gradient` (batch, out height, out width, filters).
    """

    input: Array | None = None
    kernel: Array | None = None
    bias: Array | None = None
    output_gradient: Array | None = None

    @property
    def magnitudes(self) -> Operands:
        """The absolute values of all arrays, in double precision."""
        arrays = (self.input, self.kernel, self.bias, self.output_gradient)
        return Operands(*(None if a is None else np.abs(a.astype(np.float64)) for a in arrays))

    @property
    def nbytes(self) -> int:
        arrays = (self.input, self.kernel, self.bias, self.output_gradient)
        return sum(array.nbytes for array in arrays if array is not None)

    def own(self, array: Array) -> Array:
        """Return a copy of one of these arrays, which an implementation may keep."""
        return array.copy()


class LentOperands(Operands):
    """Operands that stay unchanged during the call, so that no array has to be copied."""

    def own(self, array: Array) -> Array:
        """Return a view of the array, not a copy.

        NumPy calls an array C-contiguous whatever the strides of its axes of one element are. Here
        they are those of C order, since implementations compute addresses from them.
        """
        return np.ndarray(array.shape, array.dtype, array)


def floats(layer: Layer, pass_: Pass, seed: int) -> Operands:
    """Draw uniform floats in [-1, 1). Layer, pass and seed fix them, in every process."""
    draws = _generators(layer, pass_, seed)
    return _operands(
        layer, pass_, lambda what, shape: _uniform(draws[what], shape, np.dtype(layer.dtype))
    )


def exact_integers(layer: Layer, pass_: Pass, seed: int) -> Operands:
    """Draw integers whose products sum without rounding, in any order, in the layer's dtype.

    The density is benchdnn's rule: with values up to 32, at most `safe = 2^24 / 32^2` terms of a
    sum may be non-zero, so only a fraction `min(1, safe / K)` of one operand is non-zero. This
    operand is the kernel, or in the kernel gradient the output gradient, since each term of a sum
    has a factor from it. The rule makes the average sum small enough, and `_thin` makes sure that
    every single sum is.
    """
    draws = _generators(layer, pass_, seed)
    part = density(layer, pass_)
    sparse = "output_gradient" if pass_ is Pass.KERNEL_GRADIENT else "kernel"

    def draw(what: str, shape: tuple[int, ...]) -> Array:
        rng = draws[what]
        values = rng.integers(1, MAX_INTEGER, shape, endpoint=True, dtype=np.int8)
        values *= rng.choice(np.array([-1, 1], np.int8), shape)
        if what == sparse and part < 1.0:
            values[rng.random(shape, np.float32) >= part] = 0
            _thin(values, layer, pass_, _room(layer) // MAX_INTEGER)
        return values.astype(layer.dtype)

    return _operands(layer, pass_, draw)


def density(layer: Layer, pass_: Pass) -> float:
    """Return the part of the sparse operand that `exact_integers` does not set to zero."""
    return min(1.0, _room(layer) / MAX_INTEGER**2 / layer.terms(pass_))


def _room(layer: Layer) -> int:
    """Return the largest sum of products of integers that leaves room for a bias."""
    return EXACT_INTEGERS[layer.dtype] - MAX_INTEGER


def _thin(values: NDArray[np.int8], layer: Layer, pass_: Pass, limit: int) -> None:
    """Zero elements of `values` until the absolute values in no sum add up to more than `limit`."""
    if pass_ is not Pass.INPUT_GRADIENT:  # a filter's sums run over all other axes
        columns = values.reshape(-1, values.shape[-1])
        columns[np.cumsum(np.abs(columns), axis=0, dtype=np.int64) > limit] = 0
        return
    # The sums of a channel run over the taps and over the filters of its group.
    kh, kw, channels, filters = values.shape
    grouped = values.reshape(kh, kw, channels, layer.groups, filters // layer.groups)
    terms = np.moveaxis(grouped, 4, 2)
    totals = np.cumsum(np.abs(terms).reshape(-1, channels, layer.groups), axis=0, dtype=np.int64)
    terms[(totals > limit).reshape(terms.shape)] = 0  # a view: this writes into `values`


def _operands(layer: Layer, pass_: Pass, draw: _Draw) -> Operands:
    batch = layer.batch_size
    reads_bias = layer.use_bias and pass_ is Pass.FORWARD
    output = (batch, *layer.output_shape)
    return Operands(
        input=None if pass_ is Pass.INPUT_GRADIENT else draw("input", (batch, *layer.input_shape)),
        kernel=None if pass_ is Pass.KERNEL_GRADIENT else draw("kernel", layer.kernel_shape),
        bias=draw("bias", (layer.filters,)) if reads_bias else None,
        output_gradient=None if pass_ is Pass.FORWARD else draw("output_gradient", output),
    )


def _generators(layer: Layer, pass_: Pass, seed: int) -> dict[str, np.random.Generator]:
    key = [seed, zlib.crc32(layer.name.encode()), list(Pass).index(pass_)]
    names = ("input", "kernel", "bias", "output_gradient")
    return {name: np.random.default_rng([*key, i]) for i, name in enumerate(names)}


def _uniform(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    values = rng.random(shape, dtype=dtype.type)
    values *= 2
    values -= 1
    return values
