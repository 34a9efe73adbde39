"""Kernel gradients with one mistake each, or two."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.lib.stride_tricks import as_strided

from tests.mutants import right
from tests.mutants.right import NO_PADS, pad, taps, windows

# Operands and results whose axes lie the wrong way


class FlipsOutputGradient:
    """Rotates the output gradient, as the input gradient does with the kernel."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size, strides=(1, 1), padding=NO_PADS):
        view = windows(pad(x, padding), kernel_size, strides)
        rotated = np.rot90(output_gradient, 2, axes=(2, 3))
        return np.einsum("ncijkl,nfij->fckl", view, rotated)


class ReadsGradientRowsBackwards:
    """Walks through the output gradient from its last row."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size, strides=(1, 1)):
        n, filters, oh, ow = output_gradient.shape
        kh, kw = kernel_size
        result = np.zeros((filters, x.shape[1], kh, kw))
        for b in range(n):
            for f in range(filters):
                for i in range(oh):
                    for j in range(ow):
                        y, z = i * strides[0], j * strides[1]
                        window = x[b, :, y : y + kh, z : z + kw]
                        result[f] += output_gradient[b, f, oh - 1 - i, j] * window
        return result


class ConvolvesInsteadOfCorrelating:
    """Convolves x with the gradient through `np.convolve`, row by row, as in the maths book."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size):
        n, filters, oh, _ = output_gradient.shape
        kh, kw = kernel_size
        result = np.zeros((filters, x.shape[1], kh, kw), x.dtype)
        for f in range(filters):
            for c in range(x.shape[1]):
                for p in range(kh):
                    for b in range(n):
                        for i in range(oh):
                            row, weights = x[b, c, p + i], output_gradient[b, f, i]
                            result[f, c, p] += np.convolve(row, weights, mode="valid")
        return result


class FlipsItsResult:
    """Rotates the result at the end, to be on the safe side."""

    @staticmethod
    def kernel_gradient(
        x, output_gradient, kernel_size, strides=(1, 1), padding=NO_PADS, dilation_rate=(1, 1)
    ):
        filters, channels = output_gradient.shape[1], x.shape[1]
        result = np.zeros((filters, channels, *kernel_size), x.dtype)
        xp, size = pad(x, padding), output_gradient.shape[2:]
        for p, q, rows, columns in taps(kernel_size, strides, size, dilation_rate):
            result[:, :, p, q] = np.einsum(
                "ncij,nfij->fc", xp[:, :, rows, columns], output_gradient
            )
        return result[:, :, ::-1, ::-1]


class MirrorImages:
    """Reads the images mirrored left to right."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size, strides=(1, 1), groups=1):
        mirrored = np.fliplr(x.transpose(2, 3, 0, 1)).transpose(2, 3, 0, 1)
        return right.kernel_gradient(mirrored, output_gradient, kernel_size, strides, groups=groups)


class ChannelsBeforeFilters:
    """Returns (channels, filters, kh, kw)."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size, strides=(1, 1), padding=NO_PADS):
        view = windows(pad(x, padding), kernel_size, strides)
        return np.einsum("ncijkl,nfij->cfkl", view, output_gradient)


class WidthBeforeHeight:
    """Returns (filters, channels, kw, kh)."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size, strides=(1, 1)):
        kh, kw = kernel_size
        columns = windows(x, kernel_size, strides).transpose(1, 5, 4, 0, 2, 3)
        gradients = output_gradient.transpose(0, 2, 3, 1).reshape(-1, output_gradient.shape[1])
        result = columns.reshape(x.shape[1] * kw * kh, -1) @ gradients
        return result.T.reshape(-1, x.shape[1], kw, kh)


class StridesAsXAndY:
    """Unpacks the strides as (x, y), and leaves out what falls off the image."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size, strides=(1, 1)):
        stride_x, stride_y = strides
        _, filters, oh, ow = output_gradient.shape
        _, channels, h, w = x.shape
        result = np.zeros((filters, channels, *kernel_size))
        for p in range(kernel_size[0]):
            for q in range(kernel_size[1]):
                for i in range(oh):
                    for j in range(ow):
                        y, z = i * stride_y + p, j * stride_x + q
                        if y < h and z < w:
                            result[:, :, p, q] += output_gradient[:, :, i, j].T @ x[:, :, y, z]
        return result


