"""Put the figures of files side by side, with their changes, made anew from the raw samples."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from convbench.compare.changes import CONFIDENCE, change_of
from convbench.compare.document import (
    CellRow,
    Change,
    Compared,
    Deviations,
    Figure,
    MeanRow,
    Quantity,
    Verdict,
)
from convbench.problem.layer import Pass
from convbench.results.model import Cell, Part, ResultFile
from convbench.results.model import Figure as OfFigure
from convbench.results.summary import (
    Ratio,
    between,
    kind_of,
    long_run,
    mean_over,
    speedups,
    summarise,
    times,
)
from convbench.suites.suite import FASTEST_KERAS, LOOP

if TYPE_CHECKING:
    from convbench.results.file import Saved


CellKey = tuple[str, Part, str]  # layer, pass, implementation


class Subject(NamedTuple):
    """The subject of one table: a quantity, and for a speedup the implementation it is over."""

    quantity: Quantity
    versus: str | None = None


TIME, MEMORY, FRACTION = Subject("time"), Subject("peak_memory"), Subject("fraction_of_peak")


@dataclass(frozen=True)
class Measured:
    """A file's cells that can be compared, and the logs of what was timed of them, by round."""

    result: ResultFile
    cells: dict[CellKey, Cell]
    timed: dict[Subject, dict[CellKey, Ratio]]
    fastest: frozenset[CellKey]  # the Keras ways that others are compared with
    unreliable: frozenset[tuple[str, Part]]


def subjects_of(measured: Iterable[Measured]) -> tuple[Subject, ...]:
    """List the subjects by which files are compared.

    Speedups are those over any implementation that one of the files compares with, loop and Keras
    first.
    """
    versus = [LOOP, FASTEST_KERAS, *(s.versus for one in measured for s in one.timed if s.versus)]
    return TIME, *(Subject("speedup", v) for v in dict.fromkeys(versus)), MEMORY, FRACTION


def measured_of(saved: Saved, without: Collection[str] = ()) -> Measured:
    """Return the file without the layers named in `without`, with its figures made anew."""
    result, benchmarks = summarise(saved.result, saved.benchmarks), saved.benchmarks
    cells = {
        (cell.layer, cell.pass_, cell.implementation): cell
        for cell in result.cells
        if cell.layer not in without
    }
    timed: dict[Subject, dict[CellKey, Ratio]] = {TIME: {}, FRACTION: {}}
    for key, time in times(result, benchmarks).items():
        cell = cells.get(key)
        if cell is None or cell.time is None:
            continue
        timed[TIME][key] = time
        if cell.work is not None and cell.work.fraction_of_peak:
            at_peak = math.log(cell.work.fraction_of_peak * cell.time.time_s)
            of_peak = {number: at_peak - log for number, log in time.logs.items()}
            timed[FRACTION][key] = replace(time, logs=of_peak, undisturbed={})
    for (layer, pass_, implementation, versus), ratio in speedups(result, benchmarks).items():
        of_versus = timed.setdefault(Subject("speedup", versus), {})
        of_versus[layer, pass_, implementation] = ratio
    keras = (s for s in result.speedups if s.versus == FASTEST_KERAS)
    return Measured(
        result,
        cells,
        timed,
        fastest=frozenset((s.layer, s.pass_, s.chosen) for s in keras),
        unreliable=frozenset((s.layer, s.pass_) for s in result.speedups if not s.reliable),
    )


def compared_of(
    subject: Subject, old: Measured, news: Sequence[Measured], deviations: Deviations
) -> Compared:
    """Compare one quantity in the old file and in the new ones, cell by cell and in the mean."""
    rows = [
        CellRow(
            *key,
            figures=tuple(_figure(subject, measured, key) for measured in (old, *news)),
            changes=tuple(_change(subject, old, new, [key], deviations) for new in news),
        )
        for key in old.cells
        if any(key in new.cells for new in news)
    ]
    shown = tuple(row for row in rows if _says_something(subject, row))
    return Compared(*subject, shown, tuple(_means(subject, shown, old, news, deviations)))


def _says_something(subject: Subject, row: CellRow) -> bool:
    """Return whether a row is shown. Statuses without any figure are shown only among the times."""
    figures = [figure for figure in row.figures if figure]
    return any(figure.value is not None for figure in figures) or (
        subject == TIME and any(figure.status != "ok" for figure in figures)
    )


