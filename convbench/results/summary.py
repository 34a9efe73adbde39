"""Turn raw samples into figures: times, speedups, twins, geometric means, network totals.

Each round gives one figure (rounds.py); the estimate is the mean over rounds with Student's t. Each
quantity has two figures, a typical and an undisturbed one. The interval within the run is widened
by how much runs on this machine are known to differ.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from convbench.machine.description import Calibration
from convbench.problem.layer import Layer, Pass
from convbench.results import stats
from convbench.results.model import (
    PLAIN,
    TWIN,
    Benchmarks,
    Cell,
    Duplicate,
    Figure,
    Imprecise,
    Part,
    ResultFile,
    RoundSamples,
    Speedup,
    SummaryRow,
    Time,
    TimeState,
    Work,
    benchmark_name,
)
from convbench.results.network import network
from convbench.results.phases import phases
from convbench.results.resolution import Unit, resolution_of
from convbench.results.rounds import (
    LogRatio,
    Logs,
    Rounds,
    by_round,
    fastest_by_round,
    log_median,
    log_ratio,
    log_ratio_of_quickest,
    log_ratio_undisturbed,
    log_undisturbed,
    logs_of,
)
from convbench.suites.suite import FASTEST_KERAS, KERAS_WAYS, LOOP, Suite

TWIN_ALPHA = 0.01
"""Probability that a calm run is called unreliable because of any of its twins."""

CellKey = tuple[str, Part, str]  # layer, pass, implementation
RatioKey = tuple[str, Part, str, str]  # layer, pass, implementation, versus


@dataclass(frozen=True)
class Ratio:
    """Logs of T_versus / T_arm by round; `chosen` names the arm that `versus` stands for.

    `logs` come from the typical times, `undisturbed` from the undisturbed ones. `first` is as in
    stats.estimate.
    """

    logs: Logs
    chosen: str
    undisturbed: Logs = field(default_factory=dict)
    first: int | None = None

    @property
    def estimate(self) -> stats.Estimate:
        return stats.estimate(list(self.logs.values()), self.first)

    @property
    def undisturbed_estimate(self) -> stats.Estimate | None:
        logs = list(self.undisturbed.values())
        return stats.estimate(logs, self.first) if logs else None


def summarise(result: ResultFile, benchmarks: Benchmarks) -> ResultFile:
    """Return the result with every derived figure computed anew from the raw samples."""
    rounds = by_round(benchmarks)
    layers = {layer.name: layer for layer in result.suite.layers}
    cells = tuple(
        _with_figures(cell, layers.get(cell.layer), result, rounds) for cell in result.cells
    )
    ratios = _ratios(result, cells, rounds)
    claims = _claims(ratios)
    duplicates, reliable = _duplicates(cells, rounds, log_ratio, claims, _first(result))
    speedups = tuple(
        _speedup(key, ratio, reliable[key[0], key[1]], result) for key, ratio in ratios.items()
    )
    return replace(
        result,
        cells=cells,
        speedups=speedups,
        duplicates=duplicates,
        summary=tuple(_summary(ratios, result)),
        network=tuple(
            network(cells, result.suite.layers, result.suite.passes, rounds, _Totals(result))
        ),
        rounds=max((max(of_arm) for of_arm in rounds.values() if of_arm), default=0),
        resolution=resolution_of(speedups, duplicates),
        phases=phases(benchmarks),
        imprecise=_imprecise(result, cells, ratios, rounds),
    )


def quickest_twins(result: ResultFile, benchmarks: Benchmarks) -> tuple[Duplicate, ...]:
    """Return the twins, compared like the arms of `quickest_over`: by the quickest samples."""
    rounds = by_round(benchmarks)
    cells = [cell for cell in result.cells if cell.status == "ok" and cell.time is not None]
    claims: dict[Unit, stats.Estimate] = {}
    for first, other in combinations(cells, 2):
        if (first.layer, first.pass_) == (other.layer, other.pass_):
            key = (other.layer, other.pass_, other.implementation, first.implementation)
            ratio = quickest_over(result, benchmarks, key)
            if ratio is not None:
                _claim(claims, (other.layer, other.pass_), ratio.estimate)
    return _duplicates(result.cells, rounds, log_ratio_of_quickest, claims, _first(result))[0]


def subject(result: ResultFile) -> str | None:
    """Return the implementation in question: the user's own if any, or else the fastest in NumPy.

    Among several, the one with the highest mean speedup is chosen, over what each was compared with
    last. Returns None where nothing was compared.
    """
    means = {row.implementation: row.geometric_mean for row in result.summary if row.pass_ is None}
    own = [name for name in means if result.suite.is_own(name)]
    numpy = [name for name in means if name not in (*KERAS_WAYS, LOOP)]
    return max(own or numpy or list(means), key=means.__getitem__, default=None)


def is_unreliable(result: ResultFile) -> bool:
    """Return whether a twin disagreed with its arm in some (layer, pass)."""
    return any(not duplicate.reliable for duplicate in result.duplicates)


def speedups(result: ResultFile, benchmarks: Benchmarks) -> dict[RatioKey, Ratio]:
    """Return every speedup of a result, round by round, over what `_ratios` compares with."""
    return _ratios(result, result.cells, by_round(benchmarks))


def times(result: ResultFile, benchmarks: Benchmarks) -> dict[CellKey, Ratio]:
    """Return the time of every cell that is right, round by round, as a ratio to one second."""
    rounds = by_round(benchmarks)
    first = _first(result)
    found = {}
    for cell in result.cells:
        if cell.status == "ok" and cell.time is not None:
            runs = rounds[cell.time.benchmark].items()
            typical = {r: log_median(run) for r, run in runs}
            undisturbed = {r: log_undisturbed(run) for r, run in runs}
            key = cell.layer, cell.pass_, cell.implementation
            found[key] = Ratio(typical, "", undisturbed, first)
    return found


def wider_than(
    result: ResultFile, benchmarks: Benchmarks, target: float
) -> dict[RatioKey, float | None]:
    """Return the speedups whose half width within the run is above `target` or unknown (None).

    A (layer, pass) without speedups counts by its times, with the implementation as its `versus`.
    """
    rounds = by_round(benchmarks)
    ratios = _ratios(result, result.cells, rounds)
    return _wider_than(result, result.cells, ratios, rounds, target)


def _wider_than(
    result: ResultFile,
    cells: Iterable[Cell],
    ratios: dict[RatioKey, Ratio],
    rounds: dict[str, Rounds],
    target: float,
) -> dict[RatioKey, float | None]:
    found = {key: ratio.estimate for key, ratio in ratios.items()}
    compared = {key[:2] for key in ratios}
    first = _first(result)
    for cell in cells:
        if cell.time is not None and (cell.layer, cell.pass_) not in compared:
            runs = rounds[cell.time.benchmark].values()
            key = cell.layer, cell.pass_, cell.implementation, cell.implementation
            found[key] = stats.estimate([log_median(run) for run in runs], first)
    widths = {key: estimate.half_width() for key, estimate in found.items()}
    return {key: width for key, width in widths.items() if width is None or width > target}


def _imprecise(
    result: ResultFile,
    cells: Iterable[Cell],
    ratios: dict[RatioKey, Ratio],
    rounds: dict[str, Rounds],
) -> tuple[Imprecise, ...]:
    """Return what missed the precision that was asked for, if any was, the widest first."""
    if result.precision is None:
        return ()
    wide = _wider_than(result, cells, ratios, rounds, result.precision.target)
    found = (Imprecise(*key, width) for key, width in wide.items())
    return tuple(sorted(found, key=lambda one: -(one.half_width or math.inf)))


def speedup_over(result: ResultFile, benchmarks: Benchmarks, key: RatioKey) -> Ratio | None:
    """Return one speedup over another implementation of the suite; None if either was not timed."""
    layer, pass_, implementation, versus = key
    timed = _timed(result, by_round(benchmarks), layer, pass_)
    if implementation not in timed or versus not in timed:
        return None
    ratio = _ratio(timed[versus], timed[implementation], versus, _first(result))
    return ratio if ratio.logs else None


def quickest_over(result: ResultFile, benchmarks: Benchmarks, key: RatioKey) -> Ratio | None:
    """Return one speedup from each round's quickest samples; None if either was not timed.

    A disturbance always slows a sample (Chen and Revels, arXiv:1608.04295), and on a shared host
    most of a round can be disturbed. Undisturbed samples therefore tell two arms of the same kind
    apart best. (Measured on a busy VM with ten pairs and 32 samples of 2.5 ms per round: the worst
    round-to-round deviation of an A/A ratio is 2.2 % with the quickest samples, and 8.4 % with the
    median of the paired ratios.) Both arms give the same number of samples, or the one with more
    would be favoured.
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
    """Return the rounds of the right and timed cells of a (layer, pass), by implementation."""
    return {
        cell.implementation: rounds[cell.time.benchmark]
        for cell in result.cells
        if (cell.layer, cell.pass_, cell.status) == (layer, pass_, "ok") and cell.time is not None
    }


