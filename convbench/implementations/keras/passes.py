"""Compute the three passes as Keras does: eagerly, as a graph, or compiled.

Design rules:

- The forward pass calls the layer object, as users do. A gradient runs only the operations that
  Keras training runs for it, without the forward pass.
- Operands are arguments or variables, never constants, because XLA and grappler fold constants.
- On the CPU, eager operations, tf.functions and compiled functions return when their result is
  complete, so `run` need not wait. Measured: reading a result of 26 MB right after `run` took
  0.04 ms, and `run` itself took 25 to 120 ms.
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
DILATION = "space_to_batch and batch_to_space around it, with which TensorFlow dilates"


class KerasImplementation(Implementation, ABC):
    """Keras Conv2D or DepthwiseConv2D, called in the way that the subclass chooses."""

    name: str
    runtime = TensorFlow()
    wrapping: tuple[str, ...]  # what `wrap` does in `prepare`, as phrases of the ledger

    @abstractmethod
    def wrap(self, function: Function) -> Function:
        """Return `function` unchanged, traced or compiled."""

    def unsupported(self, layer: Layer, pass_: Pass) -> Unsupported | None:
        if max(layer.strides) > 1 and is_dilated(layer) and not layer.is_depthwise:
            return Unsupported(
                "Keras Conv2D takes strides or a dilation_rate above 1, not both",
                ("strides", "dilation_rate"),
            )
        return None

    def exact(self, layer: Layer, pass_: Pass) -> bool:
        """Return True: results on integers were equal, even for 3x3 kernels on 128 to 512 channels.

        For these shapes a library might have used Winograd's algorithm, which rounds.
        """
        return True

    def workspace_bytes(self, layer: Layer, pass_: Pass, threads: int) -> int:
        """Count the bytes of the copies by ZeroPadding2D and around a dilated convolution.

        This is a lower bound, because TensorFlow does not tell how much its kernels allocate for
        packed blocks and columns.
        """
        seen = behind_padding(layer)
        padded = math.prod(input_shape(seen)) * seen.itemsize
        copies = padded if is_padded_before(layer) else 0
        if is_dilated(seen):  # space_to_batch and batch_to_space copy the input and the output
            copies += padded + seen.result_bytes(Pass.FORWARD)
        return copies

    def prepare(self, layer: Layer, pass_: Pass, threads: int) -> PreparedKeras:
        """Build the layer or its gradient, and call it once with zeros to trace and compile it."""
        start(threads)
        if pass_ is Pass.FORWARD:
            return PreparedForward(layer, self)
        return PreparedGradient(layer, pass_, self)


class PreparedKeras(ABC):
    """A pass of Keras, ready to run: `run` calls `function` with the tensors that `load` made."""

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
    """The Keras layer. Its argument is the input (NHWC), and its weights are variables."""

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
            DILATION: is_dilated(seen),
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
    """One gradient. Its arguments are the kernel or the padded input, and the output gradient."""

    def __init__(self, layer: Layer, pass_: Pass, way: KerasImplementation) -> None:
        super().__init__(layer, pass_)
        seen = self._seen
        gradient = tape_gradient(seen, pass_) if is_dilated(seen) else raw_gradient(seen, pass_)
        inside, outside = [f"{_operation(seen, pass_)} of {description(seen)}"], []
        if is_grouped(seen):
            inside[0] += " (compiled gradient: Keras compiles groups on the CPU)"
        if is_dilated(seen):
            inside.append(DILATION)
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
    """Return the raw operation of an undilated gradient.

    The function takes the kernel or the input, and the output gradient.
    """
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
    """Return a function that computes a dilated gradient with a tape.

    The function takes the kernel or the input, and the output gradient. On the CPU, TensorFlow
    dilates by space_to_batch, an undilated convolution and batch_to_space. Training takes the
    gradients of these three and not the dilated raw operation. The function belongs in a
    tf.function: the gradient of a linear operation does not read its result, so grappler and XLA
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
    """Return the name in tf.raw_ops of a gradient's operation."""
    convolution = "DepthwiseConv2dNative" if is_depthwise(layer) else "Conv2D"
    return f"{convolution}Backprop{'Input' if pass_ is Pass.INPUT_GRADIENT else 'Filter'}"


def _wrap_gradient(
    gradient: Function, layer: Layer, way: KerasImplementation
) -> tuple[Function, tuple[str, ...]]:
    """Return the function that `run` calls, and the phrases that say how it was made."""
    if is_grouped(layer):
        return traced(gradient, jit_compile=True), (TRACING, COMPILATION)
    if is_dilated(layer) and not way.wrapping:  # only a graph drops the forward pass of a tape
        return traced(gradient), (TRACING,)
    return way.wrap(gradient), way.wrapping


def traced(function: Function, jit_compile: bool | None = None) -> Function:
    """Return `function` as a tf.function, which XLA compiles if `jit_compile` is True."""
    import tensorflow as tf

    wrapped: Function = tf.function(function, autograph=False, jit_compile=jit_compile)
    return wrapped


def _padded_before(convolution: Function, layer: Layer) -> Function:
    import keras

    pad = keras.layers.ZeroPadding2D(layer.pads, data_format="channels_last", dtype=layer.dtype)
    return lambda x: convolution(pad(x))


def _cropped(gradient: Function, layer: Layer) -> Function:
    """Return `gradient` without its pads. The gradient of Pad uses tf.slice too."""
    import tensorflow as tf

    (top, _), (left, _) = layer.pads
    begin, size = (0, top, left, 0), input_shape(layer)
    return lambda kernel, dy: tf.slice(gradient(kernel, dy), begin, size)


def _tensor(array: Array) -> Tensor:
    """Copy an array into a tensor."""
    import tensorflow as tf

    return tf.constant(array)


def _zeros(shape: tuple[int, ...], layer: Layer) -> Tensor:
    import tensorflow as tf

    return tf.zeros(shape, layer.dtype)
