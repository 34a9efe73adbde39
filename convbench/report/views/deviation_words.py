"""Say how much runs on a machine differ, in one form for all reports."""

from __future__ import annotations

from collections.abc import Iterable

from convbench.compare import Deviations
from convbench.report.views import scale
from convbench.results.between_runs import TWO_RUNS
from convbench.results.model import Deviation

_BETWEEN = {
    "numpy": "of NumPy",
    "keras": "of Keras",
    "numpy/numpy": "among NumPy",
    "keras/numpy": "over Keras",
    "keras/keras": "among Keras",
}
"""Kinds of implementations (results.Deviation.between) in words."""

_QUANTITIES = {"speedup": "speedups", "time": "times"}
"""Quantities whose deviation is told. Those of undisturbed figures are in the files only."""


def differences(deviations: Iterable[Deviation], times: float = 1.0) -> str:
    """Write `speedups by 2.1 % over Keras and 0.8 % among NumPy, times by 3.0 % of Keras`.

    Each deviation is multiplied by `times`.
    """
    known = list(deviations)
    words = []
    for of, quantity in _QUANTITIES.items():
        each = [
            f"{scale.percent(times * one.value)} % {between(one.between)}"
            for one in known
            if one.of == of
        ]
        if each:
            words.append(f"{quantity} by {scale.listed(each)}")
    return ", ".join(words)


def between(kinds: str) -> str:
    """Return the words for kinds of implementations: `over Keras` for `keras/numpy`."""
    return _BETWEEN.get(kinds, kinds)


def most_runs(deviations: Iterable[Deviation]) -> int:
    """Return the largest number of runs from which any of the deviations is known."""
    return max((one.runs for one in deviations), default=0)


def between_two(deviations: Deviations) -> str:
    """Say how much the same code differs in two sessions, and how that is known. The deviations
    must be learnt from earlier runs."""
    return (
        f"{differences(deviations.learnt, TWO_RUNS)} (standard deviations, from "
        f"{deviations.source}); others by {scale.percent(deviations.speedup)} % (speedups) and "
        f"{scale.percent(deviations.time)} % (times), assumed"
    )