def time_of(benchmarks: Benchmarks, name: str) -> stats.Estimate:
    """Return the time of a benchmark in seconds, as results have it, without disturbed visits.

    Raises KeyError if it was not timed.
    """
    return stats.estimate([log_median(run) for run in by_round(benchmarks)[name].values()])


def ratio_of(benchmarks: Benchmarks, arm: str, versus: str) -> Ratio:
    """Return the time of `versus` over the time of `arm`, two benchmarks that shared no block.

    Without pairs of visits, the ratio is that of the rounds' typical times.
    """
    rounds = by_round(benchmarks)
    ours, theirs = ({r: log_median(run) for r, run in rounds[n].items()} for n in (arm, versus))
    return Ratio({r: theirs[r] - ours[r] for r in sorted(ours.keys() & theirs.keys())}, versus)


def mean_over(ratios: Iterable[Ratio]) -> stats.Estimate | None:
    """Return the geometric mean of speedups over the rounds that all have; None without any."""
    found = list(ratios)
    return _mean([ratio.logs for ratio in found], found[0].first if found else None)


def _mean(logs: Sequence[Logs], first: int | None) -> stats.Estimate | None:
    shared = set.intersection(*(set(of_one) for of_one in logs)) if logs else set()
    if not shared:
        return None
    return stats.geometric_mean([[of_one[r] for r in sorted(shared)] for of_one in logs], first)


