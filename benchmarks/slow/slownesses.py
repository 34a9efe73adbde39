"""Convolve fast, and with exactly one slowness put in, which a profile must find.

A 1x1 layer is one matrix product, so nothing is slow but what is put in. Each class is the fast one
with one thing done worse. CAUSES names the cause for each class.
"""

import numpy as np
import threadpoolctl

CAUSES = {
    "CallsAnImage": "python calls",
    "CallsARow": "python calls",
    "CallsAFilter": "python calls",
    "TwoPasses": "temporaries",
    "SixPasses": "temporaries",
    "TwelvePasses": "temporaries",
    "FreshResult": "fresh pages",
    "FreshWorkspace": "fresh pages",
    "FourFiltersByElement": "element-wise arithmetic",
    "SixteenFiltersByElement": "element-wise arithmetic",
    "SumsOfProducts": "element-wise arithmetic",
    "OneTranspose": "layout",
    "FourTransposes": "layout",
    "StridedGather": "layout",
    "InDouble": "dtype",
    "InLongDouble": "dtype",
    "OneThread": "threads",
    "OneThreadForHalf": "threads",
    "TwiceTheChannels": "algorithm",
    "FourTimesTheChannels": "algorithm",
}
"""Cause of each class's slowness. A further cause, `BLAS kernels`, comes from the environment."""


class Fast:
    """One product, written into an array that exists already."""

    layout, kernel_layout = "NHWC", "HWIO"

    def __init__(self, layer):
        self.layer = layer
        self.output = np.empty((layer.batch_size, *layer.output_shape), np.float32)
        self.flat = self.output.reshape(-1, layer.filters)
        self.prepare(layer)

    def prepare(self, layer):
        """Allocate workspaces; the fast class has none."""

    def forward(self, x, kernel):
        self.product(x.reshape(-1, x.shape[3]), kernel[0, 0])
        return self.output

    def product(self, pixels, matrix):
        np.matmul(pixels, matrix, out=self.flat)


class CallsAnImage(Fast):
    """One product for every four pixels of the first image, and one for all other images."""

    def product(self, pixels, matrix):
        first = self.layer.output_size[0] * self.layer.output_size[1]
        for start in range(0, first, 4):
            np.matmul(pixels[start : start + 4], matrix, out=self.flat[start : start + 4])
        np.matmul(pixels[first:], matrix, out=self.flat[first:])


class CallsARow(Fast):
    """A view of every pixel, which is never used."""

    def product(self, pixels, matrix):
        for start in range(len(pixels)):
            pixels[start : start + 1]
        np.matmul(pixels, matrix, out=self.flat)


class CallsAFilter(Fast):
    """Zero added to the first filter of every second pixel, in a call for each of these pixels."""

    def product(self, pixels, matrix):
        np.matmul(pixels, matrix, out=self.flat)
        for start in range(0, len(pixels), 2):
            self.flat[start, :1] += 0.0


class _Passes(Fast):
    passes = 2

    def prepare(self, layer):
        self.memory = [np.empty((layer.batch_size, *layer.input_shape), np.float32) for _ in "ab"]

    def forward(self, x, kernel):
        for index in range(self.passes):
            np.copyto(self.memory[index % 2], x if index == 0 else self.memory[1 - index % 2])
        return super().forward(self.memory[(self.passes - 1) % 2], kernel)


class TwoPasses(_Passes):
    """Two copies of the input, from one existing array to the next."""


class SixPasses(_Passes):
    passes = 6


class TwelvePasses(_Passes):
    passes = 12


class FreshResult(Fast):
    """A new array of 64 MiB in each call, every page of which is touched."""

    bytes = 64 * 1024**2

    def forward(self, x, kernel):
        new = np.empty(self.bytes, np.uint8)
        new[::4096] = 1
        return super().forward(x, kernel)


class FreshWorkspace(FreshResult):
    bytes = 192 * 1024**2


class FourFiltersByElement(Fast):
    """Some filters computed by np.einsum, which multiplies and adds without BLAS."""

    filters = 4

    def product(self, pixels, matrix):
        rest = self.layer.filters - self.filters
        np.matmul(pixels, matrix[:, :rest], out=self.flat[:, :rest])
        for index in range(rest, self.layer.filters):
            np.einsum("pc,c->p", pixels, matrix[:, index], out=self.flat[:, index])


class SixteenFiltersByElement(FourFiltersByElement):
    filters = 16


class SumsOfProducts(Fast):
    """All filters computed by np.einsum without `optimize`."""

    def product(self, pixels, matrix):
        np.einsum("pc,cf->pf", pixels, matrix, out=self.flat)


class _Transposes(Fast):
    times = 1

    def prepare(self, layer):
        size = layer.batch_size * layer.output_size[0] * layer.output_size[1]
        self.turned = np.empty((layer.channels, size), np.float32)
        self.pixels = np.empty((size, layer.channels), np.float32)

    def product(self, pixels, matrix):
        for _ in range(self.times):
            np.copyto(self.turned, pixels.T)
            np.copyto(self.pixels, self.turned.T)
        super().product(self.pixels, matrix)


class OneTranspose(_Transposes):
    """A transposition to channels first, and one back."""


class FourTransposes(_Transposes):
    times = 4


class StridedGather(Fast):
    """A copy of the input that goes channel by channel."""

    def prepare(self, layer):
        size = layer.batch_size * layer.output_size[0] * layer.output_size[1]
        self.pixels = np.empty((size, layer.channels), np.float32)

    def product(self, pixels, matrix):
        for channel in range(pixels.shape[1]):
            self.pixels[:, channel] = pixels[:, channel]
        super().product(self.pixels, matrix)


class InDouble(Fast):
    """A product in double precision."""

    dtype = np.float64

    def prepare(self, layer):
        size = layer.batch_size * layer.output_size[0] * layer.output_size[1]
        self.pixels = np.empty((size, layer.channels), self.dtype)
        self.found = np.empty((size, layer.filters), self.dtype)

    def product(self, pixels, matrix):
        np.copyto(self.pixels, pixels)
        np.matmul(self.pixels, matrix.astype(self.dtype), out=self.found)
        np.copyto(self.flat, self.found)


class InLongDouble(InDouble):
    dtype = np.longdouble


class OneThread(Fast):
    """A product for which BLAS may use one thread only."""

    def prepare(self, layer):
        self.blas = threadpoolctl.ThreadpoolController()

    def product(self, pixels, matrix):
        with self.blas.limit(limits=1, user_api="blas"):
            super().product(pixels, matrix)


class OneThreadForHalf(OneThread):
    """Two products, one thread for the first half of the pixels and all threads for the other."""

    def product(self, pixels, matrix):
        half = len(pixels) // 2
        with self.blas.limit(limits=1, user_api="blas"):
            np.matmul(pixels[:half], matrix, out=self.flat[:half])
        np.matmul(pixels[half:], matrix, out=self.flat[half:])


class TwiceTheChannels(Fast):
    """A second product of as many zeros, that is, more multiplications than the layer needs."""

    times = 2

    def prepare(self, layer):
        size = layer.batch_size * layer.output_size[0] * layer.output_size[1]
        self.more = np.zeros((size, (self.times - 1) * layer.channels), np.float32)
        self.zeros = np.zeros(((self.times - 1) * layer.channels, layer.filters), np.float32)
        self.unused = np.empty((size, layer.filters), np.float32)

    def product(self, pixels, matrix):
        np.matmul(self.more, self.zeros, out=self.unused)
        super().product(pixels, matrix)


class FourTimesTheChannels(TwiceTheChannels):
    times = 4
