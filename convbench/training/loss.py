"""Compute the loss: softmax cross-entropy, the mean over the batch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


def softmax_cross_entropy(
    logits: Array, labels: NDArray[np.int64], batch: int
) -> tuple[float, Array]:
    """Return what some images add to the loss of a batch, and its gradient to their `logits`.

    `logits` are (images, classes), and so is the gradient. `batch` is the number of images in the
    whole batch. The softmax is taken of logits minus their largest, so that nothing overflows.
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
