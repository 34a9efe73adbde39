"""Keep memory that one thread reuses: a fresh page costs as much as the work in it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


class Scratch:
    """Named arrays of one dtype, as large as the largest that was asked for."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self._memory: dict[str, Array] = {}

    def array(self, name: str, *shape: int) -> Array:
        """An array of that shape, with whatever is in it; the same memory for the same name."""
        size = math.prod(shape)
        memory = self._memory.get(name)
        if memory is None or memory.size < size:
            memory = self._memory[name] = np.empty(size, self.dtype)
        return memory[:size].reshape(shape)

    @property
    def buffers(self) -> tuple[Array, ...]:
        return tuple(self._memory.values())
