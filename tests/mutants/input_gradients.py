"""Input gradients with one mistake each, or two."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tests.mutants import right
from tests.mutants.right import NO_PADS, taps


def _spread(gradient, strides):
    """Return the gradient with `stride - 1` zeros between its elements."""
    n, f, oh, ow = gradient.shape
    sh, sw = strides
    out = np.zeros((n, f, (oh - 1) * sh + 1, (ow - 1) * sw + 1), gradient.dtype)
    out[:, :, ::sh, ::sw] = gradient
    return out


# Kernels


class ForgetsTheFlip:
    """Correlates the padded gradient with the kernel as it is."""

    @staticmethod
    def input_gradient(output_gradient, kernel, input_shape, strides=(1, 1), padding=NO_PADS):
        _, _, h, w = input_shape
        kh, kw = kernel.shape[2:]
        spread = _spread(output_gradient, strides)
        above, left = kh - 1 - padding[0][0], kw - 1 - padding[1][0]
        below = h + kh - 1 - above - spread.shape[2]
        rest = w + kw - 1 - left - spread.shape[3]
        padded = np.pad(spread, ((0, 0), (0, 0), (above, below), (left, rest)))
        view = sliding_window_view(padded, (kh, kw), axis=(2, 3))
        return np.einsum("nfijkl,fckl->ncij", view, kernel)


class FlipsRowsOnly:
    """Flips the kernel with `np.flip(kernel, 2)`: its rows, and not its columns."""

    @staticmethod
    def input_gradient(output_gradient, kernel, input_shape):
        n, channels, h, w = input_shape
        _, _, kh, kw = kernel.shape
        flipped = np.flip(kernel, 2)
        padded = np.pad(output_gradient, ((0, 0), (0, 0), (kh - 1, kh - 1), (kw - 1, kw - 1)))
        dx = np.zeros(input_shape)
        for b in range(n):
            for c in range(channels):
                for i in range(h):
                    for j in range(w):
                        window = padded[b, :, i : i + kh, j : j + kw]
                        dx[b, c, i, j] = np.sum(window * flipped[:, c])
        return dx


class ScattersColumnsBackwards:
    """Numbers the columns of the im2col matrix from the right in col2im alone."""

    @staticmethod
    def input_gradient(
        output_gradient, kernel, input_shape, strides=(1, 1), padding=NO_PADS, dilation_rate=(1, 1)
    ):
        n, channels, h, w = input_shape
        filters, _, kh, kw = kernel.shape
        oh, ow = output_gradient.shape[2:]
        (top, bottom), (left, rest) = padding
        matrix = output_gradient.transpose(0, 2, 3, 1).reshape(-1, filters)
        columns = (matrix @ kernel.reshape(filters, -1)).reshape(n, oh, ow, channels, kh, kw)
        dx = np.zeros((n, channels, h + top + bottom, w + left + rest), output_gradient.dtype)
        for p, q, rows, cols in taps((kh, kw), strides, (oh, ow), dilation_rate):
            dx[:, :, rows, cols] += columns[..., p, kw - 1 - q].transpose(0, 3, 1, 2)
        return dx[:, :, top : top + h, left : left + w]


class FlipsTwice:
    """Flips the kernel for a scatter, which already puts every tap where it belongs."""

    @staticmethod
    def input_gradient(
        output_gradient, kernel, input_shape, strides=(1, 1), padding=NO_PADS, groups=1
    ):
        turned = kernel[:, :, ::-1, ::-1]
        return right.input_gradient(
            output_gradient, turned, input_shape, strides, padding, (1, 1), groups
        )


class KernelOnItsSide:
    """Takes the kernel as (x, y), and checks bounds so that it fits all the same."""

    @staticmethod
    def input_gradient(output_gradient, kernel, input_shape, strides=(1, 1), padding=NO_PADS):
        _, _, h, w = input_shape
        (sh, sw), (top, left) = strides, (padding[0][0], padding[1][0])
        dx = np.zeros(input_shape)
        for i in range(output_gradient.shape[2]):
            for j in range(output_gradient.shape[3]):
                for u in range(kernel.shape[2]):
                    for v in range(kernel.shape[3]):
                        y, z = i * sh + v - top, j * sw + u - left
                        if 0 <= y < h and 0 <= z < w:
                            dx[:, :, y, z] += output_gradient[:, :, i, j] @ kernel[:, :, u, v]
        return dx


class ReadsKernelAsChannelsFirst:
    """Believes that kernels come as (channels, filters, height, width)."""

    @staticmethod
    def input_gradient(output_gradient, kernel, input_shape, strides=(1, 1)):
        filters, channels, kh, kw = kernel.shape
        weights = kernel.reshape(channels, filters, kh, kw)
        dx = np.zeros(input_shape)
        size = output_gradient.shape[2:]
        for p, q, rows, columns in taps((kh, kw), strides, size, (1, 1)):
            dx[:, :, rows, columns] += np.einsum(
                "nfij,cf->ncij", output_gradient, weights[:, :, p, q]
            )
        return dx


# Gradients whose axes lie the wrong way


class TurnsTheGradient:
    """Has read that something must be rotated by 180 degrees, and rotates the gradient."""

    @staticmethod
    def input_gradient(output_gradient, kernel, input_shape, strides=(1, 1), padding=NO_PADS):
        n, channels, h, w = input_shape
        kh, kw = kernel.shape[2:]
        (top, bottom), (left, rest) = padding
        rotated = np.rot90(output_gradient, 2, axes=(2, 3))
        dx = np.zeros((n, channels, h + top + bottom, w + left + rest))
        for i in range(rotated.shape[2]):
            for j in range(rotated.shape[3]):
                y, z = i * strides[0], j * strides[1]
                patch = np.tensordot(rotated[:, :, i, j], kernel, axes=1)
                dx[:, :, y : y + kh, z : z + kw] += patch
        return dx[:, :, top : top + h, left : left + w]


class ComesOutUpsideDown:
    """Keeps images with the y axis up, and hands the gradient back that way."""

    @staticmethod
    def input_gradient(
        output_gradient, kernel, input_shape, strides=(1, 1), dilation_rate=(1, 1), groups=1
    ):
        dx = right.input_gradient(
            output_gradient, kernel, input_shape, strides, NO_PADS, dilation_rate, groups
        )
        return dx[:, :, ::-1]


class ReshapesTheGradient:
    """Makes rows of (batch * positions, filters) by reshape, without the transpose before."""

    @staticmethod
    def input_gradient(output_gradient, kernel, input_shape, strides=(1, 1)):
        n, filters, oh, ow = output_gradient.shape
        _, channels, kh, kw = kernel.shape
        sh, sw = strides
        rows = output_gradient.reshape(n * oh * ow, filters) @ kernel.reshape(filters, -1)
        patches = rows.reshape(n, oh, ow, channels, kh, kw)
        dx = np.zeros(input_shape, output_gradient.dtype)
        for i in range(oh):
            for j in range(ow):
                dx[:, :, i * sh : i * sh + kh, j * sw : j * sw + kw] += patches[:, i, j]
        return dx


# Elements that are overwritten, left out or never written


class AssignsWindows:
    """Loops over the output's positions and writes `=` where windows overlap."""

    @staticmethod
    def input_gradient(output_gradient, kernel, input_shape, strides=1):
        n, _, oh, ow = output_gradient.shape
        kh, kw = kernel.shape[2:]
        dx = np.zeros(input_shape, output_gradient.dtype)
        for b in range(n):
            for i in range(oh):
                for j in range(ow):
                    y, z = i * strides, j * strides
                    window = np.einsum("f,fckl->ckl", output_gradient[b, :, i, j], kernel)
                    dx[b, :, y : y + kh, z : z + kw] = window
        return dx


