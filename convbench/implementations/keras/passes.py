"""Compute the three passes as Keras runs them, whichever way it is called.

Design rules:

- Forward calls the layer object, as users do. A gradient is the operations that Keras training
  runs for it, on their own, without the forward pass.
- Operands are arguments or variables, never constants: XLA and grappler fold constants away.
- On the CPU an eager operation, a tf.function and a compiled function return when their result is
  complete, so that `run` need not wait. Measured: reading a result of 26 MB right after `run` took
  0.04 ms, `run` itself 25 to 120 ms.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.implementations.contract import Implementation, Ledger
from convbench.implementations.keras.layer import (
    behind_padding,
    description,
    input_shape,
    is_depthwise,
    is_dilated,
    is_grouped,
    is_padded_before,
    keras_convolution,
    kernel_shape,
)
from convbench.problem.layer import Layer, Pass
from convbench.problem.operands import Operands
from convbench.problem.unsupported import Unsupported
from convbench.runtimes.tensorflow import TensorFlow, start

Array = NDArray[np.floating[Any]]
Tensor = Any
Function = Callable[..., Tensor]

TRACING = "tracing of the tf.function"
COMPILATION = "compilation by XLA"
COPY = "copy of the operands into tensors"


class KerasImplementation(Implementation, ABC):
    """Keras Conv2D or DepthwiseConv2D, called in the way that a subclass states."""

    name: str
    runtime = TensorFlow()
    wrapping: tuple[str, ...]  # what `wrap` does, for the ledger: it happens in `prepare`

    @abstractmethod
    def wrap(self, function: Function) -> Function:
        """`function` as this implementation calls it: as it is, traced or compiled."""

    def unsupported(self, layer: Layer, pass_: Pass) -> Unsupported | None:
        if max(layer.strides) > 1 and is_dilated(layer) and not layer.is_depthwise:
            return Unsupported(
                "Keras Conv2D takes strides or a dilation_rate above 1, not both",
                ("strides", "dilation_rate"),
            )
        return None

    def exact(self, layer: Layer, pass_: Pass) -> bool:
        """True: integers came out equal, also for 3x3 kernels on 128 to 512 channels (Winograd)."""
        return True

    def workspace_bytes(self, layer: Layer, pass_: Pass, threads: int) -> int:
        """The copies that show in the graph: of ZeroPadding2D, and around a dilated convolution.

        TensorFlow does not tell what its kernels allocate for packed blocks and columns; that is
        not counted, so that this is a lower bound.
        """
        seen = behind_padding(layer)
        padded = math.prod(input_shape(seen)) * seen.itemsize
        copies = padded if is_padded_before(layer) else 0
        if is_dilated(seen):  # input and output once more, on the batch side of space_to_batch
            copies += padded + seen.result_bytes(Pass.FORWARD)
        return copies

    def prepare(self, layer: Layer, pass_: Pass, threads: int) -> PreparedKeras:
        """Builds the layer or its gradient and calls it once with zeros: traces, compiles."""
        start(threads)
        if pass_ is Pass.FORWARD:
            return PreparedForward(layer, self)
        return PreparedGradient(layer, pass_, self)


class PreparedKeras(ABC):
    """`run` calls `function` with `arguments`, the tensors that were last loaded."""

    buffers: tuple[Array, ...] = ()  # TensorFlow allocates its own
    function: Function
    arguments: tuple[Tensor, ...] = ()
    ledger: Ledger

    def __init__(self, layer: Layer, pass_: Pass) -> None:
        self._layer, self._pass = layer, pass_
        self._seen = behind_padding(layer)
        self._pads_before = is_padded_before(layer)

    @abstractmethod
    def load(self, operands: Operands) -> None: ...

    def run(self) -> Tensor:
        return self.function(*self.arguments)

    def to_numpy(self, result: Any) -> Array:
        array: Array = result.numpy()
        return array.reshape(self._layer.result_shape(self._pass))


class PreparedForward(PreparedKeras):
    """The Keras layer; its argument is the input (NHWC), its weights are variables."""

    def __init__(self, layer: Layer, way: KerasImplementation) -> None:
        super().__init__(layer, Pass.FORWARD)
        seen = self._seen
        self._convolution = keras_convolution(seen)
        call = self._convolution
        if self._pads_before:
            call = _padded_before(self._convolution, layer)
        self.function = way.wrap(call)
        self.ledger = Ledger(inside=self._inside(way), outside=(*way.wrapping, COPY))
        self.function(_zeros(input_shape(layer), layer))

    def _inside(self, way: KerasImplementation) -> tuple[str, ...]:
        seen = self._seen
        steps = {
            "ZeroPadding2D": self._pads_before,
            f"{TRACING} and {COMPILATION}, which Keras repeats at every eager call of Conv2D "
            "with groups": is_grouped(seen) and not way.wrapping,
            description(seen): True,
            "space_to_batch and batch_to_space around it, by which TensorFlow dilates": is_dilated(
                seen
            ),
            "bias": seen.use_bias,
        }
        return tuple(step for step, happens in steps.items() if happens)

    def load(self, operands: Operands) -> None:
        assert operands.input is not None
        assert operands.kernel is not None
        self._convolution.kernel.assign(operands.kernel.reshape(kernel_shape(self._seen)))
        if operands.bias is not None:
            self._convolution.bias.assign(operands.bias)
        self.arguments = (_tensor(operands.input),)


class PreparedGradient(PreparedKeras):
    """One gradient; its arguments are kernel or padded input, and the output gradient."""

    def __init__(self, layer: Layer, pass_: Pass, way: KerasImplementation) -> None:
        super().__init__(layer, pass_)
        seen = self._seen
        gradient = tape_gradient(seen, pass_) if is_dilated(seen) else raw_gradient(seen, pass_)
        inside, outside = [f"{_operation(seen, pass_)} of {description(seen)}"], []
        if is_grouped(seen):
            inside[0] += " (compiled gradient: Keras compiles groups on the CPU)"
        if is_dilated(seen):
            inside.append(
                "space_to_batch and batch_to_space around it, by which TensorFlow dilates"
            )
        if self._pads_before and pass_ is Pass.INPUT_GRADIENT:
            gradient = _cropped(gradient, layer)
            inside.append("crop of the pads of ZeroPadding2D")
        elif self._pads_before:
            outside.append("ZeroPadding2D (training keeps the padded input of the forward pass)")
        self.function, wrapping = _wrap_gradient(gradient, seen, way)
        self.ledger = Ledger(inside=tuple(inside), outside=(*wrapping, *outside, COPY))
        operand = kernel_shape(seen) if pass_ is Pass.INPUT_GRADIENT else input_shape(seen)
        self.function(_zeros(operand, layer), _zeros(seen.result_shape(Pass.FORWARD), layer))

    def load(self, operands: Operands) -> None:
        assert operands.output_gradient is not None
        if self._pass is Pass.INPUT_GRADIENT:
            assert operands.kernel is not None
            operand = operands.kernel.reshape(kernel_shape(self._seen))
        else:
            assert operands.input is not None
            operand = operands.input
            if self._pads_before:
                operand = np.pad(operand, ((0, 0), *self._layer.pads, (0, 0)))
        self.arguments = (_tensor(operand), _tensor(operands.output_gradient))


def raw_gradient(layer: Layer, pass_: Pass) -> Function:
    """The raw operation of an undilated gradient, on (kernel or input, output gradient)."""
    import tensorflow as tf

    operation = getattr(tf.raw_ops, _operation(layer, pass_))
    common = {"strides": [1, *layer.strides, 1], "padding": str(layer.padding).upper()}
    if pass_ is Pass.INPUT_GRADIENT:
        sizes = input_shape(layer)
        return lambda kernel, dy: operation(
            input_sizes=sizes, filter=kernel, out_backprop=dy, **common
        )
    sizes = kernel_shape(layer)
    return lambda x, dy: operation(input=x, filter_sizes=sizes, out_backprop=dy, **common)


def tape_gradient(layer: Layer, pass_: Pass) -> Function:
    """A dilated gradient by a tape, on (kernel or input, output gradient).

    TensorFlow dilates on the CPU by space_to_batch, an undilated convolution and batch_to_space,
    and training takes the gradient of these, not the dilated raw operation. The function belongs in
    a tf.function: no gradient of a linear operation reads its result, so that grappler and XLA
    drop the forward convolution.
    """
    import keras
    import tensorflow as tf

    convolve = keras.ops.depthwise_conv if is_depthwise(layer) else keras.ops.conv
    common = {
        "strides": layer.strides,
        "padding": layer.padding,
        "dilation_rate": layer.dilation_rate,
        "data_format": "channels_last",
    }
    to_input = pass_ is Pass.INPUT_GRADIENT
    shape = input_shape(layer) if to_input else kernel_shape(layer)

    def gradient(operand: Tensor, dy: Tensor) -> Tensor:
        wanted = tf.zeros(shape, layer.dtype)  # the gradient does not depend on its values
        x, kernel = (wanted, operand) if to_input else (operand, wanted)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(wanted)
            y = convolve(x, kernel, **common)
        return tape.gradient(y, wanted, output_gradients=dy)

    return gradient


def _operation(layer: Layer, pass_: Pass) -> str:
    """The TensorFlow operation of a gradient, by its name in tf.raw_ops."""
    convolution = "DepthwiseConv2dNative" if is_depthwise(layer) else "Conv2D"
    return f"{convolution}Backprop{'Input' if pass_ is Pass.INPUT_GRADIENT else 'Filter'}"


def _wrap_gradient(
    gradient: Function, layer: Layer, way: KerasImplementation
) -> tuple[Function, tuple[str, ...]]:
    """The function that `run` calls, and what making it costs."""
    if is_grouped(layer):
        return traced(gradient, jit_compile=True), (TRACING, COMPILATION)
    if is_dilated(layer) and not way.wrapping:  # a tape's forward is dropped only from a graph
        return traced(gradient), (TRACING,)
    return way.wrap(gradient), way.wrapping


def traced(function: Function, jit_compile: bool | None = None) -> Function:
    """`function` as a tf.function, compiled by XLA where asked."""
    import tensorflow as tf

    wrapped: Function = tf.function(function, autograph=False, jit_compile=jit_compile)
    return wrapped


def _padded_before(convolution: Function, layer: Layer) -> Function:
    import keras

    pad = keras.layers.ZeroPadding2D(layer.pads, data_format="channels_last", dtype=layer.dtype)
    return lambda x: convolution(pad(x))


def _cropped(gradient: Function, layer: Layer) -> Function:
    """`gradient` without its pads, by the operation that TensorFlow registers for those of Pad."""
    import tensorflow as tf

    (top, _), (left, _) = layer.pads
    begin, size = (0, top, left, 0), input_shape(layer)
    return lambda kernel, dy: tf.slice(gradient(kernel, dy), begin, size)


def _tensor(array: Array) -> Tensor:
    """A copy of an array as a tensor."""
    import tensorflow as tf

    return tf.constant(array)


def _zeros(shape: tuple[int, ...], layer: Layer) -> Tensor:
    import tensorflow as tf

    return tf.zeros(shape, layer.dtype)
