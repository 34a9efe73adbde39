"""Turn a judgement into a report: one row for each verdict, and a closing sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial

from convbench.gate import ALPHA, Evidence, Judgement, Outcome, Question, Subject, Verdict, fails
from convbench.report.views import deviation_words, scale
from convbench.report.views.ci_checks import cell_check
from convbench.report.views.resolution_notes import resolution_notes, twins_notes
from convbench.report.views.run_notes import facts
from convbench.report.views.run_tables import PASS_HEADINGS
from convbench.report.views.table import (
    MISSING,
    Check,
    Column,
    Fact,
    Kind,
    Note,
    Point,
    Report,
    Row,
    Section,
    Table,
    Tone,
    Value,
    text,
)
from convbench.report.views.table import Outcome as CheckOutcome
from convbench.results.model import Cell, Part, ResultFile
from convbench.suites.suite import FASTEST_KERAS, QUANTITIES

_TONES: dict[Outcome, Tone] = {
    "regressed": "bad",
    "holds": "good",
    "inconclusive": "warning",
    "unreliable": "warning",
    "incomparable": "bad",
}
_SHORT_OUTCOMES: dict[Outcome, str] = {"inconclusive": "inconcl.", "incomparable": "incompar."}
_SHORT_PASSES: dict[Part, str] = {
    pass_: short for pass_, (_, short) in PASS_HEADINGS.items() if pass_ and short
}
_WORST_FIRST: dict[Outcome, tuple[str, str]] = {
    "incomparable": ("is incomparable", "are incomparable"),
    "regressed": ("regressed", "regressed"),
    "unreliable": ("is unreliable", "are unreliable"),
    "inconclusive": ("is inconclusive", "are inconclusive"),
    "holds": ("holds", "hold"),
}
"""Verbs for one rule and for several rules with that outcome."""


def report(judgement: Judgement, result: ResultFile) -> Report:
    return Report(
        title=f"convbench gate: {judgement.target}",
        facts=(*facts(result), *_held_to(judgement)),
        tables=(_table(judgement),),
        notes=tuple(_notes(judgement, result)),
        flat=partial(_flat, judgement),
        document=judgement,
        checks=(
            *(_check(verdict, judgement) for verdict in judgement.verdicts),
            *(cell_check(cell) for cell in _wrong(judgement, result)),
        ),
        points=tuple(_points(judgement)),
    )


def _held_to(judgement: Judgement) -> Iterator[Fact]:
    if judgement.baseline:
        yield Fact("baseline", judgement.baseline)
    if judgement.version:
        yield Fact("against", f"{judgement.version}, in the same run")


# The table


def _table(judgement: Judgement) -> Table:
    columns = (
        Column("where", "", fit="shorten"),
        Column("verdict", "verdict"),
        Column("found", "found", align="right", optional=2),
        Column("limit", "limit", align="right", optional=4),
        Column("slowdown", "slowdown", align="right"),
        Column("bounds", "bounds", align="right"),
        Column("rounds", "rounds", align="right", short="R", optional=1),
        Column("detects", "detects", align="right", optional=3),
    )
    groups: dict[str, list[Verdict]] = {}
    for verdict in judgement.verdicts:
        groups.setdefault(_rule(verdict.question, judgement), []).append(verdict)
    sections = tuple(
        Section(
            tuple(_row(verdict) for verdict in verdicts),
            heading=rule,
            details=_margin_words(verdicts[0].question),
        )
        for rule, verdicts in groups.items()
    )
    return Table("Verdicts", columns, sections).without_empty_columns()


def _rule(question: Question, judgement: Judgement) -> str:
    name, versus = question.subject.implementation, question.subject.versus
    if question.against == "version":
        return f"{name} no slower than {versus}"
    if question.against == "baseline":
        return f"{name} no slower than in {judgement.baseline}, over {_yardstick(versus)}"
    return f"{name} {question.rule}"


def _yardstick(versus: str | None) -> str:
    return "the fastest Keras" if versus == FASTEST_KERAS else str(versus)


def _margin_words(question: Question) -> str:
    above, under = question.margins.fails_above, question.margins.holds_under
    if question.slowdown is None and question.settled in ("holds", "regressed"):
        return ""
    if above == under:
        return f"(tolerance {_percentage(above)})" if above else ""
    return f"(fails beyond {_percentage(above)}, holds under {_percentage(under)})"


def _percentage(part: float) -> str:
    return f"{part * 100:.3g} %"


def _row(verdict: Verdict) -> Row:
    question, evidence = verdict.question, verdict.evidence
    values = (
        text(_where(question.subject), short=_where(question.subject, is_short=True)),
        text(verdict.outcome, _TONES[verdict.outcome], _SHORT_OUTCOMES.get(verdict.outcome)),
        _figure(question, question.found),
        _figure(question, question.limit),
        *_evidence(evidence),
    )
    remark = None if verdict.reason is None else text(verdict.reason, "dim")
    return Row(values, remark)


def _where(subject: Subject, is_short: bool = False) -> str:
    """Name the layer and the pass, in fewer characters if `is_short`."""
    layer = "geometric mean" if subject.layer is None else subject.layer
    if subject.pass_ is None:
        return f"{layer} all passes"
    short = _SHORT_PASSES.get(subject.pass_, subject.pass_)
    return f"{layer} {short if is_short else subject.pass_}"


def _figure(question: Question, figure: float | None) -> Value:
    if figure is None:
        return MISSING
    return text(scale.amount(Kind(QUANTITIES[question.quantity].written), figure))


def _evidence(evidence: Evidence | None) -> tuple[Value, ...]:
    if evidence is None:
        return (MISSING,) * 4
    return (
        text(scale.change(evidence.estimate, evidence.ci99)),
        text(f"[{scale.change(evidence.lower_bound)}, {scale.change(evidence.upper_bound)}]"),
        text(str(evidence.rounds)),
        text(scale.change(evidence.minimum_detectable)),
    )


# Notes


def _notes(judgement: Judgement, result: ResultFile) -> Iterator[Note]:
    timed = any(verdict.evidence for verdict in judgement.verdicts)
    if timed:
        yield Note(_legend(judgement), "dim")
    if judgement.version is not None:  # what is compared are not the result's own figures
        yield from twins_notes(result, judgement.twins, timed)
    elif timed or judgement.twins:
        yield from resolution_notes(result, can_go_on=False)
    yield from _deviation_notes(judgement)
    for note in judgement.notes:
        yield Note(f"note: {note}")
    for cell in _wrong(judgement, result):
        why = cell.reason or "see convbench show"
        yield Note(
            f"{cell.layer} {cell.pass_} {cell.implementation} is {cell.status}: {why}", "bad"
        )
    yield Note(_sum(judgement), "strong")


def _wrong(judgement: Judgement, result: ResultFile) -> list[Cell]:
    """Return the cells that fail the job whatever its verdicts. The old version's cells do not."""
    return [
        cell
        for cell in result.cells
        if cell.status in ("wrong", "failed") and cell.implementation != judgement.version
    ]


