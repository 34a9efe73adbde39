"""Call an implementation, and note its result and which operands it wrote into."""

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
"""Seconds after which Python switches threads during a check, so that races show."""

GARBAGE = 2.0**90
"""A number far beyond usual results, for memory that nobody wrote to. Times zero it is zero."""

OUR_LETTERS = {Pass.FORWARD: "NHWC", Pass.INPUT_GRADIENT: "NHWC", Pass.KERNEL_GRADIENT: "HWIO"}
"""Axes of the result of each pass in convbench's own layout."""


@dataclass(frozen=True)
class Seen:
    """The result of one call, and what was noted about it.

    `result` is NHWC, or (kh, kw, in, out) for the kernel gradient. It is None if its shape or type
    is wrong; `problem` then says how. `raw` is the result as it came, and `modified` names the
    operands that the call wrote into.
    """

    result: Array | None
    raw: Array
    problem: str | None = None
    modified: tuple[str, ...] = ()


class Trial:
    """An implementation that is prepared for one pass of one layer. Its exceptions pass through.

    Buffers are filled with `unwritten` before each call. Arrays that a call allocates hold it until
    somebody writes to them, if the runtime can do that.
    """

    def __init__(
        self,
        implementation: Implementation,
        layer: Layer,
        pass_: Pass,
        threads: int,
        unwritten: float = np.nan,
    ) -> None:
        self._unwritten = unwritten
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
        """Call on these operands or, without any, on those of the last call as it left them."""
        prepared = self._prepared
        if operands is not None:
            prepared.load(operands)
        for buffer in prepared.buffers:
            buffer.fill(self._unwritten)
        with harder(self._runtime, self._unwritten):
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
            problem = f"the result has shape {found}, expected {wanted}"
            return Seen(None, result, problem, modified)
        if result.dtype.kind not in "fiu":
            problem = f"the result has dtype {result.dtype}, expected floats"
            return Seen(None, result, problem, modified)
        return Seen(result, result, None, modified)


@contextmanager
def harder(runtime: Runtime, unwritten: float = np.nan) -> Iterator[None]:
    """Inside the `with`, switch threads often, and fill memory that nobody wrote to."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        with runtime.poison(unwritten):
            yield
    finally:
        sys.setswitchinterval(interval)
