"""Turn a result file into the tables of a run. No figure is computed anew."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from convbench.problem.layer import Layer, Pass
from convbench.report.typeset import shorten
from convbench.report.views import scale
from convbench.report.views.ci_checks import checks, points
from convbench.report.views.large_tables import is_large, large_tables
from convbench.report.views.network_tables import TOP, network_tables
from convbench.report.views.run_flat import flat_table
from convbench.report.views.run_notes import facts, notes
from convbench.report.views.scale import figures
from convbench.report.views.table import (
    MISSING,
    Column,
    Kind,
    Report,
    Row,
    Section,
    Table,
    Tone,
    Value,
    text,
)
from convbench.report.views.time_notes import TURNED, is_turned
from convbench.results.model import Agreement, Cell, Part, ResultFile, Speedup, SummaryRow
from convbench.suites.suite import FASTEST_KERAS, LOOP

TONE_OF_STATUS: dict[str, Tone] = {
    "ok": "plain",
    "wrong": "bad",
    "failed": "bad",
    "unsupported": "dim",
    "skipped": "dim",
    "pending": "dim",
}

# Smallest share of the error bound that is shown as a figure; others are shown as `<0.01 bound`.
_SMALLEST_SHOWN_SHARE = 0.01


def report(result: ResultFile, top: int = TOP, everything: bool = False) -> Report:
    """Return the report of a run, finished or not.

    Notes and tables of the whole network name its `top` heaviest layers. A large run is summed up
    unless `everything` is asked for.
    """
    summed_up = is_large(result) and not everything
    tables = [*large_tables(result)] if summed_up else [_cell_table(result)]
    if result.summary:
        tables.append(_summary_table(result.summary))
    tables += network_tables(result, top)
    return Report(
        title=f"convbench: {result.suite.name}",
        facts=facts(result),
        tables=tuple(tables),
        notes=notes(result, top, summed_up),
        flat=partial(flat_table, result),
        document=result,
        checks=checks(result),
        points=points(result),
    )


# Cells

_SHORT_VERSUS = {FASTEST_KERAS: "Keras"}  # the same word as in the narrow heading of the cells
_SPEEDUP_HEADINGS = {LOOP: ("× loop", None), FASTEST_KERAS: ("× fastest Keras", "× Keras")}

_NARROW_VERSUS = 18
"""Characters of an implementation's name that head a narrow column of speedups over it."""


_FIRST_SPEEDUP = 4
"""Index of the first column of speedups among the cells' columns."""

_OVER_KERAS = list(_SPEEDUP_HEADINGS).index(FASTEST_KERAS)


def versus_of(result: ResultFile) -> tuple[str, ...]:
    """Return what the columns of speedups compare with: loop, the fastest Keras, then others."""
    return tuple(dict.fromkeys([*_SPEEDUP_HEADINGS, *(s.versus for s in result.speedups)]))


def _speedup_column(versus: str) -> Column:
    whole, narrow = _SPEEDUP_HEADINGS.get(
        versus, (f"× {versus}", f"× {shorten(versus, _NARROW_VERSUS)}")
    )
    return figures(versus, Kind.RATIO, whole, narrow)


def _cell_table(result: ResultFile) -> Table:
    versus = versus_of(result)
    columns = (
        Column("implementation", "implementation", short="", fit="shorten"),
        Column("check", "check"),
        figures("time", Kind.TIME_S, "time", optional=0),
        figures("over_plain", Kind.RATIO, "plain loop", "plain"),
        *map(_speedup_column, versus),
        figures("peak", Kind.BYTES, "peak memory", "memory", optional=1),
        figures("rate", Kind.RATE, "rate", optional=2),
        figures("of_peak", Kind.FRACTION, "of peak", "peak", optional=3),
    )
    layers = {layer.name: layer for layer in result.suite.layers}
    speedups = {(s.layer, s.pass_, s.implementation, s.versus): s for s in result.speedups}
    chosen = {(s.layer, s.pass_, s.chosen) for s in result.speedups if s.versus == FASTEST_KERAS}
    units: dict[tuple[str, Part], list[Cell]] = {}
    for cell in result.cells:
        units.setdefault((cell.layer, cell.pass_), []).append(cell)
    sections = [
        Section(
            rows=tuple(
                _cell_row(
                    cell,
                    [speedups.get((name, pass_, cell.implementation, v)) for v in versus],
                    is_fastest_keras=(name, pass_, cell.implementation) in chosen,
                )
                for cell in of_unit
            ),
            heading=f"{name} {pass_}",
            details=_details(layers[name]) if name in layers else "",
        )
        for (name, pass_), of_unit in units.items()
    ]
    return Table("Layers", columns, tuple(sections)).without_empty_columns()


def _details(layer: Layer) -> str:
    """Write geometry and sizes. As in the rate, the FLOPs do not count taps on padding."""
    work = scale.amount_of_flops(layer.flops_in_bounds)
    columns = scale.mebibytes(layer.columns_bytes)
    count = f", {layer.count} times in the network" if layer.count > 1 else ""
    return f"{layer.geometry()}{count} ({work}; naive im2col {columns})"


