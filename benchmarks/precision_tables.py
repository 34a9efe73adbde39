"""Turn the answers of a precision campaign into a table for each pair, ranked by time."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from precision_answers import PAIRS, Answer, Campaign, Pair
from precision_tools import TOOLS

from convbench.report.formats.layout import Frame, lines
from convbench.report.views.scale import counted, listed, significant
from convbench.report.views.table import (
    MISSING,
    Column,
    Fact,
    Kind,
    Note,
    Report,
    Row,
    Section,
    Table,
    Value,
    text,
)
from convbench.results import stats

WIDTH = 100
"""Largest number of columns in a line of the text."""

ALPHA = 0.05
"""Smallest probability of a right tool's wrong answers. A tool is not right if its own confidence
makes as many wrong answers as it has, or more, less probable than this."""

LEAST_JUDGED = 20
"""Smallest number of answers for which a tool gets a place. If none of them is wrong, 14 % of all
answers still may be (95 %, Clopper and Pearson)."""

SHARE_WITHIN = 0.9
"""Share of the answers that deviate from the true ratio by no more than the column `off`."""

SUBJECT = "convbench"
"""Name of the tool whose place is the goal of issue 17."""


@dataclass(frozen=True)
class Standing:
    """Summary of all answers of one tool on one pair.

    `seconds` are medians by precision, inf if at least half of the answers did not get there.
    `wrong` of the `judged` answers have an interval that misses the true ratio. `off` is the
    largest deviation from the true ratio among the nearest SHARE_WITHIN of the answers, `ratio` the
    median answer. `place` is None for a tool that is not right, never gets there, or has too few
    answers.
    """

    tool: str
    seconds: Mapping[float, float]
    asked: int
    there: int
    judged: int
    wrong: int
    off: float | None
    ratio: float | None
    place: int | None = None

    @property
    def wrong_at_most(self) -> float | None:
        """Upper bound of the share of wrong answers (95 %, Clopper and Pearson)."""
        return stats.proportion_upper(self.wrong, self.judged) if self.judged else None

    @property
    def is_right(self) -> bool:
        """Whether chance explains the wrong answers: the lower bound of their share (95 %, Clopper
        and Pearson) is then no higher than the tool's own confidence allows."""
        if not self.judged:
            return True
        lower = 1 - stats.proportion_upper(self.judged - self.wrong, self.judged, 1 - ALPHA)
        return lower <= 1 - TOOLS[self.tool].confidence

    @property
    def has_place(self) -> bool:
        """Whether the tool has enough answers, is right by them, and reaches some precision."""
        enough = self.judged >= LEAST_JUDGED
        return enough and self.is_right and min(self.seconds.values()) < math.inf

    @property
    def order(self) -> tuple[int, float]:
        """Number of precisions not reached, and geometric mean of the seconds to the others."""
        reached = [seconds for seconds in self.seconds.values() if seconds < math.inf]
        return len(self.seconds) - len(reached), statistics.geometric_mean(reached or [math.inf])


def consensus(answers: Iterable[Answer], without: str) -> float | None:
    """Return the ratio that the other tools give in the long run, or None if no other tool has
    answered. It is the median of the tools' median answers, so that every tool has one voice."""
    logs: dict[str, list[float]] = {}
    for answer in answers:
        if answer.finding is not None and answer.question.tool != without:
            logs.setdefault(answer.question.tool, []).append(math.log(answer.finding.ratio))
    if not logs:
        return None
    return math.exp(statistics.median(statistics.median(of_one) for of_one in logs.values()))


def standings(pair: Pair, answers: Sequence[Answer], ceiling_s: float) -> list[Standing]:
    """Return every tool that was asked about a pair, those with a place first and in its order."""
    of_pair = [answer for answer in answers if answer.question.pair == pair.name]
    tools = dict.fromkeys(answer.question.tool for answer in of_pair)
    precisions = sorted({answer.question.precision for answer in of_pair}, reverse=True)
    found = []
    for tool in tools:
        truth = pair.ratio if pair.ratio is not None else consensus(of_pair, without=tool)
        own = [answer for answer in of_pair if answer.question.tool == tool]
        found.append(_standing(tool, own, precisions, truth, ceiling_s))
    found.sort(key=lambda each: (not each.has_place, not each.is_right, each.order))
    return [
        replace(each, place=place) if each.has_place else each
        for place, each in enumerate(found, 1)
    ]


