"""Judge kernels by their targets: speedups over the fastest Keras, and memory, in saved results.

This module measures nothing. It takes runs with their raw samples, and returns a figure and a
verdict for each target.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from convbench.implementations.keras.layer import is_depthwise
from convbench.problem.layer import Layer, Pass
from convbench.report.views.scale import counted
from convbench.results import stats, summary
from convbench.results.file import Saved
from convbench.results.model import Cell, ResultFile
from convbench.results.summary import Ratio, RatioKey
from convbench.suites.suite import FASTEST_KERAS

MIB = 2**20


@dataclass(frozen=True)
class Run:
    """A run of one suite on some threads. `ratios` are the speedups over the fastest Keras."""

    result: ResultFile
    ratios: Mapping[RatioKey, Ratio]

    @classmethod
    def of(cls, saved: Saved) -> Run:
        found = summary.speedups(saved.result, saved.benchmarks)
        return cls(saved.result, {k: ratio for k, ratio in found.items() if k[3] == FASTEST_KERAS})

    @property
    def name(self) -> str:
        return f"{self.result.suite.name}, {counted(self.result.threads, 'thread')}"

    @property
    def layers(self) -> dict[str, Layer]:
        return {layer.name: layer for layer in self.result.suite.layers}

    @property
    def is_reliable(self) -> bool:
        return not summary.is_unreliable(self.result)

    def cells(self, implementation: str, layers: Iterable[str] | None = None) -> list[Cell]:
        kept = self.layers if layers is None else set(layers)
        return [
            cell
            for cell in self.result.cells
            if cell.implementation == implementation and cell.layer in kept
        ]

    def ratios_of(
        self, implementation: str, layers: Iterable[str] | None = None
    ) -> dict[RatioKey, Ratio]:
        """Return the speedups of the cells that are right and timed. A wrong cell has none."""
        kept = self.layers if layers is None else set(layers)
        return {k: r for k, r in self.ratios.items() if k[2] == implementation and k[0] in kept}

    def mean(self, implementation: str, pass_: Pass | None = None) -> stats.Estimate | None:
        """Return the geometric mean over the layers of a pass or, without a pass, of all passes."""
        ratios = self.ratios_of(implementation).items()
        return summary.mean_over(ratio for key, ratio in ratios if pass_ in (key[1], None))

    def beyond_result(self, cell: Cell) -> float | None:
        """Return a cell's bytes per thread at the peak, without its result; None if not known."""
        if cell.memory is None:
            return None
        result = self.layers[cell.layer].result_bytes(cell.pass_)
        return (cell.memory.peak_bytes - result) / self.result.threads


@dataclass(frozen=True)
class Target:
    """Targets of an implementation in some suites: speedups over the fastest Keras, and memory.

    `mean` is the smallest geometric mean of all cells, `mean_goal` the hoped-for mean, `lowest` the
    smallest speedup of a cell. `beyond_result` is the largest number of bytes per thread.
    """

    suites: tuple[str, ...]
    implementation: str
    mean: float | None = None
    mean_goal: float | None = None
    lowest: float | None = None
    beyond_result: int | None = None
    depthwise_only: bool = False


SMALL = ("mnist", "lenet")
NETWORKS = ("resnet50", "vgg16", "alexnet")
TARGETS = (
    Target(SMALL, "auto", mean=1.3, lowest=0.9),
    Target(NETWORKS, "auto", mean=1.0, mean_goal=1.25, lowest=0.6),
    Target(("mobilenet",), "auto", mean=0.25, lowest=0.15, depthwise_only=True),
    Target(("resnet50",), "im2col", mean=0.75),
    Target((*SMALL, *NETWORKS, "mobilenet"), "im2col", beyond_result=2 * MIB),
)
"""Targets of issue 6, `NumPy that beats Keras`. Those over np.matmul are in blocks.py."""

Verdict = str  # `met`, `MISSED`, or the reason why neither can be said


