"""Add a runtime and its one implementation from outside: nothing in convbench knows them.

The runtime computes with Python's own `array.array`, in loops.
"""

import math
import os
from array import array
from dataclasses import dataclass

import numpy as np

from convbench.errors import ImplementationError
from convbench.implementations.contract import Implementation, Ledger
from convbench.problem.layer import Pass
from convbench.problem.unsupported import Unsupported
from convbench.runtimes.contract import Meters, Runtime

VARIABLE = "FLAT_ARRAYS_THREADS"
NAME = "flat-loop"


@dataclass(frozen=True)
class FlatArrays(Runtime):
    """Arrays of Python's standard library."""

    name = "flat arrays"
    module = "array"
    packages = {"flat-arrays": ("pip",)}  # noqa: RUF012 - a package that is there
    install = "pip install flat-arrays"
    relevant_variables = ("FLAT_ARRAYS_?*",)

    def variables(self, threads):
        return {VARIABLE: str(threads)}

    def start(self, threads):
        if os.environ[VARIABLE] != str(threads):
            raise ImplementationError(f"{VARIABLE} is not {threads}")

    def meters(self):
        return Meters(seen_by=("memray", "tracemalloc"), packs_in_numpys_blas=False)

    def allocation(self, nbytes):
        return lambda: array("b", [0]) * nbytes


class FlatLoop(Implementation):
    """The forward pass of a plain layer, one product at a time."""

    name = NAME
    runtime = FlatArrays()

    def unsupported(self, layer, pass_):
        return None if pass_ is Pass.FORWARD else Unsupported("no gradients", ("pass",))

    def exact(self, layer, pass_):
        return True

    def workspace_bytes(self, layer, pass_, threads):
        return 0

    def prepare(self, layer, pass_, threads):
        return PreparedLoop(layer)


class PreparedLoop:
    buffers = ()
    ledger = Ledger(inside=("a loop over products",))

    def __init__(self, layer):
        self.layer = layer

    def load(self, operands):
        (top, bottom), (left, right) = self.layer.pads
        padded = np.pad(operands.input, ((0, 0), (top, bottom), (left, right), (0, 0)))
        self.size, self.strides = padded.shape, [s // padded.itemsize for s in padded.strides]
        self.input = array("f", padded.tobytes())
        self.kernel = array("f", np.ascontiguousarray(operands.kernel).tobytes())

    def run(self):
        layer = self.layer
        image, row, column, _ = self.strides
        kernel_h, kernel_w = layer.kernel_size
        rows, columns = layer.output_size
        channels, filters = layer.channels, layer.filters
        taps = [
            (p * row + q * column + c, ((p * kernel_w + q) * channels + c) * filters)
            for p in range(kernel_h)
            for q in range(kernel_w)
            for c in range(channels)
        ]
        result = array("f", bytes(4 * math.prod(layer.output_shape) * layer.batch_size))
        at = 0
        for b in range(layer.batch_size):
            for i in range(rows):
                for j in range(columns):
                    start = b * image + i * row + j * column
                    for f in range(filters):
                        result[at] = sum(
                            self.input[start + x] * self.kernel[k + f] for x, k in taps
                        )
                        at += 1
        return result

    def to_numpy(self, result):
        shape = (self.layer.batch_size, *self.layer.output_shape)
        return np.frombuffer(result, np.float32).reshape(shape)
