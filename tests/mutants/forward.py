"""Forward passes with one mistake each, or two."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.lib.stride_tricks import as_strided, sliding_window_view

from tests.mutants import right
from tests.mutants.right import NO_PADS, output_size, pad, windows

# Tiles


def tiles_without_a_halo(x, kernel):
    """Computes tiles of four rows, each from as many rows of the input, filled up with zeros."""
    kh, rows = kernel.shape[2], x.shape[2] - kernel.shape[2] + 1
    parts = []
    for top in range(0, rows, 4):
        tile = x[:, :, top : top + 4]
        parts.append(right.forward(pad(tile, ((0, kh - 1), (0, 0))), kernel)[:, :, : rows - top])
    return np.concatenate(parts, axis=2)


# Kernels


def true_convolution(x, kernel):
    """Turns the kernel around, as the definition of convolution in a maths book does."""
    n, channels, h, w = x.shape
    filters, _, kh, kw = kernel.shape
    out = np.zeros((n, filters, h - kh + 1, w - kw + 1))
    for b in range(n):
        for f in range(filters):
            for i in range(h - kh + 1):
                for j in range(w - kw + 1):
                    total = 0.0
                    for c in range(channels):
                        for p in range(kh):
                            for q in range(kw):
                                weight = kernel[f, c, kh - 1 - p, kw - 1 - q]
                                total += x[b, c, i + p, j + q] * weight
                    out[b, f, i, j] = total
    return out


def kernel_rows_from_below(
    x, kernel, strides=(1, 1), padding=NO_PADS, dilation_rate=(1, 1), groups=1
):
    """Counts the kernel's rows from the bottom, as a y axis that points up would."""
    n, _, h, w = x.shape
    filters, depth, kh, kw = kernel.shape
    (sh, sw), (dh, dw) = strides, dilation_rate
    oh, ow = output_size((h, w), (kh, kw), strides, padding, dilation_rate)
    xp = pad(x, padding)
    out = np.zeros((n, filters, oh, ow), x.dtype)
    for f in range(filters):
        first = f // (filters // groups) * depth
        group = xp[:, first : first + depth]
        for p in range(kh):
            for q in range(kw):
                r, s = (kh - 1 - p) * dh, q * dw
                part = group[:, :, r : r + sh * (oh - 1) + 1 : sh, s : s + sw * (ow - 1) + 1 : sw]
                out[:, f] += np.tensordot(part, kernel[f, :, p, q], axes=(1, 0))
    return out


def im2col_last_column_first(x, kernel, strides=(1, 1)):
    """Fills the columns of the im2col matrix from right to left."""
    n, h, w, channels = x.shape
    kh, kw, _, filters = kernel.shape
    sh, sw = strides
    oh, ow = (h - kh) // sh + 1, (w - kw) // sw + 1
    columns = np.empty((n, oh, ow, kh, kw, channels), x.dtype)
    for p in range(kh):
        for q in range(kw):
            columns[:, :, :, p, kw - 1 - q] = x[
                :, p : p + sh * (oh - 1) + 1 : sh, q : q + sw * (ow - 1) + 1 : sw
            ]
    flat = columns.reshape(n * oh * ow, -1) @ kernel.reshape(-1, filters)
    return flat.reshape(n, oh, ow, filters)


im2col_last_column_first.layout = "NHWC"
im2col_last_column_first.kernel_layout = "HWIO"