def _standing(
    tool: str,
    answers: Sequence[Answer],
    precisions: Sequence[float],
    truth: float | None,
    ceiling_s: float,
) -> Standing:
    seconds = {}
    for precision in precisions:
        times = [
            answer.seconds if answer.is_there(ceiling_s) else math.inf
            for answer in answers
            if answer.question.precision == precision
        ]
        seconds[precision] = statistics.median(times) if times else math.inf
    findings = [answer.finding for answer in answers if answer.finding is not None]
    judged = [] if truth is None else findings
    deviations = sorted(abs(math.log(finding.ratio / truth)) for finding in judged if truth)
    return Standing(
        tool,
        seconds,
        asked=len(answers),
        there=sum(answer.is_there(ceiling_s) for answer in answers),
        judged=len(judged),
        wrong=sum(finding.misses(truth) for finding in judged if truth),
        off=math.expm1(deviations[math.ceil(SHARE_WITHIN * len(judged)) - 1]) if judged else None,
        ratio=statistics.median(finding.ratio for finding in findings) if findings else None,
    )


def report(campaign: Campaign, remarks: Iterable[str] = ()) -> Report:
    """Return the report. The campaign's own `remarks` say which tools were left out, and why."""
    setting = campaign.setting
    found = {
        name: standings(pair, campaign.answers, setting.ceilings_s[name])
        for name, pair in PAIRS.items()
    }
    found = {name: of_pair for name, of_pair in found.items() if of_pair}
    versions = ", ".join(f"{name} {version}" for name, version in setting.versions.items())
    cores = f"{counted(setting.cores, 'core')}, {counted(setting.logical_cpus, 'logical CPU')}"
    tables = tuple(_table(PAIRS[name], of, campaign) for name, of in found.items())
    return Report(
        title="convbench: seconds until a speedup is known",
        facts=(
            Fact("machine", f"{setting.cpu}, {cores}"),
            Fact("run", f"{counted(setting.threads, 'thread')}, {_when(campaign.answers)}"),
            Fact("versions", versions),
        ),
        tables=tables,
        notes=tuple(_notes(found, remarks)),
        flat=lambda: tables[0],
        document=None,
    )


def as_text(report: Report) -> str:
    """Write the report with lines of at most WIDTH columns."""
    found = ("".join(words for words, _ in line) for line in lines(report, Frame(WIDTH, False)))
    return "".join(f"{line.rstrip()}\n" for line in found)


def _when(answers: Sequence[Answer]) -> str:
    if not answers:
        return "no answers yet"
    days = sorted(answer.started[:10] for answer in answers)
    when = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
    hours = sum(answer.seconds for answer in answers) / 3600
    return f"{counted(len(answers), 'answer')} in {significant(hours, 2)} hours, {when}"


def _table(pair: Pair, standings: Sequence[Standing], campaign: Campaign) -> Table:
    ceiling_s = campaign.setting.ceilings_s[pair.name]
    precisions = list(standings[0].seconds)
    columns = (
        Column("place", "place", align="right"),
        Column("tool", "tool"),
        Column("confidence", "says", "%", "right"),
        *(Column(f"to_{p}", f"to {p * 100:g} %", "s", "decimal") for p in precisions),
        Column("there", "got there", align="right"),
        Column("wrong", "wrong", align="right"),
        Column("wrong_at_most", "at most", "%", "decimal"),
        Column("off", "off", "%", "decimal"),
        Column("ratio", "ratio", align="decimal"),
    )
    rows = tuple(_row(standing, ceiling_s) for standing in standings)
    repetitions = {
        answer.question.repetition
        for answer in campaign.answers
        if answer.question.pair == pair.name
    }
    truth = "the other tools" if pair.ratio is None else f"{pair.ratio:g}"
    details = (
        f"{counted(len(repetitions), 'repetition')}, at most {ceiling_s:g} s an answer, "
        f"true ratio: {truth}"
    )
    return Table(f"{pair.name}: {_described(pair)}", columns, (Section(rows, details),))


def _described(pair: Pair) -> str:
    if pair.a == pair.b:
        return f"{pair.a} against a copy of itself"
    return f"{pair.a} against {pair.b}"


