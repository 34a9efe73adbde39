"""Start NumPy, cap the threads of its BLAS, and fill arrays from `numpy.empty` with NaN."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from convbench.runtimes.contract import Meters, Runtime

FILLED_BYTES = 16 * 2**20
"""Most bytes of a new array that are filled. A larger array is memory that the system hands out as
zeros, of which code may use a part only: to write to a whole gigabyte took 17 s (measured)."""


@dataclass(frozen=True)
class NumPy(Runtime):
    """NumPy, with the BLAS that comes with it."""

    name = "numpy"
    module = "numpy"
    packages: ClassVar[Mapping[str, tuple[str, ...]]] = {"numpy": ("numpy",)}
    install = "pip install numpy"
    relevant_variables = ("NPY_?*", "NUMPY_?*")
    pins: ClassVar[Mapping[str, str]] = {
        "NPY_DISABLE_CPU_FEATURES": (
            "keeps NumPy's element-wise loops from using {}; BLAS is not affected"
        )
    }
    is_part_of_any_process = True

    def start(self, threads: int) -> None:
        cap_blas(threads)

    def meters(self) -> Meters:
        return Meters(seen_by=("memray", "tracemalloc"))

    def allocation(self, nbytes: int) -> Callable[[], object]:
        return array_of(nbytes)

    def poison(self, value: float) -> AbstractContextManager[None]:
        return unwritten_is(value)


def cap_blas(threads: int) -> None:
    """Cap the threads of the BLAS that NumPy loaded. A first product allocates its buffers."""
    import numpy as np
    import threadpoolctl

    np.ones((64, 64), np.float32) @ np.ones((64, 64), np.float32)
    threadpoolctl.threadpool_limits(threads, user_api="blas")


def array_of(nbytes: int) -> Callable[[], object]:
    """Return a function that returns a new array of `nbytes` bytes."""
    import numpy as np

    return lambda: np.empty(nbytes, np.uint8)


@contextmanager
def unwritten_is(value: float) -> Iterator[None]:
    """Fill the float arrays of `numpy.empty` and `numpy.empty_like` inside the `with`.

    Of large arrays, only the first FILLED_BYTES are filled.
    """
    import numpy as np

    empty, empty_like = np.empty, np.empty_like
    vars(np).update(empty=_filled(empty, value), empty_like=_filled(empty_like, value))
    try:
        yield
    finally:
        vars(np).update(empty=empty, empty_like=empty_like)


def _filled(function: Callable[..., Any], value: float) -> Callable[..., Any]:
    from numpy import finfo

    def filled(*arguments: Any, **keywords: Any) -> Any:
        array = function(*arguments, **keywords)
        if array.dtype.kind in "fc":
            largest = float(finfo(array.dtype).max)
            array.ravel(order="K")[: FILLED_BYTES // array.itemsize] = min(value, largest)
        return array

    return filled
