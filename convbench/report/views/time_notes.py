"""Say where a cell's time is not one number: undisturbed, two speeds, or a plain loop's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from convbench.report.views import scale
from convbench.report.views.resolution_notes import MOST_NAMED, named
from convbench.report.views.table import Kind, Note
from convbench.results.model import ResultFile, Speedup, SummaryRow
from convbench.results.summary import confirmations
from convbench.results.two_times import TwoTimes, apart, of_mean, of_speedup, turned
from convbench.suites.suite import FASTEST_KERAS

TURNED = "!"
"""Mark of a speedup whose undisturbed figure would turn its verdict."""


def is_turned(row: Speedup | SummaryRow) -> bool:
    """Return whether a speedup or a mean carries the mark."""
    found = of_speedup(row) if isinstance(row, Speedup) else of_mean(row)
    return found is not None and found.is_turned


def time_notes(result: ResultFile) -> Iterator[Note]:
    yield from _turned_notes(turned(result))
    yield from _apart_notes(apart(result))
    yield from _state_notes(result)
    yield from _plain_notes(result)


# Two times


def _turned_notes(found: Sequence[TwoTimes]) -> Iterator[Note]:
    if not found:
        return
    yield Note(
        f"{TURNED}: the undisturbed times (the quickest eighth of each round's samples) would turn "
        f"{scale.counted(len(found), 'verdict')}",
        "warning",
        points=named([f"{_place(one)}: {_both(one)}" for one in found]),
    )


def _apart_notes(found: Sequence[TwoTimes]) -> Iterator[Note]:
    if not found:
        return
    furthest = max(found, key=lambda one: one.distance)
    who, where = "1 speedup keeps its verdict", "it is that of"
    if len(found) > 1:
        who, where = f"{len(found)} speedups keep their verdicts", "they differ most in"
    yield Note(
        f"{who}, though typical and undisturbed figures differ by more than their intervals; "
        f"{where} {_place(furthest)}: {_both(furthest)}."
    )


def _place(one: TwoTimes) -> str:
    if one.layer is None:
        return f"geometric mean, {one.pass_ or 'all passes'}"
    return f"{one.layer} {one.pass_}"


def _both(one: TwoTimes) -> str:
    """Write `im2col is 1.10 [1.02, 1.19] times as fast as keras typically, and 0.950 [0.930, 0.970]
    undisturbed`."""
    versus = "the fastest Keras" if one.versus == FASTEST_KERAS else one.versus
    typical = f"{scale.significant(one.typical)} {scale.bounds(one.typical_ci99)}"
    undisturbed = f"{scale.significant(one.undisturbed)} {scale.bounds(one.undisturbed_ci99)}"
    return (
        f"{one.implementation} is {typical} times as fast as {versus} typically, and {undisturbed} "
        "undisturbed"
    )


# Two speeds


def _state_notes(result: ResultFile) -> Iterator[Note]:
    found = [
        (cell, cell.time.states)
        for cell in result.cells
        if cell.status == "ok" and cell.time is not None and cell.time.states
    ]
    for cell, (quick, slow) in found[:MOST_NAMED]:
        yield Note(
            f"{cell.implementation} {cell.layer} {cell.pass_} has two speeds: "
            f"{_ms(quick.time_s)} ({scale.percent(quick.share)} % of its samples) and "
            f"{_ms(slow.time_s)} ({scale.percent(slow.share)} %)."
        )
    if rest := max(len(found) - MOST_NAMED, 0):
        have = "has" if rest == 1 else "have"
        yield Note(f"{scale.counted(rest, 'more cell')} {have} two speeds.")


def _ms(seconds: float) -> str:
    return f"{scale.scaled(Kind.TIME_S, seconds)} {scale.unit(Kind.TIME_S)}"


# Plain loops


def _plain_notes(result: ResultFile) -> Iterator[Note]:
    found = confirmations(result)
    if not found:
        return
    means = ", ".join(
        f"{one.implementation} {scale.significant(one.geometric_mean)}" for one in found
    )
    furthest = max(found, key=lambda one: one.distance)
    cell, time = furthest.cell, furthest.cell.time
    assert time is not None
    assert time.over_plain is not None
    assert time.confirmed_s is not None
    yield Note(
        f"Times over those of plain loops in processes of their own (geometric means): {means}; "
        f"the furthest from 1 is {cell.implementation} {cell.layer} {cell.pass_}, "
        f"{scale.significant(time.over_plain)} ({_ms(time.time_s)} over {_ms(time.confirmed_s)})."
    )