class AssignsTaps:
    """Copies every tap's slice into place in col2im, instead of adding it."""

    @staticmethod
    def input_gradient(
        output_gradient, kernel, input_shape, strides=(1, 1), padding=NO_PADS, dilation_rate=(1, 1)
    ):
        n, channels, h, w = input_shape
        (top, bottom), (left, rest) = padding
        padded = np.zeros((n, channels, h + top + bottom, w + left + rest))
        size = output_gradient.shape[2:]
        for p, q, rows, columns in taps(kernel.shape[2:], strides, size, dilation_rate):
            part = np.tensordot(output_gradient, kernel[:, :, p, q], axes=(1, 0))
            padded[:, :, rows, columns] = part.transpose(0, 3, 1, 2)
        return padded[:, :, top : top + h, left : left + w]


class FancyIndexAdds:
    """Writes `dx[indices] += values`, which keeps only one value for each repeated index."""

    @staticmethod
    def input_gradient(output_gradient, kernel, input_shape, strides=(1, 1), dilation_rate=(1, 1)):
        kh, kw = kernel.shape[2:]
        oh, ow = output_gradient.shape[2:]
        rows = np.arange(oh)[:, None] * strides[0] + np.arange(kh) * dilation_rate[0]
        columns = np.arange(ow)[:, None] * strides[1] + np.arange(kw) * dilation_rate[1]
        values = np.einsum("nfij,fckl->ncijkl", output_gradient, kernel)
        dx = np.zeros(input_shape)
        dx[:, :, rows[:, None, :, None], columns[None, :, None, :]] += values
        return dx


