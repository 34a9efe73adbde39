"""Gather a few rows at a time, so that the columns are multiplied while they are in the cache."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

BLOCK_BYTES = 1024 * 1024


class Convolution:
    """A convolution that is planned for one layer and called many times."""

    layout, kernel_layout = "NHWC", "HWIO"

    def __init__(self, layer):
        out_h, out_w = layer.output_size
        row = (out_w, *layer.kernel_size, layer.channels)
        self.rows = min(max(BLOCK_BYTES // (4 * int(np.prod(row))), 1), out_h)
        self.columns = np.empty((self.rows, *row), layer.dtype)
        self.output = np.empty((layer.batch_size, out_h, out_w, layer.filters), layer.dtype)

    def forward(self, x, kernel):
        """Return (batch, height, width, filters) for `x` of (batch, height, width, channels)."""
        windows = sliding_window_view(x, kernel.shape[:2], axis=(1, 2))
        windows = windows.transpose(0, 1, 2, 4, 5, 3)
        matrix = kernel.reshape(-1, kernel.shape[3])
        for image in range(len(x)):
            for row in range(0, windows.shape[1], self.rows):
                self.block(windows[image, row : row + self.rows], matrix, image, row)
        return self.output

    def block(self, windows, matrix, image, row):
        columns, output = self.columns[: len(windows)], self.output[image, row : row + self.rows]
        columns[...] = windows
        product = output.reshape(-1, matrix.shape[1])
        np.matmul(columns.reshape(-1, len(matrix)), matrix, out=product)