def _with_figures(
    cell: Cell, layer: Layer | None, result: ResultFile, rounds: dict[str, Rounds]
) -> Cell:
    """Return a cell with its time and work.

    `layer` is None for the training of a whole network, whose work is not counted.
    """
    name = benchmark_name(cell.layer, cell.pass_, cell.implementation)
    runs = rounds.get(name)
    if not runs:
        work = None if layer is None else Work(layer.flops, layer.flops_in_bounds)
        return replace(cell, time=None, work=work)
    first = _first(result)
    typical = stats.estimate([log_median(run) for run in runs.values()], first)
    undisturbed = stats.estimate([log_undisturbed(run) for run in runs.values()], first)
    kind = kind_of(cell.implementation)
    time = Time(
        time_s=typical.value,
        ci99_s=long_run(typical, result, "time", kind).interval(),
        run_ci99_s=typical.interval(),
        rounds=typical.rounds,
        samples=sum(len(run.values) for run in runs.values()),
        benchmark=name,
        undisturbed_s=undisturbed.value,
        undisturbed_ci99_s=long_run(undisturbed, result, "undisturbed-time", kind).interval(),
        states=_states(runs.values()),
        confirmed_s=_confirmed_s(rounds.get(name + PLAIN, {})),
    )
    if layer is None:
        return replace(cell, time=time, work=None)
    rate = layer.flops_in_bounds / time.time_s
    peak = peak_rate(result.machine.calibration, layer, result.threads)
    work = Work(
        layer.flops,
        layer.flops_in_bounds,
        gflops_per_s=rate / 1e9,
        fraction_of_peak=None if peak is None else rate / peak,
    )
    return replace(cell, time=time, work=work)


