"""Call Keras eagerly: what `layer(x)` costs."""

from __future__ import annotations

from convbench.implementations.keras.passes import Function, KerasImplementation


class KerasEager(KerasImplementation):
    """The layer object, and the gradient operations one by one, each call as it comes.

    Keras traces and compiles Conv2D with groups anew at every eager call and keeps what it
    compiled: a forward call of the smallest such layer takes 12 ms and leaves 0.2 MB behind.
    """

    name = "keras"
    wrapping = ()

    def wrap(self, function: Function) -> Function:
        return function