class LeavesOutTheLastRowOfTheGradient:
    """Scatters `range(oh - 1)` rows of the output gradient."""

    @staticmethod
    def input_gradient(output_gradient, kernel, input_shape, strides=(1, 1)):
        n, filters, oh, ow = output_gradient.shape
        kh, kw = kernel.shape[2:]
        sh, sw = strides
        dx = np.zeros(input_shape)
        for b in range(n):
            for f in range(filters):
                for i in range(oh - 1):
                    for j in range(ow):
                        y, z = i * sh, j * sw
                        dx[b, :, y : y + kh, z : z + kw] += output_gradient[b, f, i, j] * kernel[f]
        return dx


class NeverWritesTheLastColumn:
    """Gathers for every pixel but those of the last column."""

    @staticmethod
    def input_gradient(output_gradient, kernel, input_shape, strides=(1, 1), padding=NO_PADS):
        _, _, h, w = input_shape
        oh, ow = output_gradient.shape[2:]
        kh, kw = kernel.shape[2:]
        (sh, sw), (top, left) = strides, (padding[0][0], padding[1][0])
        dx = np.zeros(input_shape)
        for y in range(h):
            for z in range(w - 1):
                for p in range(kh):
                    for q in range(kw):
                        i, j = y + top - p, z + left - q
                        if i % sh or j % sw:
                            continue
                        i, j = i // sh, j // sw
                        if 0 <= i < oh and 0 <= j < ow:
                            dx[:, :, y, z] += output_gradient[:, :, i, j] @ kernel[:, :, p, q]
        return dx


class LeavesOutTheFirstTaps:
    """Starts at 1 in the loop over the kernel's rows."""

    @staticmethod
    def input_gradient(
        output_gradient, kernel, input_shape, strides=(1, 1), dilation_rate=(1, 1), groups=1
    ):
        _, _, _, _ = input_shape
        filters, depth, kh, kw = kernel.shape
        (sh, sw), (dh, dw), (oh, ow) = strides, dilation_rate, output_gradient.shape[2:]
        share = filters // groups
        dx = np.zeros(input_shape)
        for g in range(groups):
            gradient = output_gradient[:, g * share : (g + 1) * share]
            weights = kernel[g * share : (g + 1) * share]
            for p in range(1, kh):
                for q in range(kw):
                    part = np.einsum("nfij,fc->ncij", gradient, weights[:, :, p, q])
                    dx[
                        :,
                        g * depth : (g + 1) * depth,
                        p * dh : p * dh + sh * (oh - 1) + 1 : sh,
                        q * dw : q * dw + sw * (ow - 1) + 1 : sw,
                    ] += part
        return dx


