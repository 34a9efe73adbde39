"""Turn pads as other tools give them into a suite's."""

from __future__ import annotations

from convbench.problem.layer import Padding, Pads

NO_PADS: Pads = ((0, 0), (0, 0))


def written(pads: Pads) -> Padding:
    """Pads as a suite has them: `valid` where there are none."""
    return "valid" if pads == NO_PADS else pads


def both_sides(rows: int, columns: int) -> Padding:
    """So many rows on top and at the bottom, and columns on both sides."""
    return written(((rows, rows), (columns, columns)))
