"""From raw samples to figures: times, speedups, twins, geometric means, network totals.

One figure a round. For a time it is the median over the round's blocks; for a ratio of two arms the
median over the blocks of the log of their samples' ratio, so that what disturbed a block, or a
round, disturbed both. (Measured on mnist, standard effort: the round-to-round deviation of a ratio
is 0.108 so, and 0.127 for the ratio of two medians.) An arm whose calls are slow takes part in few
blocks; against it the ratio is that of the two medians.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from convbench import stats
from convbench.layer import Layer, Pass
from convbench.machine import Calibration
from convbench.network import network
from convbench.results import (
    TWIN,
    Benchmarks,
    Cell,
    Duplicate,
    Part,
    ResultFile,
    Speedup,
    SummaryRow,
    Time,
    Work,
    benchmark_name,
)
from convbench.rounds import (
    LogRatio,
    Logs,
    Rounds,
    by_round,
    fastest_by_round,
    log_median,
    log_ratio,
    log_ratio_of_quickest,
    logs_of,
)
from convbench.suite import FASTEST_KERAS as FASTEST_KERAS
from convbench.suite import KERAS_WAYS

LOOP = "loop"

TWIN_ALPHA = 0.001
"""A twin that differs condemns a run at this family-wise error (research/measurement.md, 5)."""

RatioKey = tuple[str, Part, str, str]  # layer, pass, implementation, versus


@dataclass(frozen=True)
class Ratio:
    """Logs of T_versus / T_arm by round, and which arm `versus` turned out to be."""

    logs: Logs
    chosen: str

    @property
    def estimate(self) -> stats.Estimate:
        return stats.estimate(list(self.logs.values()))


def summarise(result: ResultFile, benchmarks: Benchmarks) -> ResultFile:
    """The result file with every derived figure made anew from the raw samples."""
    rounds = by_round(benchmarks)
    duplicates, reliable = _duplicates(result.cells, rounds, log_ratio)
    layers = {layer.name: layer for layer in result.suite.layers}
    cells = tuple(
        _with_figures(cell, layers.get(cell.layer), result, rounds) for cell in result.cells
    )
    ratios = _ratios(cells, rounds)
    return replace(
        result,
        cells=cells,
        speedups=tuple(
            _speedup(key, ratio, reliable[key[0], key[1]]) for key, ratio in ratios.items()
        ),
        duplicates=duplicates,
        summary=tuple(_summary(ratios)),
        network=tuple(network(cells, result.suite.layers, result.suite.passes, rounds)),
        rounds=max((max(of_arm) for of_arm in rounds.values() if of_arm), default=0),
    )


def quickest_twins(result: ResultFile, benchmarks: Benchmarks) -> tuple[Duplicate, ...]:
    """The twins as `quickest_over` compares arms: by each round's quickest samples."""
    return _duplicates(result.cells, by_round(benchmarks), log_ratio_of_quickest)[0]


def subject(result: ResultFile) -> str | None:
    """The implementation in question: the user's own if there is one, else the fastest in NumPy.

    Of several the one with the highest mean over whatever it was compared with last; None where
    nothing was compared.
    """
    means = {row.implementation: row.geometric_mean for row in result.summary if row.pass_ is None}
    own = [name for name in means if result.suite.is_own(name)]
    numpy = [name for name in means if name not in (*KERAS_WAYS, LOOP)]
    return max(own or numpy or list(means), key=means.__getitem__, default=None)


def is_unreliable(result: ResultFile) -> bool:
    """Whether a twin disagreed with its arm in some (layer, pass)."""
    return any(not duplicate.reliable for duplicate in result.duplicates)


def speedups(result: ResultFile, benchmarks: Benchmarks) -> dict[RatioKey, Ratio]:
    """Every speedup of a result, round by round: over loop and over the fastest Keras."""
    return _ratios(result.cells, by_round(benchmarks))


def speedup_over(result: ResultFile, benchmarks: Benchmarks, key: RatioKey) -> Ratio | None:
    """One speedup over another implementation of the suite; None where either was not timed."""
    layer, pass_, implementation, versus = key
    timed = _timed(result, by_round(benchmarks), layer, pass_)
    if implementation not in timed or versus not in timed:
        return None
    logs = logs_of(timed[versus], timed[implementation])
    return Ratio(logs, versus) if logs else None


def quickest_over(result: ResultFile, benchmarks: Benchmarks, key: RatioKey) -> Ratio | None:
    """One speedup from each round's quickest samples; None where either was not timed.

    What disturbs a sample slows it (Chen and Revels, arXiv:1608.04295), and on a shared host most
    of a round can be disturbed; two arms of the same kind are told apart best by the samples that
    were not. (Measured on a busy VM, ten pairs, 32 samples of 2.5 ms a round: the worst round-to-
    round deviation of an A/A ratio is 2.2 % so, and 8.4 % for the median of the paired ratios.)
    Both arms give as many samples, or the one with more of them would be favoured.
    """
    layer, pass_, implementation, versus = key
    rounds = by_round(benchmarks)
    timed = _timed(result, rounds, layer, pass_)
    if implementation not in timed or versus not in timed:
        return None
    logs = logs_of(timed[versus], timed[implementation], log_ratio_of_quickest)
    return Ratio(logs, versus) if logs else None


def _timed(
    result: ResultFile, rounds: dict[str, Rounds], layer: str, pass_: Part
) -> dict[str, Rounds]:
    """The right and timed cells of a (layer, pass), by implementation."""
    return {
        cell.implementation: rounds[cell.time.benchmark]
        for cell in result.cells
        if (cell.layer, cell.pass_, cell.status) == (layer, pass_, "ok") and cell.time is not None
    }


