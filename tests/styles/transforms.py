"""Convolve by transforms that round more than direct sums: F(6x6, 3x3), Strassen, prefix sums."""

import numpy as np

from .windows import einsum

M, R = 6, 3
POINTS = (0, 1, -1, 2, -2, 0.5, -0.5)


def _cook_toom():
    """Return A (n, 6), B (n, n) and G (n, 3) of F(6, 3), from its points and infinity.

    Toom and Cook: evaluate both polynomials at the points, multiply, and interpolate. A point's
    row of B has the coefficients of the product of x - p over the other points p.
    """
    n = M + R - 1
    a, g, b = np.zeros((n, M)), np.zeros((n, R)), np.zeros((n, n))
    for row, point in enumerate(POINTS):
        others = [other for other in POINTS if other != point]
        a[row] = point ** np.arange(M)
        g[row] = point ** np.arange(R) / np.prod([point - other for other in others])
        b[row, :-1] = np.poly(others)[::-1]
    a[-1, -1] = g[-1, -1] = 1
    b[-1] = np.poly(POINTS)[::-1]
    return a, b, g


def winograd_6x6(x, kernel):
    """Compute 6x6 outputs from 8x8 tiles of the input, where the kernel is 3x3."""
    if kernel.shape[2:] != (R, R):
        return einsum(x, kernel)
    a, b, g = (matrix.astype(x.dtype) for matrix in _cook_toom())
    out_h, out_w = x.shape[2] - R + 1, x.shape[3] - R + 1
    rows, columns = -(-out_h // M), -(-out_w // M)
    pads = (0, rows * M - out_h), (0, columns * M - out_w)
    x = np.pad(x, ((0, 0), (0, 0), *pads))
    u = g @ kernel @ g.T
    out = np.zeros((len(x), len(kernel), rows * M, columns * M), x.dtype)
    for i in range(0, rows * M, M):
        for j in range(0, columns * M, M):
            v = b @ x[:, :, i : i + M + R - 1, j : j + M + R - 1] @ b.T
            product = np.einsum("fcuv,bcuv->bfuv", u, v)
            out[:, :, i : i + M, j : j + M] = a.T @ product @ a
    return out[:, :, :out_h, :out_w]


def _strassen(a, b, levels):
    """Multiply by seven products of halves. Odd sizes are filled up with zeros."""
    if not levels or min(*a.shape, *b.shape) < 2:
        return a @ b
    m, k, n = a.shape[0], a.shape[1], b.shape[1]
    a = np.pad(a, ((0, m % 2), (0, k % 2)))
    b = np.pad(b, ((0, k % 2), (0, n % 2)))
    (a11, a12), (a21, a22) = (np.hsplit(half, 2) for half in np.vsplit(a, 2))
    (b11, b12), (b21, b22) = (np.hsplit(half, 2) for half in np.vsplit(b, 2))
    less = levels - 1
    p1 = _strassen(a11 + a22, b11 + b22, less)
    p2 = _strassen(a21 + a22, b11, less)
    p3 = _strassen(a11, b12 - b22, less)
    p4 = _strassen(a22, b21 - b11, less)
    p5 = _strassen(a11 + a12, b22, less)
    p6 = _strassen(a21 - a11, b11 + b12, less)
    p7 = _strassen(a12 - a22, b21 + b22, less)
    out = np.block([[p1 + p4 - p5 + p7, p3 + p5], [p2 + p4, p1 - p2 + p3 + p6]])
    return out[:m, :n]


def strassen(x, kernel):
    """Multiply kernel and columns by two levels of Strassen's method."""
    kh, kw = kernel.shape[2:]
    view = np.lib.stride_tricks.sliding_window_view(x, (kh, kw), axis=(2, 3))
    batch, channels, out_h, out_w = view.shape[:4]
    columns = view.transpose(1, 4, 5, 0, 2, 3).reshape(channels * kh * kw, -1)
    out = _strassen(kernel.reshape(len(kernel), -1), columns, 2)
    return out.reshape(-1, batch, out_h, out_w).transpose(1, 0, 2, 3)


def prefix_sums(x, kernel):
    """Take the kernel's mean out, and sum what it meets by differences of prefix sums.

    The prefix sums are in float64, as those of integral images are: in float32 they would lose
    what lies far from the corner.
    """
    kh, kw = kernel.shape[2:]
    mean = kernel.mean(axis=(2, 3), keepdims=True)
    sums = np.pad(x, ((0, 0), (0, 0), (1, 0), (1, 0))).astype(np.float64)
    sums = sums.cumsum(axis=2).cumsum(axis=3)
    down = sums[:, :, kh:] - sums[:, :, :-kh]
    boxes = down[..., kw:] - down[..., :-kw]
    rest = einsum(x, kernel - mean)
    return rest + np.einsum("bchw,fc->bfhw", boxes.astype(x.dtype), mean[..., 0, 0])
