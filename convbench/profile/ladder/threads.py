"""Deal the blocks to threads, each with columns of its own and one BLAS thread."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from threadpoolctl import ThreadpoolController

BLOCK_BYTES = 1024**2


class Convolution:
    layout, kernel_layout = "NHWC", "HWIO"

    def __init__(self, layer, threads):
        out_h, out_w = layer.output_size
        row = (out_w, *layer.kernel_size, layer.channels)
        self.rows = max(min(BLOCK_BYTES // (4 * int(np.prod(row))), out_h), 1)
        self.columns = [np.empty((self.rows, *row), layer.dtype) for _ in range(threads)]
        self.output = np.empty((layer.batch_size, out_h, out_w, layer.filters), layer.dtype)
        self.pool, self.blas = ThreadPoolExecutor(threads), ThreadpoolController()

    def forward(self, x, kernel):
        """Return (batch, height, width, filters) for `x` of (batch, height, width, channels)."""
        windows = sliding_window_view(x, kernel.shape[:2], axis=(1, 2)).transpose(0, 1, 2, 4, 5, 3)
        matrix = kernel.reshape(-1, kernel.shape[3])
        rows = range(0, windows.shape[1], self.rows)
        blocks = iter([(image, row) for image in range(len(x)) for row in rows])

        def work(columns):
            for image, row in blocks:
                part = windows[image, row : row + self.rows]
                columns[: len(part)] = part
                output = self.output[image, row : row + self.rows].reshape(-1, matrix.shape[1])
                np.matmul(columns[: len(part)].reshape(-1, len(matrix)), matrix, out=output)

        with self.blas.limit(limits=1, user_api="blas"):
            list(self.pool.map(work, self.columns))
        return self.output