def peak_rate(calibration: Calibration | None, layer: Layer, threads: int) -> float | None:
    """Return the rate of large matrix products in the layer's dtype, in operations per second."""
    if calibration is None:
        return None
    rates = calibration.sgemm if layer.dtype == "float32" else calibration.dgemm
    return rates.get(threads)


def kind_of(implementation: str) -> str:
    """Return the kind of an implementation; the two kinds differ between runs by different amounts.

    Implementations of the kind `keras` compute with threads of a framework's own, which the host
    schedules. All others are of the kind `numpy` and compute in the thread that calls them and in
    threads that this one starts. Saved deviations name the kind.
    """
    return "keras" if implementation in KERAS_WAYS else "numpy"


def between(implementation: str, versus: str) -> str:
    """Return the kinds of both sides of a speedup, in alphabetical order, as in `keras/numpy`."""
    return "/".join(sorted((kind_of(implementation), kind_of(versus))))


def long_run(found: stats.Estimate, result: ResultFile, of: Figure, kinds: str) -> stats.Estimate:
    """Turn a figure into an estimate of the long run, where the deviation between runs is known."""
    for known in result.deviations:
        if (known.of, known.between) == (of, kinds):
            return stats.in_the_long_run(found, known.value, known.degrees)
    return found


@dataclass(frozen=True)
class _Totals:
    """Totals of a network as estimates of what the machine gives in the long run.

    Between runs, a total differs at most as much as any of its layers. Among the kinds of
    implementations in it, the one that gives the widest interval therefore counts.
    """

    result: ResultFile

    def time(self, found: stats.Estimate, names: set[str]) -> stats.Estimate:
        return self._widest(found, "time", {kind_of(name) for name in names})

    def ratio(self, found: stats.Estimate, pairs: set[tuple[str, str]]) -> stats.Estimate:
        return self._widest(found, "speedup", {between(*pair) for pair in pairs})

    def _widest(self, found: stats.Estimate, of: Figure, kinds: set[str]) -> stats.Estimate:
        widened = [long_run(found, self.result, of, each) for each in sorted(kinds)]
        return max(widened, key=lambda one: one.half_width() or 0.0, default=found)


def _first(result: ResultFile) -> int | None:
    return None if result.precision is None else result.precision.first_rounds


def _ratios(
    result: ResultFile, cells: Iterable[Cell], rounds: dict[str, Rounds]
) -> dict[RatioKey, Ratio]:
    """Return T_versus / T_implementation of every cell that is right.

    `versus` is the loop and the fastest Keras way, or the suite's first implementation where it has
    neither.
    """
    groups: dict[Unit, dict[str, Rounds]] = {}
    for cell in cells:
        if cell.status == "ok" and cell.time is not None:
            arms = groups.setdefault((cell.layer, cell.pass_), {})
            arms[cell.implementation] = rounds[cell.time.benchmark]
    first = _first(result)
    references = [name for name in (LOOP, first_of(result.suite)) if name is not None]
    ratios: dict[RatioKey, Ratio] = {}
    for (layer, pass_), arms in groups.items():
        ways = {name: arm for name, arm in arms.items() if name in KERAS_WAYS}
        for name, arm in arms.items():
            for reference in references:
                if reference in arms and name != reference:
                    ratio = _ratio(arms[reference], arm, reference, first)
                    ratios[layer, pass_, name, reference] = ratio
            if ways:
                fastest = _over_fastest(ways, arm, first)
                # Where the halves of the rounds chose differently, a Keras way would be compared
                # with itself in one of them.
                if name in ways:
                    fastest = _ratio(ways[fastest.chosen], arm, fastest.chosen, first)
                if fastest.chosen != name:
                    ratios[layer, pass_, name, FASTEST_KERAS] = fastest
    return {key: ratio for key, ratio in ratios.items() if ratio.logs}


def first_of(suite: Suite) -> str | None:
    """Return the implementation that is the yardstick in a suite without `loop` and Keras.

    Returns None for any other suite.
    """
    names = suite.implementations
    if not names or LOOP in names or set(KERAS_WAYS) & set(names):
        return None
    return names[0]


