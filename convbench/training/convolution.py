"""Compute the convolution of a network on any implementation, planned by batch size."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.errors import TrainingError
from convbench.implementations.contract import Implementation, Prepared
from convbench.implementations.numpy.shared.threads import one_blas_thread
from convbench.problem.layer import Dtype, Pass
from convbench.problem.operands import LentOperands
from convbench.training.layers import ConnectedLayer
from convbench.training.network import Place, convolution
from convbench.training.phases import Phase, Phases

Array = NDArray[np.floating[Any]]

PHASES = {
    Pass.FORWARD: Phase.FORWARD,
    Pass.INPUT_GRADIENT: Phase.INPUT_GRADIENT,
    Pass.KERNEL_GRADIENT: Phase.KERNEL_GRADIENT,
}
"""Phase that the time of a pass belongs to."""


class ConnectedConv2D(ConnectedLayer):
    """A convolution at its place. It must be prepared for each batch size that it shall compute."""

    def __init__(
        self,
        place: Place,
        parameters: dict[str, Array],
        gradients: dict[str, Array],
        dtype: Dtype,
        threads: int,
        implementation: Implementation,
        phases: Phases,
    ) -> None:
        super().__init__(place, parameters, gradients, dtype, threads)
        self._dtype = dtype
        self._implementation = implementation
        self._phases = phases
        self._prepared: dict[tuple[int, Pass], Prepared] = {}
        self._ones = np.ones(0, dtype)
        self._adds_bias = True  # whether the implementation's forward pass adds the bias

    def forward(self, x: Array) -> Array:
        self._x = x
        kernel, bias = self.parameters["kernel"], self.parameters.get("bias")
        y = self._run(Pass.FORWARD, len(x), LentOperands(x, kernel, bias))
        if bias is not None and not self._adds_bias:
            y = y + bias
        return y

    def backward(self, gradient: Array, to_input: bool) -> Array | None:
        batch = len(gradient)
        lent = LentOperands(self._x, output_gradient=gradient)
        np.copyto(self.gradients["kernel"], self._run(Pass.KERNEL_GRADIENT, batch, lent))
        self._phases.lap(Phase.LAYOUT)
        if "bias" in self.gradients:
            self._sum(gradient.reshape(-1, gradient.shape[-1]), self.gradients["bias"])
            self._phases.lap(Phase.OTHER_LAYERS)
        if not to_input:
            return None
        lent = LentOperands(kernel=self.parameters["kernel"], output_gradient=gradient)
        return self._run(Pass.INPUT_GRADIENT, batch, lent)

    @property
    def took(self) -> dict[Pass, str]:
        """Name of the implementation that was chosen, by pass. Empty if none chooses."""
        return {
            pass_: prepared.ledger.took
            for (_, pass_), prepared in self._prepared.items()
            if prepared.ledger.took is not None
        }

    def prepare(self, batch: int, training: bool, to_input: bool) -> None:
        """Prepare the passes that are needed for this batch size, unless they are prepared already.

        Raises TrainingError if the implementation does not support one of them.
        """
        for pass_ in _passes(training, to_input):
            if (batch, pass_) not in self._prepared:
                self._prepared[batch, pass_] = self._prepare(pass_, batch)

    def is_exact(self, batch: int, to_input: bool) -> bool:
        """Return whether its passes only sum products.

        A pass of which that is unknown is taken to do so.
        """
        layer = convolution(self.place, batch, self._dtype)
        return all(
            self._implementation.chosen(layer, pass_, self._threads).exact(layer, pass_)
            is not False
            for pass_ in _passes(True, to_input)
        )

    def _run(self, pass_: Pass, batch: int, operands: LentOperands) -> Array:
        prepared = self._prepared[batch, pass_]
        prepared.load(operands)
        self._phases.lap(Phase.LAYOUT)
        result = prepared.run()
        self._phases.lap(PHASES[pass_])
        array = np.ascontiguousarray(prepared.to_numpy(result))
        self._phases.lap(Phase.LAYOUT)
        return array

    def _prepare(self, pass_: Pass, batch: int) -> Prepared:
        layer = convolution(self.place, batch, self._dtype)
        reason = self._implementation.unsupported(layer, pass_)
        if reason and layer.use_bias:
            bare = replace(layer, use_bias=False)
            if self._implementation.unsupported(bare, pass_) is None:
                layer, reason = bare, None
        if pass_ is Pass.FORWARD:
            self._adds_bias = layer.use_bias
        if reason:
            raise TrainingError(
                f"{self._implementation.name} cannot train this network: {self.place.name} "
                f"{pass_} ({layer.geometry()}): {reason}",
                hint="training needs all three passes; `convbench check` tells more about each",
            )
        return self._implementation.prepare(layer, pass_, self._threads)

    def _sum(self, rows: Array, out: Array) -> None:
        """Sum the rows into `out` by BLAS. NumPy's sum takes longer if rows are this short."""
        if len(self._ones) < len(rows):
            self._ones = np.ones(len(rows), rows.dtype)
        with one_blas_thread():  # a second one would spin on a CPU that the next layer needs
            np.matmul(self._ones[: len(rows)], rows, out=out)


def _passes(training: bool, to_input: bool) -> list[Pass]:
    if not training:
        return [Pass.FORWARD]
    return [pass_ for pass_ in Pass if to_input or pass_ is not Pass.INPUT_GRADIENT]
