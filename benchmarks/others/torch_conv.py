"""Convolve with PyTorch on the CPU, as own code: `--impl benchmarks/others/torch_conv.py:Torch`.

PyTorch is imported when an object is made, and has the run's number of threads.
"""

from __future__ import annotations

from typing import Any


class Torch:
    layout = "NCHW"
    kernel_layout = "OIHW"

    def __init__(
        self, strides: Any, padding: Any, dilation_rate: Any, groups: int, threads: int
    ) -> None:
        import torch

        torch.set_num_threads(threads)
        (top, bottom), (left, right) = padding
        self._torch = torch
        self._even = top == bottom and left == right
        self._pads = (left, right, top, bottom)
        self._options = {
            "stride": strides,
            "padding": (top, left) if self._even else (0, 0),
            "dilation": dilation_rate,
            "groups": groups,
        }

    def forward(self, x: Any, kernel: Any, bias: Any = None) -> Any:
        bias = None if bias is None else self._torch.from_numpy(bias)
        convolve = self._torch.nn.functional.conv2d
        return convolve(self._padded(x), self._torch.from_numpy(kernel), bias, **self._options)

    def input_gradient(self, output_gradient: Any, kernel: Any, input_shape: Any) -> Any:
        batch, channels, height, width = input_shape
        left, right, top, bottom = (0, 0, 0, 0) if self._even else self._pads
        padded = (batch, channels, height + top + bottom, width + left + right)
        error, weight = map(self._torch.from_numpy, (output_gradient, kernel))
        gradient = self._torch.nn.grad.conv2d_input(padded, weight, error, **self._options)
        return gradient[:, :, top : top + height, left : left + width]

    def kernel_gradient(self, x: Any, output_gradient: Any, kernel_size: Any) -> Any:
        error = self._torch.from_numpy(output_gradient)
        channels = x.shape[1] // self._options["groups"]
        shape = (error.shape[1], channels, *kernel_size)
        return self._torch.nn.grad.conv2d_weight(self._padded(x), shape, error, **self._options)

    def _padded(self, x: Any) -> Any:
        """Pad `x` if its sides need different pads, which PyTorch's convolution cannot have."""
        tensor = self._torch.from_numpy(x)
        return tensor if self._even else self._torch.nn.functional.pad(tensor, self._pads)
