"""Diagnose many cells in one process, and ask only once what all cells of a pass share."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import replace

from convbench.agreement.check.asking import asked_of
from convbench.agreement.check.case import Case, Subject
from convbench.agreement.check.checker import check
from convbench.agreement.check.steadiness import Steadiness
from convbench.agreement.diagnosis.behaviour import hidden, unsafe_for_threads
from convbench.agreement.diagnosis.search import (
    Search,
    diagnose,
    known_explanations,
    small_size,
)
from convbench.agreement.diagnosis.smallest import smallest_example
from convbench.agreement.diagnosis.special import special
from convbench.results.model import Agreement, Explanation, MistakeKind, RemarkKind

NOT_FOR_THREADS = (
    "it is right when one thread calls it at a time, and wrong when two threads call it at once: "
    "their calls share a workspace"
)
"""Sentence of the remark `RemarkKind.SHARED_WORKSPACE`."""

OTHER_AXES = MistakeKind("wrong-layout", "axes told")
"""Mistake of code that is right once convbench is told the order of its axes."""


class Diagnosing:
    """A memory of what explained other layers, and of which mistakes an example was shown."""

    def __init__(self) -> None:
        self._searches: defaultdict[Subject, Search] = defaultdict(Search)
        self._shown: defaultdict[Subject, set[tuple[MistakeKind, ...]]] = defaultdict(set)
        self._called_at_once: set[Subject] = set()
        self._steadiness = Steadiness()
        self._other_layouts: dict[Subject, str | None] = {}

    def explained(self, case: Case) -> tuple[Explanation, ...]:
        """Return all explanations of a wrong cell, with an example if the explanations are new.

        Return none if the time for a pass is over and no explanation that is known holds here.
        """
        if advice := self.other_layout(case):
            return (Explanation.of([OTHER_AXES], advice, reproduces=True),)
        search = self._searches[case.subject]
        if known := known_explanations(case, search):
            return known
        if search.special is None and search.left_s <= 0:
            return ()
        started = time.monotonic()
        try:
            return self._searched(case)
        finally:
            search.left_s -= time.monotonic() - started

    def _searched(self, case: Case) -> tuple[Explanation, ...]:
        search = self._searches[case.subject]
        asked = asked_of(case)
        if search.special is not None and asked.integers_are_right:
            return (search.special,)
        if search.left_s <= 0:
            return ()
        if found := special(case, asked):
            search.special = found
            return (found,)
        return self._diagnosed(case)

    def _diagnosed(self, case: Case) -> tuple[Explanation, ...]:
        found = diagnose(case, self._searches[case.subject])
        kinds = {explanation.kinds for explanation in found.explanations}
        if not found.explanations or kinds & self._shown[case.subject]:
            return found.explanations
        self._shown[case.subject] |= kinds
        example = smallest_example(case, found.probe)
        return tuple(replace(explanation, example=example) for explanation in found.explanations)

    def other_layout(self, case: Case) -> str | None:
        """Return advice on the axes with which own code would be right, or None if there are none.

        Only code that does not state its axes is tried, and only once for each pass.
        """
        if case.subject not in self._other_layouts:
            self._other_layouts[case.subject] = _right_with(case)
        return self._other_layouts[case.subject]

    def steady(self, agreement: Agreement, case: Case) -> Agreement:
        """Return the agreement of a cell that is right, or that it is wrong in later calls."""
        problem = self._steadiness.problem(case)
        if problem is None:
            return agreement
        kind = MistakeKind("depends-on-previous-call", "later")
        explanation = Explanation.of([kind], problem, reproduces=False)
        return replace(agreement, verdict="wrong", diagnosis=problem, explanation=explanation)

    def remarked(self, agreement: Agreement, case: Case) -> Agreement:
        """Return the agreement, with remarks on threads that call at once, and on NaN.

        The first cell of each pass is tried; the agreements of its other cells stay as they are.
        """
        if case.subject in self._called_at_once:
            return agreement
        self._called_at_once.add(case.subject)
        small = case.on(
            replace(
                case.layer,
                batch_size=min(case.layer.batch_size, 2),
                input_shape=(*small_size(case.layer), case.layer.channels),
            )
        )
        if unsafe_for_threads(small):
            agreement = agreement.remarked(RemarkKind.SHARED_WORKSPACE, NOT_FOR_THREADS)
        if not_finite := hidden(small):
            sentence = (
                f"{' and '.join(not_finite)} in the operands does not reach all results that "
                "depend on it, so that such a fault stays hidden"
            )
            agreement = agreement.remarked(RemarkKind.HIDES_NOT_FINITE, sentence)
        return agreement


def _right_with(case: Case) -> str | None:
    for options, other in case.implementation.other_layouts():
        try:
            if check(case.by(other)).verdict == "agrees":
                return f"it expects arrays with other axes, and is right with {options}"
        except (Exception, SystemExit):  # noqa: BLE001 - code that raises has other axes
            continue
    return None
