"""Diagnose many cells in one process, and ask only once what all cells of a pass share."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from convbench.agreement.check.checker import check
from convbench.agreement.diagnosis.behaviour import unsafe_for_threads
from convbench.agreement.diagnosis.search import Search, diagnose, small_size
from convbench.agreement.diagnosis.smallest import smallest_example
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
        self._other_layouts: dict[Subject, str | None] = {}

    def explained(
        self,
        implementation: Implementation,
        layer: Layer,
        pass_: Pass,
        threads: int,
        seed: int,
    ) -> tuple[Explanation, ...]:
        """Return all explanations of a wrong cell, with an example if the explanations are new."""
        subject = implementation.name, pass_
        if advice := self.other_layout(implementation, layer, pass_, threads, seed):
            return (Explanation.of([OTHER_AXES], advice, reproduces=True),)
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

    def remarked(
        self,
        agreement: Agreement,
        implementation: Implementation,
        layer: Layer,
        pass_: Pass,
        threads: int,
        seed: int,
    ) -> Agreement:
        """Return the agreement, with a remark if two threads cannot call own code at once.

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
        if not unsafe_for_threads(implementation, small, pass_, seed):
            return agreement
        return agreement.remarked(RemarkKind.SHARED_WORKSPACE, NOT_FOR_THREADS)


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