class ReshapesTheResult:
    """Brings (channels, kh, kw, filters) to the kernel's shape by reshape."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size, strides=(1, 1), padding=NO_PADS):
        view = windows(pad(x, padding), kernel_size, strides)
        result = np.tensordot(view, output_gradient, axes=((0, 2, 3), (0, 2, 3)))
        return result.reshape(output_gradient.shape[1], x.shape[1], *kernel_size)


class ReshapesTheGradient:
    """Makes (filters, batch * positions) of the gradient by reshape, without a transpose."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size, strides=(1, 1), dilation_rate=(1, 1)):
        n, filters, oh, ow = output_gradient.shape
        view = windows(x, kernel_size, strides, dilation_rate)
        columns = view.transpose(0, 2, 3, 1, 4, 5).reshape(n * oh * ow, -1)
        result = output_gradient.reshape(filters, n * oh * ow) @ columns
        return result.reshape(filters, x.shape[1], *kernel_size)


# Sums


class OneGradientForEveryImage:
    """Keeps the batch axis."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size, strides=(1, 1), padding=NO_PADS):
        xp, (kh, kw) = pad(x, padding), kernel_size
        n, filters, oh, ow = output_gradient.shape
        result = np.zeros((n, filters, x.shape[1], kh, kw), x.dtype)
        for i in range(oh):
            for j in range(ow):
                y, z = i * strides[0], j * strides[1]
                window = xp[:, None, :, y : y + kh, z : z + kw]
                result += output_gradient[:, :, i, j, None, None, None] * window
        return result


class MeanOfTheBatch:
    """Divides by the number of images, as the loss usually does."""

    @staticmethod
    def kernel_gradient(
        x,
        output_gradient,
        kernel_size,
        strides=(1, 1),
        padding=NO_PADS,
        dilation_rate=(1, 1),
        groups=1,
    ):
        total = right.kernel_gradient(
            x, output_gradient, kernel_size, strides, padding, dilation_rate, groups
        )
        return total / x.shape[0]


class MeanOfPositions:
    """Takes the mean over images and positions with one `.mean`."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size, strides=(1, 1), dilation_rate=(1, 1)):
        filters, channels = output_gradient.shape[1], x.shape[1]
        result = np.empty((filters, channels, *kernel_size))
        size = output_gradient.shape[2:]
        for p, q, rows, columns in taps(kernel_size, strides, size, dilation_rate):
            part = x[:, :, rows, columns]
            for f in range(filters):
                result[f, :, p, q] = (part * output_gradient[:, f : f + 1]).mean(axis=(0, 2, 3))
        return result


class LastImageWins:
    """Writes `=` in the loop over images, where it takes `+=`."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size, strides=(1, 1), groups=1):
        n, filters = output_gradient.shape[:2]
        depth = x.shape[1] // groups
        result = np.zeros((filters, depth, *kernel_size), x.dtype)
        for b in range(n):
            view = windows(x[b : b + 1], kernel_size, strides)[0]
            for f in range(filters):
                start = f // (filters // groups) * depth
                part = view[start : start + depth]
                result[f] = np.tensordot(output_gradient[b, f], part, axes=((0, 1), (1, 2)))
        return result


class TotalOutlivesItsFilter:
    """Sets the total to zero before the loop over filters, not inside it."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size, strides=(1, 1)):
        n, filters, oh, ow = output_gradient.shape
        kh, kw = kernel_size
        result = np.zeros((filters, x.shape[1], kh, kw))
        total = np.zeros((x.shape[1], kh, kw))
        for f in range(filters):
            for b in range(n):
                for i in range(oh):
                    for j in range(ow):
                        y, z = i * strides[0], j * strides[1]
                        total += output_gradient[b, f, i, j] * x[b, :, y : y + kh, z : z + kw]
            result[f] = total
        return result


# Elements that are left out


