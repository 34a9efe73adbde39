"""Report a profile: the headline, the waterfall, stages, lines, bounds, sweeps, advice."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import PurePath

from convbench.profile.document import Advice, Profile, Step
from convbench.report.views import scale
from convbench.report.views.run_notes import blas_line, caution_note, versions_line
from convbench.report.views.scale import figures, significant
from convbench.report.views.table import (
    MISSING,
    Bar,
    Chart,
    Column,
    Fact,
    Kind,
    Note,
    Report,
    Row,
    Section,
    Table,
    Tone,
    Value,
    text,
)

BAR_WIDTH = 24
"""Width, in characters, of a bar that spans the whole waterfall."""

WORTH = 1.02
"""Factor below which, and above whose inverse, a cause is dimmed and left out of the chart."""


def report(profile: Profile) -> Report:
    """Return the report of a profile, with a chart of its waterfall."""
    headline = profile.headline
    tables = [
        _waterfall(profile),
        *_stages(profile),
        *_lines(profile),
        _bounds(profile),
        *_counters(profile),
        *_sweeps(profile),
    ]
    return Report(
        title=f"convbench profile: {headline.implementation}, {headline.layer} {headline.pass_}",
        facts=tuple(_facts(profile)),
        tables=tuple(tables),
        notes=tuple(_notes(profile)),
        flat=partial(_waterfall, profile),
        document=profile,
        charts=(_chart(profile),),
    )


def _facts(profile: Profile) -> Iterator[Fact]:
    machine = profile.machine
    yield Fact("layer", profile.layer.geometry())
    threads = scale.counted(profile.threads, "thread")
    yield Fact("machine", f"{machine.cpu}, {scale.counted(machine.logical_cpus, 'CPU')}, {threads}")
    for blas in profile.software.blas:
        yield Fact("BLAS", blas_line(blas))
    yield Fact("versions", versions_line(profile.software))


# The waterfall


def _waterfall(profile: Profile) -> Table:
    columns = (
        Column("cause", "cause"),
        figures("factor", Kind.RATIO, "factor"),
        figures("left", Kind.TIME_S, "left"),
        Column("bar", "", optional=2),
        Column("evidence", "", optional=3),
        Column("why", "what was found", fit="wrap", optional=1),
    )
    headline = profile.headline
    start = (
        text(headline.implementation, "strong"),
        MISSING,
        Value(Kind.TIME_S, headline.time_s, headline.ci99_s),
        text(""),
        text(""),
        text(""),
    )
    steps = [Row(start)]
    before = headline.time_s / profile.unexplained
    steps.append(_row(_unexplained(profile, before), headline.time_s, profile))
    for step in profile.waterfall:
        steps.append(_row(step, before, profile))
        before = step.left_s
    end = (
        text(headline.chosen, "strong"),
        Value(Kind.RATIO, headline.ratio, headline.ci99),
        Value(Kind.TIME_S, headline.versus_s, headline.versus_ci99_s),
        text(""),
        text(""),
        text("the whole gap"),
    )
    return Table("Where the gap comes from", columns, (Section((*steps, Row(end))),))


def _unexplained(profile: Profile, left: float) -> Step:
    why = "the time that was measured, over the sum of what the experiments found in it"
    return Step("unexplained", profile.unexplained, left, "measured", why=why)


def _row(step: Step, before: float, profile: Profile) -> Row:
    is_small = 1 / WORTH < step.factor < WORTH
    tone: Tone = "dim" if is_small else ("good" if step.factor < 1 else "plain")
    return Row(
        (
            text(step.cause, tone),
            Value(Kind.RATIO, step.factor, step.ci99, tone=tone),
            Value(Kind.TIME_S, step.left_s, tone=tone),
            text(_bar(before, step.left_s, profile), tone),
            text("" if is_small else step.evidence, "dim"),
            text("" if is_small else step.why, "dim"),
        )
    )


def _bar(before: float, after: float, profile: Profile) -> str:
    """Draw a bar from the time after to the time before, on the waterfall's logarithmic scale."""
    times = [step.left_s for step in profile.waterfall]
    low = min([*times, profile.headline.versus_s])
    high = max([*times, profile.headline.time_s])
    span = math.log(high / low) or 1.0
    ends = sorted(
        round(BAR_WIDTH * min(max(math.log(t / low) / span, 0), 1)) for t in (before, after)
    )
    width = ends[1] - ends[0]
    return " " * ends[0] + ("█" * width if width else "▏")


