"""Compute the loss: softmax cross-entropy, the mean over the batch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


def softmax_cross_entropy(
    logits: Array, labels: NDArray[np.int64], batch: int
) -> tuple[float, Array]:
    """The share of `logits` (images, classes) in the loss of a `batch` of so many images, and its
    gradient to them, of their shape.

    log softmax is taken of logits less their largest, so that nothing overflows.
    """
    rows = np.arange(len(labels))
    shifted = logits - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    sums = exponentials.sum(axis=1, keepdims=True)
    losses = np.log(sums[:, 0]) - shifted[rows, labels]
    gradient = exponentials / sums
    gradient[rows, labels] -= 1
    gradient /= batch
    return float(losses.sum()) / batch, gradient