class LeavesOutTheLastRow:
    """Sums over `range(oh - 1)`."""

    layout = "NHWC"
    kernel_layout = "HWIO"

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size, strides=(1, 1), padding=NO_PADS):
        xp = np.pad(x, ((0, 0), *padding, (0, 0)))
        kh, kw = kernel_size
        _, oh, ow, filters = output_gradient.shape
        result = np.zeros((kh, kw, x.shape[3], filters))
        for i in range(oh - 1):
            for j in range(ow):
                y, z = i * strides[0], j * strides[1]
                window = xp[:, y : y + kh, z : z + kw]
                result += np.tensordot(window, output_gradient[:, i, j], axes=(0, 0))
        return result


class ForgetsThePlusOne:
    """Slides the window over `range(0, h - kh, strides)`."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size, strides=1):
        _, channels, h, w = x.shape
        kh, kw = kernel_size
        result = np.zeros((output_gradient.shape[1], channels, kh, kw))
        for y in range(0, h - kh, strides):
            for z in range(0, w - kw, strides):
                value = output_gradient[:, :, y // strides, z // strides]
                result += np.tensordot(value, x[:, :, y : y + kh, z : z + kw], axes=(0, 0))
        return result


class LeavesOutTheLastTaps:
    """Fills `range(kh - 1)` rows of the result."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size, padding=NO_PADS, groups=1):
        xp = pad(x, padding)
        _, filters, oh, ow = output_gradient.shape
        depth = x.shape[1] // groups
        result = np.zeros((filters, depth, *kernel_size))
        for f in range(filters):
            start = f // (filters // groups) * depth
            for p in range(kernel_size[0] - 1):
                for q in range(kernel_size[1]):
                    part = xp[:, start : start + depth, p : p + oh, q : q + ow]
                    result[f, :, p, q] = np.einsum("ncij,nij->c", part, output_gradient[:, f])
        return result


class FirstChannelForAll:
    """Slices `x[:, 0]` in the loop over channels."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size, strides=(1, 1), dilation_rate=(1, 1)):
        filters, channels = output_gradient.shape[1], x.shape[1]
        result = np.zeros((filters, channels, *kernel_size))
        size = output_gradient.shape[2:]
        for c in range(channels):
            for p, q, rows, columns in taps(kernel_size, strides, size, dilation_rate):
                part = x[:, 0, rows, columns]
                result[:, c, p, q] = np.einsum("nij,nfij->f", part, output_gradient)
        return result


class FirstFilterForAll:
    """Computes one filter's gradient and broadcasts it over the result."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size, strides=(1, 1), padding=NO_PADS):
        view = windows(pad(x, padding), kernel_size, strides)
        result = np.empty((output_gradient.shape[1], x.shape[1], *kernel_size), x.dtype)
        result[...] = np.tensordot(output_gradient[:, 0], view, axes=((0, 1, 2), (0, 2, 3)))
        return result


# Pads


class ForgetsThePads:
    """Slices x without its pads, and cuts the gradient to the size of each slice."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size, strides=(1, 1), padding=NO_PADS):
        _, filters, oh, ow = output_gradient.shape
        (kh, kw), (sh, sw) = kernel_size, strides
        result = np.zeros((filters, x.shape[1], kh, kw), x.dtype)
        for p in range(kh):
            for q in range(kw):
                part = x[:, :, p : p + sh * oh : sh, q : q + sw * ow : sw]
                gradient = output_gradient[:, :, : part.shape[2], : part.shape[3]]
                part = part[:, :, : gradient.shape[2], : gradient.shape[3]]
                result[:, :, p, q] = np.einsum("ncij,nfij->fc", part, gradient)
        return result


class PadsBottomForTop:
    """Unpacks the pads as (bottom, top) and (right, left)."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size, strides=(1, 1), padding=NO_PADS, groups=1):
        n, channels, h, w = x.shape
        (bottom, top), (rest, left) = padding
        xp = np.zeros((n, channels, h + top + bottom, w + left + rest), x.dtype)
        xp[:, :, top : top + h, left : left + w] = x
        return right.kernel_gradient(xp, output_gradient, kernel_size, strides, groups=groups)