def _legend(judgement: Judgement) -> str:
    number = sum(verdict.evidence is not None for verdict in judgement.verdicts)
    share = f"{judgement.alpha * 100:g} % a look, " if judgement.alpha < ALPHA else ""
    return (
        "slowdown: time over what the rule allows, ± half of its 99 % interval; bounds: one-sided, "
        f"the lower one corrected for {scale.counted(number, 'rule')} (false alarms of the whole "
        f"job: {share}{ALPHA * 100:g} % in all); detects: the slowdown that 9 of 10 such runs "
        "would report"
    )


def _deviation_notes(judgement: Judgement) -> Iterator[Note]:
    if judgement.deviations is None:
        return
    deviation = _percentage(judgement.deviations.speedup)
    if judgement.deviations.learnt:
        words = deviation_words.between_two(judgement.deviations)
        yield Note(f"the same code is taken to differ in the two sessions: {words}", "dim")
    elif judgement.deviations.source:
        yield Note(
            f"speedups of the same code are taken to deviate by {deviation} between the two "
            f"sessions ({judgement.deviations.source})",
            "dim",
        )
    else:
        yield Note(
            f"warning: how much speedups deviate between sessions here is not known; {deviation} "
            "is assumed",
            "warning",
            details="convbench noise measures it: give its file with --noise",
        )


def _sum(judgement: Judgement) -> str:
    counts = Counter(verdict.outcome for verdict in judgement.verdicts)
    counted = [
        f"{counts[outcome]} {one if counts[outcome] == 1 else several}"
        for outcome, (one, several) in _WORST_FIRST.items()
        if counts[outcome]
    ]
    looks = f" after {scale.counted(judgement.looks, 'look')}" if judgement.looks > 1 else ""
    passed = "passes" if judgement.exit_code == 0 else "fails"
    number = scale.counted(len(judgement.verdicts), "rule")
    return (
        f"The gate {passed}{looks}: of {number}, {scale.listed(counted)} "
        f"(exit code {int(judgement.exit_code)})."
    )