# Pads


class KeepsThePads:
    """Returns the gradient of the padded image."""

    @staticmethod
    def input_gradient(output_gradient, kernel, input_shape, strides=(1, 1), padding=NO_PADS):
        n, channels, h, w = input_shape
        kh, kw = kernel.shape[2:]
        sh, sw = strides
        dx = np.zeros((n, channels, h + sum(padding[0]), w + sum(padding[1])))
        for i in range(output_gradient.shape[2]):
            for j in range(output_gradient.shape[3]):
                window = np.tensordot(output_gradient[:, :, i, j], kernel, axes=(1, 0))
                dx[:, :, i * sh : i * sh + kh, j * sw : j * sw + kw] += window
        return dx


class CutsFromTheTopLeft:
    """Cuts the pads off with `[:h, :w]`."""

    @staticmethod
    def input_gradient(
        output_gradient, kernel, input_shape, strides=(1, 1), padding=NO_PADS, dilation_rate=(1, 1)
    ):
        n, channels, h, w = input_shape
        dx = np.zeros((n, channels, h + sum(padding[0]), w + sum(padding[1])))
        size = output_gradient.shape[2:]
        for p, q, rows, columns in taps(kernel.shape[2:], strides, size, dilation_rate):
            part = np.einsum("nfij,fc->ncij", output_gradient, kernel[:, :, p, q])
            dx[:, :, rows, columns] += part
        return dx[:, :, :h, :w]


class CutsBottomForTop:
    """Cuts as many rows off above as were padded below, and so on."""

    @staticmethod
    def input_gradient(
        output_gradient, kernel, input_shape, strides=(1, 1), padding=NO_PADS, groups=1
    ):
        n, channels, h, w = input_shape
        (_, bottom), (_, rest) = padding
        everything = (n, channels, h + sum(padding[0]), w + sum(padding[1]))
        dx = right.input_gradient(output_gradient, kernel, everything, strides, groups=groups)
        return dx[:, :, bottom : bottom + h, rest : rest + w]


class CutsOneColumnTooMany:
    """Keeps a spare row and column for safety, and cuts at `left + 1`."""

    @staticmethod
    def input_gradient(output_gradient, kernel, input_shape, strides=(1, 1), padding=NO_PADS):
        n, channels, h, w = input_shape
        (top, bottom), (left, rest) = padding
        padded = np.zeros((n, channels, h + top + bottom + 1, w + left + rest + 1))
        kh, kw = kernel.shape[2:]
        for i in range(output_gradient.shape[2]):
            y = i * strides[0]
            for j in range(output_gradient.shape[3]):
                z = j * strides[1]
                window = np.einsum("nf,fckl->nckl", output_gradient[:, :, i, j], kernel)
                padded[:, :, y : y + kh, z : z + kw] += window
        return padded[:, :, top : top + h, left + 1 : left + 1 + w]


class EvensOutOverlaps:
    """Makes up for the border, where fewer windows overlap than inside."""

    @staticmethod
    def input_gradient(output_gradient, kernel, input_shape, padding=NO_PADS):
        n, channels, h, w = input_shape
        (top, bottom), (left, rest) = padding
        kh, kw = kernel.shape[2:]
        dx = np.zeros((n, channels, h + top + bottom, w + left + rest))
        overlaps = np.zeros(dx.shape[2:])
        for i in range(output_gradient.shape[2]):
            for j in range(output_gradient.shape[3]):
                window = np.tensordot(output_gradient[:, :, i, j], kernel, axes=1)
                dx[:, :, i : i + kh, j : j + kw] += window
                overlaps[i : i + kh, j : j + kw] += 1
        dx *= overlaps.max() / overlaps
        return dx[:, :, top : top + h, left : left + w]


