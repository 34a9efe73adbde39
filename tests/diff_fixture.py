"""Make saved results to compare: raw samples are drawn, and figures are derived from them."""

from __future__ import annotations

import math
import random
from dataclasses import replace

from convbench.compare import ASSUMED, Deviations, Diff, diff
from convbench.machine.description import BlasLibrary, Calibration
from convbench.problem.layer import Layer, Pass
from convbench.results.file import Saved
from convbench.results.model import SCHEMA, Cell, Memory, ResultFile, RoundSamples, benchmark_name
from convbench.results.summary import summarise
from convbench.suites.suite import Suite
from tests.report_fixture import CONV1, CONV2, FORWARD, KERNEL, MACHINE, MINE, SOFTWARE, WRONG

AWKWARD = Layer("stem [bold] | 3×3, größer", (32, 32, 3), 16, (3, 3), padding="same")
CALIBRATED = replace(
    MACHINE, calibration=Calibration({2: 180e9, 4: 332e9}, {2: 90e9, 4: 166e9}, 8e9, 4e-7, 2e-7)
)

Times = dict[tuple[str, Pass, str], float]  # milliseconds by layer, pass, implementation

TIMES: Times = {
    (layer, pass_, name): ms
    for (layer, pass_), row in {
        ("conv1", FORWARD): (62.0, 0.339, 0.452, 0.312, 21.0),
        ("conv1", KERNEL): (183.0, 0.441, 0.738, 0.629, 44.0),
        ("conv2", FORWARD): (1210.0, 6.61, 4.13, 3.88, 311.0),
        (AWKWARD.name, FORWARD): (96.0, 0.711, 0.812, 0.533, 35.0),
    }.items()
    for name, ms in zip(("loop", "im2col", "keras", "keras-graph", MINE), row, strict=True)
}


def samples(
    ms: float, rng: random.Random, shared: list[float], noise: float, date: str
) -> tuple[RoundSamples, ...]:
    """Draw a benchmark: one round for each deviation in `shared`, four samples each."""
    return tuple(
        RoundSamples(
            round=number,
            order=(0, 1, 2, 3),
            loops=1,
            values=tuple(
                ms / 1e3 * math.exp(common + own + rng.uniform(-noise, noise)) for _ in range(4)
            ),
            warmups=(),
            metadata={"date": f"{date}:{number:02d}.000001"},
        )
        for number, common in enumerate(shared, 1)
        for own in [rng.uniform(-noise, noise)]
    )


def saved(
    times: Times = TIMES,
    *,
    layers: tuple[Layer, ...] = (CONV1, CONV2, AWKWARD),
    rounds: int = 8,
    noise: float = 0.02,
    seed: int = 1,
    mib: float = 0.661,
    date: str = "2026-11-23 09:31",
    **fields: object,
) -> Saved:
    """Make a run whose cells, those of `times`, are right and timed; `fields` go to ResultFile."""
    rng = random.Random(seed)
    shared = [rng.uniform(-0.1, 0.1) for _ in range(rounds)]
    cells = tuple(
        Cell(*key, "ok", memory=_memory(mib * 2**20, exact="keras" not in key[2])) for key in times
    )
    result = ResultFile(
        SCHEMA,
        Suite("mnist", layers, tuple(dict.fromkeys(key[2] for key in times))),
        CALIBRATED,
        SOFTWARE,
        {},
        (),
        threads=4,
        effort="standard",
        seed=0,
        rounds=rounds,
        cells=cells,
    )
    benchmarks = {
        benchmark_name(*key): samples(ms, rng, shared, noise, date) for key, ms in times.items()
    }
    return again(Saved(replace(result, **fields), benchmarks, {}))


def again(of: Saved) -> Saved:
    """Return the result with its figures derived anew."""
    return replace(of, result=summarise(of.result, of.benchmarks))


def with_cells(of: Saved, *cells: Cell) -> Saved:
    """Return the result with some cells changed, or added at the end."""
    changed = {(c.layer, c.pass_, c.implementation): c for c in (*of.result.cells, *cells)}
    return again(replace(of, result=replace(of.result, cells=tuple(changed.values()))))


def scaled(times: Times, **factors: float) -> Times:
    """Multiply the times of some implementations (`keras_graph` is keras-graph)."""
    by_name = {name.replace("_", "-"): factor for name, factor in factors.items()}
    return {key: ms * by_name.get(key[2], 1.0) for key, ms in times.items()}


def _memory(size: float, exact: bool) -> Memory:
    peak = int(size)
    return Memory(peak, peak // 2, peak - peak // 2, "tracemalloc", exact, peak, 5305600, None)


def old() -> Saved:
    return saved()


def new() -> Saved:
    """Make a result in which im2col is faster and takes more memory; all else is the same code."""
    faster = saved(scaled(TIMES, im2col=0.7), seed=2, date="2026-11-24 10:02")
    return with_cells(
        faster,
        *(
            replace(cell, memory=_memory(0.9 * 2**20, exact=True))
            for cell in faster.result.cells
            if cell.implementation == "im2col"
        ),
    )


def other() -> Saved:
    """Make a result of another machine, environment and convolution, and with other cells."""
    kept = {k: ms for k, ms in TIMES.items() if k != ("conv1", KERNEL, MINE)}
    found = saved(
        {**scaled(kept, im2col=1.3, loop=20.0), ("conv1", FORWARD, "mine"): 3.0},
        layers=(CONV1, replace(CONV2, filters=32, padding="valid"), AWKWARD),
        seed=3,
        mib=0.7,
        date="2026-11-25 11:45",
        machine=replace(CALIBRATED, cpu="Intel Xeon Platinum 8481C", logical_cpus=16),
        software=replace(
            SOFTWARE,
            versions={"numpy": "2.4.7", "tensorflow": "2.20.0"},
            blas=(BlasLibrary("mkl", "2026.0", None, 2, "numpy"),),
        ),
        environment={"OMP_NUM_THREADS": "4"},
        threads=2,
        effort="rigorous",
    )
    return with_cells(
        found,
        Cell("conv1", FORWARD, MINE, "wrong", "wrong", agreement=WRONG),
        Cell("conv1", FORWARD, "keras", "failed", "killed by signal 9"),
    )


def few_rounds() -> Saved:
    return saved(scaled(TIMES, im2col=0.7), rounds=3, seed=4, date="2026-11-26 08:00")


def nothing_shared() -> Saved:
    return saved({("other", FORWARD, "loop"): 1.0}, layers=(replace(CONV1, name="other"),))


MEASURED = Deviations(speedup=0.004, time=0.008, degrees=20, source="noise.json")

DIFFS = {
    "typical": (("old", "new"), ASSUMED),
    "measured": (("old", "new"), MEASURED),
    "other": (("old", "other"), ASSUMED),
    "few": (("old", "few_rounds"), ASSUMED),
    "three": (("old", "new", "few_rounds"), MEASURED),
    "nothing": (("old", "nothing_shared"), ASSUMED),
}


def diff_of(name: str) -> Diff:
    makers, deviations = DIFFS[name]
    return diff([(f"results/{maker}.json", globals()[maker]()) for maker in makers], deviations)