def _chart(profile: Profile) -> Chart:
    headline = profile.headline
    bars = [
        Bar(
            headline.implementation,
            headline.versus_s,
            headline.time_s,
            _milliseconds(headline.time_s),
            "strong",
        )
    ]
    before = headline.time_s / profile.unexplained
    steps = [(_unexplained(profile, before), headline.time_s)]
    for step in profile.waterfall:
        steps.append((step, before))
        before = step.left_s
    for step, start in steps:
        if 1 / WORTH < step.factor < WORTH:
            continue
        tone: Tone = (
            "dim" if step.cause == "unexplained" else "good" if step.factor < 1 else "plain"
        )
        value = f"×{significant(step.factor)}"
        bars.append(Bar(step.cause, step.left_s, start, value, tone))
    floor = min(bar.low for bar in bars)
    bars.append(
        Bar(
            headline.chosen,
            floor / 1.05,
            headline.versus_s,
            _milliseconds(headline.versus_s),
            "strong",
        )
    )
    title = f"Why {headline.implementation} takes {significant(headline.ratio)} times as long"
    return Chart(title, Kind.TIME_S, tuple(bars))


def _milliseconds(seconds: float) -> str:
    return f"{scale.scaled(Kind.TIME_S, seconds)} {scale.unit(Kind.TIME_S)}"


# Stages and lines


def _stages(profile: Profile) -> Iterator[Table]:
    if not profile.stages:
        return
    whole = sum(stage.seconds for stage in profile.stages)
    columns = (
        Column("stage", "stage"),
        figures("time", Kind.TIME_S, "time"),
        figures("share", Kind.FRACTION, "share"),
        Column("calls", "calls", align="right", optional=1),
    )
    rows = tuple(
        Row(
            (
                text(stage.name),
                Value(Kind.TIME_S, stage.seconds),
                Value(Kind.FRACTION, stage.seconds / whole),
                text(str(stage.calls)),
            )
        )
        for stage in profile.stages
    )
    yield Table("Stages, summed over the threads", columns, (Section(rows),))


def _lines(profile: Profile) -> Iterator[Table]:
    if not profile.lines or profile.stages:
        return
    columns = (
        Column("line", "line", align="right"),
        figures("time", Kind.TIME_S, "time"),
        figures("numpy", Kind.TIME_S, "in NumPy", optional=1),
        Column("hits", "hits", align="right", optional=2),
        figures("allocated", Kind.BYTES, "allocated", optional=3),
        Column("code", "", fit="shorten"),
    )
    sections = []
    for file in dict.fromkeys(line.file for line in profile.lines):
        rows = tuple(
            Row(
                (
                    text(str(line.number), "dim"),
                    Value(Kind.TIME_S, line.seconds),
                    Value(Kind.TIME_S, line.numpy_s) if line.calls else MISSING,
                    text(str(line.hits)),
                    Value(Kind.BYTES, line.allocated) if line.allocated else MISSING,
                    text(line.text),
                )
            )
            for line in profile.lines
            if line.file == file
        )
        sections.append(Section(rows, heading=PurePath(file).name))
    yield Table("Time by line", columns, tuple(sections))


# Bounds and sweeps


def _bounds(profile: Profile) -> Table:
    headline, bounds = profile.headline, profile.bounds
    columns = (
        Column("bound", "bound"),
        figures("time", Kind.TIME_S, "time"),
        figures("mine", Kind.FRACTION, headline.implementation),
        figures("other", Kind.FRACTION, headline.chosen),
        Column("why", "", fit="wrap", optional=1),
    )
    rows = tuple(
        Row(
            (
                text(limit.name),
                Value(Kind.TIME_S, limit.seconds),
                Value(Kind.FRACTION, limit.fraction),
                Value(Kind.FRACTION, limit.versus_fraction),
                text(limit.why, "dim"),
            )
        )
        for limit in bounds.limits
    )
    details = (
        f"{scale.amount_of_flops(bounds.flops)}, {scale.mebibytes(bounds.bytes)}: "
        f"{significant(bounds.intensity)} FLOP a byte"
    )
    if bounds.ridge:
        is_above = bounds.intensity > bounds.ridge
        where, limit = ("above", "arithmetic") if is_above else ("below", "memory")
        details += f", {where} {significant(bounds.ridge)}, so that {limit} is the limit"
    return Table("How near each comes to its bounds", columns, (Section(rows, "", details),))


