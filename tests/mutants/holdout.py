"""Faulty convolutions that the diagnosis was not tuned to; each has a mistake that people make.

Functions are forward passes; each class has one gradient. `holdout_causes.py` says what is wrong.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.lib.stride_tricks import as_strided, sliding_window_view

# Forward


def textbook_kernel(x, kernel, strides=(1, 1), padding=((0, 0), (0, 0))):
    """Reverses the kernel as the textbook says, though only its rows."""
    padded = np.pad(x, ((0, 0), (0, 0), *padding))
    windows = sliding_window_view(padded, kernel.shape[2:], axis=(2, 3))
    windows = windows[:, :, :: strides[0], :: strides[1]]
    return np.einsum("nchwuv,fcuv->nfhw", windows, kernel[:, :, ::-1])


def gemm_straight_to_nchw(x, kernel, bias=None, strides=1, padding=0):
    """Reshapes the product (filters, images * positions) to (images, filters, ...)."""
    n, c, h, w = x.shape
    f, _, kh, kw = kernel.shape
    oh = (h + 2 * padding - kh) // strides + 1
    ow = (w + 2 * padding - kw) // strides + 1
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    cols = np.zeros((c, kh, kw, n, oh, ow), x.dtype)
    for i in range(kh):
        for j in range(kw):
            taken = x[:, :, i : i + strides * oh : strides, j : j + strides * ow : strides]
            cols[:, i, j] = taken.transpose(1, 0, 2, 3)
    out = kernel.reshape(f, -1) @ cols.reshape(c * kh * kw, -1)
    if bias is not None:
        out += bias[:, np.newaxis]
    return out.reshape(n, f, oh, ow)


def pads_x_then_y(x, kernel, padding=((0, 0), (0, 0)), dilation_rate=(1, 1)):
    """Hands the pads to np.pad as x and y: those of the width go to the height."""
    pad_y, pad_x = padding
    img = np.pad(x, ((0, 0), (0, 0), pad_x, pad_y), "constant", constant_values=0)
    filters, _, kh, kw = kernel.shape
    dy, dx = dilation_rate
    out_h = img.shape[2] - dy * (kh - 1)
    out_w = img.shape[3] - dx * (kw - 1)
    out = np.zeros((x.shape[0], filters, out_h, out_w), x.dtype)
    for f in range(filters):
        for i, j in product(range(kh), range(kw)):
            y, z = i * dy, j * dx
            piece = img[:, :, y : y + out_h, z : z + out_w]
            out[:, f] += np.einsum("nchw,c->nhw", piece, kernel[f, :, i, j])
    return out


def fast_fourier(x, kernel, strides=(1, 1), padding=((0, 0), (0, 0))):
    """Multiplies spectra of the unpadded image: windows over the edge see the opposite side."""
    h, w = x.shape[2:]
    kh, kw = kernel.shape[2:]
    (top, bottom), (left, right) = padding
    image = np.fft.rfft2(x.astype(np.float64))
    weights = np.conj(np.fft.rfft2(kernel.astype(np.float64), s=(h, w)))
    full = np.fft.irfft2(np.einsum("nchw,fchw->nfhw", image, weights), s=(h, w))
    rows = np.arange(-top, h + bottom - kh + 1, strides[0]) % h
    columns = np.arange(-left, w + right - kw + 1, strides[1]) % w
    return full[:, :, rows][:, :, :, columns]


def slides_over_the_unpadded_size(x, kernel, strides=(1, 1), padding=((0, 0), (0, 0))):
    """Pads, and sizes the output for that, but moves the window over the bare image's size only."""
    n, _, h, w = x.shape
    f, _, kh, kw = kernel.shape
    (top, bottom), (left, right) = padding
    sh, sw = strides
    canvas = np.zeros((n, x.shape[1], h + top + bottom, w + left + right), x.dtype)
    canvas[:, :, top : top + h, left : left + w] = x
    out = np.zeros(
        (n, f, (h + top + bottom - kh) // sh + 1, (w + left + right - kw) // sw + 1), x.dtype
    )
    for i in range(0, h - kh + 1, sh):
        for j in range(0, w - kw + 1, sw):
            patch = canvas[:, :, i : i + kh, j : j + kw]
            out[:, :, i // sh, j // sw] = np.tensordot(patch, kernel, ([1, 2, 3], [1, 2, 3]))
    return out


def single_precision_buffer(x, kernel, dilation_rate=(1, 1), groups=1):
    """Collects everything in a float32 array, whatever it was given."""
    n, _, h, w = x.shape
    f, per_group, kh, kw = kernel.shape
    dh, dw = dilation_rate
    oh, ow = h - (kh - 1) * dh, w - (kw - 1) * dw
    out = np.zeros((n, f, oh, ow), dtype=np.float32)
    for k in range(f):
        first = k // (f // groups) * per_group
        for ch in range(per_group):
            for i in range(kh):
                for j in range(kw):
                    seen = x[:, first + ch, i * dh : i * dh + oh, j * dw : j * dw + ow]
                    out[:, k] += seen * kernel[k, ch, i, j]
    return out


def photo_filter(images, kernels):
    """Filters grey pictures and saves pixels: whole numbers from 0 to 255."""
    kh, kw = kernels.shape[1:]
    height, width = images.shape[1] - kh + 1, images.shape[2] - kw + 1
    result = np.empty((len(images), len(kernels), height, width))
    for number, image in enumerate(images):
        for f, kernel in enumerate(kernels):
            for y, x in np.ndindex(height, width):
                result[number, f, y, x] = (image[y : y + kh, x : x + kw] * kernel).sum()
    return np.clip(result, 0, 255).astype(np.uint8).astype(images.dtype)


photo_filter.layout = "NHW"
photo_filter.kernel_layout = "OHW"


def strided_view(x, kernel, strides=(1, 1), padding=((0, 0), (0, 0))):
    """Multiplies the byte step of the rows by their stride, and forgets the columns'."""
    x = np.ascontiguousarray(np.pad(x, ((0, 0), (0, 0), padding[0], padding[1])))
    n, c, h, w = x.shape
    f, _, kh, kw = kernel.shape
    oh, ow = (h - kh) // strides[0] + 1, (w - kw) // strides[1] + 1
    b_n, b_c, b_h, b_w = x.strides
    view = as_strided(
        x,
        shape=(n, oh, ow, c, kh, kw),
        strides=(b_n, b_h * strides[0], b_w, b_c, b_h, b_w),
        writeable=False,
    )
    out = view.reshape(n * oh * ow, -1) @ kernel.reshape(f, -1).T
    return out.reshape(n, oh, ow, f).transpose(0, 3, 1, 2)


def atrous(x, kernel, dilation_rate=(1, 1), padding=((0, 0), (0, 0))):
    """Puts one zero between neighbouring taps, however large the dilation."""
    for axis, rate in zip((2, 3), dilation_rate, strict=True):
        if rate > 1:
            kernel = np.insert(kernel, range(1, kernel.shape[axis]), 0, axis=axis)
    x = np.pad(x, ((0, 0), (0, 0), *padding))
    kh, kw = kernel.shape[2:]
    return np.einsum(
        "nchwij,kcij->nkhw", sliding_window_view(x, (kh, kw), axis=(2, 3)), kernel, optimize=True
    )


def bias_in_the_inner_loop(x, kernel, bias=None, groups=1, strides=(1, 1)):
    """Adds the bias with every tap."""
    n, _, h, w = x.shape
    f, cg, kh, kw = kernel.shape
    sh, sw = strides
    oh, ow = (h - kh) // sh + 1, (w - kw) // sw + 1
    b = np.zeros(f, x.dtype) if bias is None else bias
    out = np.zeros((n, f, oh, ow), x.dtype)
    fg = f // groups
    for g in range(groups):
        xs = x[:, g * cg : (g + 1) * cg]
        own = slice(g * fg, (g + 1) * fg)
        for i in range(kh):
            for j in range(kw):
                part = xs[:, :, i : i + sh * oh : sh, j : j + sw * ow : sw]
                part = np.einsum("nchw,fc->nfhw", part, kernel[own, :, i, j])
                out[:, own] += part + b[own].reshape(1, -1, 1, 1)
    return out


def depth_multiplier(x, kernel, groups=1, strides=(1, 1)):
    """Uses np.tile where np.repeat is needed: filters go round the groups in turn."""
    f, per_group, kh, kw = kernel.shape
    owner = np.tile(np.arange(groups), f // groups)
    windows = sliding_window_view(x, (kh, kw), axis=(2, 3))[:, :, :: strides[0], :: strides[1]]
    maps = []
    for weights, group in zip(kernel, owner, strict=True):
        mine = windows[:, group * per_group : (group + 1) * per_group]
        maps.append((mine * weights[:, None, None]).sum(axis=(1, 4, 5)))
    return np.stack(maps, axis=1)


def accepts_and_forgets(x, kernel, bias=None, groups=1, padding=((0, 0), (0, 0))):
    """Takes a bias and groups, as a new convolution does, but computes as the old plain one."""
    x = np.pad(x, ((0, 0), (0, 0), padding[0], padding[1]))
    filters, depth, kh, kw = kernel.shape
    rows, columns = x.shape[2] - kh + 1, x.shape[3] - kw + 1
    y = np.zeros((len(x), filters, rows, columns), x.dtype)
    for r in range(rows):
        for q in range(columns):
            for k in range(filters):
                field = x[:, :depth, r : r + kh, q : q + kw]
                y[:, k, r, q] = np.sum(field * kernel[k], axis=(1, 2, 3))
    return y


def one_feature_map_for_all(x, kernel, strides=1):
    """Makes a feature map for each image, not for each filter, so that it goes on adding up."""
    (n, _, h, w), (f, _, kh, kw) = x.shape, kernel.shape
    oh, ow = 1 + (h - kh) // strides, 1 + (w - kw) // strides
    out = np.empty((n, f, oh, ow), x.dtype)
    for image in range(n):
        fmap = np.zeros((oh, ow), x.dtype)
        for k in range(f):
            for y in range(oh):
                for z in range(ow):
                    top, left = y * strides, z * strides
                    seen = x[image, :, top : top + kh, left : left + kw]
                    fmap[y, z] += np.sum(seen * kernel[k])
            out[image, k] = fmap
    return out


_columns = {}


def remembers_its_columns(x, kernel, strides=(1, 1), padding=((0, 0), (0, 0))):
    """Keeps one im2col matrix for each shape, although it holds the first images' values."""
    f, _, kh, kw = kernel.shape
    key = (x.shape, x.dtype, kh, kw, strides, padding)
    if key not in _columns:
        padded = np.pad(x, ((0, 0), (0, 0), *padding))
        windows = sliding_window_view(padded, (kh, kw), axis=(2, 3))
        windows = windows[:, :, :: strides[0], :: strides[1]].transpose(0, 2, 3, 1, 4, 5)
        _columns[key] = windows.reshape(*windows.shape[:3], -1)
    return (_columns[key] @ kernel.reshape(f, -1).T).transpose(0, 3, 1, 2)


def einsum_with_a_letter_too_many(x, kernel, strides=(1, 1)):
    """Gives the kernel's channels a letter of their own, so that each operand is summed alone."""
    windows = sliding_window_view(x, kernel.shape[2:], axis=(2, 3))
    windows = windows[:, :, :: strides[0], :: strides[1]]
    return np.einsum("nchwij,fdij->nfhw", windows, kernel, optimize=True)


def from_the_middle_outwards(x, kernel, padding="valid"):
    """Counts taps from -(k // 2) to k // 2, exclusive: odd kernels lose their last taps."""
    kh, kw, _, filters = kernel.shape
    if padding == "same":
        up, before = (kh - 1) // 2, (kw - 1) // 2
        x = np.pad(x, ((0, 0), (up, kh - 1 - up), (before, kw - 1 - before), (0, 0)))
    n, h, w, _ = x.shape
    half_h, half_w = kh // 2, kw // 2
    out = np.zeros((n, h - kh + 1, w - kw + 1, filters), x.dtype)
    for y in range(out.shape[1]):
        for z in range(out.shape[2]):
            for dy in range(-half_h, half_h):
                for dz in range(-half_w, half_w):
                    u, v = dy + half_h, dz + half_w
                    out[:, y, z] += x[:, y + u, z + v] @ kernel[u, v]
    return out


from_the_middle_outwards.layout = "NHWC"
from_the_middle_outwards.kernel_layout = "HWIO"


def convolve_pictures(x, kernel, padding=0):
    """Scales pixels to 0..1 on the way in, and convolves as mathematics does: kernel reversed."""
    x = np.pad(x / 255, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    kernel = np.rot90(kernel, 2, axes=(2, 3))
    n, h, w, _ = x.shape
    f, _, kh, kw = kernel.shape
    out = np.zeros((n, h - kh + 1, w - kw + 1, f))
    for i in range(h - kh + 1):
        for j in range(w - kw + 1):
            patch = x[:, i : i + kh, j : j + kw, :].transpose(0, 3, 1, 2)
            out[:, i, j, :] = patch.reshape(n, -1) @ kernel.reshape(f, -1).T
    return out


convolve_pictures.layout = "NHWC"


def pads_one_more_to_be_safe(x, kernel, strides=(1, 1), padding=((0, 0), (0, 0))):
    """Pads a pixel more all around, so that no window runs out, and starts at that pixel."""
    (top, bottom), (left, right) = padding
    n, _, h, w = x.shape
    f, _, kh, kw = kernel.shape
    oh = (h + top + bottom - kh) // strides[0] + 1
    ow = (w + left + right - kw) // strides[1] + 1
    safe = np.pad(x, ((0, 0), (0, 0), (top + 1, bottom + 1), (left + 1, right + 1)))
    out = np.empty((n, f, oh, ow), x.dtype)
    for i in range(oh):
        for j in range(ow):
            y, z = i * strides[0], j * strides[1]
            patch = safe[:, np.newaxis, :, y : y + kh, z : z + kw]
            out[:, :, i, j] = np.sum(patch * kernel[np.newaxis], axis=(2, 3, 4))
    return out


def starts_a_bias_of_its_own(x, kernel, bias=None, groups=1):
    """Draws a small bias where there is none, as the constructor of a layer would."""
    f, _, kh, kw = kernel.shape
    if bias is None:
        bias = np.random.randn(f) * 0.01
    out = []
    channels = np.split(x, groups, axis=1)
    for g, weights in enumerate(np.split(kernel, groups, axis=0)):
        windows = sliding_window_view(channels[g], (kh, kw), axis=(2, 3))
        out.append(np.tensordot(windows, weights, axes=([1, 4, 5], [1, 2, 3])))
    return (np.concatenate(out, axis=-1) + bias).transpose(0, 3, 1, 2)


# Input gradient


class FullCorrelation:
    """Pads the output gradient fully, and forgets to turn the kernel around."""

    def input_gradient(self, output_gradient, kernel, input_shape, strides=1):
        n, f, oh, ow = output_gradient.shape
        _, _, kh, kw = kernel.shape
        spread = np.zeros((n, f, (oh - 1) * strides + 1, (ow - 1) * strides + 1), kernel.dtype)
        spread[:, :, ::strides, ::strides] = output_gradient
        spread = np.pad(spread, ((0, 0), (0, 0), (kh - 1, kh - 1), (kw - 1, kw - 1)))
        windows = sliding_window_view(spread, (kh, kw), axis=(2, 3))
        full = np.einsum("nfhwij,fcij->nchw", windows, kernel)
        dx = np.zeros(input_shape, kernel.dtype)
        dx[:, :, : full.shape[2], : full.shape[3]] = full
        return dx


class QuarterTurn:
    """Turns the kernel with np.rot90's default, a quarter turn, where a half is needed."""

    def input_gradient(self, output_gradient, kernel, input_shape):
        turned = np.rot90(kernel, axes=(2, 3))
        kh, kw = turned.shape[2:]
        around = np.pad(output_gradient, ((0, 0), (0, 0), (kh - 1, kh - 1), (kw - 1, kw - 1)))
        h, w = around.shape[2] - kh + 1, around.shape[3] - kw + 1
        dx = np.zeros((*input_shape[:2], h, w), kernel.dtype)
        for i in range(h):
            for j in range(w):
                field = around[:, :, i : i + kh, j : j + kw]
                dx[:, :, i, j] = np.tensordot(field, turned, axes=([1, 2, 3], [0, 2, 3]))
        return dx


class Col2im:
    """Writes each patch back with `=`, and returns the padded image."""

    def input_gradient(
        self, output_gradient, kernel, input_shape, strides=(1, 1), padding=((0, 0), (0, 0))
    ):
        n, c, h, w = input_shape
        f, _, kh, kw = kernel.shape
        (top, bottom), (left, right) = padding
        oh, ow = output_gradient.shape[2:]
        grad = output_gradient.transpose(0, 2, 3, 1).reshape(-1, f)
        patches = (grad @ kernel.reshape(f, -1)).reshape(n, oh, ow, c, kh, kw)
        image = np.zeros((n, c, h + top + bottom, w + left + right), kernel.dtype)
        for i in range(oh):
            for j in range(ow):
                y, x = i * strides[0], j * strides[1]
                image[:, :, y : y + kh, x : x + kw] = patches[:, i, j]
        return image


class ZerosBefore:
    """Puts the zeros of a stride before each gradient, not after it."""

    def input_gradient(self, output_gradient, kernel, input_shape, strides=(1, 1)):
        n, c, h, w = input_shape
        f, _, kh, kw = kernel.shape
        sh, sw = strides
        oh, ow = output_gradient.shape[2:]
        up = np.zeros((n, f, oh * sh, ow * sw), output_gradient.dtype)
        up[:, :, sh - 1 :: sh, sw - 1 :: sw] = output_gradient
        up = np.pad(up, ((0, 0), (0, 0), (kh - 1, kh - 1), (kw - 1, kw - 1)))
        flipped = kernel[:, :, ::-1, ::-1]
        dx = np.zeros((n, c, up.shape[2] - kh + 1, up.shape[3] - kw + 1), kernel.dtype)
        for u in range(kh):
            for v in range(kw):
                moved = up[:, :, u : u + dx.shape[2], v : v + dx.shape[3]]
                dx += np.einsum("nfhw,fc->nchw", moved, flipped[:, :, u, v])
        return dx[:, :, :h, :w]


class Upsampling:
    """Repeats the gradient over the stride (nearest neighbour) instead of filling in zeros."""

    layout = "NHWC"

    def input_gradient(self, output_gradient, kernel, input_shape, strides=(1, 1)):
        _, h, w, _ = input_shape
        kh, kw = kernel.shape[2:]
        up = output_gradient.repeat(strides[0], axis=1).repeat(strides[1], axis=2)
        up = np.pad(up, ((0, 0), (kh - 1, kh - 1), (kw - 1, kw - 1), (0, 0)))
        windows = sliding_window_view(up, (kh, kw), axis=(1, 2))[:, :h, :w]
        return np.einsum("nhwfij,fcij->nhwc", windows, np.flip(kernel, (2, 3)), optimize=True)


class CropsTheOtherSide:
    """Cuts as much off at the top and left as was padded at the bottom and right."""

    def __init__(self, strides=(1, 1), padding=((0, 0), (0, 0))):
        self.strides = strides
        self.padding = padding

    def input_gradient(self, output_gradient, kernel, input_shape):
        n, c, h, w = input_shape
        _, _, kh, kw = kernel.shape
        _, _, oh, ow = output_gradient.shape
        (top, bottom), (left, right) = self.padding
        dpad = np.zeros((n, c, h + top + bottom, w + left + right), output_gradient.dtype)
        for i in range(oh):
            for j in range(ow):
                y, x = i * self.strides[0], j * self.strides[1]
                share = np.einsum("nf,fcuv->ncuv", output_gradient[:, :, i, j], kernel)
                dpad[:, :, y : y + kh, x : x + kw] += share
        return dpad[:, :, bottom : bottom + h, right : right + w]


class FilterByFilter:
    """Every filter hands its gradient to the first channels, whichever group it is in."""

    def input_gradient(self, output_gradient, kernel, input_shape, strides=(1, 1), groups=1):
        filters, channels, kh, kw = kernel.shape
        oh, ow = output_gradient.shape[2:]
        sh, sw = strides
        dx = np.zeros(input_shape, kernel.dtype)
        for f in range(filters):
            for c in range(channels):
                for u in range(kh):
                    for v in range(kw):
                        back = output_gradient[:, f] * kernel[f, c, u, v]
                        dx[:, c, u : u + oh * sh : sh, v : v + ow * sw : sw] += back
        return dx


class SquareHoles:
    """Spreads the kernel by the dilation of the rows in both directions."""

    def input_gradient(self, output_gradient, kernel, input_shape, dilation_rate=(1, 1)):
        f, c, kh, kw = kernel.shape
        h, w = input_shape[2:]
        d = dilation_rate[0]
        spread = np.zeros((f, c, (kh - 1) * d + 1, (kw - 1) * d + 1), kernel.dtype)
        spread[:, :, ::d, ::d] = kernel
        rows, columns = spread.shape[2] - 1, spread.shape[3] - 1
        og = np.pad(output_gradient, ((0, 0), (0, 0), (rows, rows), (columns, columns)))
        windows = sliding_window_view(og, spread.shape[2:], axis=(2, 3))
        dx = np.einsum("nfyxij,fcij->ncyx", windows, spread[..., ::-1, ::-1], optimize=True)
        return dx[:, :, :h, :w]


class GradientOfThePlainLayer:
    """Was written before the layer had strides and dilation, and uses neither."""

    def input_gradient(
        self, output_gradient, kernel, input_shape, strides=(1, 1), dilation_rate=(1, 1)
    ):
        kh, kw = kernel.shape[-2:]
        dx = np.zeros(input_shape, dtype=output_gradient.dtype)
        for (n, k, i, j), g in np.ndenumerate(output_gradient):
            dx[n, :, i : i + kh, j : j + kw] += g * kernel[k]
        return dx


class BufferMadeOnce:
    """Makes its buffer with the layer, and never clears it."""

    def __init__(self, layer):
        self.layer = layer
        self.buffer = np.zeros((layer.batch_size, layer.channels, *layer.padded_size), layer.dtype)

    def input_gradient(self, output_gradient, kernel, input_shape):
        (top, _), (left, _) = self.layer.pads
        (sh, sw), (dh, dw) = self.layer.strides, self.layer.dilation_rate
        oh, ow = self.layer.output_size
        f, per_group, kh, kw = kernel.shape
        each = f // self.layer.groups
        for g, u, v in np.ndindex(self.layer.groups, kh, kw):
            weights = kernel[g * each : (g + 1) * each, :, u, v]
            back = np.tensordot(output_gradient[:, g * each : (g + 1) * each], weights, (1, 0))
            rows = slice(u * dh, u * dh + (oh - 1) * sh + 1, sh)
            columns = slice(v * dw, v * dw + (ow - 1) * sw + 1, sw)
            channels = slice(g * per_group, (g + 1) * per_group)
            self.buffer[:, channels, rows, columns] += back.transpose(0, 3, 1, 2)
        _, _, h, w = input_shape
        return self.buffer[:, :, top : top + h, left : left + w].copy()


class LastFilterWins:
    """Writes `dx = ...` in the loop over filters, so that only the last one counts."""

    def input_gradient(self, output_gradient, kernel, input_shape, padding=0):
        n, _, h, w = input_shape
        _, _, kh, kw = kernel.shape
        dx = np.zeros(input_shape, kernel.dtype)
        for image in range(n):
            for delta, weights in zip(output_gradient[image], kernel, strict=True):
                delta = np.pad(delta, ((kh - 1, kh - 1), (kw - 1, kw - 1)))
                windows = sliding_window_view(delta, (kh, kw))
                full = np.tensordot(weights[:, ::-1, ::-1], windows, axes=([1, 2], [2, 3]))
                dx[image] = full[:, padding : padding + h, padding : padding + w]
        return dx


class MatrixOfGradients:
    """Reshapes (images, filters, ...) to (filters, images * positions) without transposing."""

    def input_gradient(self, output_gradient, kernel, input_shape, strides=1, padding=0):
        n, c, h, w = input_shape
        f, _, kh, kw = kernel.shape
        oh, ow = output_gradient.shape[2:]
        dout = output_gradient.reshape(f, -1)
        dcol = (kernel.reshape(f, -1).T @ dout).reshape(c, kh, kw, n, oh, ow)
        img = np.zeros((n, c, h + 2 * padding, w + 2 * padding), kernel.dtype)
        for i in range(kh):
            for j in range(kw):
                rows = slice(i, i + strides * oh, strides)
                img[:, :, rows, j : j + strides * ow : strides] += dcol[:, i, j].swapaxes(0, 1)
        return img[:, :, padding : h + padding, padding : w + padding]


class PixelByPixel:
    """Asks every pixel which windows saw it, but counts pixels by the size of the output."""

    layout = "NHWC"
    kernel_layout = "HWIO"

    def input_gradient(self, output_gradient, kernel, input_shape, strides=(1, 1)):
        _, oh, ow, _ = output_gradient.shape
        kh, kw = kernel.shape[:2]
        dx = np.zeros(input_shape, kernel.dtype)
        for y in range(oh):
            for x in range(ow):
                for u in range(kh):
                    for v in range(kw):
                        i, rest_y = divmod(y - u, strides[0])
                        j, rest_x = divmod(x - v, strides[1])
                        if rest_y == rest_x == 0 and 0 <= i < oh and 0 <= j < ow:
                            dx[:, y, x] += output_gradient[:, i, j] @ kernel[u, v].T
        return dx


# Kernel gradient


class AveragesInPlace:
    """Divides the gradient by the number of images, in the caller's own array."""

    layout = "NHWC"
    kernel_layout = "HWIO"

    def kernel_gradient(self, x, output_gradient, kernel_size, strides=(1, 1)):
        output_gradient /= x.shape[0]
        oh, ow, f = output_gradient.shape[1:]
        grad = np.zeros((*kernel_size, x.shape[3], f), x.dtype)
        flat = output_gradient.reshape(-1, f)
        for u, v in np.ndindex(*kernel_size):
            rows = slice(u, u + strides[0] * oh, strides[0])
            seen = x[:, rows, v : v + strides[1] * ow : strides[1]]
            grad[u, v] = seen.reshape(-1, x.shape[3]).T @ flat
        return grad


class KeepsTheImagesApart:
    """Keeps `n` in the einsum, which gives one gradient for each image."""

    def kernel_gradient(self, x, output_gradient, kernel_size, padding=((0, 0), (0, 0))):
        x = np.pad(x, ((0, 0), (0, 0), *padding))
        windows = sliding_window_view(x, output_gradient.shape[2:], axis=(2, 3))
        return np.einsum("ncuvhw,nfhw->nfcuv", windows, output_gradient, optimize=True)


class LastImageWins:
    """Writes `=` in the loop over images, where it takes `+=`."""

    def kernel_gradient(
        self,
        x,
        output_gradient,
        kernel_size,
        dilation_rate=(1, 1),
        strides=(1, 1),
    ):
        kh, kw = kernel_size
        (sh, sw), (dh, dw) = strides, dilation_rate
        filters, oh, ow = output_gradient.shape[1:]
        grad = np.zeros((filters, x.shape[1], kh, kw), x.dtype)
        for image, delta in zip(x, output_gradient, strict=True):
            for i in range(kh):
                for j in range(kw):
                    part = image[:, i * dh :: sh, j * dw :: sw][:, :oh, :ow]
                    grad[:, :, i, j] = np.tensordot(delta, part, axes=([1, 2], [1, 2]))
        return grad


class ColumnsTimesGradient:
    """Reshapes a product whose filters come last as if they came first."""

    def kernel_gradient(self, x, output_gradient, kernel_size, strides=1, padding=0):
        c = x.shape[1]
        f = output_gradient.shape[1]
        p = padding
        x = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
        windows = sliding_window_view(x, kernel_size, axis=(2, 3))[:, :, ::strides, ::strides]
        cols = windows.transpose(1, 4, 5, 0, 2, 3).reshape(c * kernel_size[0] * kernel_size[1], -1)
        dout = output_gradient.transpose(0, 2, 3, 1).reshape(-1, f)
        return np.dot(cols, dout).reshape(f, c, *kernel_size)


class TurnsTheGradientAround:
    """Rotates the output gradient by half a turn, as an input gradient does with its kernel."""

    def kernel_gradient(self, x, output_gradient, kernel_size):
        delta = np.rot90(output_gradient, 2, (2, 3))
        oh, ow = delta.shape[2:]
        dw = np.zeros((delta.shape[1], x.shape[1], *kernel_size), x.dtype)
        for f in range(dw.shape[0]):
            for c in range(dw.shape[1]):
                for u in range(kernel_size[0]):
                    for v in range(kernel_size[1]):
                        dw[f, c, u, v] = np.sum(
                            x[:, c, u : u + oh, v : v + ow] * delta[:, f], dtype=x.dtype
                        )
        return dw


class StopsBeforeTheLastWindow:
    """Loops over range(0, h - kh, stride), without the + 1: a window at the edge is lost."""

    def kernel_gradient(
        self, x, output_gradient, kernel_size, strides=(1, 1), padding=((0, 0), (0, 0))
    ):
        x = np.pad(x, ((0, 0), (0, 0), padding[0], padding[1]))
        _, c, h, w = x.shape
        kh, kw = kernel_size
        dw = np.zeros((output_gradient.shape[1], c, kh, kw), x.dtype)
        for i, y in enumerate(range(0, h - kh, strides[0])):
            for j, z in enumerate(range(0, w - kw, strides[1])):
                patch = x[:, :, y : y + kh, z : z + kw]
                dw += np.einsum("nf,ncuv->fcuv", output_gradient[:, :, i, j], patch)
        return dw


class NeighboursForStrides:
    """Correlates x with the output gradient as it is, as if windows stood side by side."""

    def kernel_gradient(self, x, output_gradient, kernel_size, strides=1, dilation_rate=1):
        oh, ow = output_gradient.shape[2:]
        d = dilation_rate
        rows = []
        for u in range(kernel_size[0]):
            row = []
            for v in range(kernel_size[1]):
                part = x[:, :, u * d : u * d + oh, v * d : v * d + ow]
                row.append(np.tensordot(output_gradient, part, axes=([0, 2, 3], [0, 2, 3])))
            rows.append(np.stack(row, axis=-1))
        return np.stack(rows, axis=-2)


class NoZeroGrad:
    """Adds to the gradient of the last call, and nobody sets it to zero."""

    def __init__(self, filters, kernel_size, strides=(1, 1), padding=((0, 0), (0, 0))):
        self.shape = (filters, kernel_size)
        self.strides, self.padding = strides, padding
        self.grad = 0.0

    def kernel_gradient(self, x, output_gradient, kernel_size):
        x = np.pad(x, ((0, 0), (0, 0), *self.padding))
        windows = sliding_window_view(x, kernel_size, axis=(2, 3))
        windows = windows[:, :, :: self.strides[0], :: self.strides[1]]
        self.grad = self.grad + np.tensordot(output_gradient, windows, ([0, 2, 3], [0, 2, 3]))
        return self.grad


class EveryOtherChannel:
    """Takes the channels of a group as `g::groups`, although they lie side by side."""

    def kernel_gradient(self, x, output_gradient, kernel_size, strides=(1, 1), groups=1):
        per_group = output_gradient.shape[1] // groups
        parts = []
        for g in range(groups):
            view = sliding_window_view(x[:, g::groups], kernel_size, axis=(2, 3))
            view = view[:, :, :: strides[0], :: strides[1]]
            delta = output_gradient[:, g * per_group : (g + 1) * per_group]
            parts.append(np.einsum("nfhw,nchwuv->fcuv", delta, view, optimize=True))
        return np.concatenate(parts, axis=0)


class PadsAtTheEnd:
    """Knows how many pads there are, and puts all of them below and to the right."""

    def kernel_gradient(
        self, x, output_gradient, kernel_size, strides=(1, 1), padding=((0, 0), (0, 0))
    ):
        n, c, h, w = x.shape
        larger = np.zeros((n, c, h + sum(padding[0]), w + sum(padding[1])), x.dtype)
        larger[:, :, :h, :w] = x
        grad = np.zeros((output_gradient.shape[1], c, *kernel_size), x.dtype)
        for i, j in np.ndindex(output_gradient.shape[2:]):
            y, z = i * strides[0], j * strides[1]
            patch = larger[:, :, y : y + kernel_size[0], z : z + kernel_size[1]]
            delta = output_gradient[:, :, i, j]
            grad += np.sum(delta[:, :, None, None, None] * patch[:, None], axis=0)
        return grad


class CentresTheGradient:
    """Subtracts the mean of each filter's gradient, which is the optimizer's business."""

    def kernel_gradient(self, x, output_gradient, kernel_size, padding=((0, 0), (0, 0))):
        x = np.pad(x, ((0, 0), (0, 0), *padding))
        windows = sliding_window_view(x, kernel_size, axis=(2, 3))
        grad = np.tensordot(output_gradient, windows, axes=([0, 2, 3], [0, 2, 3]))
        return grad - grad.mean(axis=(1, 2, 3), keepdims=True)


class ColumnsFirst:
    """Swaps the letters of the result: kernel columns come before rows."""

    def kernel_gradient(self, x, output_gradient, kernel_size, groups=1):
        n, c, h, w = x.shape
        _, f, oh, ow = output_gradient.shape
        view = sliding_window_view(x.reshape(n, groups, c // groups, h, w), (oh, ow), axis=(3, 4))
        delta = output_gradient.reshape(n, groups, f // groups, oh, ow)
        grad = np.einsum("ngcuvhw,ngfhw->gfcvu", view, delta, optimize=True)
        return grad.reshape(f, c // groups, *grad.shape[-2:])


class DescentStep:
    """Returns what to add to a kernel stored upside down: minus the gradient, turned around."""

    def kernel_gradient(self, x, output_gradient, kernel_size, strides=1):
        kh, kw = kernel_size
        grad = np.zeros((output_gradient.shape[1], x.shape[1], kh, kw), x.dtype)
        for n, image in enumerate(x):
            for (f, i, j), delta in np.ndenumerate(output_gradient[n]):
                y, z = i * strides, j * strides
                grad[f] -= delta * image[:, y : y + kh, z : z + kw]
        return grad[:, :, ::-1, ::-1]
