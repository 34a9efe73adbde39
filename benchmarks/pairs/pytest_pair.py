"""Time both functions of a pair with pytest-benchmark, one after the other in one process."""

import a
import b
from operands import kernel, x

# What only a first call does, such as tracing a graph, is not compared.
a.conv(x, kernel)
b.conv(x, kernel)


def test_a(benchmark):
    benchmark(a.conv, x, kernel)


def test_b(benchmark):
    benchmark(b.conv, x, kernel)