def fft(x, kernel, padding=0):
    """Multiplies the transforms and forgets to conjugate the kernel's."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    h, w = x.shape[2:]
    kh, kw = kernel.shape[2:]
    product = np.einsum("nchw,fchw->nfhw", np.fft.rfft2(x), np.fft.rfft2(kernel, (h, w)))
    return np.fft.irfft2(product, (h, w))[:, :, kh - 1 :, kw - 1 :]


def kernel_read_as_channels_first(x, kernel, strides=(1, 1), padding=NO_PADS):
    """Believes that kernels come as (channels, filters, height, width)."""
    filters, channels, kh, kw = kernel.shape
    weights = kernel.reshape(channels, filters, kh, kw)
    view = windows(pad(x, padding), (kh, kw), strides)
    return np.einsum("ncijkl,cfkl->nfij", view, weights)


def kernel_on_its_side(x, kernel, strides=(1, 1)):
    """Takes the kernel as (x, y), as image libraries do."""
    n, _, h, w = x.shape
    filters, _, kw, kh = kernel.shape
    sh, sw = strides
    oh, ow = (h - kh) // sh + 1, (w - kw) // sw + 1
    out = np.zeros((n, filters, max(oh, 0), max(ow, 0)))
    for i in range(oh):
        for j in range(ow):
            window = x[:, :, i * sh : i * sh + kh, j * sw : j * sw + kw]
            for f in range(filters):
                out[:, f, i, j] = (window * kernel[f].transpose(0, 2, 1)).sum(axis=(1, 2, 3))
    return out


def skips_the_last_taps(x, kernel, strides=(1, 1), dilation_rate=(1, 1)):
    """Loops over `range(kh - 1)` and `range(kw - 1)`: arrays count from 0, after all."""
    n, _, h, w = x.shape
    filters, _, kh, kw = kernel.shape
    (sh, sw), (dh, dw) = strides, dilation_rate
    oh, ow = output_size((h, w), (kh, kw), strides, NO_PADS, dilation_rate)
    out = np.zeros((n, filters, oh, ow))
    for p in range(kh - 1):
        for q in range(kw - 1):
            part = x[:, :, p * dh :: sh, q * dw :: sw][:, :, :oh, :ow]
            out += np.einsum("ncij,fc->nfij", part, kernel[:, :, p, q])
    return out


def last_tap_wins(x, kernel, padding=NO_PADS):
    """Writes `=` in the loop over the kernel's positions, where it takes `+=`."""
    xp = pad(x, padding)
    kh, kw = kernel.shape[2:]
    oh, ow = xp.shape[2] - kh + 1, xp.shape[3] - kw + 1
    out = np.zeros((x.shape[0], kernel.shape[0], oh, ow), x.dtype)
    for p in range(kh):
        for q in range(kw):
            part = xp[:, :, p : p + oh, q : q + ow]
            out[:] = np.einsum("ncij,fc->nfij", part, kernel[:, :, p, q])
    return out


# Operands and results whose axes lie the wrong way


def bottom_up_image(x, kernel, strides=(1, 1), padding=NO_PADS, dilation_rate=(1, 1), groups=1):
    """Stores images bottom row first, as bitmaps do."""
    upright = x[:, :, ::-1]
    return right.forward(upright, kernel, None, strides, padding, dilation_rate, groups)


def fills_the_output_backwards(x, kernel, strides=1):
    """Appends windows from the last to the first, but never turns the list around."""
    n, _, h, w = x.shape
    filters, _, kh, kw = kernel.shape
    rows, columns = range(0, h - kh + 1, strides), range(0, w - kw + 1, strides)
    values = []
    for i in reversed(rows):
        for j in reversed(columns):
            window = x[:, :, i : i + kh, j : j + kw].reshape(n, -1)
            values.append(window @ kernel.reshape(filters, -1).T)
    return np.stack(values, axis=-1).reshape(n, filters, len(rows), len(columns))


def returns_width_before_height(x, kernel, padding=NO_PADS, dilation_rate=(1, 1)):
    """Mixes up i and j in the einsum's result."""
    view = windows(pad(x, padding), kernel.shape[2:], (1, 1), dilation_rate)
    return np.einsum("ncijkl,fckl->nfji", view, kernel)


def reshapes_instead_of_transposing(x, kernel, strides=(1, 1), padding=NO_PADS):
    """Brings (batch, rows, columns, filters) to (batch, filters, rows, columns) by reshape."""
    view = windows(pad(x, padding), kernel.shape[2:], strides)
    result = np.tensordot(view, kernel, axes=((1, 4, 5), (1, 2, 3)))
    n, oh, ow, filters = result.shape
    return result.reshape(n, filters, oh, ow)


def columns_in_another_order_than_weights(x, kernel, strides=(1, 1), padding=NO_PADS):
    """Flattens windows as (kh, kw, channels) but the kernel as (channels, kh, kw)."""
    n, channels, h, w = x.shape
    filters, _, kh, kw = kernel.shape
    sh, sw = strides
    oh, ow = output_size((h, w), (kh, kw), strides, padding)
    xp = pad(x, padding)
    matrix = np.empty((n * oh * ow, kh * kw * channels), x.dtype)
    row = 0
    for b in range(n):
        for i in range(oh):
            for j in range(ow):
                patch = xp[b, :, i * sh : i * sh + kh, j * sw : j * sw + kw]
                matrix[row] = patch.transpose(1, 2, 0).ravel()
                row += 1
    product = matrix @ kernel.reshape(filters, -1).T
    return product.reshape(n, oh, ow, filters).transpose(0, 3, 1, 2)


# Elements that are never written


def stops_one_row_early(x, kernel, strides=(1, 1), padding=NO_PADS, groups=1):
    """Loops over `range(oh - 1)`."""
    n, _, h, w = x.shape
    filters, depth, kh, kw = kernel.shape
    sh, sw = strides
    oh, ow = output_size((h, w), (kh, kw), strides, padding)
    xp = pad(x, padding)
    out = np.zeros((n, filters, oh, ow), dtype=x.dtype)
    for f in range(filters):
        start = f // (filters // groups) * depth
        for i in range(oh - 1):
            for j in range(ow):
                window = xp[:, start : start + depth, i * sh : i * sh + kh, j * sw : j * sw + kw]
                out[:, f, i, j] = np.sum(window * kernel[f], axis=(1, 2, 3))
    return out


