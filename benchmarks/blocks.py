"""Compare im2col and 1x1 convolutions with np.matmul of the same sizes, and with square SGEMM.

    python benchmarks/blocks.py [--threads 1 2] [--suites resnet50 vgg16] > results/blocks.txt

All arms of a layer run in one process, forward and without the bias, in random order, VISITS times.
A ratio is the other arm's time over the implementation's, once for their shortest times and once as
the median over the visits. np.matmul allocates its result, as a layer does. Nothing else may run on
the machine meanwhile. The benchmark takes some four minutes.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from kernels import PINS, without_pins
from threadpoolctl import threadpool_limits

from convbench.implementations.numpy.shared.column_products import by_kernel_row, column_products
from convbench.implementations.numpy.shared.correlation import Correlation
from convbench.implementations.numpy.shared.scratch import Scratch
from convbench.implementations.numpy.shared.threads import in_threads, worthwhile
from convbench.implementations.registry import REGISTRY
from convbench.machine.calibration import MATRIX_SIZES
from convbench.measure.clock import Plan, visit
from convbench.problem import operands
from convbench.problem.layer import Layer, Pass
from convbench.suites.file import read_suite

VISITS = 9
PLAN = Plan(wake_s=0.05, sample_s=0.0025, visit_s=0.02)
"""Plan of each visit. Every arm is visited VISITS times, the arms in random order."""

SPIN_S = 0.15
"""Seconds to wait after an arm whose BLAS threads spin. OpenBLAS's spin for 110 ms (measured)."""

LEAST_TERMS, LEAST_FILTERS = 256, 64
OF_PRODUCTS, OF_SQUARE, OF_ONE_BY_ONE = 0.9, 0.8, 0.95
"""Smallest ratios to np.matmul's rate: of im2col to its products and to square ones, and of 1x1
layers (issue 6)."""

Shape = tuple[int, int, int]  # m, k, n


@dataclass(frozen=True)
class Arm:
    """A call to time. With `spins`, its BLAS threads are still busy after it has returned."""

    run: Callable[[], object]
    flops: int
    blas_threads: int

    @property
    def spins(self) -> bool:
        return self.blas_threads > 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suites", nargs="+", default=["resnet50", "vgg16"])
    parser.add_argument("--layers", nargs="+", help="only these")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    options = parser.parse_args()
    if set(PINS) & set(os.environ):  # BLAS has read them while it was loaded
        os.execve(sys.executable, [sys.executable, *sys.argv], without_pins(os.environ))
    for threads in options.threads:
        for suite in options.suites:
            layers = [
                replace(layer, use_bias=False)
                for layer in read_suite(suite).layers
                if not options.layers or layer.name in options.layers
            ]
            title = f"{suite}, {threads} thread{'s' * (threads > 1)}"
            show(f"{title}: im2col", "im2col", filter(is_large, layers), threads)
            ones = filter(is_one_by_one, layers)
            show(f"{title}: 1x1 layers", "direct", ones, threads)


def is_large(layer: Layer) -> bool:
    """Return whether im2col's products are large enough for BLAS to be near its peak."""
    terms = math.prod(layer.kernel_size) * layer.channels
    return layer.groups == 1 and terms >= LEAST_TERMS and layer.filters >= LEAST_FILTERS


def is_one_by_one(layer: Layer) -> bool:
    return layer.groups == 1 and layer.kernel_size == (1, 1)


def block_products(layer: Layer, threads: int) -> list[tuple[Shape, int]]:
    """Return the products of im2col's forward pass for a layer of one group, block by block, with
    the number of each: one or, where im2col goes by kernel rows, one for each row."""
    if is_one_by_one(layer) and layer.strides == (1, 1):
        return [(whole_shape(layer), 1)]
    c = Correlation.of(layer)
    count = c.kernel_size[0] if by_kernel_row(c) else 1
    scratch = [Scratch(layer.dtype) for _ in range(worthwhile(threads, layer.flops))]
    return [
        (
            (
                (block.last - block.first) * (block.end - block.row) * layer.output_size[1],
                c.terms // count,
                layer.filters,
            ),
            count,
        )
        for block in column_products(c, scratch, dense=True).blocks
    ]