def _ratio(versus: Rounds, arm: Rounds, chosen: str, first: int | None) -> Ratio:
    return Ratio(logs_of(versus, arm), chosen, logs_of(versus, arm, log_ratio_undisturbed), first)


def _over_fastest(ways: dict[str, Rounds], arm: Rounds, first: int | None) -> Ratio:
    """Return the fastest Keras way over an arm; `chosen` is the way picked in most rounds."""
    picked = {r: way for r, way in fastest_by_round(ways).items() if r in arm}
    return Ratio(
        {r: log_ratio(ways[way][r], arm[r]) for r, way in picked.items()},
        Counter(picked.values()).most_common(1)[0][0] if picked else "",
        {r: log_ratio_undisturbed(ways[way][r], arm[r]) for r, way in picked.items()},
        first,
    )


def _speedup(key: RatioKey, ratio: Ratio, reliable: bool, result: ResultFile) -> Speedup:
    layer, pass_, implementation, versus = key
    estimate, undisturbed = ratio.estimate, ratio.undisturbed_estimate
    kinds = between(implementation, ratio.chosen)
    quiet = None
    if undisturbed is not None:
        quiet = long_run(undisturbed, result, "undisturbed-speedup", kinds)
    return Speedup(
        layer=layer,
        pass_=pass_,
        implementation=implementation,
        versus=versus,
        chosen=ratio.chosen,
        ratio=estimate.value,
        ci99=long_run(estimate, result, "speedup", kinds).interval(),
        run_ci99=estimate.interval(),
        rounds=estimate.rounds,
        reliable=reliable,
        undisturbed_ratio=None if quiet is None else quiet.value,
        undisturbed_ci99=None if quiet is None else quiet.interval(),
    )


def _claims(ratios: dict[RatioKey, Ratio]) -> dict[Unit, stats.Estimate]:
    """Return the widest speedup of each (layer, pass): its interval is what the run claims to tell.

    Speedups of the reference loop and over it count only where there are no others, because a few
    per cent do not matter there.
    """
    claims: dict[Unit, stats.Estimate] = {}
    others = {key[:2] for key in ratios if LOOP not in key[2:]}
    for key, ratio in ratios.items():
        if LOOP not in key[2:] or key[:2] not in others:
            _claim(claims, key[:2], ratio.estimate)
    return claims


def _claim(claims: dict[Unit, stats.Estimate], unit: Unit, found: stats.Estimate) -> None:
    width = found.half_width()
    before = claims.get(unit)
    if width is not None and (before is None or width > (before.half_width() or 0.0)):
        claims[unit] = found


def _duplicates(
    cells: Iterable[Cell],
    rounds: dict[str, Rounds],
    ratio: LogRatio,
    claims: dict[Unit, stats.Estimate],
    first: int | None = None,
) -> tuple[tuple[Duplicate, ...], dict[Unit, bool]]:
    """Return the twins' ratios, and whether the twin of each (layer, pass) agrees with its arm.

    A twin condemns its (layer, pass) if it deviates by more than the run claims to tell there, and
    by more than 1 %. The claim is widened to a simultaneous one over all twins (Bonferroni), so
    that a calm run is condemned with probability TWIN_ALPHA, however many twins it has.
    """
    estimates: dict[tuple[str, Part, str], stats.Estimate] = {}
    reliable: dict[Unit, bool] = {}
    for cell in cells:
        reliable.setdefault((cell.layer, cell.pass_), True)
        name = benchmark_name(cell.layer, cell.pass_, cell.implementation)
        both = logs_of(rounds.get(name + TWIN, {}), rounds.get(name, {}), ratio)
        if both:
            key = (cell.layer, cell.pass_, cell.implementation)
            estimates[key] = stats.estimate(list(both.values()), first)
    duplicates = []
    for (layer, pass_, implementation), found in estimates.items():
        agrees, claim = True, claims.get((layer, pass_), found)
        if found.rounds >= stats.MIN_ROUNDS:
            alpha = TWIN_ALPHA / len(estimates) / 2
            bound = stats.t_quantile(1 - alpha, claim.degrees) * claim.error
            agrees = abs(found.log) <= max(bound, stats.MARGIN)
        reliable[layer, pass_] &= agrees
        key = layer, pass_, implementation
        duplicates.append(
            Duplicate(*key, found.value, found.interval(), agrees, claim.half_width())
        )
    return tuple(duplicates), reliable


