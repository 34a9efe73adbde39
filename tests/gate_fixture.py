"""Make results by hand and hold them to every kind of rule that a gate has."""

from __future__ import annotations

from dataclasses import replace

from convbench import gate
from convbench.compare import Deviations
from convbench.gate import Judgement, Terms
from convbench.machine.description import Caution
from convbench.problem.layer import Pass
from convbench.results.file import Saved
from convbench.results.model import Cell
from convbench.suites.suite import Rule
from tests.diff_fixture import MEASURED, TIMES, saved, scaled, with_cells
from tests.report_fixture import FORWARD, MINE, WRONG

OLD_VERSION = f"{MINE}@main"

FLOORS = (
    Rule("im2col", "loop", at_least=100.0),
    Rule("im2col", "loop", FORWARD, "conv1", at_least=400.0),
    Rule("im2col", "fastest-keras", FORWARD, of="geometric_mean", at_least=0.7),
    Rule("im2col", layer="conv*", pass_=FORWARD, at_most_bytes=2**20),
    Rule("keras", layer="conv1", at_most_bytes=1024),
    Rule("im2col", layer="conv1", pass_=FORWARD, per_cent_of_peak=0.5),
)


def with_twin(of: Saved, factor: float, implementation: str = "im2col") -> Saved:
    """Return the result with a twin in conv1 forward that is `factor` times as slow as its arm."""
    arm = f"conv1/forward/{implementation}"
    runs = tuple(
        replace(run, values=tuple(v * factor for v in run.values)) for run in of.benchmarks[arm]
    )
    benchmarks = {**of.benchmarks, f"{arm}#twin": runs}
    return with_cells(replace(of, benchmarks=benchmarks))


def versions(factor: float, rounds: int = 8, noise: float = 0.01) -> Saved:
    """Make a run of two versions of own code; in conv1 the new one is `factor` times as slow."""
    times = {
        (layer, pass_, name): ms
        for (layer, pass_, mine), ms in TIMES.items()
        if mine == MINE
        for name, ms in ((MINE, ms * (factor if layer == "conv1" else 1.0)), (OLD_VERSION, ms))
    }
    return saved(times, rounds=rounds, noise=noise, seed=7)


def some_not_right() -> Saved:
    """Make a run in which not every cell can be judged."""
    return with_cells(
        with_twin(saved(), 1.001),
        Cell("conv1", Pass.KERNEL_GRADIENT, "im2col", "skipped", "the budget of 9 s"),
        Cell("conv2", FORWARD, "im2col", "unsupported", "groups"),
        Cell("conv2", FORWARD, MINE, "wrong", "the kernel is flipped", agreement=WRONG),
    )


def judged(
    saved_: Saved,
    terms: Terms,
    *,
    target: str = "mnist",
    looks: int = 1,
    on_inconclusive: gate.OnInconclusive | None = None,
    notes: tuple[str, ...] = (),
    version: str | None = None,
) -> tuple[Judgement, Saved]:
    alpha = gate.look_alpha(looks)
    verdicts = tuple(terms.verdicts(saved_, alpha))
    wrong = any(cell.status in ("wrong", "failed") for cell in saved_.result.cells)
    judgement = Judgement(
        target=target,
        verdicts=verdicts,
        looks=looks,
        alpha=alpha,
        exit_code=gate.exit_code(verdicts, on_inconclusive, wrong),
        on_inconclusive=on_inconclusive,
        baseline=None if terms.baseline is None else "results/old.json",
        version=version,
        deviations=None if terms.baseline is None else terms.deviations,
        twins=terms.twins(saved_),
        notes=notes,
    )
    return judgement, saved_


def slower() -> Saved:
    return saved(scaled(TIMES, im2col=1.3), seed=2, date="2026-11-24 10:02")


def judgement(name: str) -> tuple[Judgement, Saved]:
    old = saved()
    tight = Deviations(speedup=0.004, time=0.008, degrees=20, source="results/noise.json")
    match name:
        case "floors":
            return judged(saved(), Terms(rules=FLOORS), target="results/mnist.json")
        case "not_right":
            notes = ("1 of 7 floors concern cells that were not selected",)
            return judged(some_not_right(), Terms(rules=FLOORS), notes=notes, looks=2)
        case "baseline":
            return judged(slower(), Terms(baseline=old))
        case "measured":
            return judged(slower(), Terms(baseline=old, deviations=tight, tolerance=0.03))
        case "incomparable":
            moved = saved(threads=2, warnings=(Caution("busy", "stop it", 1.5),))
            return judged(moved, Terms(baseline=old, deviations=MEASURED))
        case "version":
            terms = Terms(versions=(MINE, OLD_VERSION))
            return judged(versions(1.08), terms, version=OLD_VERSION, looks=2)
        case "unreliable":
            terms = Terms(versions=(MINE, OLD_VERSION))
            both = versions(1.0)
            merged = replace(both, benchmarks={**with_twin(old, 1.2).benchmarks, **both.benchmarks})
            cells = (*old.result.cells, *both.result.cells)
            return judged(with_cells(merged, *cells), terms, version=OLD_VERSION)
        case "few":
            return judged(versions(1.0, rounds=3), Terms(versions=(MINE, OLD_VERSION)))
        case "calm":
            terms = Terms(versions=(MINE, OLD_VERSION))
            return judged(with_twin(versions(1.0), 1.002, MINE), terms, version=OLD_VERSION)
        case "few_twins":
            few = with_twin(versions(1.0, rounds=3), 1.002, MINE)
            return judged(few, Terms(versions=(MINE, OLD_VERSION)), version=OLD_VERSION)
    raise ValueError(name)


NAMES = (
    "floors",
    "not_right",
    "baseline",
    "measured",
    "incomparable",
    "version",
    "unreliable",
    "few",
    "calm",
    "few_twins",
)
