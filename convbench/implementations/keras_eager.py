"""Keras called eagerly: what `layer(x)` costs."""

from __future__ import annotations

from convbench.implementations.keras_passes import Function, KerasImplementation


class KerasEager(KerasImplementation):
    """The layer object, and the gradient operations one by one, each call as it comes."""

    name = "keras"
    wrapping = ()

    def wrap(self, function: Function) -> Function:
        return function