# Strides and dilation


class DoesNotSpreadTheGradient:
    """Correlates with the flipped kernel, without zeros between the gradient's elements."""

    @staticmethod
    def input_gradient(output_gradient, kernel, input_shape, strides=(1, 1)):
        _, _, h, w = input_shape
        _, _, oh, ow = output_gradient.shape
        kh, kw = kernel.shape[2:]
        padded = np.pad(output_gradient, ((0, 0), (0, 0), (kh - 1, h - oh), (kw - 1, w - ow)))
        view = sliding_window_view(padded, (kh, kw), axis=(2, 3))
        return np.einsum("nfijkl,fckl->ncij", view, kernel[:, :, ::-1, ::-1])


class SpreadsByOneStride:
    """Spreads rows and columns alike by `strides[1]`."""

    @staticmethod
    def input_gradient(output_gradient, kernel, input_shape, strides=(1, 1), groups=1):
        both = (strides[1], strides[1])
        return right.input_gradient(output_gradient, kernel, input_shape, both, groups=groups)


class DilationForgotten:
    """Steps through the kernel by one, whatever the dilation."""

    @staticmethod
    def input_gradient(output_gradient, kernel, input_shape, strides=(1, 1), dilation_rate=(1, 1)):
        _, _, oh, ow = output_gradient.shape
        kh, kw = kernel.shape[2:]
        sh, sw = strides
        dx = np.zeros(input_shape)
        for i in range(oh):
            for j in range(ow):
                window = np.einsum("nf,fckl->nckl", output_gradient[:, :, i, j], kernel)
                dx[:, :, i * sh : i * sh + kh, j * sw : j * sw + kw] += window
        return dx


class OneDilationForBoth:
    """Spreads the kernel's rows by the columns' dilation."""

    @staticmethod
    def input_gradient(
        output_gradient, kernel, input_shape, strides=(1, 1), dilation_rate=(1, 1), groups=1
    ):
        _, d = dilation_rate
        return right.input_gradient(
            output_gradient, kernel, input_shape, strides, NO_PADS, (d, d), groups
        )


# Groups, filters, channels and images


class RepeatsTheKernelOverGroups:
    """Repeats the kernel until it has as many channels as x, and goes on without groups."""

    @staticmethod
    def input_gradient(output_gradient, kernel, input_shape, strides=(1, 1), groups=1):
        _, _, _, _ = input_shape
        dense = np.tile(kernel, (1, groups, 1, 1))
        kh, kw = kernel.shape[2:]
        dx = np.zeros(input_shape)
        for i in range(output_gradient.shape[2]):
            for j in range(output_gradient.shape[3]):
                y, z = i * strides[0], j * strides[1]
                window = np.tensordot(output_gradient[:, :, i, j], dense, axes=1)
                dx[:, :, y : y + kh, z : z + kw] += window
        return dx


