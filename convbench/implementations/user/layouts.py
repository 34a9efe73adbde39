"""The axes of somebody's arrays, and the way to and from ours (NHWC, and HWIO for kernels)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Layout:
    """`letters` are the code's axes in their order, `ours` the same axes as convbench has them.

    A letter of `ours` that `letters` lacks is an axis of size 1 that the code's arrays do not have.
    """

    letters: str
    ours: str

    def shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
        """The code's shape of an array that has that shape with us."""
        return tuple(ours[self.ours.index(letter)] for letter in self.letters)

    def left_out(self, ours: tuple[int, ...]) -> str:
        """The axes that the code's arrays lack and that are larger than 1 in that shape."""
        sizes = zip(self.ours, ours, strict=True)
        return "".join(axis for axis, n in sizes if axis not in self.letters and n > 1)

    def to_code(self, array: Array) -> Array:
        """A C-contiguous copy with the code's axes."""
        at = tuple(slice(None) if axis in self.letters else 0 for axis in self.ours)
        kept = [axis for axis in self.ours if axis in self.letters]
        view = array[at].transpose([kept.index(letter) for letter in self.letters])
        return np.array(view, order="C")

    def to_ours(self, array: Array) -> Array:
        """A view with our axes. The array must have as many axes as there are letters."""
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
"""What a letter of a layout stands for."""
