"""Convolve with Keras in a tf.function. The benchmark times a copy of this file."""

import keras
import tensorflow as tf


@tf.function
def graph(x, kernel):
    return keras.ops.conv(x, kernel, strides=1, padding="valid", data_format="channels_last")


def conv(x, kernel):
    """Valid cross-correlation: x (batch, h, w, channels), kernel (kh, kw, channels, filters)."""
    return graph(x, kernel).numpy()


conv.layout, conv.kernel_layout = "NHWC", "HWIO"
