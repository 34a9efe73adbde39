"""Turn the gap into factors, by taking one cause after the other out of the time.

The factors and the unexplained one multiply to the whole gap. The unexplained factor is the time
that was measured over the sum of what the experiments found in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from convbench.problem.layer import Layer
from convbench.profile.document import Evidence, Step
from convbench.profile.findings import Examination, Products, Work
from convbench.results.stats import Estimate, estimate

MANY_PRODUCTS = 32
"""Number of products in a call at which they are assumed to be too small."""

OWN_PRODUCTS = 0.5
"""Part of the layer's FLOPs that matrix products must do for the code to count as using them. In
other code, one product replaces the element-wise arithmetic."""


@dataclass(frozen=True)
class Given:
    """The times of one round, in seconds, and the experiments that a waterfall is made from.

    `native` are the products without the variables that pin BLAS kernels, or None if no variable
    does. `floor_s` is the other implementation's time on one element, and `winograd_s` that of the
    ladder's Winograd step on this layer, or None if the step cannot compute it.
    """

    time_s: float
    versus_s: float
    floor_s: float
    layer: Layer
    found: Examination
    native: Products | None = None
    winograd_s: float | None = None


Waterfall = tuple[tuple[Step, ...], float]


def over_rounds(each: Sequence[Waterfall]) -> Waterfall:
    """Return the geometric means over all rounds, with intervals if there are enough rounds."""
    unexplained = estimate([math.log(factor) for _, factor in each]).value
    means = [_mean(alike) for alike in zip(*(steps for steps, _ in each), strict=True)]
    return tuple(means), unexplained


def _mean(steps: tuple[Step, ...]) -> Step:
    factor: Estimate = estimate([math.log(step.factor) for step in steps])
    left = estimate([math.log(step.left_s) for step in steps])
    return replace(steps[0], factor=factor.value, left_s=left.value, ci99=factor.interval())


def waterfall(given: Given) -> Waterfall:
    """Return the steps in the order of CAUSES, and the unexplained factor."""
    found = given.found
    work = sum(one.seconds for one in found.work)
    modelled = found.small_s + found.fresh_pages_s + work
    unexplained = found.call_s / modelled
    # The experiments may have examined only a part of the layer.
    scale = given.time_s / found.call_s
    chain = _Chain(given.time_s / unexplained, given.versus_s / 1e6)
    calls_s = found.small_s + _small_products_s(found)
    chain.take("python calls", calls_s * scale, "measured", _calls(found))
    traffic = sum(one.traffic for one in found.work)
    chain.take("temporaries", traffic * scale, "estimated", _traffic(found))
    chain.take("fresh pages", found.fresh_pages_s * scale, "measured", _pages(found))
    _arithmetic(chain, given, scale)
    layout = sum(one.layout for one in found.work)
    chain.take("layout", layout * scale, "measured", _layout(found))
    _products(chain, given, scale)
    floor_s = min(given.floor_s, given.versus_s * 0.95)
    chain.become(
        "algorithm",
        given.versus_s - floor_s,
        "measured",
        "what the other one takes above its floor, against a matrix product of the same sizes",
    )
    floor = "the other one's call on a layer of one element"
    chain.become("framework floor", given.versus_s, "measured", floor)
    return tuple(chain.steps), unexplained


class _Chain:
    """A time that shrinks step by step, but never below the least that may be left."""

    def __init__(self, seconds: float, least: float) -> None:
        self.left = seconds
        self._least = least
        self.steps: list[Step] = []

    def take(self, cause: str, seconds: float, evidence: Evidence, why: str = "") -> None:
        self.become(cause, self.left - seconds, evidence, why)

    def become(self, cause: str, seconds: float, evidence: Evidence, why: str = "") -> None:
        before, self.left = self.left, max(seconds, self._least)
        self.steps.append(Step(cause, before / self.left, self.left, evidence, why=why))


def _small_products_s(found: Examination) -> float:
    """Return by how many seconds many small products take longer than one large product."""
    own = [one for one in found.work if one.kind == "product"]
    if not uses_products(found) or sum(one.calls for one in own) < MANY_PRODUCTS:
        return 0.0
    whole = found.products.seconds[found.dtype, found.products.threads]
    return max(sum(one.rest for one in own) - whole, 0.0)


def uses_products(found: Examination) -> bool:
    """Tell whether the code does its work by matrix products."""
    flops = sum(one.flops for one in found.work if one.kind == "product")
    return flops >= OWN_PRODUCTS * found.layer.flops


def _arithmetic(chain: _Chain, given: Given, scale: float) -> None:
    """Take the element-wise work out. In code without products, one product takes its place."""
    found = given.found
    rest = sum(one.rest for one in found.work if one.kind not in ("product", "copy"))
    why = _named([one for one in found.work if one.kind == "arithmetic"])
    if not uses_products(found):
        rest -= found.products.seconds[found.dtype, 1]
        why += "; replaced with a matrix product of the same sizes, on one thread"
    chain.take("element-wise arithmetic", rest * scale, "measured", why.lstrip("; "))


def _products(chain: _Chain, given: Given, scale: float) -> None:
    """Take the remaining products to float32, then to all threads, then to native kernels."""
    found = given.found
    products = found.products
    if uses_products(found):
        own = [one for one in found.work if one.kind == "product"]
        total = sum(one.rest for one in own)
        as_float32 = sum(one.rest / one.dtype_factor for one in own)
        on_all = sum(one.rest / one.dtype_factor / one.threads_factor for one in own)
        # Products have no time left if a call takes no longer than one on the small layer.
        dtype, threads = (total / as_float32, as_float32 / on_all) if total > 0 else (1.0, 1.0)
    else:
        dtype = products.seconds[found.dtype, 1] / products.single
        threads = products.single / products.many
    used = f"the code computes in {found.dtype}" if found.dtype != "float32" else ""
    cast = sum(one.cast for one in found.work) * scale
    chain.become("dtype", max(chain.left - cast, 0.0) / dtype, "measured", used)
    one_thread = f"one of {products.threads} threads is used" if threads > 1.05 else ""
    chain.become("threads", chain.left / threads, "measured", one_thread)
    kernels = products.many / given.native.many if given.native else 1.0
    pinned = "the environment pins the kernels of BLAS" if given.native else ""
    chain.become("BLAS kernels", chain.left / kernels, "measured", pinned)


def _calls(found: Examination) -> str:
    small = found.small_layer
    return (
        f"{found.calls} calls of NumPy and the Python around them, timed on a layer of few "
        f"elements ({small.geometry()})"
    )


def _traffic(found: Examination) -> str:
    moved = sum(one.bytes for one in found.work if one.traffic)
    return f"{moved / 2**20:.0f} MiB written or read" if moved else ""


def _pages(found: Examination) -> str:
    if not found.fresh_pages_s:
        return ""
    return f"{found.allocated / 2**20:.1f} MiB allocated in each call"


def _layout(found: Examination) -> str:
    return _named([one for one in found.work if one.layout], "layout")


def _named(work: list[Work], part: str = "rest") -> str:
    """Name the two heaviest operations and their lines. Stages have no line."""
    heaviest = sorted(work, key=lambda one: -getattr(one, part))[:2]
    return ", ".join(
        f"{one.name} in line {one.line[1]}" if one.line[1] else one.name
        for one in heaviest
        if one.seconds
    )
