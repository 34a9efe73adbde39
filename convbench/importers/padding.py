"""Turn pads as other tools give them into the padding of a suite's layer."""

from __future__ import annotations

from convbench.problem.layer import Padding, Pads

NO_PADS: Pads = ((0, 0), (0, 0))


def written(pads: Pads) -> Padding:
    """Return pads as a suite writes them, which is `valid` if there are none."""
    return "valid" if pads == NO_PADS else pads


def both_sides(rows: int, columns: int) -> Padding:
    """Return the padding with as many rows at top and bottom, and columns at left and right."""
    return written(((rows, rows), (columns, columns)))
