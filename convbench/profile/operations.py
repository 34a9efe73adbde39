"""Classify a call of NumPy on arrays: its kind, its bytes and its FLOPs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Kind = Literal["view", "arithmetic", "product", "copy", "allocation"]

LEAVES = (
    "tensordot",
    "einsum",
    "pad",
    "roll",
    "repeat",
    "tile",
    "concatenate",
    "stack",
    "take",
    "where",
)
"""Python functions of NumPy that a trace takes as one call. It looks into all others."""

PRODUCTS = ("tensordot", "matmul", "dot", "vdot", "inner", "vecdot", "matvec", "vecmat")
"""Functions that are matrix products."""

VIEWS = ("getitem", "reshape", "ravel")
"""Functions that return a view of their array where they can, and otherwise a copy."""

COPIES = (
    "setitem",
    "copy",
    "astype",
    "flatten",
    "fill",
    "copyto",
    *(name for name in LEAVES if name not in ("tensordot", "einsum")),
    "array",
    "asarray",
    "ascontiguousarray",
)
"""Functions that copy elements and compute nothing."""

INTO_FIRST = ("setitem", "copyto", "fill")
"""Functions that write into their first argument."""


@dataclass(frozen=True)
class Example:
    """A call to make again, `function(*arguments, **keywords)`, and the array that it wrote."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    result: Any

    @property
    def is_strided(self) -> bool:
        """Whether any array of the call is not one contiguous run of memory."""
        arrays = [a for a in (*self.arguments, self.result) if isinstance(a, np.ndarray)]
        return not all(array.flags.c_contiguous for array in arrays)


@dataclass(frozen=True)
class Operation:
    """Calls that are alike: the same function on arrays of the same shapes, dtypes and strides.

    `line` is (file, number) of the code that makes them. One call reads and writes `read` and
    `written` bytes, `fresh` of them into a new array, and does `flops` if it is a product.
    """

    name: str
    kind: Kind
    line: tuple[str, int]
    dtype: str
    read: int
    written: int
    fresh: int
    flops: int
    shapes: tuple[Any, ...]


def operation_of(
    name: str, line: tuple[str, int], given: list[Any], out: list[Any], result: Any, target: Any
) -> Operation:
    """Classify a call that was given arrays and an `out`, returned `result` and wrote `target`."""
    is_new = (
        isinstance(result, np.ndarray)
        and not out
        and not any(np.may_share_memory(result, array) for array in given)
    )
    is_view = isinstance(result, np.ndarray) and not out and not is_new
    kind: Kind = "arithmetic"
    base = name.split(".")[0]
    if base in PRODUCTS:
        kind = "product"
    elif name in VIEWS and not is_new:
        kind = "view"
    elif name in ("zeros", "empty", "ones", "full"):
        kind = "allocation"
    elif name in COPIES or name in VIEWS:
        kind = "view" if is_view and name in ("asarray", "ascontiguousarray", "array") else "copy"
    written = int(target.nbytes) if isinstance(target, np.ndarray) and kind != "view" else 0
    read_from = given[1:] if name in INTO_FIRST else given
    read = 0 if kind in ("view", "allocation") else sum(int(array.nbytes) for array in read_from)
    if name == "setitem":
        written = max((int(a.nbytes) for a in given[1:]), default=0) or 0
    return Operation(
        name,
        kind,
        line,
        str(target.dtype) if isinstance(target, np.ndarray) else "",
        read,
        written,
        written if is_new else 0,
        _flops(base, given, target),
        tuple(array.shape for array in given),
    )


def _flops(name: str, given: list[Any], target: Any) -> int:
    """Return a product's FLOPs: twice the elements of the result times the length of the sums."""
    if name not in PRODUCTS or len(given) < 2:
        return 0
    size = target.size if isinstance(target, np.ndarray) else 1
    if name == "tensordot":  # both factors have the axes of the sums, the result has none
        return int(2 * size * round(math.sqrt(given[0].size * given[1].size / max(size, 1))))
    return 2 * size * (given[0].shape[-1] if given[0].ndim else 1)
