"""Say what stands around the tables of a run: machine and versions, trust, cautions, the answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from convbench.machine.description import BlasLibrary, Caution, Software
from convbench.report.views import deviation_words, scale
from convbench.report.views.agreement_notes import agreement_notes
from convbench.report.views.large_tables import large_notes
from convbench.report.views.memory_notes import memory_notes
from convbench.report.views.network_tables import network_notes
from convbench.report.views.origin import origin
from convbench.report.views.resolution_notes import (
    MOST_NAMED,
    phases_notes,
    precision_notes,
    resolution_notes,
)
from convbench.report.views.table import Fact, Note
from convbench.report.views.time_notes import TURNED, is_turned, time_notes
from convbench.results.between_runs import LEAST_RUNS
from convbench.results.model import PAUSE_S, ResultFile, Speedup, SummaryRow
from convbench.results.summary import between, kind_of, subject
from convbench.suites.suite import FASTEST_KERAS

# Below this ratio, `5.1 times as long` reads better than `0.196 times as fast`.
_SLOWER_FROM = 0.5

_COLD = f"the first call after a pause of {PAUSE_S:g} s"


def facts(result: ResultFile) -> tuple[Fact, ...]:
    """Return the head of the report: one line for each subject."""
    machine, software = result.machine, result.software
    quota = "" if machine.cpu_quota is None else f", quota of {machine.cpu_quota:g} CPUs"
    cores = scale.counted(machine.cores, "core")
    cpu = f"{machine.cpu}, {cores}, {machine.logical_cpus} logical CPUs{quota}"
    run = (
        f"{scale.counted(result.threads, 'thread')}, {result.effort} effort, "
        f"{scale.counted(result.rounds, 'round')}, seed {result.seed}"
        f"{'' if result.tune else ', no trials'}"
    )
    head = [Fact("machine", cpu)]
    if software.blas:
        head.append(Fact("BLAS", "; ".join(dict.fromkeys(map(blas_line, software.blas)))))
    head += [*origin(result.suite), Fact("run", run)]
    if result.state == "cold-threads":
        head.append(Fact("measured", f"{_COLD}, not calls in a tight loop"))
    return (*head, Fact("versions", versions_line(software)))


def blas_line(blas: BlasLibrary) -> str:
    version = f" {blas.version}" if blas.version else ""
    kernels = f"{blas.kernels} kernels, " if blas.kernels else ""
    threads = scale.counted(blas.threads, "thread")
    return f"{blas.library}{version} ({kernels}{threads}) in {blas.used_by}"


def versions_line(software: Software) -> str:
    versions = {"convbench": software.convbench, "Python": software.python, **software.versions}
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def notes(result: ResultFile, top: int, summed_up: bool) -> tuple[Note, ...]:
    """Return the notes below the tables. The last note answers the reader's question."""
    found = [
        *(large_notes() if summed_up else ()),
        *_legend(result),
        *between_runs_notes(result),
        *resolution_notes(result),
        *phases_notes(result),
        *precision_notes(result),
        *map(caution_note, result.warnings),
        *time_notes(result),
        *agreement_notes(result, beside_rows=not summed_up),
        *memory_notes(result),
        *choice_notes(result),
        *network_notes(result, top),
    ]
    counts = _counts(result)
    if any(cell.time for cell in result.cells) and set(_statuses(result)) != {"ok"}:
        found.append(Note(f"cells: {counts}"))
    return (*found, Note(_answer(result, counts), "strong"))


def _counts(result: ResultFile) -> str:
    return ", ".join(f"{n} {status}" for status, n in _statuses(result).items()) or "no cells"


def _statuses(result: ResultFile) -> Counter[str]:
    return Counter(cell.status for cell in result.cells)


def _legend(result: ResultFile) -> Iterator[Note]:
    """Explain the marks that occur in the tables."""
    times = [cell.time for cell in result.cells if cell.time]
    marks = []
    if any(cell.agreement for cell in result.cells):
        marks.append("check: integers exact, or floats within their rounding bound")
    if result.speedups:
        marks.append("×: times as fast as")
    if any(time.ci99_s for time in times):
        marks.append("±: half of the 99 % interval")
    if any(not speedup.reliable for speedup in result.speedups):
        marks.append("?: not reliable")
    if any(map(is_turned, result.speedups)) or any(map(is_turned, result.summary)):
        marks.append(f"{TURNED}: the undisturbed figure turns the verdict")
    if any(time.over_plain for time in times):
        marks.append("plain loop: the time over that of a plain loop")
    if any(cell.memory and not cell.memory.exact for cell in result.cells):
        marks.append("~: memory not measured exactly")
    if marks:
        yield Note("; ".join(marks), "dim")


