"""Call Keras compiled by XLA, as `fit` and `predict` do with jit_compile=True."""

from __future__ import annotations

from convbench.implementations.keras.passes import (
    COMPILATION,
    TRACING,
    Function,
    KerasImplementation,
    traced,
)


class KerasXla(KerasImplementation):
    """The operations of `keras`, traced once and compiled for these shapes."""

    name = "keras-xla"
    wrapping = (TRACING, COMPILATION)

    def wrap(self, function: Function) -> Function:
        return traced(function, jit_compile=True)
