"""Hold what a result is judged by (floors, a baseline, another version), and the judgement."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from convbench.compare import Deviations, incomparable
from convbench.errors import ExitCode
from convbench.gate.decision import OnInconclusive, Question, Verdict, decide
from convbench.gate.questions import against_baseline, against_version, deviations_between, floors
from convbench.results.model import Duplicate
from convbench.results.summary import quickest_twins
from convbench.suites.suite import FASTEST_KERAS, KERAS_WAYS, Rule, Suite

if TYPE_CHECKING:
    from convbench.results.file import Saved


@dataclass(frozen=True)
class Terms:
    """The terms of a gate: what a result is judged by.

    `versions` are the names of the new and the old version. `tolerance` is a fraction; None stands
    for the default. `deviations` and `allow_different_machine` concern the baseline only.
    """

    rules: tuple[Rule, ...] = ()
    baseline: Saved | None = None
    versions: tuple[str, str] | None = None
    tolerance: float | None = None
    deviations: Deviations = field(default_factory=Deviations)
    allow_different_machine: bool = False

    def questions(self, saved: Saved) -> list[Question]:
        """Return the questions about floors, then those about the baseline and the version."""
        asked = floors(self.rules, saved, self.tolerance)
        if self.baseline is not None:
            asked += against_baseline(
                self.baseline, saved, self.tolerance, self.deviations, self.allow_different_machine
            )
        if self.versions is not None:
            asked += against_version(saved, *self.versions, self.tolerance)
        return asked

    def verdicts(self, saved: Saved, alpha: float) -> list[Verdict]:
        """Return a verdict for each question, at family-wise error `alpha`."""
        return decide(self.questions(saved), alpha)

    def twins(self, saved: Saved) -> tuple[Duplicate, ...]:
        """Return the duplicate arms that show whether the timings can be trusted."""
        twins: tuple[Duplicate, ...] = ()
        if self.versions is not None:
            twins += quickest_twins(saved.result, saved.benchmarks)
        if self.rules or self.baseline is not None:
            twins += saved.result.duplicates
        return twins

    def overlooked(self, saved: Saved) -> tuple[str, ...]:
        """Say what would make the baseline incomparable if other machines were not allowed."""
        if self.baseline is None or not self.allow_different_machine:
            return ()
        return incomparable(self.baseline.result, saved.result)

    def deviations_for(self, saved: Saved) -> Deviations | None:
        """Return the deviations between the baseline's session and the result's, if it has one."""
        if self.baseline is None:
            return None
        return deviations_between(
            self.baseline, saved, self.deviations, self.allow_different_machine
        )


@dataclass(frozen=True)
class Judgement:
    """The findings of a gate.

    `target` names what was judged, `baseline` and `version` what it was compared with. `alpha` is
    the probability of a false alarm that a look may have. `twins` are the duplicate arms that the
    verdicts rest on. Each of the `notes` is one line.
    """

    target: str
    verdicts: tuple[Verdict, ...]
    looks: int
    alpha: float
    exit_code: ExitCode
    on_inconclusive: OnInconclusive | None = None
    baseline: str | None = None
    version: str | None = None
    deviations: Deviations | None = None
    twins: tuple[Duplicate, ...] = ()
    notes: tuple[str, ...] = ()


def why_not_of(rule: Rule, suite: Suite) -> str | None:
    """Say why a rule matches nothing in a suite; None if it matches something."""
    names = suite.implementations
    if rule.implementation not in names:
        return f"there is no implementation {rule.implementation}"
    if rule.versus == FASTEST_KERAS and not set(KERAS_WAYS) & set(names):
        return f"there is none of {', '.join(KERAS_WAYS)} to compare with"
    if rule.versus not in (None, FASTEST_KERAS, *names):
        return f"there is no implementation {rule.versus} to compare with"
    if rule.pass_ not in (None, *suite.passes):
        return f"there is no pass {rule.pass_}"
    if not any(fnmatchcase(name, rule.layer) for name in suite.subjects):
        return f"no layer matches {rule.layer}"
    return None