def _cell_row(cell: Cell, speedups: list[Speedup | None], is_fastest_keras: bool) -> Row:
    name = text(cell.implementation)
    timed_wrong = cell.status == "wrong" and cell.time is not None
    tone = TONE_OF_STATUS[cell.status]
    reason = _reason(cell)
    if cell.status != "ok" and not timed_wrong:
        return Row((name,), Value(Kind.STATUS, reason, tone=tone))
    values = [
        name,
        _check(cell.agreement),
        _time(cell, "wrong" if timed_wrong else ""),
        _over_plain(cell),
        *(MISSING if timed_wrong or s is None else speedup_value(s) for s in speedups),
        *_memory_and_work(cell),
    ]
    if is_fastest_keras:
        values[_FIRST_SPEEDUP + _OVER_KERAS] = text("fastest", tone="strong")
    return Row(tuple(values), Value(Kind.STATUS, reason, tone=tone) if reason else None)


def _reason(cell: Cell) -> str | None:
    """Return `status: reason`; for a cell that is ok, its remark, or None."""
    diagnosis = cell.agreement.diagnosis if cell.agreement else None
    why = diagnosis if cell.status == "wrong" and diagnosis else cell.reason
    if cell.status == "ok":
        return why
    return f"{cell.status}: {why}" if why else cell.status


def _check(agreement: Agreement | None) -> Value:
    if agreement is None:
        return MISSING
    if agreement.verdict == "wrong":
        return text("wrong", "bad")
    if agreement.verdict == "mistrusted":
        return text("mistrusted", "warning")
    if agreement.exact:
        return text("exact")
    share = agreement.error_over_bound
    if share is None:
        return text("float")
    if share < _SMALLEST_SHOWN_SHARE:
        return text(f"<{_SMALLEST_SHOWN_SHARE} bound", short="float")
    return text(f"{share:.2f} bound", short="float")


def _time(cell: Cell, after: str) -> Value:
    if cell.time is None:
        return MISSING
    tone: Tone = "bad" if after else "plain"
    return Value(Kind.TIME_S, cell.time.time_s, cell.time.ci99_s, after=after, tone=tone)


def _over_plain(cell: Cell) -> Value:
    over = None if cell.time is None else cell.time.over_plain
    return MISSING if over is None else Value(Kind.RATIO, over)


def speedup_value(speedup: Speedup) -> Value:
    """Return a speedup with its mark: not reliable, or turned by its undisturbed figure."""
    is_faster = speedup.reliable and (speedup.ci99[0] if speedup.ci99 else speedup.ratio) > 1
    return Value(
        Kind.RATIO,
        speedup.ratio,
        speedup.ci99,
        after="?" if not speedup.reliable else TURNED if is_turned(speedup) else "",
        tone="good" if is_faster else "plain",
    )


def _memory_and_work(cell: Cell) -> tuple[Value, Value, Value]:
    memory, work = cell.memory, cell.work
    peak, rate, share = MISSING, MISSING, MISSING
    if memory is not None:
        peak = Value(Kind.BYTES, memory.peak_bytes, before="" if memory.exact else "~")
    if work is not None and work.gflops_per_s is not None:
        rate = Value(Kind.RATE, work.gflops_per_s * 1e9)
    if work is not None and work.fraction_of_peak is not None:
        share = Value(Kind.FRACTION, work.fraction_of_peak)
    return peak, rate, share


# Summary

PASS_HEADINGS: dict[Pass | None, tuple[str, str | None]] = {
    Pass.FORWARD: ("forward", None),
    Pass.INPUT_GRADIENT: ("input-gradient", "input-grad"),
    Pass.KERNEL_GRADIENT: ("kernel-gradient", "kernel-grad"),
    None: ("all", None),
}


def _summary_table(summary: Iterable[SummaryRow]) -> Table:
    rows = {(row.implementation, row.versus, row.pass_): row for row in summary}
    columns = (
        Column("implementation", "implementation", short="", fit="shorten"),
        Column("versus", "versus", fit="shorten"),
        *(
            figures(str(pass_ or "all"), Kind.RATIO, heading, short)
            for pass_, (heading, short) in PASS_HEADINGS.items()
        ),
    )
    lines = tuple(
        Row(
            (
                text(implementation),
                text(versus, short=_SHORT_VERSUS.get(versus)),
                *(_mean(rows.get((implementation, versus, p))) for p in PASS_HEADINGS),
            )
        )
        for implementation, versus in dict.fromkeys(key[:2] for key in rows)
    )
    title = "Speedups, geometric means over the layers"
    return Table(title, columns, (Section(lines),)).without_empty_columns()


def _mean(row: SummaryRow | None) -> Value:
    if row is None:
        return MISSING
    is_faster = (row.ci99[0] if row.ci99 else row.geometric_mean) > 1
    return Value(
        Kind.RATIO,
        row.geometric_mean,
        row.ci99,
        after=TURNED if is_turned(row) else "",
        tone="good" if is_faster else "plain",
    )
