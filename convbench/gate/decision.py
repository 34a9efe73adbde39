"""Turn questions into verdicts: has a speedup fallen, does a floor hold, or can nobody tell?

Rules come as questions (see questions.py), each with an estimate of how much too slow something is.
Here they are decided together (docs/measuring.md). The outcome is *regressed* if the lower bound of
the slowdown is beyond a margin, with Holm's procedure over all questions. It is *holds* if the
upper bound is below a second, wider margin, and *inconclusive* otherwise. With one margin for both,
a clean run would rarely hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from convbench.errors import PRECEDENCE, ExitCode
from convbench.results import stats
from convbench.results.model import Part
from convbench.suites.suite import FILE_NAMES, Quantity

ALPHA = 0.01
"""Probability of a false alarm that a whole job may have, over all rules and looks."""

LOOKS = 2
"""Number of looks that a job takes at most. A run that is still open after the first look goes on
once. Each look has its share of ALPHA."""

SECOND_LOOK = 3
"""How many times the rounds of the first look the second one has. (With 27 rules and twice the
rounds, a slowdown of 5 % was found in only 83 % of 54 trials, because Student's t is wide at the
level that Holm's procedure leaves.)"""

TOLERANCE = 0.01
"""Slowdown, as a fraction, up to which nothing counts as one where no tolerance is given."""

ROOM = 0.04
"""Room above the tolerance, as a fraction. A rule holds if the slowdown is credibly below their
sum."""

POWER = 0.9
"""Probability with which a gate finds a slowdown of the minimum detectable size."""

Against = Literal["floor", "baseline", "version"]
Outcome = Literal["regressed", "holds", "inconclusive", "unreliable", "incomparable"]
Interval = tuple[float, float]
OnInconclusive = Literal["pass", "fail"]


@dataclass(frozen=True)
class Subject:
    """The subject of a verdict. `layer` None stands for a geometric mean over layers."""

    implementation: str
    versus: str | None
    layer: str | None
    pass_: Part | None

    __pydantic_config__ = FILE_NAMES


@dataclass(frozen=True)
class Margins:
    """The two margins of a slowdown, as fractions.

    A rule has regressed if the slowdown is credibly beyond `fails_above`, and it holds if the
    slowdown is credibly below `holds_under`.
    """

    fails_above: float
    holds_under: float


@dataclass(frozen=True)
class Question:
    """One thing to decide. `slowdown` is measured time over allowed time; above 1 is too slow.

    `found` and `limit` are two figures of `quantity`. Where nothing can be estimated, `settled` is
    the outcome and `reason` says why. Where a twin disagreed, `distrust` says why the timings
    cannot be trusted. `rule` tells people what is asked.
    """

    against: Against
    subject: Subject
    rule: str
    margins: Margins
    slowdown: stats.Estimate | None = None
    found: float | None = None
    limit: float | None = None
    settled: Outcome | None = None
    reason: str | None = None
    distrust: str | None = None
    quantity: Quantity = "speedup"


@dataclass(frozen=True)
class Evidence:
    """The evidence for a verdict. Slowdowns are ratios: 1.05 is 5 % slower.

    `lower_bound` is one-sided, at the level `alpha` that Holm's procedure left for this question;
    `upper_bound` is one-sided at the level of the look. `minimum_detectable` is the slowdown that
    nine of ten such runs would have reported.
    """

    estimate: float
    ci99: Interval | None
    lower_bound: float
    upper_bound: float
    alpha: float
    rounds: int
    minimum_detectable: float


@dataclass(frozen=True)
class Verdict:
    """The answer to a question. `reason` tells people what the outcome and evidence do not."""

    question: Question
    outcome: Outcome
    evidence: Evidence | None = None
    reason: str | None = None


def look_alpha(looks: int = LOOKS) -> float:
    """Return the probability of a false alarm that each of several looks may have."""
    return ALPHA / looks


def decide(questions: Sequence[Question], alpha: float) -> list[Verdict]:
    """Return a verdict for each question, at family-wise error `alpha`."""
    open_ = [q for q in questions if q.settled is None and q.slowdown is not None]
    levels = stats.holm_levels([_p_value(question) for question in open_], alpha)
    level_of = dict(zip(map(id, open_), levels, strict=True))
    return [_verdict(q, level_of.get(id(q)), alpha) for q in questions]


def is_open(verdict: Verdict) -> bool:
    """Return whether more rounds could decide the question."""
    return verdict.outcome == "inconclusive" and verdict.evidence is not None


def after_second_look(first: Sequence[Verdict], second: Sequence[Verdict]) -> list[Verdict]:
    """Return the verdicts after both looks.

    A verdict of the first look stands, unless more rounds turn it into a regression or show that
    the run is unreliable.
    """
    return [
        now if is_open(then) or now.outcome in ("regressed", "unreliable") else then
        for then, now in zip(first, second, strict=True)
    ]


def _p_value(question: Question) -> float:
    assert question.slowdown is not None
    return question.slowdown.p_above(math.log1p(question.margins.fails_above))


def _verdict(question: Question, level: float | None, alpha: float) -> Verdict:
    slowdown = question.slowdown
    if question.settled is not None or slowdown is None:
        return Verdict(question, question.settled or "inconclusive", None, question.reason)
    if slowdown.rounds < stats.MIN_ROUNDS:
        rounds = f"{slowdown.rounds} of at least {stats.MIN_ROUNDS} rounds"
        return Verdict(question, "inconclusive", None, f"too few rounds to tell: {rounds}")
    assert level is not None
    evidence = _evidence(slowdown, question.margins, level, alpha)
    if question.distrust is not None:
        return Verdict(question, "unreliable", evidence, question.distrust)
    if evidence.lower_bound > 1 + question.margins.fails_above:
        return Verdict(question, "regressed", evidence, question.reason)
    if evidence.upper_bound <= 1 + question.margins.holds_under:
        return Verdict(question, "holds", evidence, question.reason)
    return Verdict(question, "inconclusive", evidence, question.reason)


def _evidence(slowdown: stats.Estimate, margins: Margins, level: float, alpha: float) -> Evidence:
    found_above = stats.t_quantile(1 - level, slowdown.degrees)
    found_above += stats.t_quantile(POWER, slowdown.degrees)
    return Evidence(
        estimate=slowdown.value,
        ci99=slowdown.interval(),
        lower_bound=slowdown.lower(level),
        upper_bound=slowdown.upper(alpha),
        alpha=level,
        rounds=slowdown.rounds,
        minimum_detectable=(1 + margins.fails_above) * math.exp(found_above * slowdown.error),
    )


def exit_code(
    verdicts: Sequence[Verdict], on_inconclusive: OnInconclusive | None, any_wrong: bool
) -> ExitCode:
    """Return one code for all verdicts, the first in the order of errors.PRECEDENCE.

    With `on_inconclusive` None, an inconclusive verdict passes against a baseline or a version, and
    fails for a floor.
    """
    found = {ExitCode.FINE}
    if any_wrong:
        found.add(ExitCode.WRONG)
    if _nothing_compared(verdicts):
        found.add(ExitCode.INCONCLUSIVE)
    for verdict in verdicts:
        found.add(_code(verdict, on_inconclusive))
    return next(code for code in PRECEDENCE if code in found)


def _nothing_compared(verdicts: Sequence[Verdict]) -> bool:
    """Return whether no comparison with the other version was made.

    An example is a version that cannot be imported. Without this check, the gate would pass for
    ever.
    """
    versions = [v.question for v in verdicts if v.question.against == "version"]
    return bool(versions) and all(question.slowdown is None for question in versions)


def fails(verdict: Verdict, on_inconclusive: OnInconclusive | None) -> bool:
    """Return whether this verdict alone makes the gate exit with another code than 0."""
    return _code(verdict, on_inconclusive) is not ExitCode.FINE


def _code(verdict: Verdict, on_inconclusive: OnInconclusive | None) -> ExitCode:
    match verdict.outcome:
        case "holds":
            return ExitCode.FINE
        case "regressed":
            return ExitCode.GATE_FAILED
        case "incomparable":
            return ExitCode.INCOMPARABLE
        case "unreliable":
            return ExitCode.INCONCLUSIVE
    default = "fail" if verdict.question.against == "floor" else "pass"
    failing = (on_inconclusive or default) == "fail"
    return ExitCode.INCONCLUSIVE if failing else ExitCode.FINE
