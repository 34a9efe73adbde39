"""Time the matrix product that a pass amounts to, the bound that any code is held against."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import threadpoolctl

from convbench.problem.layer import Layer, Pass
from convbench.profile.findings import Products
from convbench.profile.replaying import least_s

MAX_BYTES = 64 * 1024**2
"""Largest factor, in bytes, that is multiplied as a whole. For a larger one, a part is multiplied
and the time is scaled up."""

SECONDS = 0.15
"""Seconds for which a product is repeated. The least time counts."""


def sizes(layer: Layer, pass_: Pass) -> tuple[int, int, int]:
    """Return (M, N, K) of the matrix product of one group."""
    taps = math.prod(layer.kernel_size)
    positions = layer.batch_size * math.prod(layer.output_size)
    channels, filters = layer.channels // layer.groups, layer.filters // layer.groups
    if pass_ is Pass.FORWARD:
        return positions, filters, taps * channels
    if pass_ is Pass.INPUT_GRADIENT:
        return positions, taps * channels, filters
    return taps * channels, filters, positions


def products(layer: Layer, pass_: Pass, threads: int, dtypes: list[str]) -> Products:
    """Time np.matmul of contiguous factors into an existing array, all groups together.

    The times are in seconds, for each dtype, on one thread and on `threads`.
    """
    m, n, k = sizes(layer, pass_)
    itemsize = max(np.dtype(dtype).itemsize for dtype in dtypes)
    long = k if pass_ is Pass.KERNEL_GRADIENT else m
    longest = max(MAX_BYTES // (itemsize * max(m * k, m * n, k * n) // long), 1)
    part = min(long, longest)
    scale = layer.groups * long / part
    if pass_ is Pass.KERNEL_GRADIENT:
        k = part
    else:
        m = part
    found: dict[tuple[str, int], float] = {}
    for dtype in dtypes:
        left: Any = np.ones((m, k), dtype)
        if pass_ is Pass.KERNEL_GRADIENT:  # the pass multiplies the transpose of its columns
            left = np.ones((k, m), dtype).T
        right, out = np.ones((k, n), dtype), np.empty((m, n), dtype)
        multiply = partial(np.matmul, left, right, out=out)
        for count in sorted({1, threads}):
            with threadpoolctl.threadpool_limits(count, user_api="blas"):
                found[dtype, count] = scale * least_s(multiply, SECONDS)
    return Products(threads, found)
