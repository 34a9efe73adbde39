"""Call an implementation and note what came, and what else happened."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.implementations.contract import Implementation, Lending, WrongResultError
from convbench.problem.layer import Layer, Pass
from convbench.problem.operands import Operands
from convbench.runtimes.contract import Runtime

Array = NDArray[np.floating[Any]]

SWITCH_INTERVAL_S = 1e-6
"""Threads take turns this often during a check, so that races show."""

OUR_LETTERS = {Pass.FORWARD: "NHWC", Pass.INPUT_GRADIENT: "NHWC", Pass.KERNEL_GRADIENT: "HWIO"}


@dataclass(frozen=True)
class Seen:
    """What one call gave: `result` NHWC, or (kh, kw, in, out), None where its shape is another.

    `raw` is the result as it came, `problem` what is wrong with its shape or type; `modified` the
    operands that the call wrote into.
    """

    result: Array | None
    raw: Array
    problem: str | None = None
    modified: tuple[str, ...] = ()


class Trial:
    """One implementation prepared for one pass of one layer. Raises whatever it raises.

    Buffers are filled with NaN before each call, and so are arrays that a call allocates and that
    nobody wrote to, where the runtime can do that.
    """

    def __init__(
        self, implementation: Implementation, layer: Layer, pass_: Pass, threads: int
    ) -> None:
        self._shape = layer.result_shape(pass_)
        self._prepared = implementation.prepare(layer, pass_, threads)
        self._runtime = implementation.runtime
        self.letters = {
            "input": "NHWC",
            "kernel": "HWIO",
            "output_gradient": "NHWC",
            "result": OUR_LETTERS[pass_],
        }
        if isinstance(self._prepared, Lending):
            self.letters = self._prepared.letters

    def call(self, operands: Operands | None = None) -> Seen:
        """One call on these operands, or on those that the last call left."""
        prepared = self._prepared
        if operands is not None:
            prepared.load(operands)
        for buffer in prepared.buffers:
            buffer.fill(np.nan)
        with harder(self._runtime):
            raw: Any = prepared.run()
        modified: tuple[str, ...] = ()
        if isinstance(prepared, Lending):
            modified = prepared.modified()
        try:
            result = np.array(prepared.to_numpy(raw))
        except WrongResultError as error:
            return Seen(None, np.array(error.result), error.message, modified)
        if result.shape != self._shape:
            found, wanted = (" x ".join(map(str, s)) for s in (result.shape, self._shape))
            problem = f"the result is {found}, expected {wanted}"
            return Seen(None, result, problem, modified)
        if result.dtype.kind not in "fiu":
            problem = f"the result has dtype {result.dtype}, expected floats"
            return Seen(None, result, problem, modified)
        return Seen(result, result, None, modified)


@contextmanager
def harder(runtime: Runtime) -> Iterator[None]:
    """Threads switch often, and memory that nobody wrote to is NaN."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        with runtime.poison():
            yield
    finally:
        sys.setswitchinterval(interval)
