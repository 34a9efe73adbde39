"""Total a whole network: each layer as often as the network has it.

Each round gives a total, so that totals have intervals as times do.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from convbench.problem.layer import Layer, Pass
from convbench.results import stats
from convbench.results.model import Cell, NetworkLayer, NetworkRow, Part
from convbench.results.rounds import Rounds, fastest_by_round, log_median
from convbench.suites.suite import BEST_PER_LAYER, FASTEST_KERAS, KERAS_WAYS

Unit = tuple[Part, str]  # pass, layer


@dataclass(frozen=True)
class _Way:
    """Seconds by round of one (layer, pass), and which implementation gave most of them."""

    seconds: dict[int, float]
    implementation: str


class LongRun(Protocol):
    """A way to turn a run's total into an estimate of what the machine gives in the long run.

    `names` are the implementations in the total. `pairs` has, for each (layer, pass), the
    implementation in the total and the one that it is compared with.
    """

    def time(self, found: stats.Estimate, names: set[str]) -> stats.Estimate: ...

    def ratio(self, found: stats.Estimate, pairs: set[tuple[str, str]]) -> stats.Estimate: ...


def network(
    cells: Iterable[Cell],
    layers: Sequence[Layer],
    passes: Sequence[Pass],
    rounds: Mapping[str, Rounds],
    long_run: LongRun,
) -> Iterator[NetworkRow]:
    """Yield the rows of a network's totals, one for each pass and one for all passes together.

    They are given for every implementation that is right and timed in every layer, for the fastest
    Keras way of each layer and pass, and for the fastest implementation of each.
    """
    timed: dict[str, dict[Unit, Rounds]] = {}
    for cell in cells:
        if cell.status == "ok" and cell.time is not None:
            of_it = timed.setdefault(cell.implementation, {})
            of_it[cell.pass_, cell.layer] = rounds[cell.time.benchmark]
    ways = {
        name: {unit: _way({name: each}) for unit, each in of_it.items()}
        for name, of_it in timed.items()
    }
    keras = [name for name in timed if name in KERAS_WAYS]
    fastest = _mixed(timed, keras)
    if len(keras) > 1:
        ways[FASTEST_KERAS] = fastest
    if len(timed) > 1:
        ways[BEST_PER_LAYER] = _mixed(timed, list(timed))
    for name, of_way in ways.items():
        for pass_ in [*passes, *([None] if len(passes) > 1 else [])]:
            units = [
                (one, layer.name) for one in ([pass_] if pass_ else passes) for layer in layers
            ]
            if all(unit in of_way for unit in units):
                yield from _row(name, pass_, units, of_way, layers, fastest, long_run)


def _way(ways: Mapping[str, Rounds]) -> _Way:
    picked = fastest_by_round(ways)
    seconds = {r: math.exp(log_median(ways[name][r])) for r, name in picked.items()}
    return _Way(seconds, Counter(picked.values()).most_common(1)[0][0] if picked else "")


def _mixed(timed: dict[str, dict[Unit, Rounds]], names: Sequence[str]) -> dict[Unit, _Way]:
    """Choose the fastest of some implementations for every (layer, pass) that any of them has."""
    units = dict.fromkeys(unit for name in names for unit in timed[name])
    return {
        unit: _way({name: timed[name][unit] for name in names if unit in timed[name]})
        for unit in units
    }


def _row(
    name: str,
    pass_: Pass | None,
    units: Sequence[Unit],
    ways: dict[Unit, _Way],
    layers: Sequence[Layer],
    fastest: dict[Unit, _Way],
    long_run: LongRun,
) -> Iterator[NetworkRow]:
    counts = {layer.name: layer.count for layer in layers}
    totals = _totals(units, ways, counts)
    if not totals:
        return
    estimate = stats.estimate([math.log(total) for total in totals.values()])
    taken = {unit: ways[unit].implementation for unit in units}
    whole_time = long_run.time(estimate, set(taken.values()))
    ratio = whole_ratio = None
    if name not in (FASTEST_KERAS, *KERAS_WAYS) and all(unit in fastest for unit in units):
        theirs = _totals(units, fastest, counts)
        both = [math.log(theirs[r] / totals[r]) for r in totals.keys() & theirs.keys()]
        if both:
            ratio = stats.estimate(both)
            pairs = {(taken[unit], fastest[unit].implementation) for unit in units}
            whole_ratio = long_run.ratio(ratio, pairs)
    times = {layer.name: 0.0 for layer in layers}
    for unit in units:
        times[unit[1]] += counts[unit[1]] * _mean(ways[unit].seconds, totals)
    whole = sum(times.values())
    chosen = {layer: name for (_, layer), name in taken.items()} if pass_ else {}
    yield NetworkRow(
        implementation=name,
        pass_=pass_,
        total_s=estimate.value,
        ci99_s=whole_time.interval(),
        run_ci99_s=estimate.interval(),
        over_fastest_keras=ratio.value if ratio else None,
        over_fastest_keras_ci99=whole_ratio.interval() if whole_ratio else None,
        over_fastest_keras_run_ci99=ratio.interval() if ratio else None,
        layers=tuple(
            NetworkLayer(layer, counts[layer], seconds / whole, chosen.get(layer))
            for layer, seconds in times.items()
        ),
    )


def _totals(
    units: Sequence[Unit], ways: dict[Unit, _Way], counts: Mapping[str, int]
) -> dict[int, float]:
    """Return the total seconds of each round that every (layer, pass) has."""
    shared = set.intersection(*(set(ways[unit].seconds) for unit in units))
    return {r: sum(counts[unit[1]] * ways[unit].seconds[r] for unit in units) for r in shared}


def _mean(seconds: dict[int, float], rounds: Iterable[int]) -> float:
    """Return the geometric mean over some rounds."""
    return stats.estimate([math.log(seconds[r]) for r in rounds]).value