def _counters(profile: Profile) -> Iterator[Table]:
    if not profile.counters:
        return
    headline = profile.headline
    columns = (
        Column("event", "events in a call"),
        figures("mine", Kind.NUMBER, headline.implementation),
        figures("other", Kind.NUMBER, headline.chosen),
    )
    rows = [
        Row((text(one.event), _counts(one.count), _counts(one.versus_count)))
        for one in profile.counters
    ]
    by_event = {one.event: one for one in profile.counters}
    if {"cycles", "instructions"} <= by_event.keys():
        cycles, done = by_event["cycles"], by_event["instructions"]
        each = (_per(done.count, cycles.count), _per(done.versus_count, cycles.versus_count))
        rows.append(Row((text("instructions a cycle"), *map(_counts, each))))
    yield Table("Counters", columns, (Section(tuple(rows)),))


def _counts(count: float | None) -> Value:
    return MISSING if count is None else Value(Kind.NUMBER, count)


def _per(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None


def _sweeps(profile: Profile) -> Iterator[Table]:
    sweeps, headline = profile.sweeps, profile.headline
    for title, heading, points in (
        ("Time against batch", "images", sweeps.batch),
        ("Time against threads", "threads", sweeps.threads),
    ):
        if len(points) < 2:
            continue
        columns = (
            Column("x", heading, align="right"),
            figures("mine", Kind.TIME_S, headline.implementation),
            figures("other", Kind.TIME_S, headline.chosen),
            figures("ratio", Kind.RATIO, "ratio"),
        )
        rows = tuple(
            Row(
                (
                    text(str(point.x)),
                    Value(Kind.TIME_S, point.time_s),
                    MISSING if point.versus_s is None else Value(Kind.TIME_S, point.versus_s),
                    MISSING
                    if point.versus_s is None
                    else Value(Kind.RATIO, point.time_s / point.versus_s),
                )
            )
            for point in points
        )
        yield Table(title, columns, (Section(rows),))


# Notes


def _notes(profile: Profile) -> Iterator[Note]:
    headline = profile.headline
    interval = ""
    if headline.ci99:
        interval = f", 99 % interval {scale.bounds(headline.ci99)}"
    yield Note(
        f"{headline.implementation} takes {_milliseconds(headline.time_s)}, and {headline.chosen} "
        f"{_milliseconds(headline.versus_s)}: {significant(headline.ratio)} times as long"
        f"{interval}.",
        "strong",
    )
    if headline.verdict != "ok":
        wrong = f"{headline.implementation} is {headline.verdict}, and was profiled as it is."
        yield Note(wrong, "bad")
    for number, advice in enumerate(profile.advice, 1):
        yield _advised(number, advice, headline.time_s)
    if not profile.advice:
        yield Note("No change that is known here would gain 5 % or more.")
    for note in profile.notes:
        yield Note(note, "warning")
    if not headline.reliable:
        doubt = "The timings cannot be trusted: a copy of the same code took another time."
        yield Note(doubt, "warning")
    sweeps = profile.sweeps
    if sweeps.slope_s and sweeps.floor_s is not None:
        yield Note(
            f"Each image takes {_milliseconds(sweeps.slope_s)}, and each call "
            f"{_milliseconds(max(sweeps.floor_s, 0.0))} on top of its images.",
            "dim",
        )
    lines = profile.overhead.lines
    timed = "" if lines is None else f", and a call whose lines are timed {_more(lines)}"
    yield Note(
        f"Only the times by line include the profiler's own time. A traced call takes "
        f"{_more(profile.overhead.traced)}{timed}.",
        "dim",
    )
    for caution in profile.warnings:
        yield caution_note(caution)


def _more(overhead: float) -> str:
    return f"{scale.percent(max(overhead, 0.0))} % longer"


def _advised(number: int, advice: Advice, time_s: float) -> Note:
    low, high = (_milliseconds(bound) for bound in advice.predicted_s)
    points = [f"predicted: {low} to {high} a call, instead of {_milliseconds(time_s)}"]
    if advice.measured_s is not None:
        points.append(f"measured, {advice.tried}: {_milliseconds(advice.measured_s)}")
    if advice.read:
        points.append(f"to read: {advice.read}")
    verbatim: tuple[str, ...] = ()
    if advice.line:
        verbatim = (f"{PurePath(advice.file).name}:{advice.number}: {advice.line}",)
    return Note(
        f"{number}. {advice.cause}: {advice.change}.", points=tuple(points), verbatim=verbatim
    )