# For continuous integration, and for spreadsheets


def _check(verdict: Verdict, judgement: Judgement) -> Check:
    question, evidence = verdict.question, verdict.evidence
    outcome: CheckOutcome = "passed" if verdict.outcome == "holds" else "inconclusive"
    if fails(verdict, judgement.on_inconclusive):
        outcome = "failed"
    message = str(verdict.outcome)
    if evidence is not None:
        message += f": slowdown {scale.change(evidence.estimate)}, bounds "
        message += f"{scale.change(evidence.lower_bound)} to {scale.change(evidence.upper_bound)}"
    if verdict.reason:
        message += f" ({verdict.reason})"
    name = f"{_where(question.subject)}: {_rule(question, judgement)}"
    return Check(name, outcome, message, _evidence_words(question, evidence))


def _evidence_words(question: Question, evidence: Evidence | None) -> str:
    if evidence is None:
        return ""
    found, limit = (_figure(question, figure).raw for figure in (question.found, question.limit))
    interval = scale.bounds(evidence.ci99) if evidence.ci99 else "none"
    return (
        f"found {found}, limit {limit}; slowdown {evidence.estimate:.4f}, 99 % interval "
        f"{interval}; {scale.counted(evidence.rounds, 'round')}; {_margin_words(question)} "
        f"minimum detectable slowdown {scale.change(evidence.minimum_detectable)}"
    )


def _points(judgement: Judgement) -> Iterator[Point]:
    """Yield times divided by the time of what they are compared with. Smaller is better, and a
    faster machine moves them little."""
    for verdict in judgement.verdicts:
        question, evidence = verdict.question, verdict.evidence
        if question.found is None or question.limit is None:
            continue
        name = f"{_where(question.subject)}: {_rule(question, judgement)}"
        said = QUANTITIES[question.quantity]
        low_high, extra = None, str(verdict.outcome)
        if evidence is not None:
            extra += f", {scale.counted(evidence.rounds, 'round')}"
            if evidence.ci99 and question.against != "baseline":
                low_high = (evidence.ci99[0] / question.limit, evidence.ci99[1] / question.limit)
        unit = said.point.format(versus=question.subject.versus)
        value = 1 / question.found if said.larger_is_better else question.found
        yield Point(name, unit, value, low_high, extra)


def _flat(judgement: Judgement) -> Table:
    rows = [_flat_row(verdict) for verdict in judgement.verdicts]
    columns = tuple(column for column, _ in rows[0]) if rows else (Column("against"),)
    return Table(
        "verdicts", columns, (Section(tuple(Row(tuple(v for _, v in row)) for row in rows)),)
    )


def _flat_row(verdict: Verdict) -> list[tuple[Column, Value]]:
    question, evidence = verdict.question, verdict.evidence
    subject = question.subject
    words: dict[str, str | None] = {
        "against": question.against,
        "rule": question.rule,
        "layer": subject.layer,
        "pass": subject.pass_,
        "implementation": subject.implementation,
        "versus": subject.versus,
        "verdict": verdict.outcome,
    }
    numbers: dict[str, float | None] = {
        "found": question.found,
        "limit": question.limit,
        "fails_above": question.margins.fails_above,
        "holds_under": question.margins.holds_under,
        "lower_bound": evidence.lower_bound if evidence else None,
        "upper_bound": evidence.upper_bound if evidence else None,
        "alpha": evidence.alpha if evidence else None,
        "rounds": evidence.rounds if evidence else None,
        "minimum_detectable": evidence.minimum_detectable if evidence else None,
    }
    slowdown = Value(Kind.RATIO, None)
    if evidence is not None:
        slowdown = Value(Kind.RATIO, evidence.estimate, evidence.ci99)
    return [
        *((Column(key), Value(Kind.TEXT, value)) for key, value in words.items()),
        (Column("slowdown", has_interval=True), slowdown),
        *((Column(key), Value(Kind.NUMBER, value)) for key, value in numbers.items()),
        (Column("reason"), Value(Kind.TEXT, verdict.reason)),
    ]
