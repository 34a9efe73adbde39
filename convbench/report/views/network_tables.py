"""Report a whole network: totals, the layers that make them up, where time is lost to Keras."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from convbench.report.views import scale
from convbench.report.views.scale import figures
from convbench.report.views.table import (
    MISSING,
    Column,
    Kind,
    Note,
    Row,
    Section,
    Table,
    Tone,
    Value,
    text,
)
from convbench.results.model import NetworkLayer, NetworkRow, Part, ResultFile
from convbench.results.summary import subject
from convbench.suites.suite import FASTEST_KERAS

TOP = 3
"""Number of the heaviest layers that are named, unless --top gives another one."""

ALL_PASSES = "all passes"


def is_network(result: ResultFile) -> bool:
    """Return whether the suite has several layers, or one that the network has several times."""
    layers = result.suite.layers
    return bool(result.network) and (len(layers) > 1 or layers[0].count > 1)


def network_tables(result: ResultFile, top: int) -> Iterator[Table]:
    """Yield the totals, and the table of the time that the subject loses to Keras, if any."""
    if not is_network(result):
        return
    yield _totals(result.network, top)
    losses = _losses(result)
    if losses:
        yield _lost_table(str(subject(result)), losses[:top], sum(loss.lost_s for loss in losses))


def network_notes(result: ResultFile, top: int) -> Iterator[Note]:
    """Yield `3 of 20 layers take 60 % of im2col's time in all passes: ...`."""
    name, layers = subject(result), result.suite.layers
    rows = [row for row in result.network if row.implementation == name]
    if not is_network(result) or not rows or len(layers) <= top:
        return
    row = rows[-1]  # all passes together, where there are several
    heaviest = _heaviest(row, top)
    share = scale.percent(sum(layer.share for layer in heaviest))
    named = ", ".join(_named(layer) for layer in heaviest)
    where = f"in {row.pass_ or ALL_PASSES}"
    yield Note(
        f"{len(heaviest)} of {len(layers)} layers take {share} % of {name}'s time {where}: {named}"
    )


# Totals


def _totals(network: tuple[NetworkRow, ...], top: int) -> Table:
    columns = (
        Column("implementation", "implementation", short="", fit="shorten"),
        figures("total", Kind.TIME_S, "total"),
        figures("over_fastest_keras", Kind.RATIO, "× fastest Keras", "× Keras"),
        Column("heaviest", "heaviest layers", fit="wrap"),
    )
    sections = tuple(
        Section(
            tuple(_row(row, top) for row in network if row.pass_ == pass_),
            heading=str(pass_ or ALL_PASSES),
        )
        for pass_ in dict.fromkeys(row.pass_ for row in network)
    )
    return Table("The whole network", columns, sections).without_empty_columns()


def _row(row: NetworkRow, top: int) -> Row:
    ratio, interval = row.over_fastest_keras, row.over_fastest_keras_ci99
    over = MISSING
    if ratio is not None:
        tone: Tone = "good" if (interval[0] if interval else ratio) > 1 else "plain"
        over = Value(Kind.RATIO, ratio, interval, tone=tone)
    return Row(
        (
            text(row.implementation),
            Value(Kind.TIME_S, row.total_s, row.ci99_s),
            over,
            text(_heaviest_in_words(row, top)),
        )
    )


def _heaviest(row: NetworkRow, top: int) -> list[NetworkLayer]:
    return sorted(row.layers, key=lambda layer: -layer.share)[:top]


def _named(layer: NetworkLayer) -> str:
    return f"{layer.layer} (×{layer.count})" if layer.count > 1 else layer.layer


def _heaviest_in_words(row: NetworkRow, top: int) -> str:
    """Write `conv2 (×3) 47 %, conv1 18 %`. A row that mixes implementations says which it takes."""
    taken = {layer.implementation for layer in row.layers} - {None, row.implementation}
    shares = ", ".join(
        f"{_named(layer)} {scale.percent(layer.share)} %"
        + (f" ({layer.implementation})" if len(taken) > 1 else "")
        for layer in _heaviest(row, top)
    )
    return f"{shares}; all {taken.pop()}" if len(taken) == 1 else shares


# Losses


@dataclass(frozen=True)
class _Loss:
    """One layer and pass, `count` times in the network, that is slower than the fastest Keras."""

    layer: str
    pass_: Part
    count: int
    time_s: float
    ratio: float

    @property
    def lost_s(self) -> float:
        return self.count * self.time_s * (1 - self.ratio)


def _losses(result: ResultFile) -> list[_Loss]:
    """Return the subject's losses, the largest first. Layers on which it is faster have none."""
    name = subject(result)
    counts = {layer.name: layer.count for layer in result.suite.layers}
    times = {
        (cell.layer, cell.pass_): cell.time.time_s
        for cell in result.cells
        if cell.implementation == name and cell.time is not None
    }
    losses = [
        _Loss(s.layer, s.pass_, counts[s.layer], times[s.layer, s.pass_], s.ratio)
        for s in result.speedups
        if (s.implementation, s.versus) == (name, FASTEST_KERAS)
        and (s.layer, s.pass_) in times
        and s.ratio < 1
    ]
    return sorted(losses, key=lambda loss: -loss.lost_s)


def _lost_table(name: str, losses: list[_Loss], lost_s: float) -> Table:
    columns = (
        Column("layer", "layer", fit="shorten"),
        Column("pass", "pass"),
        figures("lost", Kind.TIME_S, "lost"),
        figures("share", Kind.FRACTION, "of all lost", "of lost"),
        figures("time", Kind.TIME_S, "time", optional=1),
        figures("speedup", Kind.RATIO, "× fastest Keras", "× Keras"),
    )
    rows = tuple(
        Row(
            (
                text(f"{loss.layer} (×{loss.count})" if loss.count > 1 else loss.layer),
                text(loss.pass_),
                Value(Kind.TIME_S, loss.lost_s),
                Value(Kind.FRACTION, loss.lost_s / lost_s),
                Value(Kind.TIME_S, loss.count * loss.time_s),
                Value(Kind.RATIO, loss.ratio),
            )
        )
        for loss in losses
    )
    return Table("Most time lost to the fastest Keras", columns, (Section(rows, heading=name),))