def between_runs_notes(result: ResultFile) -> Iterator[Note]:
    """Say whether the printed intervals include how much runs on this machine differ."""
    times = {kind_of(cell.implementation) for cell in result.cells if cell.time}
    if not any(cell.time and cell.time.ci99_s for cell in result.cells):
        return
    speedups = {between(one.implementation, one.chosen) for one in result.speedups}
    printed = {("time", kinds) for kinds in times} | {("speedup", kinds) for kinds in speedups}
    known = [one for one in result.deviations if (one.of, one.between) in printed]
    if known:
        runs = scale.counted(deviation_words.most_runs(known), "earlier run")
        unknown = sorted(printed - {(one.of, one.between) for one in known})
        alone = ", ".join(f"{of}s {deviation_words.between(kinds)}" for of, kinds in unknown)
        yield Note(
            f"± includes how much {runs} on this machine differed: "
            f"{deviation_words.differences(known)}"
            + (f"; for {alone}, ± covers this run alone" if alone else ""),
            "dim",
        )
        return
    why = "how much runs on this machine differ was not looked up"
    if result.earlier_runs is not None:
        remembered = scale.counted(result.earlier_runs, "earlier run")
        few = "" if result.earlier_runs < LEAST_RUNS else " with these convolutions"
        why = (
            "convbench does not know yet how much runs differ on this machine "
            f"({remembered} remembered, {LEAST_RUNS}{few} are needed)"
        )
    yield Note(f"± covers this run alone: {why}", "dim")


def _no_interval(rounds: int) -> str:
    return f"no interval: {scale.counted(rounds, 'round')}"


def choice_notes(result: ResultFile) -> Iterator[Note]:
    """Say what an implementation that chooses, such as `auto`, took, and for which cells."""
    where: dict[str, dict[str, list[str]]] = {}
    for cell in result.cells:
        if cell.ledger is not None and cell.ledger.took is not None:
            taken = where.setdefault(cell.implementation, {})
            taken.setdefault(cell.ledger.took, []).append(f"{cell.layer} {cell.pass_}")
    for implementation, taken in where.items():
        words = "; ".join(f"{name} for {_some(cells)}" for name, cells in taken.items())
        yield Note(f"{implementation} took {words}")


def _some(cells: list[str]) -> str:
    if len(cells) > MOST_NAMED:
        return f"{', '.join(cells[: MOST_NAMED - 1])} and {len(cells) - MOST_NAMED + 1} more"
    return ", ".join(cells)


def caution_note(caution: Caution) -> Note:
    factor = ""
    if caution.factor is not None:
        factor = f" ({scale.significant(caution.factor)} times as fast without this)"
    return Note(f"warning: {caution.what}{factor}", "warning", details=caution.hint)


# The answer


def _answer(result: ResultFile, counts: str) -> str:
    """Say in one sentence how fast the reader's code is, over loop and the fastest Keras."""
    means = [row for row in result.summary if row.pass_ is None]
    if not any(cell.time for cell in result.cells):
        right = _statuses(result)["ok"]
        agree = f"{right} of {scale.counted(len(result.cells), 'cell')} agree" if right else counts
        return f"Nothing was timed: {agree}."
    if not means:
        return f"Nothing was timed that could be compared: {counts}."
    name = subject(result)
    rows = [row for row in means if row.implementation == name]
    numbers = dict.fromkeys(str(len(_compared(result, row))) for row in rows)
    over = f"geometric means over {' and '.join(numbers)} layer passes"
    if set(numbers) == {"1"}:
        over = "1 layer pass"
    return f"{name} {_clauses(rows)} ({over}, {_intervals(result, rows)}){_undisturbed(rows)}."


def _compared(result: ResultFile, row: SummaryRow) -> list[Speedup]:
    """Return the speedups that a mean was taken over."""
    return [
        speedup
        for speedup in result.speedups
        if (speedup.implementation, speedup.versus) == (row.implementation, row.versus)
    ]


def _clauses(rows: list[SummaryRow]) -> str:
    """Write `is 189 times as fast as loop, and 0.920 times as fast as the fastest Keras`."""
    clauses, last = [], ""
    for row in rows:
        mean = row.geometric_mean
        verb, times, how = ("takes", 1 / mean, "long") if _is_slow(row) else ("is", mean, "fast")
        clause = f"{scale.significant(times)} times as {how} as {_versus(row)}"
        clauses.append(clause if verb == last else f"{verb} {clause}")
        last = verb
    return ", and ".join(clauses)


def _undisturbed(rows: list[SummaryRow]) -> str:
    """Write `; undisturbed it is 0.950 [0.930, 0.970] times as fast as the fastest Keras`, if the
    undisturbed figures give another verdict."""
    clauses = [
        f"{scale.significant(row.undisturbed_mean)} {scale.bounds(row.undisturbed_ci99)} times as "
        f"fast as {_versus(row)}"
        for row in rows
        if is_turned(row) and row.undisturbed_mean is not None and row.undisturbed_ci99 is not None
    ]
    return f"; undisturbed it is {' and '.join(clauses)}" if clauses else ""


def _versus(row: SummaryRow) -> str:
    return "the fastest Keras" if row.versus == FASTEST_KERAS else row.versus


def _is_slow(row: SummaryRow) -> bool:
    return row.geometric_mean < _SLOWER_FROM


def _intervals(result: ResultFile, rows: list[SummaryRow]) -> str:
    found = [_as_in_clause(row) for row in rows if row.ci99]
    if len(found) < len(rows):
        rounds = [speedup.rounds for row in rows for speedup in _compared(result, row)]
        return _no_interval(min(rounds, default=result.rounds))
    word = "interval" if len(found) == 1 else "intervals"
    return f"99 % {word} {' and '.join(found)}"


def _as_in_clause(row: SummaryRow) -> str:
    assert row.ci99 is not None
    low, high = row.ci99
    if _is_slow(row):
        low, high = 1 / high, 1 / low
    return scale.bounds((low, high))