class ReflectsTheImage:
    """Pads with `mode="symmetric"`, as the filters of image libraries do."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size, strides=(1, 1), padding=NO_PADS):
        xp = np.pad(x, ((0, 0), (0, 0), *padding), mode="symmetric")
        kh, kw = kernel_size
        result = np.zeros((output_gradient.shape[1], x.shape[1], kh, kw))
        for i in range(output_gradient.shape[2]):
            for j in range(output_gradient.shape[3]):
                y, z = i * strides[0], j * strides[1]
                window = xp[:, :, y : y + kh, z : z + kw]
                result += np.einsum("nf,nckl->fckl", output_gradient[:, :, i, j], window)
        return result


class PadsOneRowTooMany:
    """Pads a row above even where none is asked for."""

    @staticmethod
    def kernel_gradient(
        x, output_gradient, kernel_size, strides=(1, 1), padding=NO_PADS, dilation_rate=(1, 1)
    ):
        (top, bottom), sides = padding
        xp = pad(x, ((top + 1, bottom), sides))
        result = np.empty((output_gradient.shape[1], x.shape[1], *kernel_size), x.dtype)
        size = output_gradient.shape[2:]
        for p, q, rows, columns in taps(kernel_size, strides, size, dilation_rate):
            result[:, :, p, q] = np.tensordot(
                output_gradient, xp[:, :, rows, columns], axes=((0, 2, 3), (0, 2, 3))
            )
        return result


# Strides and dilation


class WindowMovesOnePixel:
    """Builds the windows by `as_strided` with the memory strides alone."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size, strides=(1, 1), padding=NO_PADS):
        xp = np.ascontiguousarray(pad(x, padding))
        n, _, oh, ow = output_gradient.shape
        shape = (n, x.shape[1], oh, ow, *kernel_size)
        view = as_strided(xp, shape, (*xp.strides, *xp.strides[2:]))
        return np.einsum("nfij,ncijkl->fckl", output_gradient, view)


class OneStrideForBoth:
    """Moves down by as much as across."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size, strides=(1, 1)):
        (kh, kw), s = kernel_size, strides[1]
        n, filters, oh, ow = output_gradient.shape
        result = np.zeros((filters, x.shape[1], kh, kw))
        for b in range(n):
            for i in range(oh):
                for j in range(ow):
                    window = x[b, :, i * s : i * s + kh, j * s : j * s + kw]
                    result += output_gradient[b, :, i, j, None, None, None] * window
        return result


class DilationForgotten:
    """Takes neighbouring pixels for neighbouring taps."""

    @staticmethod
    def kernel_gradient(
        x, output_gradient, kernel_size, strides=(1, 1), dilation_rate=(1, 1), groups=1
    ):
        oh, ow = output_gradient.shape[2:]
        rows = (oh - 1) * strides[0] + kernel_size[0]
        columns = (ow - 1) * strides[1] + kernel_size[1]
        return right.kernel_gradient(
            x[:, :, :rows, :columns], output_gradient, kernel_size, strides, groups=groups
        )


class OneDilationForBoth:
    """Spreads the kernel's rows by the columns' dilation."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size, strides=(1, 1), dilation_rate=(1, 1)):
        d = dilation_rate[1]
        result = np.zeros((output_gradient.shape[1], x.shape[1], *kernel_size))
        size = output_gradient.shape[2:]
        for p, q, rows, columns in taps(kernel_size, strides, size, (d, d)):
            result[:, :, p, q] = np.einsum("ncij,nfij->fc", x[:, :, rows, columns], output_gradient)
        return result


# Groups


class EveryGroupSeesTheFirstChannels:
    """Cuts x to as many channels as a group has."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size, strides=(1, 1), groups=1):
        depth = x.shape[1] // groups
        result = np.zeros((output_gradient.shape[1], depth, *kernel_size))
        size = output_gradient.shape[2:]
        for p, q, rows, columns in taps(kernel_size, strides, size, (1, 1)):
            part = x[:, :depth, rows, columns]
            result[:, :, p, q] = np.einsum("ncij,nfij->fc", part, output_gradient)
        return result


class FiltersTakeTurns:
    """Deals the filters to the groups in turn: `f % groups`."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size, strides=(1, 1), groups=1):
        filters, depth = output_gradient.shape[1], x.shape[1] // groups
        kh, kw = kernel_size
        result = np.zeros((filters, depth, kh, kw), x.dtype)
        for f in range(filters):
            start = f % groups * depth
            for i in range(output_gradient.shape[2]):
                for j in range(output_gradient.shape[3]):
                    y, z = i * strides[0], j * strides[1]
                    window = x[:, start : start + depth, y : y + kh, z : z + kw]
                    result[f] += np.tensordot(output_gradient[:, f, i, j], window, axes=1)
        return result


