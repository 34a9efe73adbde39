"""Write a layer as Keras does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from convbench.problem.layer import Layer


def behind_padding(layer: Layer) -> Layer:
    """The layer as the Keras convolution sees it, with `valid` or `same`.

    Where the four pads are those of neither, that is `valid` on what ZeroPadding2D padded.
    """
    if layer.pads == ((0, 0), (0, 0)):
        return replace(layer, padding="valid")
    same = replace(layer, padding="same")
    if same.pads == layer.pads:
        return same
    return replace(layer, input_shape=(*layer.padded_size, layer.channels), padding="valid")


def is_padded_before(layer: Layer) -> bool:
    """Whether a ZeroPadding2D comes before the convolution."""
    return behind_padding(layer).input_shape != layer.input_shape


def is_dilated(layer: Layer) -> bool:
    return max(layer.dilation_rate) > 1


def is_depthwise(layer: Layer) -> bool:
    """Whether Keras writes it as DepthwiseConv2D: every depthwise layer for which that runs.

    TensorFlow refuses unequal strides, but for float32 on CPUs where oneDNN takes over (AVX-512);
    one way on all machines is better. With dilation Keras convolves with stride 1 and drops rows
    and columns: any strides will do.
    """
    refused = len(set(layer.strides)) > 1 and not is_dilated(layer)
    return layer.is_depthwise and not refused


def is_grouped(layer: Layer) -> bool:
    """Whether Keras writes it as Conv2D with groups, which it always compiles on the CPU.

    Its gradients are compiled with it (keras/src/backend/tensorflow/nn.py, `conv`).
    """
    return layer.groups > 1 and not is_depthwise(layer)


def keras_convolution(layer: Layer) -> Any:
    """The built keras.layers object of a layer whose padding is `valid` or `same`."""
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
    """(batch, height, width, channels)."""
    return (layer.batch_size, *layer.input_shape)


def kernel_shape(layer: Layer) -> tuple[int, ...]:
    """Shape of the kernel in Keras: (kh, kw, channels, multiplier) for DepthwiseConv2D."""
    if is_depthwise(layer):
        return (*layer.kernel_size, layer.channels, layer.filters // layer.channels)
    return layer.kernel_shape


def description(layer: Layer) -> str:
    """What a Keras user would write: `Conv2D, same`."""
    if is_depthwise(layer):
        return f"DepthwiseConv2D, {layer.padding}"
    if layer.groups > 1:
        return f"Conv2D with groups={layer.groups}, {layer.padding}"
    return f"Conv2D, {layer.padding}"
