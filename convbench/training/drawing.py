"""Draw synthetic digits: ten glyphs of strokes, each image a random affine map of its glyph.

A glyph is kept as a field of distances to its strokes. An image maps its pixels back into the
glyph's frame, reads the distances there, and inks the pixels that are nearer than half the width
of its strokes. A frame is the square [-0.5, 0.5]², with x to the right and y down.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

CLASSES = 10
"""Number of glyphs."""

CHUNK = 100
"""Number of images drawn from one generator, always all of them. So the first n images are the same
however many are asked for."""

RESOLUTION = 96
"""Number of samples along a side of a field: three or more for each pixel of 28×28."""

# Each image draws its own values from the ranges below.

ROTATION = np.deg2rad(15.0)
"""Largest angle by which a glyph is turned to either side, in radians."""

SHEAR = 0.3
"""Largest shear to either side: the shift in x for each unit of y."""

SHIFT = 0.06
"""Largest shift in either direction, in sides of the frame: 1.7 pixels of 28."""

SCALE = (0.85, 1.2)
"""Smallest and largest scale."""

WIDTH = (0.05, 0.11)
"""Smallest and largest width of strokes before the map, in frames: 1.4 to 3.1 pixels of 28."""

INTENSITY = (0.6, 1.0)
"""Smallest and largest value of inked pixels."""

NOISE = 0.2
"""Largest value that noise adds to a pixel, or takes from it."""


def _arc(x: float, y: float, rx: float, ry: float, start: float, end: float) -> NDArray[np.float64]:
    """Return points (n, 2) on an ellipse around (x, y).

    `start` and `end` are degrees, clockwise from the ellipse's right end.
    """
    angle = np.deg2rad(np.linspace(start, end, 25))
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def _glyphs() -> tuple[list[NDArray[np.float64]], ...]:
    """Return the strokes of each digit from 0 to 9. A stroke is a polyline (n, 2)."""
    two = [*_arc(0, -0.12, 0.16, 0.17, 190, 400), (-0.17, 0.28), (0.18, 0.28)]
    five = [(0.16, -0.28), (-0.1, -0.28), *_arc(0, 0.1, 0.17, 0.18, 225, 500)]
    return (
        [_arc(0, 0, 0.17, 0.28, 0, 360)],
        [np.array([(-0.1, -0.2), (0.02, -0.29), (0.02, 0.29)])],
        [np.array(two)],
        [_arc(-0.01, -0.145, 0.15, 0.14, 200, 450), _arc(-0.01, 0.14, 0.17, 0.145, 270, 515)],
        [
            np.array([(0.05, -0.29), (-0.18, 0.1), (0.19, 0.1)]),
            np.array([(0.08, -0.06), (0.08, 0.29)]),
        ],
        [np.array(five)],
        [_arc(0.12, 0.12, 0.28, 0.41, 265, 180), _arc(0, 0.12, 0.16, 0.16, 0, 360)],
        [np.array([(-0.17, -0.27), (0.17, -0.27), (-0.05, 0.29)])],
        [_arc(0, -0.145, 0.13, 0.14, 0, 360), _arc(0, 0.145, 0.16, 0.15, 0, 360)],
        [_arc(0, -0.12, 0.15, 0.16, 0, 360), np.array([(0.15, -0.12), (0.1, 0.29)])],
    )


@cache
def _corners() -> tuple[Floats, Floats, Floats, Floats]:
    """Return f, f_x, f_y and f_xy of each cell between four samples of the fields, all flat.

    At the fractions (s, t) of a cell, the interpolated distance is f + s f_x + t f_y + s t f_xy.
    """
    side = np.linspace(-0.5, 0.5, RESOLUTION)
    points = np.stack(np.meshgrid(side, side), axis=-1)[..., None, :]  # (y, x, 1, 2)
    fields = np.empty((CLASSES, RESOLUTION, RESOLUTION), np.float32)
    for field, strokes in zip(fields, _glyphs(), strict=True):
        start = np.concatenate([stroke[:-1] for stroke in strokes])
        along = np.concatenate([stroke[1:] for stroke in strokes]) - start
        nearest = ((points - start) * along).sum(-1) / (along**2).sum(-1)
        away = points - start - np.clip(nearest, 0, 1)[..., None] * along
        field[:] = np.sqrt((away**2).sum(-1)).min(-1)
    f, right = fields[:, :-1, :-1], fields[:, :-1, 1:]
    below, across = fields[:, 1:, :-1], fields[:, 1:, 1:]
    return f.ravel(), (right - f).ravel(), (below - f).ravel(), (across - below - right + f).ravel()


def draw(
    count: int, shape: tuple[int, int, int], classes: int, key: tuple[int, int]
) -> tuple[Floats, NDArray[np.int64]]:
    """Draw images (count, height, width, channels) in [0, 1], and their labels (count,).

    The channels of an image are equal. `key` seeds the generators. The numbers of images of two
    classes in a CHUNK differ by at most one.
    """
    images = np.empty((count, *shape), np.float32)
    labels = np.empty(count, np.int64)
    for start in range(0, count, CHUNK):
        rng = np.random.default_rng([*key, start // CHUNK])
        pixels, digits = _chunk(rng, shape[0], shape[1], classes)
        stop = min(start + CHUNK, count)
        images[start:stop] = pixels[: stop - start, :, :, None]
        labels[start:stop] = digits[: stop - start]
    return images, labels


def _chunk(
    rng: np.random.Generator, height: int, width: int, classes: int
) -> tuple[Floats, NDArray[np.int64]]:
    """Draw images (CHUNK, height, width), and their labels (CHUNK,)."""
    labels = rng.permutation(CHUNK) % classes
    to_glyph, shift = _inverse_maps(rng)
    stroke = rng.uniform(*WIDTH, (CHUNK, 1, 1)).astype(np.float32)
    intensity = rng.uniform(*INTENSITY, (CHUNK, 1, 1)).astype(np.float32)

    # An affine map is the sum of a part that depends on the column and one that depends on the row.
    x = ((np.arange(width) + 0.5) / width - 0.5 - shift[:, :1])[:, None, None, :]
    y = ((np.arange(height) + 0.5) / height - 0.5 - shift[:, 1:])[:, None, :, None]
    columns = (to_glyph[:, :, 0, None, None] * x).astype(np.float32)
    rows = (to_glyph[:, :, 1, None, None] * y).astype(np.float32)
    distance = _distances(columns[:, 0] + rows[:, 0], columns[:, 1] + rows[:, 1], labels)

    # An edge is one pixel wide: ink is full half a pixel inside it, and ends half a pixel outside.
    pixels = np.subtract(stroke / 2, distance, out=distance)
    pixels *= min(height, width)
    pixels += 0.5
    np.clip(pixels, 0, 1, out=pixels)
    pixels *= intensity
    noise = rng.random(pixels.shape, np.float32)
    noise -= 0.5
    noise *= 2 * NOISE
    pixels += noise
    return np.clip(pixels, 0, 1, out=pixels), labels


def _inverse_maps(rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw matrices M (CHUNK, 2, 2) and shifts (CHUNK, 2) of the maps from images to glyphs.

    The pixel at p shows the glyph at M (p - shift).
    """
    angle, shear = (rng.uniform(-limit, limit, CHUNK) for limit in (ROTATION, SHEAR))
    scale = rng.uniform(*SCALE, (CHUNK, 2))
    shift = rng.uniform(-SHIFT, SHIFT, (CHUNK, 2))
    cos, sin, one, zero = np.cos(angle), np.sin(angle), np.ones(CHUNK), np.zeros(CHUNK)
    rotate = np.array([[cos, -sin], [sin, cos]]).transpose(2, 0, 1)
    lean = np.array([[one, shear], [zero, one]]).transpose(2, 0, 1)
    return np.linalg.inv(rotate @ lean * scale[:, None, :]), shift


def _distances(x: Floats, y: Floats, labels: NDArray[np.int64]) -> Floats:
    """Return the distances from (x, y) to the strokes of each image's glyph.

    All arrays are (CHUNK, height, width). x and y are overwritten.
    """
    cells = RESOLUTION - 1
    for coordinate in (x, y):
        coordinate += 0.5
        coordinate *= cells
        np.clip(coordinate, 0, cells - 0.001, out=coordinate)
    index = y.astype(np.intp)
    np.subtract(y, index, out=y, dtype=np.float32)
    index += labels[:, None, None] * cells
    index *= cells
    column = x.astype(np.intp)
    np.subtract(x, column, out=x, dtype=np.float32)
    index += column
    f, f_x, f_y, f_xy = (values.take(index) for values in _corners())
    f_xy *= y
    f_xy += f_x
    f_xy *= x
    f_y *= y
    f += f_y
    f += f_xy
    return f
