"""Describe a layer: one 2-D convolution problem, its shapes, pads, FLOPs and bytes. No NumPy.

The names are Keras Conv2D's. Shapes are (height, width, channels), and every pair is
(height, width). All counts are for one pass over the whole batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Literal

from convbench.errors import LayerError

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]  # ((top, bottom), (left, right))
Padding = Literal["valid", "same"] | Pads
Dtype = Literal["float32", "float64"]

ITEMSIZE: dict[str, int] = {"float32": 4, "float64": 8}


class Pass(StrEnum):
    """One of the three computations of a convolution layer in training."""

    FORWARD = "forward"
    INPUT_GRADIENT = "input-gradient"
    KERNEL_GRADIENT = "kernel-gradient"


@dataclass(frozen=True)
class Layer:
    """One 2-D convolution problem (a cross-correlation, as deep learning uses the word).

    `padding` keeps what was written (`valid`, `same` or four pads), because a smaller copy of the
    layer must pad by the same rule. `pads` has the resulting numbers. Creating a layer raises
    LayerError if the output would be empty, if `groups` does not divide the channels and the
    filters, or if a number is out of range.
    """

    name: str
    input_shape: tuple[int, int, int]
    filters: int
    kernel_size: Pair
    strides: Pair = (1, 1)
    padding: Padding = "valid"
    dilation_rate: Pair = (1, 1)
    groups: int = 1
    use_bias: bool = False
    batch_size: int = 32
    dtype: Dtype = "float32"
    count: int = 1

    def __post_init__(self) -> None:
        sizes = {
            "input_shape": self.input_shape,
            "filters": (self.filters,),
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "dilation_rate": self.dilation_rate,
            "groups": (self.groups,),
            "batch_size": (self.batch_size,),
            "count": (self.count,),
        }
        for field, values in sizes.items():
            if min(values) < 1:
                raise LayerError(field, f"must be at least 1, found {min(values)}")
        if not isinstance(self.padding, str) and min(min(p) for p in self.padding) < 0:
            raise LayerError("padding", f"pads must not be negative, found {self.padding}")
        if self.channels % self.groups or self.filters % self.groups:
            raise LayerError(
                "groups",
                f"{self.groups} must divide the {self.channels} input channels "
                f"and the {self.filters} filters",
            )
        if min(self.output_size) < 1:
            raise LayerError(
                "kernel_size",
                f"a kernel of {_by(self.kernel_size)} with dilation_rate "
                f"{_by(self.dilation_rate)} does not fit the padded input of "
                f"{_by(self.padded_size)}: the output would be empty",
            )

    # Shapes

    @property
    def channels(self) -> int:
        return self.input_shape[2]

    @property
    def input_size(self) -> Pair:
        return self.input_shape[:2]

    @cached_property
    def effective_kernel_size(self) -> Pair:
        """Number of rows and of columns that the dilated kernel spans."""
        (kh, kw), (dh, dw) = self.kernel_size, self.dilation_rate
        return (kh - 1) * dh + 1, (kw - 1) * dw + 1

    @cached_property
    def pads(self) -> Pads:
        """((top, bottom), (left, right)). `same` puts an odd row or column last, as Keras does."""
        if self.padding == "valid":
            return (0, 0), (0, 0)
        if self.padding != "same":
            return self.padding
        totals = [
            max((math.ceil(size / stride) - 1) * stride + span - size, 0)
            for size, stride, span in zip(
                self.input_size, self.strides, self.effective_kernel_size, strict=True
            )
        ]
        return (totals[0] // 2, -(-totals[0] // 2)), (totals[1] // 2, -(-totals[1] // 2))

    @cached_property
    def padded_size(self) -> Pair:
        (top, bottom), (left, right) = self.pads
        return self.input_shape[0] + top + bottom, self.input_shape[1] + left + right

    @cached_property
    def output_size(self) -> Pair:
        (ph, pw), (eh, ew), (sh, sw) = self.padded_size, self.effective_kernel_size, self.strides
        return (ph - eh) // sh + 1, (pw - ew) // sw + 1

    @property
    def output_shape(self) -> tuple[int, int, int]:
        return (*self.output_size, self.filters)

    @property
    def kernel_shape(self) -> tuple[int, int, int, int]:
        """(kernel height, kernel width, channels of a group, filters), as Keras stores it."""
        return (*self.kernel_size, self.channels // self.groups, self.filters)

    @property
    def is_depthwise(self) -> bool:
        """Whether every channel has its own filters, which Keras users write as DepthwiseConv2D."""
        return self.groups == self.channels and self.groups > 1

    def result_shape(self, pass_: Pass) -> tuple[int, int, int, int]:
        """Return the shape of a pass's result: NHWC, or (kh, kw, in, out) for a kernel gradient."""
        if pass_ is Pass.FORWARD:
            return (self.batch_size, *self.output_shape)
        if pass_ is Pass.INPUT_GRADIENT:
            return (self.batch_size, *self.input_shape)
        return self.kernel_shape

    # Work

    def terms(self, pass_: Pass) -> int:
        """Return K, the largest number of products that one element of the result sums up."""
        kernel = math.prod(self.kernel_size)
        if pass_ is Pass.FORWARD:
            return kernel * self.channels // self.groups
        if pass_ is Pass.INPUT_GRADIENT:
            return kernel * self.filters // self.groups
        return self.batch_size * math.prod(self.output_size)

    @cached_property
    def flops(self) -> int:
        """Number of additions and multiplications, padded taps included: equal for all passes."""
        taps = math.prod(self.output_size) * math.prod(self.kernel_size)
        return 2 * taps * self._products_per_tap

    @cached_property
    def flops_in_bounds(self) -> int:
        """Number of additions and multiplications without the taps that fall on padding."""
        return 2 * self._taps_in_bounds(0) * self._taps_in_bounds(1) * self._products_per_tap

    @property
    def _products_per_tap(self) -> int:
        return self.batch_size * self.filters * self.channels // self.groups

    def _taps_in_bounds(self, axis: int) -> int:
        before, size = self.pads[axis][0], self.input_shape[axis]
        return sum(
            0 <= out * self.strides[axis] + tap * self.dilation_rate[axis] - before < size
            for out in range(self.output_size[axis])
            for tap in range(self.kernel_size[axis])
        )

    # Bytes

    @property
    def itemsize(self) -> int:
        return ITEMSIZE[self.dtype]

    def result_bytes(self, pass_: Pass) -> int:
        return math.prod(self.result_shape(pass_)) * self.itemsize

    def operand_bytes(self, pass_: Pass) -> int:
        """Return the bytes of the operands that a pass reads, including the bias if it has one."""
        sizes = {p: self.result_bytes(p) for p in Pass}
        bias = self.filters * self.itemsize if self.use_bias and pass_ is Pass.FORWARD else 0
        return sum(sizes.values()) - sizes[pass_] + bias

    @property
    def columns_bytes(self) -> int:
        """Bytes of the whole im2col matrix, which an im2col without blocks allocates."""
        columns = math.prod(self.kernel_size) * self.channels * math.prod(self.output_size)
        return columns * self.batch_size * self.itemsize

    # Views

    def geometry(self) -> str:
        """Return a line that identifies the convolution: `28x28x1 -> 26x26x8, kernel 3x3, ...`."""
        parts = [
            f"{_by(self.input_shape)} -> {_by(self.output_shape)}",
            f"kernel {_by(self.kernel_size)}",
            f"batch {self.batch_size}",
        ]
        if self.strides != (1, 1):
            parts.append(f"strides {_by(self.strides)}")
        if isinstance(self.padding, str):
            if self.padding != "valid":
                parts.append(f"padding {self.padding}")
        else:
            parts.append("pads " + " ".join(f"{a}+{b}" for a, b in self.pads))
        if self.dilation_rate != (1, 1):
            parts.append(f"dilation {_by(self.dilation_rate)}")
        if self.groups > 1:
            parts.append("depthwise" if self.is_depthwise else f"groups {self.groups}")
        if self.use_bias:
            parts.append("bias")
        if self.dtype != "float32":
            parts.append(self.dtype)
        return ", ".join(parts)


def _by(sizes: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in sizes)
