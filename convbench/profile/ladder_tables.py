"""Report the ladder as measured: what each step is worth here, and a chart of it."""

from __future__ import annotations

from functools import partial

from convbench.profile.ladder import RUNGS
from convbench.report.views import run_notes, scale
from convbench.report.views.run_flat import flat_table
from convbench.report.views.run_tables import TONE_OF_STATUS
from convbench.report.views.scale import figures, significant
from convbench.report.views.table import (
    MISSING,
    Bar,
    Chart,
    Column,
    Kind,
    Note,
    Report,
    Row,
    Section,
    Table,
    Value,
    text,
)
from convbench.results.model import Cell, ResultFile
from convbench.suites.suite import KERAS_WAYS


def report(result: ResultFile) -> Report:
    """Return the report of a ladder. The result has one layer, and a cell for each step."""
    (layer,) = result.suite.layers
    cells = {cell.implementation: cell for cell in result.cells}
    return Report(
        title=f"convbench profile --ladder: {layer.geometry()}",
        facts=run_notes.facts(result),
        tables=(_table(cells),),
        notes=tuple(_notes(result, cells)),
        flat=partial(flat_table, result),
        document=result,
        charts=(_chart(cells),),
    )


def fastest_keras(cells: dict[str, Cell]) -> Cell | None:
    """Return the cell of the fastest way to run Keras, or None if none was timed."""
    timed = [cells[name] for name in KERAS_WAYS if name in cells and cells[name].time]
    return min(timed, key=lambda cell: cell.time.time_s if cell.time else 0.0, default=None)


def _table(cells: dict[str, Cell]) -> Table:
    columns = (
        Column("step", "step"),
        Column("change", "change", fit="shorten"),
        figures("time", Kind.TIME_S, "time"),
        figures("gain", Kind.RATIO, "× the step before"),
        figures("whole", Kind.RATIO, "× the first", optional=1),
        figures("keras", Kind.RATIO, "× Keras", optional=2),
    )
    keras = fastest_keras(cells)
    first = before = None
    rows = []
    for rung in RUNGS:
        cell = cells[rung.name]
        if cell.time is None:
            why = f"{cell.status}: {cell.reason}" if cell.reason else cell.status
            rows.append(Row((text(rung.name),), remark=text(why, TONE_OF_STATUS[cell.status])))
            continue
        seconds = cell.time.time_s
        first = first or seconds
        rows.append(
            Row(
                (
                    text(rung.name),
                    text(rung.change),
                    Value(Kind.TIME_S, seconds, cell.time.ci99_s),
                    Value(Kind.RATIO, before / seconds) if before else MISSING,
                    Value(Kind.RATIO, first / seconds),
                    _over(keras, seconds),
                )
            )
        )
        before = seconds
    if keras is not None and keras.time is not None:
        seconds = keras.time.time_s
        whole = Value(Kind.RATIO, first / seconds) if first else MISSING
        rows.append(
            Row(
                (
                    text(keras.implementation, "strong"),
                    text("Conv2D, the fastest way to run it"),
                    Value(Kind.TIME_S, seconds, keras.time.ci99_s),
                    MISSING,
                    whole,
                    MISSING,
                )
            )
        )
    return Table("The ladder", columns, (Section(tuple(rows)),))


def _over(keras: Cell | None, seconds: float) -> Value:
    """Return the speed of a step, over that of the fastest way to run Keras."""
    if keras is None or keras.time is None:
        return MISSING
    ratio = keras.time.time_s / seconds
    return Value(Kind.RATIO, ratio, tone="good" if ratio > 1 else "plain")


def _chart(cells: dict[str, Cell]) -> Chart:
    keras = fastest_keras(cells)
    shown = [cells[rung.name] for rung in RUNGS]
    timed = [cell for cell in (*shown, keras) if cell is not None and cell.time is not None]
    least = min((cell.time.time_s for cell in timed if cell.time), default=1.0)
    bars = [
        Bar(
            cell.implementation,
            least / 2,
            cell.time.time_s,
            f"{scale.scaled(Kind.TIME_S, cell.time.time_s)} {scale.unit(Kind.TIME_S)}",
            "strong" if cell is keras else "plain",
        )
        for cell in timed
        if cell.time is not None
    ]
    return Chart("The ladder: time of a call", Kind.TIME_S, tuple(bars))


def _notes(result: ResultFile, cells: dict[str, Cell]) -> list[Note]:
    found = [Note("Each step is a file to read and to copy, in convbench/profile/ladder/.")]
    found += [run_notes.caution_note(caution) for caution in result.warnings]
    timed = [cell for rung in RUNGS if (cell := cells[rung.name]).time is not None]
    keras = fastest_keras(cells)
    if timed and keras is not None and keras.time is not None:
        best = min(timed, key=lambda cell: cell.time.time_s if cell.time else 0.0)
        assert best.time is not None
        assert timed[0].time is not None
        whole = timed[0].time.time_s / best.time.time_s
        versus = keras.time.time_s / best.time.time_s
        found.append(
            Note(
                f"The fastest step, {best.implementation}, is {significant(whole)} times as fast "
                f"as {timed[0].implementation} and {significant(versus)} times as fast as "
                f"{keras.implementation}.",
                "strong",
            )
        )
    return found
