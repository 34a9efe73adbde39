"""Report trials of a gate: false alarms, power, and what a gate here can detect."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from convbench.compare import Deviations
from convbench.noise.trials import Alarms, Figures, NoiseFile, NoiseRun, Power, figures
from convbench.report.views import scale
from convbench.report.views.run_notes import blas_line, versions_line
from convbench.report.views.table import (
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
from convbench.results.between_runs import LEAST_RUNS

GOOD_SHARE = 0.95
"""Share of clean jobs that should hold. With fewer, too many are left open."""

KNOWN_RATE = 0.10
"""Largest upper bound on the rate of false alarms at which the machine is judged. Above this rate,
the trials are too few."""

GOOD_DETECTION = 1.05
"""Largest slowdown, as a ratio, that a useful gate finds 9 times out of 10 (docs/measuring.md)."""


def report(file: NoiseFile) -> Report:
    found = figures(file)
    tables = [_alarm_table(found.alarms)]
    if found.power:
        tables.append(_power_table(found.power))
    return Report(
        title=f"convbench noise: {file.suite}",
        facts=tuple(_facts(file)),
        tables=tuple(tables),
        notes=tuple(_notes(file, found)),
        flat=partial(_flat, file),
        document=file,
    )


def _facts(file: NoiseFile) -> Iterator[Fact]:
    machine = file.machine
    yield Fact("machine", f"{machine.cpu}, {machine.logical_cpus} logical CPUs")
    for line in dict.fromkeys(map(blas_line, file.software.blas)):
        yield Fact("BLAS", line)
    threads = scale.counted(file.threads, "thread")
    runs = scale.counted(len(file.runs), "run")
    dates = f"{file.runs[0].date} to {file.runs[-1].date}"
    yield Fact("runs", f"{runs} of {file.implementation}, {threads}, {file.effort} effort, {dates}")
    yield Fact("versions", versions_line(file.software))


def _alarm_table(alarms: tuple[Alarms, ...]) -> Table:
    columns = (
        Column("rules", "rules", align="right"),
        Column("jobs", "jobs", align="right"),
        Column("false_alarms", "false alarms", align="right"),
        Column("upper", "at most (95 %)", align="right", short="at most"),
        Column("held", "held", align="right"),
        Column("inconclusive", "inconclusive", align="right", short="open"),
        Column("unreliable", "unreliable", align="right", short="unrel."),
    )
    rows = tuple(
        Row(
            (
                _count(found.rules),
                _count(found.jobs),
                _count(found.false_alarms, bad=True),
                text(f"{scale.percent(found.upper)} %"),
                _share(found.held, found.jobs),
                _share(found.inconclusive, found.jobs),
                _share(found.unreliable, found.jobs),
            )
        )
        for found in alarms
    )
    return Table("A against A", columns, (Section(rows),))


def _power_table(power: tuple[Power, ...]) -> Table:
    columns = (
        Column("injected", "slowed by", align="right"),
        Column("seen", "seen", align="right"),
        Column("rules", "rules", align="right"),
        Column("trials", "trials", align="right"),
        Column("found", "found", align="right"),
        Column("inconclusive", "inconclusive", align="right", short="open"),
        Column("unreliable", "unreliable", align="right", short="unrel."),
        Column("missed", "held", align="right"),
        Column("faster", "faster", align="right"),
    )
    rows = tuple(
        Row(
            (
                text(scale.change(1 + found.injected)),
                text(f"+{found.seen * 100:.2f}%"),
                _count(found.rules),
                _count(found.trials),
                _share(found.found, found.trials),
                _share(found.inconclusive, found.trials),
                _share(found.unreliable, found.trials),
                _share(found.missed, found.trials),
                _count(found.faster, bad=True),
            )
        )
        for found in power
    )
    return Table("Slowed on purpose", columns, (Section(rows),))


def _count(number: int, bad: bool = False) -> Value:
    return text(str(number), "bad" if bad and number else "plain")


def _share(number: int, of: int) -> Value:
    return text(f"{number} ({scale.percent(number / of)} %)" if number else "0")


def _notes(file: NoiseFile, found: Figures) -> Iterator[Note]:
    yield Note(
        "rules: how many a job has, all others A against A; held: judged no slower; seen: the "
        "delay by the worker's own clock; faster: judged faster, by mistake",
        "dim",
    )
    yield Note(
        f"verdicts came after {found.first_look_s:.1f} s at the first look, {found.seconds:.1f} s "
        f"in all (medians; {_arms(file)} a run; cells are checked in the first run only)"
    )
    yield _deviation_note(found.deviations, len(file.runs))
    yield _answer(found)


def _arms(file: NoiseFile) -> str:
    pairs = {(t.layer, t.pass_, t.injected) for run in file.runs for t in run.trials}
    return scale.counted(len(pairs), "pair")


def _deviation_note(deviations: Deviations | None, runs: int) -> Note:
    if deviations is None:
        return Note(f"how much sessions differ is told from {LEAST_RUNS} runs on ({runs} so far)")
    return Note(
        f"two sessions differ in speedups by {deviations.speedup * 100:.2g} %, in times by "
        f"{deviations.time * 100:.2g} % (standard deviations, of {runs} sessions)",
        details="sessions of one hour differ less than those of a week: add runs on other days",
    )


def _answer(found: Figures) -> Note:
    if found.detects is None:
        return Note("Nothing was judged: no round gave a verdict.", "bad")
    detects = scale.change(found.detects)
    alone = found.alarms[0]
    calm = all(not a.false_alarms and a.held >= GOOD_SHARE * a.jobs for a in found.alarms)
    start = "Gate with care here"
    if alone.upper > KNOWN_RATE:
        start = "There are too few trials to say whether this machine is good enough"
    elif calm and found.detects <= GOOD_DETECTION:
        start = "This machine is good enough to gate on"
    return Note(
        f"{start}: a run of one rule finds a slowdown of {detects} nine times out of ten; "
        f"{alone.false_alarms} of {scale.counted(alone.jobs, 'job')} raised a false alarm "
        f"(95 % upper bound {scale.percent(alone.upper)} %).",
        "strong",
    )


def _flat(file: NoiseFile) -> Table:
    keys = ("date", "layer", "pass", "injected", "seen", "rules", "verdict", "looks", "slowdown")
    rows = tuple(_flat_row(run, index) for run in file.runs for index in range(len(run.trials)))
    return Table("trials", tuple(Column(key) for key in keys), (Section(rows),))


def _flat_row(run: NoiseRun, index: int) -> Row:
    trial = run.trials[index]
    words = (run.date, trial.layer, str(trial.pass_))
    return Row(
        (
            *(Value(Kind.TEXT, word) for word in words),
            Value(Kind.NUMBER, trial.injected),
            Value(Kind.NUMBER, trial.seen),
            Value(Kind.NUMBER, trial.rules),
            Value(Kind.TEXT, trial.outcome),
            Value(Kind.NUMBER, trial.looks),
            Value(Kind.RATIO, trial.slowdown),
        )
    )
