"""What stands around the tables of a run: machine and versions, trust, cautions, the answer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from convbench.machine import Caution
from convbench.report import scale
from convbench.report.table import Fact, Note
from convbench.results import ResultFile, SummaryRow
from convbench.stats import MIN_ROUNDS
from convbench.suite import KERAS_WAYS
from convbench.summary import FASTEST_KERAS, LOOP

# Below this `5.1 times as long` reads better than `0.196 times as fast`.
_SLOWER_FROM = 0.5


def facts(result: ResultFile) -> tuple[Fact, ...]:
    """The head of the report, a line a subject."""
    machine, software = result.machine, result.software
    quota = "" if machine.cpu_quota is None else f", quota of {machine.cpu_quota:g} CPUs"
    cores = scale.counted(machine.cores, "core")
    cpu = f"{machine.cpu}, {cores}, {machine.logical_cpus} logical CPUs{quota}"
    run = (
        f"{scale.counted(result.threads, 'thread')}, {result.effort} effort, "
        f"{scale.counted(result.rounds, 'round')}, seed {result.seed}"
    )
    versions = [f"convbench {software.convbench}", f"Python {software.python}"]
    versions += [f"{name} {version}" for name, version in software.versions.items()]
    head = [Fact("machine", cpu)]
    if software.blas:
        head.append(Fact("BLAS", "; ".join(dict.fromkeys(_blas(result)))))
    return (*head, Fact("run", run), Fact("versions", ", ".join(versions)))


def _blas(result: ResultFile) -> Iterator[str]:
    for blas in result.software.blas:
        version = f" {blas.version}" if blas.version else ""
        kernels = f"{blas.kernels} kernels, " if blas.kernels else ""
        threads = scale.counted(blas.threads, "thread")
        yield f"{blas.library}{version} ({kernels}{threads}) in {blas.used_by}"


def notes(result: ResultFile) -> tuple[Note, ...]:
    """What follows the tables; the last note answers the reader's question."""
    found = [*_legend(result), *_twins(result), *map(_caution, result.warnings)]
    counts = _counts(result)
    if any(cell.status != "ok" for cell in result.cells):
        found.append(Note(f"cells: {counts}"))
    return (*found, Note(_answer(result, counts), "strong"))


def _counts(result: ResultFile) -> str:
    counts = Counter(cell.status for cell in result.cells)
    return ", ".join(f"{number} {status}" for status, number in counts.items()) or "none"


def _legend(result: ResultFile) -> Iterator[Note]:
    """The marks that occur, explained."""
    times = [cell.time for cell in result.cells if cell.time]
    marks = []
    if result.speedups:
        marks.append("×: times as fast as")
    if any(time.ci99_s for time in times):
        marks.append("±: half of the 99 % interval")
    if any(not speedup.reliable for speedup in result.speedups):
        marks.append("?: not reliable")
    if any(cell.memory and not cell.memory.exact for cell in result.cells):
        marks.append("~: memory not measured exactly")
    if marks:
        yield Note("; ".join(marks), "dim")
    if times and not any(time.ci99_s for time in times):
        yield Note(f"{_no_interval(result)}; from {MIN_ROUNDS} rounds on there is one", "dim")


def _no_interval(result: ResultFile) -> str:
    return f"no interval: {scale.counted(result.rounds, 'round')}"


def _twins(result: ResultFile) -> Iterator[Note]:
    """Whether the machine told two runs of the same code apart (the duplicate arms)."""
    twins = result.duplicates
    if not twins:
        if result.speedups:
            yield Note("A/A check: no twins, so nothing says whether the machine was calm")
        return
    worst = max(twins, key=lambda twin: abs(math.log(twin.ratio)))
    deviation = math.exp(abs(math.log(worst.ratio))) - 1
    line = (
        f"A/A check: {scale.counted(len(twins), 'twin')}, "
        f"largest deviation {scale.percent(deviation)} %"
    )
    unreliable = dict.fromkeys(
        f"{speedup.layer} {speedup.pass_}" for speedup in result.speedups if not speedup.reliable
    )
    if unreliable:
        yield Note(
            f"{line}; not reliable: {', '.join(unreliable)}",
            "warning",
            details="two runs of the same code differed there: quiet the machine and run again",
        )
    elif all(twin.ci99 is None for twin in twins):
        yield Note(f"{line}; too few rounds to tell ({result.rounds})")
    else:
        yield Note(f"{line}; reliable")


def _caution(caution: Caution) -> Note:
    factor = ""
    if caution.factor is not None:
        factor = f" ({scale.significant(caution.factor)} times as fast without)"
    return Note(f"warning: {caution.what}{factor}", "warning", details=caution.hint)


# The answer


def _answer(result: ResultFile, counts: str) -> str:
    """One sentence: how fast the reader's implementation is, over loop and the fastest Keras."""
    means = [row for row in result.summary if row.pass_ is None]
    if not any(cell.time for cell in result.cells):
        return f"Nothing was timed: {counts}."
    if not means:
        return f"Nothing was timed that could be compared: {counts}."
    subject = _subject(means)
    rows = [row for row in means if row.implementation == subject]
    clauses = " and ".join(_clause(row) for row in rows)
    numbers = dict.fromkeys(str(_compared(result, row)) for row in rows)
    over = f"geometric means over {' and '.join(numbers)} layer passes"
    if set(numbers) == {"1"}:
        over = "1 layer pass"
    return f"{subject} {clauses} ({over}, {_intervals(result, rows)})."


def _subject(means: list[SummaryRow]) -> str:
    """The implementation in question: the user's own if there is one, else the fastest in NumPy.

    Of several the one with the highest mean over whatever it was compared with last.
    """
    means_of = {row.implementation: row.geometric_mean for row in means}
    own = [name for name in means_of if ":" in name]
    numpy = [name for name in means_of if name not in (*KERAS_WAYS, LOOP)]
    return max(own or numpy or list(means_of), key=means_of.__getitem__)


def _compared(result: ResultFile, row: SummaryRow) -> int:
    return sum(
        (s.implementation, s.versus) == (row.implementation, row.versus) for s in result.speedups
    )


def _clause(row: SummaryRow) -> str:
    versus = "the fastest Keras" if row.versus == FASTEST_KERAS else row.versus
    if row.geometric_mean < _SLOWER_FROM:
        return f"takes {scale.significant(1 / row.geometric_mean)} times as long as {versus}"
    return f"is {scale.significant(row.geometric_mean)} times as fast as {versus}"


def _intervals(result: ResultFile, rows: list[SummaryRow]) -> str:
    found = [_as_in_clause(row) for row in rows if row.ci99]
    if len(found) < len(rows):
        return _no_interval(result)
    word = "interval" if len(found) == 1 else "intervals"
    return f"99 % {word} {' and '.join(found)}"


def _as_in_clause(row: SummaryRow) -> str:
    assert row.ci99 is not None
    low, high = row.ci99
    if row.geometric_mean < _SLOWER_FROM:
        low, high = 1 / high, 1 / low
    return scale.bounds((low, high))
