"""Find code that is right at first: wrong after many calls, after other layers, on other threads.

The check of a cell makes a few calls on one object. Here the first cell of each pass is called many
times more, and once by another thread. After each cell, one of the earlier ones is called again.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from dataclasses import dataclass

import numpy as np

from convbench.agreement.check.case import Case, Subject
from convbench.agreement.check.deviation import Right, fits
from convbench.agreement.check.trial import GARBAGE, Trial
from convbench.problem.layer import Layer

CALLS = 60
"""Number of calls of one object, so that code which is wrong from the 50th call on is found."""

CALLS_S = 0.5
"""Seconds after which no further call is made of those. Slow code is called less often."""

KEPT = 8
"""Number of earlier cells of a pass that are kept, to be called again."""

KEPT_BYTES = 4 * 2**20
"""Largest operands and result together, in bytes, of a cell that is kept."""

THREAD_S = 30.0
"""Seconds to wait for a call on another thread."""


@dataclass(frozen=True)
class _Kept:
    """A cell that was right, with two draws and what is right for them."""

    layer: Layer
    trial: Trial
    rights: tuple[Right, Right]

    @classmethod
    def of(cls, case: Case) -> _Kept:
        """Prepare a cell once more, and draw other operands than the check."""
        one, other = (case.right(case.integers(number)) for number in (2, 3))
        return cls(case.layer, case.trial(GARBAGE), (one, other))

    def is_right(self, which: int) -> bool:
        """Call with one of the draws, and tell whether the result is right."""
        right = self.rights[which]
        return fits(right, self.trial.call(right.operands))


class Steadiness:
    """The cells of each pass of each implementation that were right, to be called again."""

    def __init__(self) -> None:
        self._kept: defaultdict[Subject, deque[_Kept]] = defaultdict(lambda: deque(maxlen=KEPT))
        self._seen: set[Subject] = set()
        self._rng = np.random.default_rng(0)

    def problem(self, case: Case) -> str | None:
        """Return how code that was right in this cell is wrong later, or None if it stays right."""
        layer, pass_ = case.layer, case.pass_
        if layer.operand_bytes(pass_) + layer.result_bytes(pass_) > KEPT_BYTES:
            return None
        kept = self._kept[case.subject]
        now = _Kept.of(case)
        problem = None
        if case.subject not in self._seen:
            self._seen.add(case.subject)
            problem = _often(now) or _on_another_thread(now)
        if problem is None and not now.is_right(0):
            problem = "it is right at first, and wrong with other values on a new object"
        if problem is None and kept:
            earlier = kept[int(self._rng.integers(len(kept)))]
            if not earlier.is_right(int(self._rng.integers(2))):
                problem = (
                    f"it is right here, and afterwards wrong on {earlier.layer.name}, where it was "
                    "right before: it keeps state between calls"
                )
                kept.remove(earlier)
        if problem is None:
            kept.append(now)
        return problem


def _often(kept: _Kept) -> str | None:
    started = time.monotonic()
    for number in range(1, CALLS + 1):
        if not kept.is_right(number % 2):
            return (
                f"it is right at first, and wrong at call {number} of one object: it keeps state "
                "between calls"
            )
        if time.monotonic() - started > CALLS_S:
            break
    return None


def _on_another_thread(kept: _Kept) -> str | None:
    """Call on a thread of its own. Code that raises there may only need the main thread."""
    found: list[bool] = []

    def work() -> None:
        try:
            found.append(kept.is_right(0))
        except Exception:  # noqa: BLE001 - it may raise anything
            found.append(True)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(THREAD_S)
    if found == [False]:
        return "it is right on the thread that calls it first, and wrong on another thread"
    return None
