"""From raw samples to figures: times, speedups, twins, geometric means, network totals.

One figure a round: the median over its blocks. Ratios are differences of the logs of two such
figures of the same round, so that what a round does to both arms cancels.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from convbench import stats
from convbench.layer import Layer, Pass
from convbench.machine import Calibration
from convbench.results import (
    TWIN,
    Benchmarks,
    Cell,
    Duplicate,
    Interval,
    NetworkLayer,
    NetworkRow,
    ResultFile,
    Speedup,
    SummaryRow,
    Time,
    Work,
    benchmark_name,
)
from convbench.suite import KERAS_WAYS

FASTEST_KERAS = "fastest-keras"
LOOP = "loop"

TWIN_ALPHA = 0.001
"""A twin that differs condemns a run at this family-wise error (research/measurement.md, 5)."""

Logs = dict[int, float]  # round -> log of the median over the round's blocks


@dataclass(frozen=True)
class _Ratio:
    """Logs of T_versus / T_arm by round, and which arm `versus` turned out to be."""

    logs: Logs
    chosen: str


def summarise(result: ResultFile, benchmarks: Benchmarks) -> ResultFile:
    """The result file with every derived figure made anew from the raw samples."""
    logs = {name: _logs_of(benchmarks, name) for name in benchmarks}
    duplicates, reliable = _duplicates(result.cells, logs)
    cells = tuple(_with_figures(cell, result, benchmarks, logs) for cell in result.cells)
    ratios = _ratios(cells, logs)
    speedups = tuple(
        _speedup(key, ratio, reliable[key[0], key[1]]) for key, ratio in ratios.items()
    )
    return replace(
        result,
        cells=cells,
        speedups=speedups,
        duplicates=duplicates,
        summary=tuple(_summary(ratios)),
        network=tuple(_network(cells, result.suite.layers)),
        rounds=max((max(rounds) for rounds in logs.values() if rounds), default=0),
    )


def is_unreliable(result: ResultFile) -> bool:
    """Whether a twin disagreed with its arm in some (layer, pass)."""
    return any(not speedup.reliable for speedup in result.speedups)


def _logs_of(benchmarks: Benchmarks, name: str) -> Logs:
    return {run.round: math.log(statistics.median(run.values)) for run in benchmarks[name]}


def _with_figures(
    cell: Cell, result: ResultFile, benchmarks: Benchmarks, logs: dict[str, Logs]
) -> Cell:
    name = benchmark_name(cell.layer, cell.pass_, cell.implementation)
    layer = next(layer for layer in result.suite.layers if layer.name == cell.layer)
    if not logs.get(name):
        return replace(cell, time=None, work=Work(layer.flops, layer.flops_in_bounds))
    estimate = stats.estimate(list(logs[name].values()))
    time = Time(
        time_s=estimate.value,
        ci99_s=estimate.interval(),
        rounds=estimate.rounds,
        samples=sum(len(run.values) for run in benchmarks[name]),
        benchmark=name,
    )
    rate = layer.flops_in_bounds / time.time_s
    peak = _peak(result.machine.calibration, layer, result.threads)
    work = Work(
        layer.flops,
        layer.flops_in_bounds,
        gflops_per_s=rate / 1e9,
        fraction_of_peak=None if peak is None else rate / peak,
    )
    return replace(cell, time=time, work=work)


def _peak(calibration: Calibration | None, layer: Layer, threads: int) -> float | None:
    if calibration is None:
        return None
    rates = calibration.sgemm if layer.dtype == "float32" else calibration.dgemm
    return rates.get(threads)


_Key = tuple[str, Pass, str, str]  # layer, pass, implementation, versus


def _ratios(cells: Iterable[Cell], logs: dict[str, Logs]) -> dict[_Key, _Ratio]:
    """T_versus / T_implementation of every cell that is right, over loop and the fastest Keras."""
    groups: dict[tuple[str, Pass], dict[str, Logs]] = {}
    for cell in cells:
        if cell.status == "ok" and cell.time is not None:
            arms = groups.setdefault((cell.layer, cell.pass_), {})
            arms[cell.implementation] = logs[cell.time.benchmark]
    ratios: dict[_Key, _Ratio] = {}
    for (layer, pass_), arms in groups.items():
        ways = {name: arm for name, arm in arms.items() if name in KERAS_WAYS}
        for name, arm in arms.items():
            if LOOP in arms and name != LOOP:
                ratio = _Ratio(_difference(arms[LOOP], arm), LOOP)
                ratios[layer, pass_, name, LOOP] = ratio
            if ways:
                fastest = _over_fastest(ways, arm)
                if fastest.chosen != name:
                    ratios[layer, pass_, name, FASTEST_KERAS] = fastest
    return {key: ratio for key, ratio in ratios.items() if ratio.logs}


def _difference(versus: Logs, arm: Logs) -> Logs:
    return {r: versus[r] - arm[r] for r in sorted(versus.keys() & arm.keys())}


def _over_fastest(ways: dict[str, Logs], arm: Logs) -> _Ratio:
    """The fastest Keras way over an arm, without the bias of picking a minimum by its noise.

    The even rounds pick the way that the odd rounds are compared with, and the other way round,
    so that no round is used for both. With one round there is nothing to split.
    """
    rounds = sorted(set.intersection(*(set(way) for way in ways.values())))
    halves = (rounds[::2], rounds[1::2])
    logs: Logs = {}
    picked: Counter[str] = Counter()
    for estimated, picking in (halves, halves[::-1]):
        if not estimated:
            continue
        over = picking or estimated
        way = min(ways, key=lambda name: statistics.fmean(ways[name][r] for r in over))
        logs |= {r: ways[way][r] - arm[r] for r in estimated if r in arm}
        picked[way] += len(estimated)
    chosen = picked.most_common(1)[0][0] if picked else ""
    return _Ratio(dict(sorted(logs.items())), chosen)


def _speedup(key: _Key, ratio: _Ratio, reliable: bool) -> Speedup:
    layer, pass_, implementation, versus = key
    estimate = stats.estimate(list(ratio.logs.values()))
    return Speedup(
        layer=layer,
        pass_=pass_,
        implementation=implementation,
        versus=versus,
        chosen=ratio.chosen,
        ratio=estimate.value,
        ci99=estimate.interval(),
        rounds=estimate.rounds,
        reliable=reliable,
    )


def _duplicates(
    cells: Iterable[Cell], logs: dict[str, Logs]
) -> tuple[tuple[Duplicate, ...], dict[tuple[str, Pass], bool]]:
    """The twins' ratios, and for every (layer, pass) whether its twin agrees with its arm."""
    estimates: dict[tuple[str, Pass, str], stats.Estimate] = {}
    reliable: dict[tuple[str, Pass], bool] = {}
    for cell in cells:
        reliable.setdefault((cell.layer, cell.pass_), True)
        name = benchmark_name(cell.layer, cell.pass_, cell.implementation)
        both = _difference(logs.get(name + TWIN, {}), logs.get(name, {}))
        if both:
            key = (cell.layer, cell.pass_, cell.implementation)
            estimates[key] = stats.estimate(list(both.values()))
    condemned = stats.holm([e.p_beyond() for e in estimates.values()], TWIN_ALPHA)
    for (layer, pass_, _), beyond in zip(estimates, condemned, strict=True):
        reliable[layer, pass_] &= not beyond
    duplicates = tuple(
        Duplicate(layer, pass_, implementation, e.value, e.interval())
        for (layer, pass_, implementation), e in estimates.items()
    )
    return duplicates, reliable