def _means(
    subject: Subject,
    rows: Iterable[CellRow],
    old: Measured,
    news: Sequence[Measured],
    deviations: Deviations,
) -> Iterator[MeanRow]:
    keys = [(row.layer, row.pass_, row.implementation) for row in rows]
    for implementation in dict.fromkeys(key[2] for key in keys):
        for pass_ in (*Pass, None):
            of_mean = [k for k in keys if k[2] == implementation and pass_ in (k[1], None)]
            changes = tuple(_change(subject, old, new, of_mean, deviations) for new in news)
            if any(changes):
                yield MeanRow(implementation, pass_, changes)


def _figure(subject: Subject, measured: Measured, key: CellKey) -> Figure | None:
    cell = measured.cells.get(key)
    if cell is None:
        return None
    if cell.status != "ok":
        return Figure(cell.status)
    if subject == MEMORY and cell.memory is not None:
        return Figure("ok", cell.memory.peak_bytes, exact=cell.memory.exact)
    if subject == FRACTION and cell.work is not None:
        return Figure("ok", cell.work.fraction_of_peak)
    ratio = measured.timed.get(subject, {}).get(key)
    if ratio is None:
        is_fastest = subject.versus == FASTEST_KERAS and key in measured.fastest
        return Figure("ok", chosen=key[2] if is_fastest else None)
    of: OfFigure = "speedup" if subject.quantity == "speedup" else "time"
    kinds = between(key[2], ratio.chosen) if of == "speedup" else kind_of(key[2])
    estimate = long_run(ratio.estimate, measured.result, of, kinds)
    undisturbed = ratio.undisturbed_estimate
    if undisturbed is not None:
        quiet: OfFigure = "undisturbed-speedup" if of == "speedup" else "undisturbed-time"
        undisturbed = long_run(undisturbed, measured.result, quiet, kinds)
    return Figure(
        "ok",
        estimate.value,
        estimate.interval(CONFIDENCE),
        estimate.rounds,
        ratio.chosen or None,
        reliable=_is_reliable(subject, key, measured),
        undisturbed=None if undisturbed is None else undisturbed.value,
        undisturbed_ci99=None if undisturbed is None else undisturbed.interval(CONFIDENCE),
    )


def _is_reliable(subject: Subject, key: CellKey, measured: Measured) -> bool:
    return subject.quantity != "speedup" or key[:2] not in measured.unreliable


def _change(
    subject: Subject,
    old: Measured,
    new: Measured,
    keys: Iterable[CellKey],
    deviations: Deviations,
) -> Change | None:
    """Return new over old, as the geometric mean of the cells that have a figure in both files."""
    if subject == MEMORY:
        return _change_of_memory(
            [(old.cells[key], new.cells[key]) for key in keys if key in new.cells]
        )
    below, above = old.timed.get(subject, {}), new.timed.get(subject, {})
    shared = [key for key in keys if key in below and key in above and key in new.cells]
    then, now = (mean_over(timed[key] for key in shared) for timed in (below, above))
    if then is None or now is None:
        return None
    implementation, chosen = shared[0][2], above[shared[0]].chosen
    if subject.quantity == "speedup":
        deviation = deviations.of_speedup(between(implementation, chosen))
    else:
        deviation = deviations.of_time(kind_of(implementation))
    reliable = all(_is_reliable(subject, key, m) for key in shared for m in (old, new))
    change = change_of(now, then, *deviation)
    return replace(change, reliable=reliable, cells=len(shared))


def _change_of_memory(pairs: Iterable[tuple[Cell, Cell]]) -> Change | None:
    known = [
        (then.memory, now.memory)
        for then, now in pairs
        if then.status == now.status == "ok" and then.memory and now.memory
    ]
    logs = [
        math.log(now.peak_bytes / then.peak_bytes)
        for then, now in known
        if then.peak_bytes and now.peak_bytes
    ]
    if not logs:
        return None
    ratio = math.exp(fmean(logs))
    verdict: Verdict = "up" if ratio > 1 else "down"
    if not any(logs):
        verdict = "equal"
    if not all(then.exact and now.exact for then, now in known):
        verdict = "estimated"
    return Change(ratio, None, verdict, cells=len(logs))
