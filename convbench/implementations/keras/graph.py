"""Call Keras inside a tf.function, as `fit` and `predict` do with jit_compile=False."""

from __future__ import annotations

from convbench.implementations.keras.passes import TRACING, Function, KerasImplementation, traced


class KerasGraph(KerasImplementation):
    """The operations of `keras`, traced once into a graph."""

    name = "keras-graph"
    wrapping = (TRACING,)

    def wrap(self, function: Function) -> Function:
        return traced(function)