def _summary(ratios: dict[_Key, _Ratio]) -> Iterable[SummaryRow]:
    """Geometric means over the layers, a pass and over all passes."""
    pairs = dict.fromkeys((key[2], key[3]) for key in ratios)
    for implementation, versus in pairs:
        for pass_ in (*Pass, None):
            chosen = [
                ratio.logs
                for key, ratio in ratios.items()
                if key[2:] == (implementation, versus) and pass_ in (key[1], None)
            ]
            mean, interval = _geometric_mean(chosen)
            if mean is not None:
                yield SummaryRow(implementation, versus, pass_, mean, interval)


def _geometric_mean(ratios: list[Logs]) -> tuple[float | None, Interval | None]:
    """Over the rounds that all have; None without such a round."""
    rounds = set.intersection(*(set(logs) for logs in ratios)) if ratios else set()
    if not rounds:
        return None, None
    estimate = stats.geometric_mean([[logs[r] for r in sorted(rounds)] for logs in ratios])
    return estimate.value, estimate.interval()


def _network(cells: Iterable[Cell], layers: tuple[Layer, ...]) -> Iterable[NetworkRow]:
    """Totals weighted by `count`, for implementations that are right and timed in every layer."""
    times = {
        (cell.implementation, cell.pass_, cell.layer): cell.time.time_s
        for cell in cells
        if cell.status == "ok" and cell.time is not None
    }
    for implementation, pass_ in dict.fromkeys(key[:2] for key in times):
        each = {
            layer: layer.count * times[implementation, pass_, layer.name]
            for layer in layers
            if (implementation, pass_, layer.name) in times
        }
        if len(each) < len(layers):
            continue
        total = sum(each.values())
        yield NetworkRow(
            implementation,
            pass_,
            total,
            tuple(NetworkLayer(layer.name, layer.count, t / total) for layer, t in each.items()),
        )