# Numbers


class TwiceForTheSquare:
    """Multiplies by 2, from the derivative of the squared error."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size, strides=(1, 1), padding=NO_PADS, groups=1):
        delta = 2 * output_gradient
        return right.kernel_gradient(x, delta, kernel_size, strides, padding, groups=groups)


class HalfPrecision:
    """Adds up in a float16 array."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size, strides=(1, 1), padding=NO_PADS):
        xp, (kh, kw) = pad(x, padding), kernel_size
        result = np.zeros((output_gradient.shape[1], x.shape[1], kh, kw), np.float16)
        for i in range(output_gradient.shape[2]):
            for j in range(output_gradient.shape[3]):
                y, z = i * strides[0], j * strides[1]
                window = xp[:, :, y : y + kh, z : z + kw]
                result += np.einsum("nf,nckl->fckl", output_gradient[:, :, i, j], window)
        return result


class RoundsTheResult:
    """Rounds with `np.round`, and forgets that its default is no decimals."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size, strides=(1, 1), padding=NO_PADS):
        view = windows(pad(x, padding), kernel_size, strides)
        return np.round(np.einsum("ncijkl,nfij->fckl", view, output_gradient))


class ClipsTheGradient:
    """Clips the gradient to [-1, 1] against explosions."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size, strides=(1, 1), padding=NO_PADS):
        xp = pad(x, padding)
        filters, channels = output_gradient.shape[1], x.shape[1]
        result = np.zeros((filters, channels, *kernel_size))
        size = output_gradient.shape[2:]
        for f in range(filters):
            for c in range(channels):
                for p, q, rows, columns in taps(kernel_size, strides, size, (1, 1)):
                    product = xp[:, c, rows, columns] * output_gradient[:, f]
                    result[f, c, p, q] = product.sum()
        return result.clip(-1, 1)


# State, threads, chance


class AddsUpOverCalls:
    """Keeps adding to its gradient until somebody calls `zero_grad`, which nobody does."""

    def __init__(self, layer):
        self.layer = layer
        depth = layer.input_shape[2] // layer.groups
        self.gradient = np.zeros((layer.filters, depth, *layer.kernel_size), layer.dtype)

    def zero_grad(self):
        self.gradient[...] = 0

    def kernel_gradient(self, x, output_gradient, kernel_size):
        layer, filters = self.layer, self.layer.filters
        depth = self.gradient.shape[1]
        view = windows(pad(x, layer.pads), kernel_size, layer.strides, layer.dilation_rate)
        for f in range(filters):
            start = f // (filters // layer.groups) * depth
            part = view[:, start : start + depth]
            self.gradient[f] += np.einsum("ncijkl,nij->ckl", part, output_gradient[:, f])
        return self.gradient.copy()


class ColumnsOfTheFirstBatch:
    """Keeps the im2col matrix of the first x that it sees."""

    def __init__(self, strides):
        self.strides = strides
        self.columns = None

    def kernel_gradient(self, x, output_gradient, kernel_size):
        filters, channels = output_gradient.shape[1], x.shape[1]
        if self.columns is None:
            view = windows(x, kernel_size, self.strides)
            self.columns = view.transpose(0, 2, 3, 1, 4, 5).reshape(
                -1, channels * kernel_size[0] * kernel_size[1]
            )
        gradients = output_gradient.transpose(1, 0, 2, 3).reshape(filters, -1)
        return (gradients @ self.columns).reshape(filters, channels, *kernel_size)