def whole_shape(layer: Layer) -> Shape:
    """Return the sizes of the one product that a 1x1 layer is."""
    return layer.batch_size * math.prod(layer.output_size), layer.channels, layer.filters


def show(title: str, name: str, layers: Iterable[Layer], threads: int) -> None:
    if name not in REGISTRY.places:
        print(f"\n{title}: there is no {name}", flush=True)
        return
    print(f"\n{title} over np.matmul, min (median)")
    failed = 0
    for layer in layers:
        arms = {name: layer_arm(name, layer, threads)}
        if name == "im2col":
            products = block_products(layer, threads)
            is_one = [count for _, count in products] == [1]
            arms["blocks"] = (
                whole_arm(products[0][0], threads) if is_one else products_arm(products, threads)
            )
            arms["square"] = whole_arm((MATRIX_SIZES[0],) * 3, threads)
            targets = {"blocks": OF_PRODUCTS, "square": OF_SQUARE}
        else:
            arms["product"] = whole_arm(whole_shape(layer), threads)
            targets = {"product": OF_ONE_BY_ONE}
        rates = measured(arms)
        words = []
        for other, target in targets.items():
            shortest = max(rates[name]) / max(rates[other])
            pairs = zip(rates[name], rates[other], strict=True)
            median = statistics.median(ours / theirs for ours, theirs in pairs)
            verdict = "met   " if shortest >= target else "MISSED"
            failed += shortest < target
            words.append(f"{other} {shortest:.3f} ({median:.3f}) {verdict} {target:g}")
        rate = max(rates[name]) / 1e9
        print(f"  {layer.name:22} {rate:6.1f} GFLOP/s  {'   '.join(words)}", flush=True)
    print(f"  {failed or 'none'} under its target")


def layer_arm(name: str, layer: Layer, threads: int) -> Arm:
    """Return the implementation as a worker calls it. BLAS may use `threads` threads."""
    prepared = REGISTRY.get(name).prepare(layer, Pass.FORWARD, threads)
    prepared.load(operands.floats(layer, Pass.FORWARD, seed=0))
    return Arm(prepared.run, layer.flops, threads)


def whole_arm(shape: Shape, threads: int) -> Arm:
    """Return one np.matmul in BLAS's own threads."""
    m, k, n = shape
    a, b = matrix(m, k), matrix(k, n)
    return Arm(lambda: np.matmul(a, b), 2 * m * k * n, threads)


def products_arm(products: list[tuple[Shape, int]], threads: int) -> Arm:
    """Return an arm that makes each product, as often as given, into its rows of one result. It
    deals the products out to threads with one BLAS thread each, and reuses the columns as im2col
    reuses its buffer."""
    ((_, k, n), count), largest = products[0], max(m for (m, _, _), _ in products)
    kernels = [matrix(k, n) for _ in range(count)]
    columns = [matrix(largest, k) for _ in range(threads)]
    ends = np.cumsum([m for (m, _, _), _ in products]).tolist()

    def run() -> np.ndarray:
        result = np.empty((ends[-1], n), np.float32)
        left = iter(list(zip(ends, products, strict=True)))

        def part(thread: int) -> None:
            for end, ((m, _, _), _) in left:
                for kernel in kernels:
                    np.matmul(columns[thread][:m], kernel, out=result[end - m : end])

        in_threads(part, threads)
        return result

    return Arm(run, sum(2 * m * k * n * count for (m, k, n), count in products), 1)


def matrix(rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(0).random((rows, columns), np.float32)


def measured(arms: dict[str, Arm]) -> dict[str, list[float]]:
    """Return the FLOP/s of every arm, one figure for each visit."""
    rates: dict[str, list[float]] = {name: [] for name in arms}
    order = random.Random(0)
    for _ in range(VISITS):
        for name, arm in limited(dict(order.sample(list(arms.items()), len(arms)))):
            seconds = statistics.median(visit(arm.run, PLAN).values)
            rates[name].append(arm.flops / seconds)
    return rates


def limited(arms: dict[str, Arm]) -> Iterator[tuple[str, Arm]]:
    """Yield the arms in turn, each with its number of BLAS threads, and wait while threads spin."""
    for name, arm in arms.items():
        with threadpool_limits(arm.blas_threads, user_api="blas"):
            yield name, arm
        if arm.spins:
            time.sleep(SPIN_S)


if __name__ == "__main__":
    main()