class GroupsFromTheEnd:
    """Puts the groups' gradients together in the order in which a stack gives them back."""

    @staticmethod
    def input_gradient(output_gradient, kernel, input_shape, strides=(1, 1), groups=1):
        n, channels, h, w = input_shape
        stack = list(
            zip(
                np.split(output_gradient, groups, axis=1),
                np.split(kernel, groups),
                strict=True,
            )
        )
        parts = []
        while stack:
            gradient, weights = stack.pop()
            part = np.zeros((n, channels // groups, h, w))
            for p, q, rows, columns in taps(weights.shape[2:], strides, gradient.shape[2:], (1, 1)):
                part[:, :, rows, columns] += np.einsum(
                    "nfij,fc->ncij", gradient, weights[:, :, p, q]
                )
            parts.append(part)
        return np.concatenate(parts, axis=1)


class LastFilterWins:
    """Writes `=` in the loop over filters, where it takes `+=`."""

    @staticmethod
    def input_gradient(output_gradient, kernel, input_shape, strides=(1, 1), padding=NO_PADS):
        _, _, _, _ = input_shape
        dx = np.zeros(input_shape, output_gradient.dtype)
        for f in range(kernel.shape[0]):
            dx[...] = right.input_gradient(
                output_gradient[:, f : f + 1], kernel[f : f + 1], input_shape, strides, padding
            )
        return dx


class SameForEveryChannel:
    """Uses the kernel's first channel for all of them."""

    @staticmethod
    def input_gradient(output_gradient, kernel, input_shape, strides=(1, 1)):
        _, channels, _, _ = input_shape
        filters, _, kh, kw = kernel.shape
        sh, sw = strides
        dx = np.zeros(input_shape)
        for c in range(channels):
            for f in range(filters):
                for i in range(output_gradient.shape[2]):
                    for j in range(output_gradient.shape[3]):
                        value = output_gradient[:, f, i, j, None, None]
                        y, z = i * sh, j * sw
                        dx[:, c, y : y + kh, z : z + kw] += value * kernel[f, 0]
        return dx


class FirstImageOnly:
    """Takes the batch for a single image, and leaves the others' gradients at zero."""

    @staticmethod
    def input_gradient(output_gradient, kernel, input_shape, strides=(1, 1), groups=1):
        dx = np.zeros(input_shape, output_gradient.dtype)
        dx[0] = right.input_gradient(
            output_gradient[:1], kernel, (1, *input_shape[1:]), strides, groups=groups
        )[0]
        return dx


class AveragesFilters:
    """Takes the mean over the filters, each of which has its say."""

    layout = "NHWC"
    kernel_layout = "HWIO"

    @staticmethod
    def input_gradient(output_gradient, kernel, input_shape, padding=NO_PADS):
        n, h, w, channels = input_shape
        (top, bottom), (left, rest) = padding
        dx = np.zeros((n, h + top + bottom, w + left + rest, channels))
        _, oh, ow, _ = output_gradient.shape
        for p in range(kernel.shape[0]):
            for q in range(kernel.shape[1]):
                products = output_gradient[:, :, :, None, :] * kernel[p, q]
                dx[:, p : p + oh, q : q + ow] += np.mean(products, axis=-1)
        return dx[:, top : top + h, left : left + w]


class PadBufferOfTheLastImage:
    """Uses one padded buffer for all images, and clears it before the first."""

    @staticmethod
    def input_gradient(output_gradient, kernel, input_shape, strides=(1, 1), padding=NO_PADS):
        n, channels, h, w = input_shape
        (top, bottom), (left, rest) = padding
        kh, kw = kernel.shape[2:]
        dx = np.empty(input_shape)
        buffer = np.zeros((channels, h + top + bottom, w + left + rest))
        for b in range(n):
            for i in range(output_gradient.shape[2]):
                for j in range(output_gradient.shape[3]):
                    y, z = i * strides[0], j * strides[1]
                    window = np.tensordot(output_gradient[b, :, i, j], kernel, axes=1)
                    buffer[:, y : y + kh, z : z + kw] += window
            dx[b] = buffer[:, top : top + h, left : left + w]
        return dx


# Numbers


class DescendsAtOnce:
    """Returns the direction of descent: minus the gradient."""

    @staticmethod
    def input_gradient(
        output_gradient, kernel, input_shape, strides=(1, 1), padding=NO_PADS, groups=1
    ):
        n, channels, h, w = input_shape
        filters, depth, kh, kw = kernel.shape
        (top, bottom), (left, rest) = padding
        dx = np.zeros((n, channels, h + top + bottom, w + left + rest))
        size = output_gradient.shape[2:]
        for f in range(filters):
            start = f // (filters // groups) * depth
            for p, q, rows, columns in taps((kh, kw), strides, size, (1, 1)):
                part = output_gradient[:, f, None] * kernel[f, :, p, q, None, None]
                dx[:, start : start + depth, rows, columns] -= part
        return dx[:, :, top : top + h, left : left + w]


class SinglePrecision:
    """Casts to float32, since nobody needs more."""

    @staticmethod
    def input_gradient(
        output_gradient,
        kernel,
        input_shape,
        strides=(1, 1),
        padding=NO_PADS,
        dilation_rate=(1, 1),
        groups=1,
    ):
        return right.input_gradient(
            output_gradient.astype(np.float32),
            kernel.astype(np.float32),
            input_shape,
            strides,
            padding,
            dilation_rate,
            groups,
        )


# State, threads


class PlannedBuffer:
    """Allocates the gradient when the layer is made, and adds to it at every call."""

    def __init__(self, layer):
        (top, bottom), (left, rest) = layer.pads
        h, w, channels = layer.input_shape
        self.layer = layer
        self.inner = (..., slice(top, top + h), slice(left, left + w))
        self.padded = np.zeros(
            (layer.batch_size, channels, h + top + bottom, w + left + rest), layer.dtype
        )
        self.taps = list(
            taps(layer.kernel_size, layer.strides, layer.output_size, layer.dilation_rate)
        )

    def input_gradient(self, output_gradient, kernel, input_shape):
        groups = self.layer.groups
        share, depth = kernel.shape[0] // groups, kernel.shape[1]
        for g in range(groups):
            gradient = output_gradient[:, g * share : (g + 1) * share]
            weights = kernel[g * share : (g + 1) * share]
            target = self.padded[:, g * depth : (g + 1) * depth]
            for p, q, rows, columns in self.taps:
                target[:, :, rows, columns] += np.einsum(
                    "nfij,fc->ncij", gradient, weights[:, :, p, q]
                )
        return self.padded[self.inner].copy()


class RemembersTheMatrix:
    """Builds the matrix of the convolution at the first call, and keeps it for other kernels."""

    def __init__(self, strides, padding):
        self.strides, self.padding = strides, padding
        self.matrix = None

    def input_gradient(self, output_gradient, kernel, input_shape):
        n, _, h, w = input_shape
        if self.matrix is None:
            filters, channels, kh, kw = kernel.shape
            oh, ow = output_gradient.shape[2:]
            matrix = np.zeros((filters, oh, ow, channels, h, w), kernel.dtype)
            for i in range(oh):
                for j in range(ow):
                    for p in range(kh):
                        for q in range(kw):
                            y = i * self.strides[0] + p - self.padding[0][0]
                            z = j * self.strides[1] + q - self.padding[1][0]
                            if 0 <= y < h and 0 <= z < w:
                                matrix[:, i, j, :, y, z] = kernel[:, :, p, q]
            self.matrix = matrix.reshape(filters * oh * ow, -1)
        return (output_gradient.reshape(n, -1) @ self.matrix).reshape(input_shape)


class ThreadsScatterIntoOneArray:
    """Starts one task for every position of the output, without a lock where windows overlap."""

    @staticmethod
    def input_gradient(output_gradient, kernel, input_shape, strides=(1, 1)):
        kh, kw = kernel.shape[2:]
        oh, ow = output_gradient.shape[2:]
        dx = np.zeros(input_shape)

        def scatter(i, j):
            y, z = i * strides[0], j * strides[1]
            window = dx[:, :, y : y + kh, z : z + kw]
            total = window + np.tensordot(output_gradient[:, :, i, j], kernel, axes=1)
            time.sleep(0.0002)  # about as long as a large product takes
            window[...] = total

        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(scatter, i, j) for i in range(oh) for j in range(ow)]:
                done.result()
        return dx


class FlipsTheKernelInPlace:
    """Flips the kernel into its own memory: the next call will find it flipped."""

    @staticmethod
    def input_gradient(output_gradient, kernel, input_shape, strides=(1, 1)):
        _, _, h, w = input_shape
        kh, kw = kernel.shape[2:]
        kernel[:] = kernel[:, :, ::-1, ::-1].copy()
        spread = _spread(output_gradient, strides)
        below, rest = h - spread.shape[2], w - spread.shape[3]
        padded = np.pad(spread, ((0, 0), (0, 0), (kh - 1, below), (kw - 1, rest)))
        view = sliding_window_view(padded, (kh, kw), axis=(2, 3))
        return np.einsum("nfijkl,fckl->ncij", view, kernel)


# A mistake that no name fits


class NormalisesWeights:
    """Brings every filter to length 1 before it is used."""

    @staticmethod
    def input_gradient(output_gradient, kernel, input_shape, strides=(1, 1), padding=NO_PADS):
        lengths = np.sqrt((kernel**2).sum(axis=(1, 2, 3), keepdims=True))
        return right.input_gradient(
            output_gradient, kernel / (lengths + 1e-9), input_shape, strides, padding
        )


# Two mistakes at once


class NoFlipAndMeanOfBatch:
    """Forgets the flip, and divides by the number of images."""

    @staticmethod
    def input_gradient(output_gradient, kernel, input_shape):
        kh, kw = kernel.shape[2:]
        padded = np.pad(output_gradient, ((0, 0), (0, 0), (kh - 1, kh - 1), (kw - 1, kw - 1)))
        dx = np.zeros(input_shape)
        for i in range(input_shape[2]):
            for j in range(input_shape[3]):
                window = padded[:, :, i : i + kh, j : j + kw]
                dx[:, :, i, j] = np.tensordot(window, kernel, axes=((1, 2, 3), (0, 2, 3)))
        return dx / len(output_gradient)


class AssignsFiltersAndWindows:
    """Writes `=` in all loops: over filters as over windows that overlap."""

    @staticmethod
    def input_gradient(output_gradient, kernel, input_shape, strides=(1, 1)):
        n, filters, oh, ow = output_gradient.shape
        kh, kw = kernel.shape[2:]
        dx = np.zeros(input_shape)
        for b in range(n):
            for f in range(filters):
                for i in range(oh):
                    for j in range(ow):
                        y, z = i * strides[0], j * strides[1]
                        dx[b, :, y : y + kh, z : z + kw] = output_gradient[b, f, i, j] * kernel[f]
        return dx


class NoFlipAndPadsKept:
    """Adds the taps from the last to the first, and returns the pads along with the image."""

    @staticmethod
    def input_gradient(output_gradient, kernel, input_shape, strides=(1, 1), padding=NO_PADS):
        n, channels, h, w = input_shape
        dx = np.zeros((n, channels, h + sum(padding[0]), w + sum(padding[1])))
        size = output_gradient.shape[2:]
        for p, q, rows, columns in taps(kernel.shape[2:], strides, size, (1, 1)):
            weights = kernel[:, :, -1 - p, -1 - q]
            dx[:, :, rows, columns] += np.einsum("nfij,fc->ncij", output_gradient, weights)
        return dx


class NoFlipAndNoStrides:
    """Correlates the gradient with the kernel in full, both as they are."""

    @staticmethod
    def input_gradient(output_gradient, kernel, input_shape, strides=(1, 1)):
        _, _, h, w = input_shape
        _, _, oh, ow = output_gradient.shape
        kh, kw = kernel.shape[2:]
        padded = np.pad(output_gradient, ((0, 0), (0, 0), (kh - 1, h - oh), (kw - 1, w - ow)))
        view = sliding_window_view(padded, (kh, kw), axis=(2, 3))
        return np.einsum("nfijkl,fckl->ncij", view, kernel)


class FiltersFromTheEnd:
    """Goes through the filters of the gradient from the last to the first."""

    @staticmethod
    def input_gradient(output_gradient, kernel, input_shape, strides=(1, 1), padding=NO_PADS):
        turned = output_gradient[:, ::-1]
        return right.input_gradient(turned, kernel, input_shape, strides, padding)
