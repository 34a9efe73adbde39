"""Diagnose many cells in one process, and ask only once what all cells of a pass share."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import replace

from convbench.agreement.check.asking import asked_of
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
from convbench.implementations.contract import Implementation
from convbench.problem.layer import Layer, Pass
from convbench.results.model import Agreement, Explanation, MistakeKind, RemarkKind

Subject = tuple[str, Pass]  # implementation, pass

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

    def explained(
        self,
        implementation: Implementation,
        layer: Layer,
        pass_: Pass,
        threads: int,
        seed: int,
    ) -> tuple[Explanation, ...]:
        """Return all explanations of a wrong cell, with an example if the explanations are new.

        Return none if the time for a pass is over and no explanation that is known holds here.
        """
        subject = implementation.name, pass_
        if advice := self.other_layout(implementation, layer, pass_, threads, seed):
            return (Explanation.of([OTHER_AXES], advice, reproduces=True),)
        search, cell = self._searches[subject], (layer, pass_, threads, seed)
        if known := known_explanations(implementation, *cell, search):
            return known
        if search.special is None and search.left_s <= 0:
            return ()
        started = time.monotonic()
        try:
            return self._searched(implementation, layer, pass_, threads, seed)
        finally:
            search.left_s -= time.monotonic() - started

    def _searched(
        self, implementation: Implementation, layer: Layer, pass_: Pass, threads: int, seed: int
    ) -> tuple[Explanation, ...]:
        subject = implementation.name, pass_
        search = self._searches[subject]
        asked = asked_of(implementation, layer, pass_, threads, seed)
        if search.special is not None and asked.integers_are_right:
            return (search.special,)
        if search.left_s <= 0:
            return ()
        if found := special(implementation, layer, pass_, threads, seed, asked):
            search.special = found
            return (found,)
        return self._diagnosed(implementation, layer, pass_, threads, seed)

    def _diagnosed(
        self, implementation: Implementation, layer: Layer, pass_: Pass, threads: int, seed: int
    ) -> tuple[Explanation, ...]:
        subject = implementation.name, pass_
        found = diagnose(implementation, layer, pass_, threads, seed, self._searches[subject])
        kinds = {explanation.kinds for explanation in found.explanations}
        if not found.explanations or kinds & self._shown[subject]:
            return found.explanations
        self._shown[subject] |= kinds
        example = smallest_example(implementation, layer, found.probe, pass_, threads, seed)
        return tuple(replace(explanation, example=example) for explanation in found.explanations)

    def other_layout(
        self,
        implementation: Implementation,
        layer: Layer,
        pass_: Pass,
        threads: int,
        seed: int,
    ) -> str | None:
        """Return advice on the axes with which own code would be right, or None if there are none.

        Only code that does not state its axes is tried, and only once for each pass.
        """
        subject = implementation.name, pass_
        if subject not in self._other_layouts:
            self._other_layouts[subject] = _right_with(implementation, layer, pass_, threads, seed)
        return self._other_layouts[subject]

    def steady(
        self,
        agreement: Agreement,
        implementation: Implementation,
        layer: Layer,
        pass_: Pass,
        threads: int,
        seed: int,
    ) -> Agreement:
        """Return the agreement of a cell that is right, or that it is wrong in later calls."""
        problem = self._steadiness.problem(implementation, layer, pass_, threads, seed)
        if problem is None:
            return agreement
        kind = MistakeKind("depends-on-previous-call", "later")
        explanation = Explanation.of([kind], problem, reproduces=False)
        return replace(agreement, verdict="wrong", diagnosis=problem, explanation=explanation)

    def remarked(
        self,
        agreement: Agreement,
        implementation: Implementation,
        layer: Layer,
        pass_: Pass,
        threads: int,
        seed: int,
    ) -> Agreement:
        """Return the agreement, with remarks on threads that call at once, and on NaN.

        The first cell of each pass is tried; the agreements of its other cells stay as they are.
        """
        subject = implementation.name, pass_
        if subject in self._called_at_once:
            return agreement
        self._called_at_once.add(subject)
        small = replace(
            layer,
            batch_size=min(layer.batch_size, 2),
            input_shape=(*small_size(layer), layer.channels),
        )
        if unsafe_for_threads(implementation, small, pass_, seed):
            agreement = agreement.remarked(RemarkKind.SHARED_WORKSPACE, NOT_FOR_THREADS)
        if not_finite := hidden(implementation, small, pass_, seed):
            sentence = (
                f"{' and '.join(not_finite)} in the operands does not reach all results that "
                "depend on it, so that such a fault stays hidden"
            )
            agreement = agreement.remarked(RemarkKind.HIDES_NOT_FINITE, sentence)
        return agreement


def _right_with(
    implementation: Implementation, layer: Layer, pass_: Pass, threads: int, seed: int
) -> str | None:
    for options, other in implementation.other_layouts():
        try:
            if check(other, layer, pass_, threads, seed).verdict == "agrees":
                return f"it expects arrays with other axes, and is right with {options}"
        except (Exception, SystemExit):  # noqa: BLE001 - code that raises has other axes
            continue
    return None