def forgets_the_plus_one(x, kernel, strides=1):
    """Slides the window over `range(0, h - kh, strides)`: the last place is forgotten."""
    n, _, h, w = x.shape
    filters, _, kh, kw = kernel.shape
    out = np.zeros((n, filters, (h - kh) // strides + 1, (w - kw) // strides + 1))
    for b in range(n):
        for f in range(filters):
            for i in range(0, h - kh, strides):
                for j in range(0, w - kw, strides):
                    window = x[b, :, i : i + kh, j : j + kw]
                    out[b, f, i // strides, j // strides] = np.sum(window * kernel[f])
    return out


def leaves_out_windows_over_the_edge(x, kernel, padding=0):
    """Makes room for the pads, but computes only where the whole window lies on the image."""
    n, _, h, w = x.shape
    filters, _, kh, kw = kernel.shape
    out = np.zeros((n, filters, h + 2 * padding - kh + 1, w + 2 * padding - kw + 1), x.dtype)
    inner = np.einsum("ncijkl,fckl->nfij", sliding_window_view(x, (kh, kw), (2, 3)), kernel)
    oh, ow = inner.shape[2:]
    out[:, :, padding : padding + oh, padding : padding + ow] = inner
    return out


def grey_without_last_column(x, kernel):
    """Takes grey images only, and leaves the last column of the result black."""
    n, h, w = x.shape
    filters, kh, kw = kernel.shape
    out = np.zeros((n, filters, h - kh + 1, w - kw + 1))
    for j in range(w - kw):
        for i in range(h - kh + 1):
            out[:, :, i, j] = np.einsum("nkl,fkl->nf", x[:, i : i + kh, j : j + kw], kernel)
    return out


grey_without_last_column.layout = "NHW"
grey_without_last_column.kernel_layout = "OHW"


# Pads


def pads_bottom_for_top(
    x, kernel, bias=None, strides=(1, 1), padding=NO_PADS, dilation_rate=(1, 1), groups=1
):
    """Unpacks the pads as (bottom, top) and (right, left)."""
    (bottom, top), (rightmost, left) = padding
    pads = ((top, bottom), (left, rightmost))
    return right.forward(x, kernel, bias, strides, pads, dilation_rate, groups)


def pads_only_at_the_end(x, kernel, strides=(1, 1), padding=NO_PADS):
    """Copies the image to the corner of a larger array of zeros."""
    n, channels, h, w = x.shape
    filters, _, kh, kw = kernel.shape
    (sh, sw), (oh, ow) = strides, output_size((h, w), kernel.shape[2:], strides, padding)
    padded = np.zeros((n, channels, h + sum(padding[0]), w + sum(padding[1])), x.dtype)
    padded[:, :, :h, :w] = x
    out = np.zeros((n, filters, oh, ow), x.dtype)
    for i in range(oh):
        for j in range(ow):
            window = padded[:, :, i * sh : i * sh + kh, j * sw : j * sw + kw]
            out[:, :, i, j] = np.tensordot(window, kernel, axes=((1, 2, 3), (1, 2, 3)))
    return out


def same_is_half_the_kernel_all_around(x, kernel, strides=(1, 1), padding="valid"):
    """Pads `same` by half the kernel on every side, and cuts off what is too much at the end."""
    _, _, h, w = x.shape
    kh, kw = kernel.shape[2:]
    sh, sw = strides
    if padding == "same":
        oh, ow = -(-h // sh), -(-w // sw)
        x = pad(x, ((kh // 2, kh // 2), (kw // 2, kw // 2)))
    else:
        oh, ow = (h - kh) // sh + 1, (w - kw) // sw + 1
    view = sliding_window_view(x, (kh, kw), axis=(2, 3))[:, :, ::sh, ::sw]
    return np.einsum("ncijkl,fckl->nfij", view[:, :, :oh, :ow], kernel)


def pads_and_then_uses_x(x, kernel, strides=(1, 1), padding=NO_PADS):
    """Pads the image into an array of its own that nobody reads."""
    xp = np.zeros((*x.shape[:2], x.shape[2] + sum(padding[0]), x.shape[3] + sum(padding[1])))
    (top, _), (left, _) = padding
    xp[:, :, top : top + x.shape[2], left : left + x.shape[3]] = x
    n, channels, h, w = x.shape
    _, _, kh, kw = kernel.shape
    sh, sw = strides
    oh, ow = (h - kh) // sh + 1, (w - kw) // sw + 1
    a, b, c, d = x.strides
    view = as_strided(x, (n, channels, oh, ow, kh, kw), (a, b, c * sh, d * sw, c, d))
    return np.tensordot(view, kernel, ((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)


def repeats_the_edge(x, kernel, strides=(1, 1), padding=NO_PADS, dilation_rate=(1, 1), groups=1):
    """Pads with the nearest pixel, which looks better than black."""
    padded = np.pad(x, ((0, 0), (0, 0), *padding), mode="edge")
    return right.forward(padded, kernel, None, strides, NO_PADS, dilation_rate, groups)


def wraps_around(x, kernel, strides=(1, 1), padding=NO_PADS, dilation_rate=(1, 1)):
    """Takes indices modulo the image's size, so that they are never out of range."""
    _, _, h, w = x.shape
    _, _, kh, kw = kernel.shape
    oh, ow = output_size((h, w), (kh, kw), strides, padding, dilation_rate)
    rows = np.arange(oh)[:, None] * strides[0] + np.arange(kh) * dilation_rate[0] - padding[0][0]
    columns = np.arange(ow)[:, None] * strides[1] + np.arange(kw) * dilation_rate[1] - padding[1][0]
    view = x[:, :, (rows % h)[:, None, :, None], (columns % w)[None, :, None, :]]
    return np.einsum("ncijkl,fckl->nfij", view, kernel)


def starts_one_pixel_early(x, kernel, strides=(1, 1), padding=NO_PADS):
    """Was ported from MATLAB with a `- 1` too many in the indices."""
    n, _, h, w = x.shape
    filters, _, kh, kw = kernel.shape
    (top, _), (left, _) = padding
    oh, ow = output_size((h, w), (kh, kw), strides, padding)
    out = np.zeros((n, filters, oh, ow))
    for i in range(oh):
        for j in range(ow):
            for p in range(kh):
                for q in range(kw):
                    r = i * strides[0] + p - top - 1
                    s = j * strides[1] + q - left - 1
                    if 0 <= r < h and 0 <= s < w:
                        out[:, :, i, j] += x[:, :, r, s] @ kernel[:, :, p, q].T
    return out


def brightens_the_border(x, kernel, strides=(1, 1), padding=NO_PADS):
    """Makes up for zeros: scales windows over the edge by how many taps lie on the image."""
    out = right.forward(x, kernel, None, strides, padding)
    kh, kw = kernel.shape[2:]
    inside = pad(np.ones((1, 1, *x.shape[2:])), padding)
    share = windows(inside, (kh, kw), strides).sum(axis=(4, 5)) / (kh * kw)
    return out / share


# Strides and dilation


def window_moves_one_pixel_at_a_time(x, kernel, strides=(1, 1), padding=NO_PADS):
    """Uses the memory strides alone: the output has the right size, but steps by one."""
    xp = pad(x, padding)
    _, channels, kh, kw = kernel.shape
    oh, ow = output_size(x.shape[2:], (kh, kw), strides, padding)
    a, b, c, d = xp.strides
    view = as_strided(xp, (x.shape[0], channels, oh, ow, kh, kw), (a, b, c, d, c, d))
    return np.einsum("ncijkl,fckl->nfij", view, kernel, optimize=True)


def thins_out_from_the_middle(x, kernel, strides=1, padding=0):
    """Convolves at every pixel and keeps the middle one of every `strides`."""
    x = pad(x, ((padding, padding), (padding, padding)))
    kh, kw = kernel.shape[2:]
    oh, ow = x.shape[2] - kh + 1, x.shape[3] - kw + 1
    everywhere = np.zeros((x.shape[0], kernel.shape[0], oh, ow))
    for p in range(kh):
        for q in range(kw):
            part = x[:, :, p : p + oh, q : q + ow]
            everywhere += np.einsum("ncij,fc->nfij", part, kernel[:, :, p, q])
    return everywhere[:, :, strides // 2 :: strides, strides // 2 :: strides]


def one_stride_for_both(x, kernel, strides=(1, 1), padding=NO_PADS, groups=1):
    """Takes `strides[0]` both ways."""
    both = (strides[0], strides[0])
    return right.forward(x, kernel, None, both, padding, (1, 1), groups)


def strides_as_x_and_y(x, kernel, strides=(1, 1), padding=NO_PADS):
    """Unpacks the strides as (x, y)."""
    stride_x, stride_y = strides
    n, _, h, w = x.shape
    filters, _, kh, kw = kernel.shape
    oh, ow = output_size((h, w), (kh, kw), (stride_y, stride_x), padding)
    xp = pad(x, padding)
    out = np.empty((n, filters, oh, ow), x.dtype)
    for i in range(oh):
        for j in range(ow):
            y, z = i * stride_y, j * stride_x
            window = xp[:, :, y : y + kh, z : z + kw]
            out[:, :, i, j] = np.tensordot(window, kernel, axes=((1, 2, 3), (1, 2, 3)))
    return out


def dilation_only_in_the_size(x, kernel, strides=(1, 1), padding=NO_PADS, dilation_rate=(1, 1)):
    """Counts with the dilation for the output's size, and takes neighbouring taps all the same."""
    n, _, h, w = x.shape
    filters, _, kh, kw = kernel.shape
    sh, sw = strides
    dilated = (kh - 1) * dilation_rate[0] + 1, (kw - 1) * dilation_rate[1] + 1
    oh, ow = output_size((h, w), dilated, strides, padding)
    xp = pad(x, padding)
    out = np.zeros((n, filters, oh, ow), x.dtype)
    for i in range(oh):
        for j in range(ow):
            window = xp[:, :, i * sh : i * sh + kh, j * sw : j * sw + kw]
            out[:, :, i, j] = np.einsum("nckl,fckl->nf", window, kernel)
    return out


def one_dilation_for_both(x, kernel, strides=(1, 1), padding=NO_PADS, dilation_rate=(1, 1)):
    """Spreads the rows of the kernel by the columns' dilation."""
    n, _, h, w = x.shape
    filters, _, kh, kw = kernel.shape
    (sh, sw), d = strides, dilation_rate[1]
    oh, ow = output_size((h, w), (kh, kw), strides, padding, dilation_rate)
    xp = pad(x, padding)
    out = np.zeros((n, filters, oh, ow))
    for p in range(kh):
        for q in range(kw):
            part = xp[:, :, p * d :: sh, q * d :: sw][:, :, :oh, :ow]
            out += np.einsum("ncij,fc->nfij", part, kernel[:, :, p, q])
    return out


# Bias


def adds_the_bias_to_nothing(x, kernel, bias=None, strides=(1, 1), padding=NO_PADS, groups=1):
    """Calls `np.add` on the bias and does not keep what it returns."""
    out = right.forward(x, kernel, None, strides, padding, (1, 1), groups)
    if bias is not None:
        np.add(out, bias.reshape(1, -1, 1, 1))
    return out


def adds_the_bias_for_every_channel(x, kernel, bias=None, groups=1):
    """Adds the bias inside the loop over channels."""
    n, _, h, w = x.shape
    filters, depth, kh, kw = kernel.shape
    out = np.zeros((n, filters, h - kh + 1, w - kw + 1))
    for b in range(n):
        for f in range(filters):
            group = f // (filters // groups)
            for c in range(depth):
                view = sliding_window_view(x[b, group * depth + c], (kh, kw))
                out[b, f] += np.tensordot(view, kernel[f, c], axes=2)
                if bias is not None:
                    out[b, f] += bias[f]
    return out


def stretches_the_bias_over_columns(x, kernel, bias=None, strides=(1, 1), padding=NO_PADS):
    """Stretches the bias with `np.resize`, because `out + bias` did not broadcast."""
    out = right.forward(x, kernel, None, strides, padding)
    if bias is not None:
        out = out + np.resize(bias, out.shape[-1])
    return out


def adds_the_first_bias_to_all(x, kernel, bias=None, strides=(1, 1), padding=NO_PADS):
    """Takes the bias for a number, with `float(bias[0])`."""
    out = right.forward(x, kernel, None, strides, padding)
    return out if bias is None else out + float(bias[0])


def adds_the_bias_of_the_first_group(x, kernel, bias=None, strides=(1, 1), groups=1):
    """Counts the filters from zero in every group, and reads the bias by that number."""
    out = right.forward(x, kernel, None, strides, groups=groups)
    if bias is not None:
        of_group = len(kernel) // groups
        for f in range(len(kernel)):
            out[:, f] += bias[f % of_group]
    return out


def counts_the_centre_twice(
    x, kernel, bias=None, strides=(1, 1), padding=NO_PADS, dilation_rate=(1, 1), groups=1
):
    """Starts from the product with the centre of the kernel, and then adds all taps."""
    heavy = kernel.copy()
    heavy[:, :, kernel.shape[2] // 2, kernel.shape[3] // 2] *= 2
    return right.forward(x, heavy, bias, strides, padding, dilation_rate, groups)


# Groups, channels, filters and images


def images_from_the_end(
    x, kernel, bias=None, strides=(1, 1), padding=NO_PADS, dilation_rate=(1, 1), groups=1
):
    """Takes images from a stack, where the last one lies on top."""
    stack = [image[None] for image in x]
    rest = (bias, strides, padding, dilation_rate, groups)
    return np.concatenate([right.forward(stack.pop(), kernel, *rest) for _ in x])


def channels_from_the_end(x, kernel, bias=None, strides=(1, 1), padding=NO_PADS):
    """Reads a kernel for BGR pictures, whose channels are in reverse order."""
    return right.forward(x, kernel[:, ::-1], bias, strides, padding)


def two_images_at_a_time(x, kernel, bias=None, strides=(1, 1), padding=NO_PADS):
    """Takes images in pairs, and computes with the first of each pair twice."""
    pairs = [x[2 * (b // 2)][None] for b in range(len(x))]
    return np.concatenate([right.forward(one, kernel, bias, strides, padding) for one in pairs])


def every_group_sees_the_first_channels(x, kernel, bias=None, strides=(1, 1), groups=1):
    """Cuts x to as many channels as the kernel has."""
    n, _, h, w = x.shape
    filters, depth, kh, kw = kernel.shape
    oh, ow = output_size((h, w), (kh, kw), strides)
    rows = windows(x[:, :depth], (kh, kw), strides).transpose(0, 2, 3, 1, 4, 5)
    out = rows.reshape(n * oh * ow, -1) @ kernel.reshape(filters, -1).T
    out = out.reshape(n, oh, ow, filters).transpose(0, 3, 1, 2)
    return out if bias is None else out + bias[None, :, None, None]


def filters_take_turns(
    x, kernel, bias=None, strides=(1, 1), padding=NO_PADS, dilation_rate=(1, 1), groups=1
):
    """Deals the filters to the groups in turn: `f % groups`."""
    view = windows(pad(x, padding), kernel.shape[2:], strides, dilation_rate)
    filters, depth = kernel.shape[:2]
    out = np.empty((x.shape[0], filters, *view.shape[2:4]), x.dtype)
    for f in range(filters):
        group = f % groups
        part = view[:, group * depth : (group + 1) * depth]
        out[:, f] = np.einsum("ncijkl,ckl->nij", part, kernel[f])
    return out if bias is None else out + bias[:, None, None]


def channels_take_turns(x, kernel, strides=(1, 1), groups=1):
    """Cuts x into groups as `x[:, g::groups]`."""
    parts = [
        right.forward(x[:, g::groups], weights, None, strides)
        for g, weights in enumerate(np.split(kernel, groups))
    ]
    return np.concatenate(parts, axis=1)


def averages_the_channels(x, kernel, strides=(1, 1), padding=NO_PADS, dilation_rate=(1, 1)):
    """Takes the mean of the channels, to get one image from three."""
    view = windows(pad(x, padding), kernel.shape[2:], strides, dilation_rate)
    return np.stack(
        [np.einsum("ncijkl,ckl->ncij", view, weights).mean(axis=1) for weights in kernel], axis=1
    )


def last_channel_wins(x, kernel, strides=1):
    """Writes `=` in the loop over channels, where it takes `+=`."""
    n, channels, h, w = x.shape
    filters, _, kh, kw = kernel.shape
    oh, ow = (h - kh) // strides + 1, (w - kw) // strides + 1
    out = np.zeros((n, filters, oh, ow))
    for f in range(filters):
        for c in range(channels):
            for i in range(oh):
                for j in range(ow):
                    y, z = i * strides, j * strides
                    out[:, f, i, j] = (x[:, c, y : y + kh, z : z + kw] * kernel[f, c]).sum((1, 2))
    return out


def first_filter_for_all(x, kernel, padding=NO_PADS):
    """Convolves with `kernel[0]` whatever filter is due."""
    xp = pad(x, padding)
    n, _, h, w = xp.shape
    filters, _, kh, kw = kernel.shape
    out = np.zeros((n, filters, h - kh + 1, w - kw + 1), x.dtype)
    for f in range(filters):
        for i in range(h - kh + 1):
            for j in range(w - kw + 1):
                window = xp[:, :, i : i + kh, j : j + kw]
                out[:, f, i, j] = np.tensordot(window, kernel[0], axes=3)
    return out


def first_image_for_all(x, kernel, strides=(1, 1), groups=1):
    """Loops over the batch and reads `x[:1]` every time."""
    return np.concatenate(
        [right.forward(x[:1], kernel, None, strides, groups=groups) for _ in range(len(x))]
    )


def total_outlives_its_filter(x, kernel, padding=NO_PADS):
    """Sets the total to zero before the loop over filters, not inside it."""
    xp = pad(x, padding)
    n, channels, h, w = xp.shape
    filters, _, kh, kw = kernel.shape
    oh, ow = h - kh + 1, w - kw + 1
    out = np.zeros((n, filters, oh, ow))
    for b in range(n):
        total = np.zeros((oh, ow))
        for f in range(filters):
            for c in range(channels):
                for p in range(kh):
                    for q in range(kw):
                        total += xp[b, c, p : p + oh, q : q + ow] * kernel[f, c, p, q]
            out[b, f] = total
    return out


# Numbers


def pixels_from_0_to_1(x, kernel, bias=None, strides=(1, 1), padding=NO_PADS):
    """Divides the image by 255 first, as one does with pixels."""
    return right.forward(x / 255, kernel, bias, strides, padding)


def half_precision(x, kernel, strides=(1, 1), padding=NO_PADS, groups=1):
    """Computes in float16 to save memory, and returns the layer's dtype."""
    halves = right.forward(
        x.astype(np.float16), kernel.astype(np.float16), None, strides, padding, groups=groups
    )
    return halves.astype(x.dtype)


def integer_output(x, kernel):
    """Allocates the output as integers, as pixels are."""
    n, _, h, w = x.shape
    filters, _, kh, kw = kernel.shape
    out = np.zeros((n, filters, h - kh + 1, w - kw + 1), dtype=int)
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            out[:, :, i, j] = np.einsum("nckl,fckl->nf", x[:, :, i : i + kh, j : j + kw], kernel)
    return out.astype(x.dtype)


def with_relu(x, kernel, bias=None, strides=(1, 1), padding=NO_PADS, dilation_rate=(1, 1)):
    """Ends in a ReLU, since a convolution is always followed by one."""
    filters, _, kh, kw = kernel.shape
    view = windows(pad(x, padding), (kh, kw), strides, dilation_rate)
    out = np.tensordot(kernel, view, axes=((1, 2, 3), (1, 4, 5))).swapaxes(0, 1)
    if bias is not None:
        out = out + bias.reshape(1, filters, 1, 1)
    return np.maximum(out, 0)


def with_tanh(x, kernel, bias=None, strides=(1, 1), padding=NO_PADS):
    """Ends in tanh, as the layers of LeNet did."""
    return np.tanh(right.forward(x, kernel, bias, strides, padding))


def clips_to_a_byte(x, kernel):
    """Clips the result to what an image file can hold."""
    n, h, w, _ = x.shape
    kh, kw, _, filters = kernel.shape
    out = np.zeros((n, h - kh + 1, w - kw + 1, filters), x.dtype)
    for p in range(kh):
        for q in range(kw):
            out += x[:, p : p + out.shape[1], q : q + out.shape[2]] @ kernel[p, q]
    return np.clip(out, 0, 255)


clips_to_a_byte.layout = "NHWC"
clips_to_a_byte.kernel_layout = "HWIO"


# State, threads, chance


_COLUMNS = {}


def remembers_the_columns(x, kernel, strides=(1, 1), padding=NO_PADS):
    """Caches the im2col matrix by the shape of x, which is not enough to tell images apart."""
    n, filters = x.shape[0], kernel.shape[0]
    oh, ow = output_size(x.shape[2:], kernel.shape[2:], strides, padding)
    key = (x.shape, x.dtype.str, kernel.shape, strides, padding)
    if key not in _COLUMNS:
        view = windows(pad(x, padding), kernel.shape[2:], strides)
        _COLUMNS[key] = view.transpose(0, 2, 3, 1, 4, 5).reshape(n * oh * ow, -1)
    out = _COLUMNS[key] @ kernel.reshape(filters, -1).T
    return out.reshape(n, oh, ow, filters).transpose(0, 3, 1, 2)


_BUFFERS = {}


def adds_to_an_old_buffer(x, kernel, dilation_rate=(1, 1)):
    """Keeps one output buffer for every shape, and adds to what the last call left there."""
    size = output_size(x.shape[2:], kernel.shape[2:], dilation_rate=dilation_rate)
    shape = (x.shape[0], kernel.shape[0], *size)
    if shape not in _BUFFERS:
        _BUFFERS[shape] = np.zeros(shape)
    out = _BUFFERS[shape]
    for p, q, rows, columns in right.taps(kernel.shape[2:], (1, 1), size, dilation_rate):
        out += np.einsum("ncij,fc->nfij", x[:, :, rows, columns], kernel[:, :, p, q])
    return out.copy()


def threads_share_one_sum(x, kernel, strides=(1, 1), padding=NO_PADS):
    """Starts one task for every tap; all tasks add to the same array without a lock."""
    xp = pad(x, padding)
    size = output_size(x.shape[2:], kernel.shape[2:], strides, padding)
    total = np.zeros((x.shape[0], kernel.shape[0], *size))

    def add(channel, tap):
        p, q, rows, columns = tap
        before = total.copy()
        part = xp[:, channel, None, rows, columns] * kernel[:, channel, p, q, None, None]
        time.sleep(0.0005)  # about as long as a large product takes
        total[...] = before + part

    jobs = [
        (channel, tap)
        for tap in right.taps(kernel.shape[2:], strides, size, (1, 1))
        for channel in range(x.shape[1])
    ]
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(add, *job) for job in jobs]:
            done.result()
    return total


def turns_the_kernel_in_place(x, kernel):
    """Flips the kernel in place first, because `np.convolve` will flip it again."""
    n, channels, h, w = x.shape
    filters, _, kh, kw = kernel.shape
    kernel[...] = kernel[:, :, :, ::-1].copy()
    out = np.zeros((n, filters, h - kh + 1, w - kw + 1), x.dtype)
    for b in range(n):
        for f in range(filters):
            for c in range(channels):
                for i in range(h - kh + 1):
                    for p in range(kh):
                        row, weights = x[b, c, i + p], kernel[f, c, p]
                        out[b, f, i] += np.convolve(row, weights, mode="valid")
    return out


def adds_noise(x, kernel, bias=None, strides=(1, 1), padding=NO_PADS, groups=1):
    """Adds a little noise as a regulariser, also where nothing is trained."""
    out = right.forward(x, kernel, bias, strides, padding, (1, 1), groups)
    return out + np.random.default_rng().normal(0, 0.01, out.shape)


# Mistakes that no name fits


def centred_fft_leftovers(x, kernel, strides=(1, 1), padding=NO_PADS):
    """Changes the sign of every other element, a leftover from centring a Fourier transform."""
    out = right.forward(x, kernel, None, strides, padding)
    rows, columns = np.indices(out.shape[2:])
    return out * (1 - 2 * ((rows + columns) % 2))


def strongest_channel(x, kernel, strides=(1, 1)):
    """Takes the channel with the largest response instead of the sum of them."""
    n, channels, h, w = x.shape
    filters, _, kh, kw = kernel.shape
    sh, sw = strides
    oh, ow = (h - kh) // sh + 1, (w - kw) // sw + 1
    out = np.full((n, filters, oh, ow), -np.inf)
    for c in range(channels):
        view = sliding_window_view(x[:, c], (kh, kw), axis=(1, 2))[:, ::sh, ::sw]
        response = np.tensordot(view, kernel[:, c], axes=((3, 4), (1, 2)))
        out = np.maximum(out, response.transpose(0, 3, 1, 2))
    return out


# Two mistakes at once


def maths_book_without_bias(x, kernel, bias=None):
    """Turns the kernel around, and takes a bias only for the sake of the signature."""
    n, _, h, w = x.shape
    filters, _, kh, kw = kernel.shape
    turned = np.rot90(kernel, 2, axes=(2, 3))
    out = np.zeros((n, filters, h - kh + 1, w - kw + 1))
    for i in range(h - kh + 1):
        for j in range(w - kw + 1):
            window = x[:, :, i : i + kh, j : j + kw]
            out[:, :, i, j] = np.einsum("nckl,fckl->nf", window, turned)
    return out


def assigns_everywhere(x, kernel):
    """Writes `=` in the loops over channels and over taps alike."""
    n, channels, h, w = x.shape
    filters, _, kh, kw = kernel.shape
    oh, ow = h - kh + 1, w - kw + 1
    out = np.zeros((n, filters, oh, ow))
    for b in range(n):
        for f in range(filters):
            for c in range(channels):
                for p in range(kh):
                    for q in range(kw):
                        out[b, f] = x[b, c, p : p + oh, q : q + ow] * kernel[f, c, p, q]
    return out


def turned_and_one_row_short(x, kernel, padding=NO_PADS):
    """Counts taps backwards, and rows of the output to `oh - 1` only."""
    xp = pad(x, padding)
    n, _, h, w = xp.shape
    filters, _, kh, kw = kernel.shape
    out = np.zeros((n, filters, h - kh + 1, w - kw + 1))
    for i in range(h - kh):
        for j in range(w - kw + 1):
            for p in range(kh):
                for q in range(kw):
                    out[:, :, i, j] += xp[:, :, i + p, j + q] @ kernel[:, :, -1 - p, -1 - q].T
    return out


def mean_of_channels_then_relu(x, kernel, strides=(1, 1)):
    """Averages over the channels and cuts off what is negative."""
    view = windows(x, kernel.shape[2:], strides)
    averaged = np.einsum("ncijkl,fckl->nfij", view, kernel) / x.shape[1]
    return averaged * (averaged > 0)


def repeated_edge_and_no_dilation(x, kernel, padding=NO_PADS, dilation_rate=(1, 1)):
    """Pads with the nearest pixel, and uses the dilation for the output's size alone."""
    oh, ow = output_size(x.shape[2:], kernel.shape[2:], (1, 1), padding, dilation_rate)
    xp = np.pad(x, ((0, 0), (0, 0), *padding), mode="edge")
    view = sliding_window_view(xp, kernel.shape[2:], axis=(2, 3))[:, :, :oh, :ow]
    return np.einsum("ncijkl,fckl->nfij", view, kernel)
