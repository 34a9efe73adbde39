"""Hold what a result is judged by, floors, a baseline, another version, and what came of it."""

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
    """`versions` are the new and the old one's names; `tolerance` a part, None the default.

    `deviations` and `allow_different_machine` concern the baseline only.
    """

    rules: tuple[Rule, ...] = ()
    baseline: Saved | None = None
    versions: tuple[str, str] | None = None
    tolerance: float | None = None
    deviations: Deviations = field(default_factory=Deviations)
    allow_different_machine: bool = False

    def questions(self, saved: Saved) -> list[Question]:
        asked = floors(self.rules, saved, self.tolerance)
        if self.baseline is not None:
            asked += against_baseline(
                self.baseline, saved, self.tolerance, self.deviations, self.allow_different_machine
            )
        if self.versions is not None:
            asked += against_version(saved, *self.versions, self.tolerance)
        return asked

    def verdicts(self, saved: Saved, alpha: float) -> list[Verdict]:
        """One a question, at family-wise error `alpha`."""
        return decide(self.questions(saved), alpha)

    def twins(self, saved: Saved) -> tuple[Duplicate, ...]:
        """The duplicate arms that say whether the timings can be trusted."""
        twins: tuple[Duplicate, ...] = ()
        if self.versions is not None:
            twins += quickest_twins(saved.result, saved.benchmarks)
        if self.rules or self.baseline is not None:
            twins += saved.result.duplicates
        return twins

    def overlooked(self, saved: Saved) -> tuple[str, ...]:
        """What would make the baseline incomparable, had it not been allowed."""
        if self.baseline is None or not self.allow_different_machine:
            return ()
        return incomparable(self.baseline.result, saved.result)

    def deviations_for(self, saved: Saved) -> Deviations | None:
        """Between the sessions of the baseline and of the result; None without a baseline."""
        if self.baseline is None:
            return None
        return deviations_between(
            self.baseline, saved, self.deviations, self.allow_different_machine
        )


@dataclass(frozen=True)
class Judgement:
    """What a gate found. `target` is what was judged, `alpha` the false alarms of a look.

    `baseline` and `version` name what it was compared with; `twins` are the duplicate arms as the
    verdicts rest on them; `notes` are one line each.
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
    """Why a rule has nothing to do with a suite, or None."""
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
