"""Write a layer as a Keras user would: which Keras layer it is, and with which padding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from convbench.problem.layer import Layer


def behind_padding(layer: Layer) -> Layer:
    """Return the layer that the Keras convolution computes, whose padding is `valid` or `same`.

    If the four pads belong to neither, ZeroPadding2D pads the input first, and the convolution is
    `valid` on the padded input.
    """
    if layer.pads == ((0, 0), (0, 0)):
        return replace(layer, padding="valid")
    same = replace(layer, padding="same")
    if same.pads == layer.pads:
        return same
    return replace(layer, input_shape=(*layer.padded_size, layer.channels), padding="valid")


def is_padded_before(layer: Layer) -> bool:
    """Return whether a ZeroPadding2D comes before the convolution."""
    return behind_padding(layer).input_shape != layer.input_shape


def is_dilated(layer: Layer) -> bool:
    return max(layer.dilation_rate) > 1


def is_depthwise(layer: Layer) -> bool:
    """Return whether the layer is written as DepthwiseConv2D: if it is depthwise and that runs.

    TensorFlow refuses unequal strides, except for float32 on CPUs where oneDNN takes over
    (AVX-512). Such layers are not written as DepthwiseConv2D on any machine, so that all machines
    measure the same. With dilation, Keras convolves with stride 1 and drops rows and columns, so
    any strides work.
    """
    refused = len(set(layer.strides)) > 1 and not is_dilated(layer)
    return layer.is_depthwise and not refused


def is_grouped(layer: Layer) -> bool:
    """Return whether the layer is written as Conv2D with groups, which Keras compiles on the CPU.

    Keras compiles the gradients of such a layer too (keras/src/backend/tensorflow/nn.py, `conv`).
    """
    return layer.groups > 1 and not is_depthwise(layer)


def keras_convolution(layer: Layer) -> Any:
    """Build the keras.layers object of a layer whose padding is `valid` or `same`."""
    import keras

    common = {
        "kernel_size": layer.kernel_size,
        "strides": layer.strides,
        "padding": layer.padding,
        "dilation_rate": layer.dilation_rate,
        "use_bias": layer.use_bias,
        "data_format": "channels_last",
        "dtype": layer.dtype,
    }
    if is_depthwise(layer):
        multiplier = layer.filters // layer.channels
        convolution = keras.layers.DepthwiseConv2D(depth_multiplier=multiplier, **common)
    else:
        convolution = keras.layers.Conv2D(layer.filters, groups=layer.groups, **common)
    convolution.build(input_shape(layer))
    return convolution


def input_shape(layer: Layer) -> tuple[int, ...]:
    """Return the shape of the input: (batch, height, width, channels)."""
    return (layer.batch_size, *layer.input_shape)


def kernel_shape(layer: Layer) -> tuple[int, ...]:
    """Return the shape of the kernel in Keras.

    It is (kh, kw, channels, multiplier) for DepthwiseConv2D, else (kh, kw, channels of a group,
    filters).
    """
    if is_depthwise(layer):
        return (*layer.kernel_size, layer.channels, layer.filters // layer.channels)
    return layer.kernel_shape


def description(layer: Layer) -> str:
    """Return what a Keras user would write, for example `Conv2D, same`."""
    if is_depthwise(layer):
        return f"DepthwiseConv2D, {layer.padding}"
    if layer.groups > 1:
        return f"Conv2D with groups={layer.groups}, {layer.padding}"
    return f"Conv2D, {layer.padding}"
