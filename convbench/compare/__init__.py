"""Hold saved results against each other: what changed, by how much, and whether that shows.

Every estimate is made anew from the raw samples. `stats.quotient` divides the estimates of two
sessions, and adds the deviation between sessions to their own. Nothing is printed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from convbench.compare.changes import MOST_ROUNDS, TO_SHOW, rounds_to_show
from convbench.compare.document import (
    ASSUMED,
    CellName,
    CellRow,
    Change,
    Compared,
    Deviations,
    Diff,
    Difference,
    Figure,
    MeanRow,
    Quantity,
    Session,
    Verdict,
    learnt_by,
)
from convbench.compare.figures import compared_of, measured_of, subjects_of
from convbench.compare.sessions import (
    changes_of_environment,
    difference,
    incomparable,
    other_geometry,
    session,
)

if TYPE_CHECKING:
    from convbench.results.file import Saved

__all__ = [
    "ASSUMED",
    "MOST_ROUNDS",
    "TO_SHOW",
    "CellName",
    "CellRow",
    "Change",
    "Compared",
    "Deviations",
    "Diff",
    "Difference",
    "Figure",
    "MeanRow",
    "Quantity",
    "Session",
    "Verdict",
    "changes_of_environment",
    "diff",
    "incomparable",
    "learnt_by",
    "other_geometry",
    "rounds_to_show",
]


def diff(files: Sequence[tuple[str, Saved]], deviations: Deviations = ASSUMED) -> Diff:
    """Compare each file with the first. Raises ValueError with fewer than two files."""
    if len(files) < 2:
        raise ValueError("a diff needs two files")
    (_, first), *rest = files
    differences = tuple(difference(first.result, saved.result) for _, saved in rest)
    old = measured_of(first)
    news = [
        measured_of(saved, without=found.other_geometry)
        for (_, saved), found in zip(rest, differences, strict=True)
    ]
    subjects = subjects_of((old, *news))
    compared = (compared_of(subject, old, news, deviations) for subject in subjects)
    return Diff(
        files=tuple(session(path, saved) for path, saved in files),
        deviations=deviations,
        differences=differences,
        compared=tuple(one for one in compared if one.rows),
    )