@dataclass(frozen=True)
class Finding:
    """One target in one run. `figure` and `interval` are ratios, or bytes if `is_bytes`."""

    what: str
    suite: str
    threads: int
    wanted: float
    figure: float | None
    interval: tuple[float, float] | None
    where: str
    verdict: Verdict
    is_bytes: bool = False


def findings(runs: Sequence[Run], targets: Iterable[Target] = TARGETS) -> Iterator[Finding]:
    """Yield what was found for every target, in every run of its suites."""
    for target in targets:
        for suite in target.suites:
            for run in runs:
                if run.result.suite.name == suite:
                    yield from _findings(target, run)


def _findings(target: Target, run: Run) -> Iterator[Finding]:
    layers = [
        name
        for name, layer in run.layers.items()
        if is_depthwise(layer) or not target.depthwise_only
    ]
    cells = run.cells(target.implementation, layers)
    if target.beyond_result is not None:
        yield _memory(target.beyond_result, target, run, cells)
    ratios = run.ratios_of(target.implementation, layers)
    lacking = _lacking(cells, len(ratios))
    mean = summary.mean_over(ratios.values())
    if target.mean is not None:
        yield _ratio("mean", target, run, target.mean, mean, lacking)
    if target.mean_goal is not None:
        yield _ratio("mean, the goal", target, run, target.mean_goal, mean, lacking)
    if target.lowest is not None:
        estimates = {key: ratio.estimate for key, ratio in ratios.items()}
        key = min(estimates, key=lambda k: estimates[k].value, default=None)
        lowest, where = (estimates[key], f"{key[0]} {key[1]}") if key else (None, "")
        yield _ratio("lowest cell", target, run, target.lowest, lowest, lacking, where)


def _ratio(
    what: str,
    target: Target,
    run: Run,
    wanted: float,
    found: stats.Estimate | None,
    lacking: str,
    where: str = "",
) -> Finding:
    return Finding(
        what=_what(target, what),
        suite=run.result.suite.name,
        threads=run.result.threads,
        wanted=wanted,
        figure=found.value if found else None,
        interval=found.interval() if found else None,
        where=where,
        verdict=_verdict(
            None if found is None else found.value >= wanted, lacking, run.is_reliable
        ),
    )


def _memory(most: int, target: Target, run: Run, cells: Sequence[Cell]) -> Finding:
    found = {
        (cell.layer, cell.pass_): beyond
        for cell in cells
        if cell.status == "ok" and (beyond := run.beyond_result(cell)) is not None
    }
    where = max(found, key=found.__getitem__, default=None)
    figure = found[where] if where else None
    return Finding(
        what=_what(target, "peak memory beyond the result, a thread"),
        suite=run.result.suite.name,
        threads=run.result.threads,
        wanted=most,
        figure=figure,
        interval=None,
        where=" ".join(where) if where else "",
        verdict=_verdict(None if figure is None else figure <= most, _lacking(cells, len(found))),
        is_bytes=True,
    )


def _what(target: Target, what: str) -> str:
    of = f"{target.implementation}, depthwise" if target.depthwise_only else target.implementation
    return f"{of}: {what}"


def _lacking(cells: Sequence[Cell], measured: int) -> str:
    """Say which cells do not count: `1 wrong, 2 pending`. The text is empty if all count."""
    statuses = Counter(cell.status for cell in cells if cell.status != "ok")
    left = len(cells) - statuses.total() - measured
    words = [f"{count} {status}" for status, count in statuses.items()]
    return ", ".join([*words, *([f"{left} without a figure"] if left else [])])


def _verdict(met: bool | None, lacking: str, is_reliable: bool = True) -> Verdict:
    """Return the verdict. A target with a wrong cell is missed, whatever the other cells are."""
    if "wrong" in lacking or "failed" in lacking:
        return f"MISSED: {lacking}"
    if met is None:
        return f"no cells: {lacking}" if lacking else "no cells"
    if met and lacking:
        return f"incomplete: {lacking}"
    return ("met" if met else "MISSED") + ("" if is_reliable else ", unreliable")
