"""All three passes by one implementation of convbench, which gives way where it cannot compute.

For `check`, they are own code, of which nothing is known.
"""

import numpy as np

from convbench import conv2d, conv2d_input_gradient, conv2d_kernel_gradient
from convbench.errors import OperandError


class _Calls:
    implementation = "im2col"

    def forward(self, x, kernel, bias, strides, padding, dilation_rate, groups):
        settings = _settings(strides, padding, dilation_rate, groups)
        y = self._result(conv2d, _nhwc(x), _hwio(kernel), bias, **settings)
        return y.transpose(0, 3, 1, 2)

    def input_gradient(
        self, output_gradient, kernel, input_shape, strides, padding, dilation_rate, groups
    ):
        batch, channels, height, width = input_shape
        settings = _settings(strides, padding, dilation_rate, groups)
        shape = batch, height, width, channels
        given = _nhwc(output_gradient), _hwio(kernel), shape
        return self._result(conv2d_input_gradient, *given, **settings).transpose(0, 3, 1, 2)

    def kernel_gradient(
        self, x, output_gradient, kernel_size, strides, padding, dilation_rate, groups
    ):
        settings = _settings(strides, padding, dilation_rate, groups)
        given = _nhwc(x), _nhwc(output_gradient), kernel_size
        return self._result(conv2d_kernel_gradient, *given, **settings).transpose(3, 2, 0, 1)

    def _result(self, function, *arguments, **settings):
        try:
            return function(*arguments, **settings, implementation=self.implementation)
        except OperandError:
            return function(*arguments, **settings, implementation="im2col")


class Mec(_Calls):
    implementation = "mec"


class ShiftGemm(_Calls):
    implementation = "shift-gemm"


class Winograd(_Calls):
    implementation = "winograd"


class WinogradOnSmallTiles(_Calls):
    implementation = "winograd-2x2"


class Depthwise(_Calls):
    implementation = "depthwise"


class Direct(_Calls):
    implementation = "direct"


class Fft(_Calls):
    implementation = "fft"


def _settings(strides, padding, dilation_rate, groups):
    return {
        "strides": strides,
        "padding": padding,
        "dilation_rate": dilation_rate,
        "groups": groups,
    }


def _nhwc(images):
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))


def _hwio(kernel):
    return np.ascontiguousarray(kernel.transpose(2, 3, 1, 0))