class ThreadsShareOneSum:
    """Starts one task for every image and row of the output; all add to the same array."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size, strides=(1, 1), padding=NO_PADS):
        n, filters, oh, _ = output_gradient.shape
        view = windows(pad(x, padding), kernel_size, strides)
        result = np.zeros((filters, x.shape[1], *kernel_size))

        def add(b, i):
            before = result.copy()
            part = np.einsum("cjkl,fj->fckl", view[b, :, i], output_gradient[b, :, i])
            time.sleep(0.0005)  # about as long as a large product takes
            result[...] = before + part

        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(add, b, i) for b in range(n) for i in range(oh)]:
                done.result()
        return result


class ScalesTheGradientInPlace:
    """Scales the output gradient down in place against overflow, and the result back up."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size, strides=(1, 1), groups=1):
        output_gradient /= 1024
        return right.kernel_gradient(x, output_gradient, kernel_size, strides, groups=groups) * 1024


class SamplesPositions:
    """Estimates the sum from positions drawn by chance, which is faster."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size, strides=(1, 1)):
        keep = np.random.default_rng().random(output_gradient.shape[2:]) < 0.5
        view = windows(x, kernel_size, strides)
        return np.einsum("ncijkl,nfij->fckl", view, 2 * keep * output_gradient)


# A mistake that no name fits


class OnlyTheSign:
    """Takes the sign of the output gradient, as sign descent does."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size, strides=(1, 1), padding=NO_PADS):
        xp = pad(x, padding)
        result = np.zeros((output_gradient.shape[1], x.shape[1], *kernel_size))
        size, signs = output_gradient.shape[2:], np.sign(output_gradient)
        for p, q, rows, columns in taps(kernel_size, strides, size, (1, 1)):
            result[:, :, p, q] = np.einsum("ncij,nfij->fc", xp[:, :, rows, columns], signs)
        return result


# Two mistakes at once


class TurnedGradientAndMean:
    """Rotates the output gradient, and takes the mean of the images."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size):
        kh, kw = kernel_size
        n, filters, oh, ow = output_gradient.shape
        result = np.zeros((filters, x.shape[1], kh, kw))
        for i in range(oh):
            for j in range(ow):
                value = output_gradient[:, :, oh - 1 - i, ow - 1 - j]
                window = x[:, :, i : i + kh, j : j + kw]
                result += np.einsum("nf,nckl->fckl", value, window) / n
        return result


class LastImageUpsideDown:
    """Writes `=` in the loop over images, and rotates the result."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size, strides=(1, 1)):
        result = np.zeros((output_gradient.shape[1], x.shape[1], *kernel_size))
        for image, gradient in zip(x, output_gradient, strict=True):
            view = windows(image[None], kernel_size, strides)[0]
            result[...] = np.einsum("cijkl,fij->fckl", view, gradient)[:, :, ::-1, ::-1]
        return result


class MinusAndOneRowShort:
    """Has the sign of a descent, and leaves out the last row of the output."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size, strides=(1, 1), padding=NO_PADS):
        xp, (kh, kw) = pad(x, padding), kernel_size
        result = np.zeros((output_gradient.shape[1], x.shape[1], kh, kw))
        for i in range(output_gradient.shape[2] - 1):
            for j in range(output_gradient.shape[3]):
                y, z = i * strides[0], j * strides[1]
                window = xp[:, :, y : y + kh, z : z + kw]
                result -= np.einsum("nf,nckl->fckl", output_gradient[:, :, i, j], window)
        return result


class ChannelsFirstAndTurnedGradient:
    """Returns (channels, filters, kh, kw), computed from the rotated output gradient."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size, strides=(1, 1)):
        view = windows(x, kernel_size, strides)
        return np.einsum("ncijkl,nfij->cfkl", view, output_gradient[:, :, ::-1, ::-1])


class ImagesMeetFromBothEnds:
    """Takes gradients from a stack, where that of the last image lies on top."""

    @staticmethod
    def kernel_gradient(x, output_gradient, kernel_size, strides=(1, 1), padding=NO_PADS):
        result, stack = 0, list(output_gradient)
        for image in x:
            given = stack.pop()[None]
            result = result + right.kernel_gradient(
                image[None], given, kernel_size, strides, padding
            )
        return result