def _row(standing: Standing, ceiling_s: float) -> Row:
    return Row(
        (
            _place(standing),
            text(standing.tool),
            text(f"{TOOLS[standing.tool].confidence * 100:g}"),
            *(_seconds(each, ceiling_s) for each in standing.seconds.values()),
            text(f"{standing.there} of {standing.asked}"),
            text(f"{standing.wrong} of {standing.judged}") if standing.judged else MISSING,
            _number(Kind.FRACTION, standing.wrong_at_most),
            _number(Kind.FRACTION, standing.off),
            _number(Kind.RATIO, standing.ratio),
        )
    )


def _place(standing: Standing) -> Value:
    if standing.place is not None:
        return text(f"{standing.place}")
    if not standing.is_right:
        return text("wrong", "bad")
    return text("few", "dim") if standing.judged < LEAST_JUDGED else MISSING


def _seconds(seconds: float, ceiling_s: float) -> Value:
    if seconds == math.inf:
        return text(f">{ceiling_s:g}")
    return Value(Kind.NUMBER, seconds)


def _number(kind: Kind, number: float | None) -> Value:
    return MISSING if number is None else Value(kind, number)


def _notes(found: Mapping[str, Sequence[Standing]], remarks: Iterable[str]) -> Iterable[Note]:
    for name, of_pair in found.items():
        yield Note(_verdict(name, of_pair), details=_quickest(of_pair))
    yield from (Note(remark, "warning") for remark in remarks)
    yield Note(
        f"place: by the geometric mean of the seconds, among tools that are right; a tool is right "
        f"unless the lower bound (95 %) of its share of wrong answers is above what its confidence "
        f"allows (column `says`: {_allowed()}); few: less than {LEAST_JUDGED} answers"
    )
    yield Note(
        "to P %: median seconds of wall time until half of the interval that the tool claims is at "
        "most P % (starts of processes, imports and attempts that were too wide included); got "
        "there: answers that narrow before the ceiling"
    )
    yield Note(
        "wrong: answers whose interval misses the true ratio, whatever their width; at most: upper "
        "bound of that share (95 %, Clopper and Pearson); off: what 9 of 10 answers deviate from "
        "the true ratio at most; ratio: the median answer, time of the first function over the "
        "second's"
    )
    if any(PAIRS[name].ratio is None for name in found):
        yield Note(
            "Nobody knows the true ratio of two different functions: an answer is held against the "
            "median of the other tools' median answers of all repetitions and precisions"
        )
    tools = dict.fromkeys(standing.tool for of_pair in found.values() for standing in of_pair)
    yield Note(
        "What each tool's interval is:" if tools else "There are no answers yet",
        points=tuple(f"{tool}: {TOOLS[tool].claim}" for tool in TOOLS if tool in tools),
    )


def _allowed() -> str:
    by_confidence: dict[float, None] = dict.fromkeys(tool.confidence for tool in TOOLS.values())
    words = [f"{(1 - each) * 100:.0f} % at {each * 100:g}" for each in by_confidence]
    return ", ".join(words)


def _verdict(pair: str, standings: Sequence[Standing]) -> str:
    """Say whether the goal is met."""
    places = {standing.tool: standing for standing in standings}
    if SUBJECT not in places:
        return f"{pair}: {SUBJECT} was not asked"
    subject = places[SUBJECT]
    if subject.place == 1:
        return f"{pair}: {SUBJECT} is in first place: met"
    if subject.place is not None:
        ahead = [standing.tool for standing in standings[: subject.place - 1]]
        return f"{pair}: {SUBJECT} is in place {subject.place}, behind {listed(ahead)}: MISSED"
    if not subject.is_right:
        return f"{pair}: {SUBJECT} is not right: MISSED"
    if subject.judged < LEAST_JUDGED:
        return f"{pair}: too few answers of {SUBJECT} to tell ({subject.judged})"
    return f"{pair}: {SUBJECT} does not get there: MISSED"


def _quickest(standings: Sequence[Standing]) -> str:
    """Name the quickest of the tools that are right, for each precision."""
    placed = [standing for standing in standings if standing.place is not None]
    if not placed:
        return ""
    words = []
    for precision in placed[0].seconds:
        seconds, tool = min((standing.seconds[precision], standing.tool) for standing in placed)
        words.append(f"{'nobody' if seconds == math.inf else tool} to {precision * 100:g} %")
    return f"quickest of those that are right: {', '.join(words)}"