def _summary(ratios: dict[RatioKey, Ratio], result: ResultFile) -> Iterable[SummaryRow]:
    """Yield the geometric means over the layers, for each pass and for all passes."""
    pairs = dict.fromkeys((key[2], key[3]) for key in ratios)
    for implementation, versus in pairs:
        for pass_ in (*Pass, None):
            of_row = [
                ratio
                for key, ratio in ratios.items()
                if key[2:] == (implementation, versus) and pass_ in (key[1], None)
            ]
            mean = mean_over(of_row)
            if mean is None:
                continue
            kinds = between(implementation, of_row[0].chosen)
            widened = long_run(mean, result, "speedup", kinds)
            quiet = _mean([ratio.undisturbed for ratio in of_row], _first(result))
            if quiet is not None:
                quiet = long_run(quiet, result, "undisturbed-speedup", kinds)
            yield SummaryRow(
                implementation,
                versus,
                pass_,
                mean.value,
                widened.interval(),
                run_ci99=mean.interval(),
                undisturbed_mean=None if quiet is None else quiet.value,
                undisturbed_ci99=None if quiet is None else quiet.interval(),
            )


# Two states

LEAST_SHARE = 0.1
"""Smallest share of a cell's samples that each of two states has."""

LEAST_APART = math.log(1.15)
"""Smallest distance between two states, of logs: 15 %."""

MOST_BETWEEN = 0.05
"""Largest share of the samples that may lie in the middle third between two states."""

LEAST_SAMPLES = 40
"""Fewest samples that can show two states."""


def _states(runs: Iterable[RoundSamples]) -> tuple[TimeState, ...]:
    """Find the two groups that the samples fall into; none unless a gap lies between them."""
    logs = sorted(math.log(value) for run in runs for value in run.values)
    count = len(logs)
    if count < LEAST_SAMPLES:
        return ()
    least = math.ceil(LEAST_SHARE * count)
    gap, split = max((logs[i] - logs[i - 1], i) for i in range(least, count - least + 1))
    low, high = statistics.median(logs[:split]), statistics.median(logs[split:])
    third = (high - low) / 3
    inside = sum(low + third < value < high - third for value in logs)
    if high - low < LEAST_APART or inside > MOST_BETWEEN * count or gap <= 0:
        return ()
    return (
        TimeState(math.exp(low), split / count),
        TimeState(math.exp(high), (count - split) / count),
    )


# Plain loops


@dataclass(frozen=True)
class Confirmation:
    """An implementation's times beside those of plain loops over the same calls.

    `geometric_mean` is that of its times over the plain loops'. `cell` is the one whose ratio is
    furthest from 1, and `distance` is how far that is, of logs and without a sign.
    """

    implementation: str
    geometric_mean: float
    cell: Cell
    distance: float


def confirmations(result: ResultFile) -> list[Confirmation]:
    """Return one for each implementation that had plain loops, in the suite's order."""
    logs: dict[str, list[tuple[float, Cell]]] = {}
    for cell in result.cells:
        if cell.status == "ok" and cell.time is not None and cell.time.over_plain is not None:
            ratio = math.log(cell.time.over_plain)
            logs.setdefault(cell.implementation, []).append((ratio, cell))
    found = []
    for implementation, of_it in logs.items():
        furthest, cell = max(of_it, key=lambda one: abs(one[0]))
        mean = math.exp(statistics.fmean(log for log, _ in of_it))
        found.append(Confirmation(implementation, mean, cell, abs(furthest)))
    return found


def _confirmed_s(plain: Rounds) -> float | None:
    """Return the seconds per call in plain loops; None where none was run."""
    if not plain:
        return None
    return stats.estimate([log_median(run) for run in plain.values()]).value
