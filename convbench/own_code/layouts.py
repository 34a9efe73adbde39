"""Turn somebody's arrays into ours (NHWC, and HWIO for kernels) and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.errors import ImplementationError
from convbench.own_code.description import ACTIVATION_AXES, KERNEL_AXES, OwnCode, layout_problem
from convbench.problem.layer import Layer, Pass

Array = NDArray[Any]


@dataclass(frozen=True)
class Layout:
    """The axes of one array: `letters` in the code's order, `ours` in convbench's order.

    A letter of `ours` that `letters` lacks is an axis of size 1 that the code's arrays do not have.
    """

    letters: str
    ours: str

    def shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
        """Return the code's shape of an array whose shape in our layout is `ours`."""
        return tuple(ours[self.ours.index(letter)] for letter in self.letters)

    def left_out(self, ours: tuple[int, ...]) -> str:
        """Return the axes that the code's arrays lack and that are larger than 1 in `ours`."""
        sizes = zip(self.ours, ours, strict=True)
        return "".join(axis for axis, n in sizes if axis not in self.letters and n > 1)

    def to_code(self, array: Array) -> Array:
        """Return a C-contiguous copy that has the code's axes."""
        at = tuple(slice(None) if axis in self.letters else 0 for axis in self.ours)
        kept = [axis for axis in self.ours if axis in self.letters]
        view = array[at].transpose([kept.index(letter) for letter in self.letters])
        return np.array(view, order="C")

    def to_ours(self, array: Array) -> Array:
        """Return a view that has our axes. The array must have an axis for each of `letters`."""
        kept = [axis for axis in self.ours if axis in self.letters]
        view = array.transpose([self.letters.index(axis) for axis in kept])
        at = tuple(slice(None) if axis in self.letters else None for axis in self.ours)
        return view[at]


AXES = {
    "N": "batch",
    "C": "channels",
    "H": "height",
    "W": "width",
    "O": "filters",
    "I": "channels of a group",
}
"""Axis that each letter of a layout stands for."""


@dataclass(frozen=True)
class Layouts:
    """The code's layouts: of x and its gradient, of the output and its gradient, of the kernel."""

    input: Layout
    output: Layout
    kernel: Layout

    @classmethod
    def of(cls, own: OwnCode, found: object) -> Layouts:
        """Take what the suite says, or else the attributes of the code, or else the defaults.

        Raises ImplementationError for letters that are no layout.
        """
        said = {
            key: getattr(own, key) or getattr(found, key, "")
            for key in ("layout", "kernel_layout", "output_layout")
        }
        for key, letters in said.items():
            axes = KERNEL_AXES if key == "kernel_layout" else ACTIVATION_AXES
            if letters and (problem := layout_problem(str(letters), axes)):
                raise ImplementationError(f"{own.name}: {key} {letters!r}: expected {problem}")
        x = str(said["layout"] or ACTIVATION_AXES)
        default = ACTIVATION_AXES if "N" in x else ACTIVATION_AXES.replace("N", "")
        whole = x if "C" in x else default  # images of one channel may have several filters
        return cls(
            Layout(x, "NHWC"),
            Layout(str(said["output_layout"] or whole), "NHWC"),
            Layout(str(said["kernel_layout"] or KERNEL_AXES), "HWIO"),
        )

    def result(self, pass_: Pass) -> Layout:
        """Return the layout of a pass's result."""
        if pass_ is Pass.FORWARD:
            return self.output
        return self.input if pass_ is Pass.INPUT_GRADIENT else self.kernel

    def left_out(self, layer: Layer) -> str:
        """Name the axes, if any, that the code's arrays lack although the layer needs them.

        A layer needs each axis whose size is above 1.
        """
        letters = (
            self.input.left_out(layer.result_shape(Pass.INPUT_GRADIENT))
            + self.output.left_out(layer.result_shape(Pass.FORWARD)).replace("C", "O")
            + self.kernel.left_out(layer.kernel_shape)
        )
        return " and ".join(dict.fromkeys(AXES[letter.replace("I", "C")] for letter in letters))