def time_of(benchmarks: Benchmarks, name: str) -> stats.Estimate:
    """The time of a benchmark in seconds. Raises KeyError for one that was not timed."""
    return stats.estimate([log_median(run) for run in benchmarks[name]])


def ratio_of(benchmarks: Benchmarks, arm: str, versus: str) -> Ratio:
    """Time of one benchmark over another's, of cells that shared no block: by their medians."""
    ours, theirs = ({run.round: log_median(run) for run in benchmarks[n]} for n in (arm, versus))
    return Ratio({r: theirs[r] - ours[r] for r in sorted(ours.keys() & theirs.keys())}, versus)


def mean_over(ratios: Iterable[Ratio]) -> stats.Estimate | None:
    """Geometric mean of speedups over the rounds that all of them have; None without such."""
    logs = [ratio.logs for ratio in ratios]
    shared = set.intersection(*(set(of_one) for of_one in logs)) if logs else set()
    if not shared:
        return None
    return stats.geometric_mean([[of_one[r] for r in sorted(shared)] for of_one in logs])


def _with_figures(
    cell: Cell, layer: Layer | None, result: ResultFile, rounds: dict[str, Rounds]
) -> Cell:
    """`layer` None: a whole network's training, whose work is not counted."""
    name = benchmark_name(cell.layer, cell.pass_, cell.implementation)
    runs = rounds.get(name)
    if not runs:
        work = None if layer is None else Work(layer.flops, layer.flops_in_bounds)
        return replace(cell, time=None, work=work)
    estimate = stats.estimate([log_median(run) for run in runs.values()])
    time = Time(
        time_s=estimate.value,
        ci99_s=estimate.interval(),
        rounds=estimate.rounds,
        samples=sum(len(run.values) for run in runs.values()),
        benchmark=name,
    )
    if layer is None:
        return replace(cell, time=time, work=None)
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


def _ratios(cells: Iterable[Cell], rounds: dict[str, Rounds]) -> dict[RatioKey, Ratio]:
    """T_versus / T_implementation of every cell that is right, over loop and the fastest Keras."""
    groups: dict[tuple[str, Part], dict[str, Rounds]] = {}
    for cell in cells:
        if cell.status == "ok" and cell.time is not None:
            arms = groups.setdefault((cell.layer, cell.pass_), {})
            arms[cell.implementation] = rounds[cell.time.benchmark]
    ratios: dict[RatioKey, Ratio] = {}
    for (layer, pass_), arms in groups.items():
        ways = {name: arm for name, arm in arms.items() if name in KERAS_WAYS}
        for name, arm in arms.items():
            if LOOP in arms and name != LOOP:
                ratios[layer, pass_, name, LOOP] = Ratio(logs_of(arms[LOOP], arm), LOOP)
            if ways:
                fastest = _over_fastest(ways, arm)
                if name in ways:  # half of it would be compared with itself where the halves differ
                    fastest = Ratio(logs_of(ways[fastest.chosen], arm), fastest.chosen)
                if fastest.chosen != name:
                    ratios[layer, pass_, name, FASTEST_KERAS] = fastest
    return {key: ratio for key, ratio in ratios.items() if ratio.logs}


def _over_fastest(ways: dict[str, Rounds], arm: Rounds) -> Ratio:
    """The fastest Keras way over an arm; `chosen` is the one that stands for most rounds."""
    picked = fastest_by_round(ways)
    logs = {r: log_ratio(ways[way][r], arm[r]) for r, way in picked.items() if r in arm}
    return Ratio(logs, Counter(picked.values()).most_common(1)[0][0] if picked else "")


def _speedup(key: RatioKey, ratio: Ratio, reliable: bool) -> Speedup:
    layer, pass_, implementation, versus = key
    estimate = ratio.estimate
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
    cells: Iterable[Cell], rounds: dict[str, Rounds], ratio: LogRatio
) -> tuple[tuple[Duplicate, ...], dict[tuple[str, Part], bool]]:
    """The twins' ratios, and for every (layer, pass) whether its twin agrees with its arm."""
    estimates: dict[tuple[str, Part, str], stats.Estimate] = {}
    reliable: dict[tuple[str, Part], bool] = {}
    for cell in cells:
        reliable.setdefault((cell.layer, cell.pass_), True)
        name = benchmark_name(cell.layer, cell.pass_, cell.implementation)
        both = logs_of(rounds.get(name + TWIN, {}), rounds.get(name, {}), ratio)
        if both:
            key = (cell.layer, cell.pass_, cell.implementation)
            estimates[key] = stats.estimate(list(both.values()))
    condemned = stats.holm([e.p_beyond() for e in estimates.values()], TWIN_ALPHA)
    for (layer, pass_, _), beyond in zip(estimates, condemned, strict=True):
        reliable[layer, pass_] &= not beyond
    duplicates = tuple(
        Duplicate(layer, pass_, implementation, e.value, e.interval(), not beyond)
        for ((layer, pass_, implementation), e), beyond in zip(
            estimates.items(), condemned, strict=True
        )
    )
    return duplicates, reliable


def _summary(ratios: dict[RatioKey, Ratio]) -> Iterable[SummaryRow]:
    """Geometric means over the layers, a pass and over all passes."""
    pairs = dict.fromkeys((key[2], key[3]) for key in ratios)
    for implementation, versus in pairs:
        for pass_ in (*Pass, None):
            mean = mean_over(
                ratio
                for key, ratio in ratios.items()
                if key[2:] == (implementation, versus) and pass_ in (key[1], None)
            )
            if mean is not None:
                yield SummaryRow(implementation, versus, pass_, mean.value, mean.interval())
