"""Sum a run of many cells up: how many are right, how speedups spread over the layers."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence

from convbench.report.views.check_tables import COUNTED
from convbench.report.views.scale import figures
from convbench.report.views.table import (
    MISSING,
    Column,
    Kind,
    Note,
    Row,
    Section,
    Table,
    Value,
    text,
)
from convbench.results.model import Part, ResultFile, Speedup

MOST_CELLS = 200
"""A run with more cells is summed up, unless --all says otherwise."""

QUARTILES = ("25 %", "median", "75 %")


def is_large(result: ResultFile) -> bool:
    return len(result.cells) > MOST_CELLS


def large_tables(result: ResultFile) -> Iterator[Table]:
    yield _counts(result)
    if result.speedups:
        yield _spread(result)


def large_notes() -> Iterator[Note]:
    words = "--layer PATTERN shows the cells of some layers, --all shows all cells"
    yield Note(f"summed up: {words}, and --format csv or json writes them", "dim")


def _counts(result: ResultFile) -> Table:
    counts = Counter((c.implementation, c.pass_, c.status) for c in result.cells)
    columns = (
        Column("implementation", "implementation", short="", fit="shorten"),
        Column("pass", "pass"),
        *(Column(status, word, align="right") for status, (word, _) in COUNTED.items()),
    )
    rows = tuple(
        Row(
            (
                text(implementation),
                text(pass_),
                *(
                    text(str(count), tone)
                    if (count := counts[implementation, pass_, status])
                    else MISSING
                    for status, (_, tone) in COUNTED.items()
                ),
            )
        )
        for implementation in result.suite.implementations
        for pass_ in result.suite.passes
    )
    return Table("Cells", columns, (Section(rows),)).without_empty_columns()


def _spread(result: ResultFile) -> Table:
    """Return the table of lowest, quartile and highest speedups, and the layers of both ends."""
    columns = (
        Column("implementation", "implementation", short="", fit="shorten"),
        Column("versus", "versus", fit="shorten"),
        figures("lowest", Kind.RATIO, "lowest"),
        *(figures(name, Kind.RATIO, name) for name in QUARTILES),
        figures("highest", Kind.RATIO, "highest"),
        Column("lowest_layer", "lowest in", fit="shorten", optional=2),
        Column("highest_layer", "highest in", fit="shorten", optional=1),
    )
    groups: dict[Part, dict[tuple[str, str], list[Speedup]]] = {}
    for speedup in result.speedups:
        key = (speedup.implementation, speedup.versus)
        groups.setdefault(speedup.pass_, {}).setdefault(key, []).append(speedup)
    sections = tuple(
        Section(
            tuple(_spread_row(*key, found) for key, found in of_pass.items()), heading=str(pass_)
        )
        for pass_, of_pass in groups.items()
    )
    return Table("Speedups over the layers, from the lowest to the highest", columns, sections)


def _spread_row(implementation: str, versus: str, speedups: Sequence[Speedup]) -> Row:
    in_order = sorted(speedups, key=lambda speedup: speedup.ratio)
    ratios = [speedup.ratio for speedup in in_order]
    lowest, highest = in_order[0], in_order[-1]
    return Row(
        (
            text(implementation),
            text(versus),
            Value(Kind.RATIO, lowest.ratio),
            *(Value(Kind.RATIO, ratio) for ratio in _quartiles(ratios)),
            Value(Kind.RATIO, highest.ratio),
            text(lowest.layer),
            text(highest.layer),
        )
    )


def _quartiles(ratios: list[float]) -> list[float]:
    if len(ratios) == 1:
        return ratios * len(QUARTILES)
    return statistics.quantiles(ratios, n=len(QUARTILES) + 1, method="inclusive")
