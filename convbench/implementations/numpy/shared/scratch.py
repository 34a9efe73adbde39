"""Keep memory that one thread reuses, since a new page costs as much as computing on it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


class Scratch:
    """Named memory of one dtype. Under each name it is as large as the largest array so far."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self._memory: dict[str, Array] = {}

    def array(self, name: str, *shape: int) -> Array:
        """Return an uninitialised array of that shape. Arrays of one name share their memory."""
        size = math.prod(shape)
        memory = self._memory.get(name)
        if memory is None or memory.size < size:
            memory = self._memory[name] = np.empty(size, self.dtype)
        return memory[:size].reshape(shape)

    @property
    def buffers(self) -> tuple[Array, ...]:
        return tuple(self._memory.values())
