"""Draw the operands of both functions of a pair, for the layer of pair.yaml."""

import numpy as np

_draw = np.random.default_rng(0)
x = _draw.uniform(-1, 1, (32, 26, 26, 8)).astype(np.float32)
kernel = _draw.uniform(-1, 1, (3, 3, 8, 16)).astype(np.float32)
