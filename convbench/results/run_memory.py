"""Learn from earlier runs on a machine how much runs differ; no I/O but the package's own source.

A remembered run has the logarithm of each of its figures and its standard error within the run. A
figure's name tells the convolution, the pass and the implementation, but not the name of the layer
in the suite. Figures of different runs are compared if they have the same name and were made under
the same conditions. Their differences are then pooled over names.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convbench.machine.description import Machine, Software
from convbench.machine.tuning import checksum, convolution
from convbench.problem.layer import Pass
from convbench.results.between_runs import Seen, between_runs
from convbench.results.model import Deviation, Figure, Part, ResultFile
from convbench.results.stats import MIN_ROUNDS, Estimate
from convbench.results.summary import CellKey, Ratio, between, kind_of, speedups, times
from convbench.runtimes import runtimes
from convbench.suites.suite import FASTEST_KERAS, KERAS_WAYS

if TYPE_CHECKING:
    from convbench.results.file import Saved

MAX_FIGURES = 60
"""Number of names that are kept of each kind of figure of a run. They are enough to pool over, and
the file stays below 4 MB per machine. The names with the lowest checksums are kept, so that every
run keeps the same ones."""

_HERE = Path(__file__).parent
_PACKAGE = _HERE.parent

Kind = tuple[Figure, str]
"""Figure that a deviation is of, and the kinds of implementations that it is between (see
results.model.Deviation)."""


@dataclass(frozen=True)
class RememberedRun:
    """One finished run. `date`, that of its first sample, tells it from other runs.

    `conditions` is a checksum of what else decides how long a call takes. Only figures of runs with
    equal conditions are compared. `figures` are keyed by kind, then by name.
    """

    date: str
    effort: str
    rounds: int
    conditions: str
    figures: Mapping[Kind, Mapping[str, Seen]] = field(default_factory=dict)


@dataclass(frozen=True)
class Known:
    """Knowledge of a machine: the number of remembered runs, and the deviations they showed."""

    runs: int
    deviations: tuple[Deviation, ...] = ()


def population(machine: Machine, software: Software, threads: int) -> str:
    """Describe machine, threads and versions in one line, the key under which runs are kept.

    Where any of them differs, the difference between runs may be another.
    """
    parts = " ".join((*machine.isa, *(f"{name}={size}" for name, size in machine.caches.items())))
    versions = software.versions
    packages = (name for runtime in runtimes() for name in runtime.packages)
    return "; ".join(
        (
            f"{machine.cpu} ({zlib.crc32(parts.encode()):08x})",
            f"{machine.logical_cpus} CPUs, quota {machine.cpu_quota or 'none'}",
            f"threads {threads}",
            *(f"{name} {versions[name]}" for name in packages if name in versions),
        )
    )


def run_of(saved: Saved, subject: str | None = None) -> RememberedRun | None:
    """Return what is remembered of a finished run; None if it has no figure that can be compared.

    Cells that are not right are left out, and so is the user's own code, which changes from run to
    run. `subject` is for a run of `convbench noise`. Only that implementation's figures count
    there, because the others are slowed on purpose. Where the suite has neither loop nor Keras, it
    is compared with its own other cells.
    """
    result = saved.result
    if result.state != "warm" or result.training is not None or not saved.benchmarks:
        return None
    figures = _Collector(saved, subject).figures()
    if not figures:
        return None
    dates = (run.metadata.get("date") for runs in saved.benchmarks.values() for run in runs)
    return RememberedRun(
        date=min((str(date) for date in dates if date), default=""),
        effort=result.effort,
        rounds=result.rounds,
        conditions=_conditions(result, comparing=subject is not None),
        figures={kind: _some(names) for kind, names in figures.items()},
    )


def learn(runs: Sequence[RememberedRun]) -> Known:
    """Derive how much the runs differ, for each kind of figure on which they are enough."""
    figures: dict[Kind, dict[tuple[str, str], dict[int, Seen]]] = {}
    for number, run in enumerate(runs):
        for kind, names in run.figures.items():
            for name, seen in names.items():
                by_name = figures.setdefault(kind, {})
                by_name.setdefault((run.conditions, name), {})[number] = seen
    deviations = []
    for (of, kinds), by_name in sorted(figures.items()):
        found = between_runs(by_name.values())
        if found is not None:
            known = Deviation(of, kinds, found.deviation, found.degrees, found.runs)
            deviations.append(known)
    return Known(len(runs), tuple(deviations))


# Figures


class _Collector:
    """Collects the figures of one run, each under its name."""

    def __init__(self, saved: Saved, subject: str | None) -> None:
        self._result = saved.result
        self._subject = subject
        self._layers = {layer.name: layer for layer in saved.result.suite.layers}
        self._times = times(saved.result, saved.benchmarks)
        self._speedups = speedups(saved.result, saved.benchmarks)
        self._found: dict[Kind, dict[str, Seen]] = {}

    def figures(self) -> dict[Kind, dict[str, Seen]]:
        for key, time in self._times.items():
            if self._is_remembered(key[2]):
                self._add("time", kind_of(key[2]), self._cell(key), time)
        for (layer, pass_, name, versus), ratio in self._speedups.items():
            if self._is_remembered(name, versus, ratio.chosen):
                over = self._fastest_of(layer, pass_) if versus == FASTEST_KERAS else versus
                of = f"{self._cell((layer, pass_, name))} over {over}"
                self._add("speedup", between(name, ratio.chosen), of, ratio)
        if self._subject is not None and not any(of == "speedup" for of, _ in self._found):
            for of, ratio in self._over_the_next(self._subject):
                self._add("speedup", between(self._subject, self._subject), of, ratio)
        return self._found

    def _is_remembered(self, name: str, *versus: str) -> bool:
        others = [other for other in versus if other != FASTEST_KERAS]
        own = any(map(self._result.suite.is_own, (name, *others)))
        return not own and self._subject in (None, name)

    def _add(self, of: Figure, kinds: str, name: str, ratio: Ratio) -> None:
        """Add a figure, typical and undisturbed, unless an equal convolution has added its own."""
        undisturbed: Figure = "undisturbed-speedup" if of == "speedup" else "undisturbed-time"
        estimates: tuple[tuple[Figure, Estimate | None], ...] = (
            (of, ratio.estimate if ratio.logs else None),
            (undisturbed, ratio.undisturbed_estimate),
        )
        for figure, estimate in estimates:
            if estimate is not None and estimate.rounds >= MIN_ROUNDS:
                names = self._found.setdefault((figure, kinds), {})
                names.setdefault(name, Seen(estimate.log, estimate.error))

    def _cell(self, key: CellKey) -> str:
        layer, pass_, implementation = key
        same = convolution(self._layers[layer], Pass(pass_), self._result.threads)
        return f"{same}: {implementation}"

    def _fastest_of(self, layer: str, pass_: Part) -> str:
        """Name the fastest Keras way by the ways that it was chosen from.

        Chosen from other ways, it would be another figure.
        """
        ways = [way for way in KERAS_WAYS if (layer, pass_, way) in self._times]
        return f"the fastest of {', '.join(ways)}"

    def _over_the_next(self, subject: str) -> Iterator[tuple[str, Ratio]]:
        """Yield the time of each cell of the subject over the next cell's.

        schedule/campaign.py compares sessions of a suite with one implementation in this way.
        """
        cells = [(self._cell(key), time) for key, time in self._times.items() if key[2] == subject]
        for (name, arm), (other, versus) in pairwise(cells):
            logs, undisturbed = (
                {r: theirs[r] - ours[r] for r in sorted(ours.keys() & theirs.keys())}
                for ours, theirs in ((arm.logs, versus.logs), (arm.undisturbed, versus.undisturbed))
            )
            yield f"{name} over {other}", Ratio(logs, subject, undisturbed, arm.first)


def _some(names: Mapping[str, Seen]) -> dict[str, Seen]:
    kept = sorted(names, key=lambda name: zlib.crc32(name.encode()))[:MAX_FIGURES]
    return {name: names[name] for name in kept}


def _conditions(result: ResultFile, comparing: bool) -> str:
    """Return a checksum of the code that computes and times, and of variables, BLAS and options."""
    blas = sorted(
        f"{blas.used_by} {blas.library} {blas.version} {blas.kernels} {blas.threads}"
        for blas in result.software.blas
    )
    parts = (
        f"{_source():08x}",
        result.software.python,
        *blas,
        *(f"{name}={value}" for name, value in sorted(result.environment.items())),
        f"trials {result.tune}",
        f"comparing {comparing}",
    )
    return f"{zlib.crc32(chr(10).join(parts).encode()):08x}"


@functools.cache
def _source() -> int:
    """Return a checksum of the source that decides how long a call takes, and how it is timed."""
    patterns = ("implementations/**/*.py", "measure/*.py", "schedule/timing.py")
    files = (path for pattern in patterns for path in sorted(_PACKAGE.glob(pattern)))
    return checksum((*files, _HERE / "rounds.py", _HERE / "phases.py"))


# Runs as documents


def as_document(run: RememberedRun) -> dict[str, Any]:
    """Return the run as a JSON object. Logs are rounded to 1e-6, errors to three digits."""
    figures: dict[str, dict[str, dict[str, list[float]]]] = {}
    for (of, kinds), names in run.figures.items():
        figures.setdefault(of, {})[kinds] = {
            name: [round(seen.log, 6), float(f"{seen.error:.3g}")] for name, seen in names.items()
        }
    return {
        "date": run.date,
        "effort": run.effort,
        "rounds": run.rounds,
        "conditions": run.conditions,
        "figures": figures,
    }


def from_documents(found: Any) -> list[RememberedRun]:
    """Return the runs in a list of documents, without the damaged ones."""
    runs = map(_from_document, found if isinstance(found, list) else [])
    return [run for run in runs if run is not None]


def _from_document(found: Any) -> RememberedRun | None:
    try:
        figures = {
            (of, str(kinds)): {str(name): _seen(*pair) for name, pair in names.items()}
            for of, by_kinds in found["figures"].items()
            for kinds, names in by_kinds.items()
            if of in FIGURES
        }
        return RememberedRun(
            date=str(found["date"]),
            effort=str(found["effort"]),
            rounds=int(found["rounds"]),
            conditions=str(found["conditions"]),
            figures=figures,
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None


MOST = 100.0
"""Largest logarithm, without its sign, that a measured time or a ratio of times can have."""

FIGURES: tuple[Figure, ...] = ("time", "undisturbed-time", "speedup", "undisturbed-speedup")
"""Figures that are remembered."""


def _seen(log: Any, error: Any) -> Seen:
    seen = Seen(float(log), float(error))
    if not (abs(seen.log) < MOST and 0 <= seen.error < MOST):
        raise ValueError(f"out of range: {seen}")
    return seen


def with_run(runs: Iterable[RememberedRun], run: RememberedRun, most: int) -> list[RememberedRun]:
    """Return the runs with one more, only the latest `most` of them.

    A run with the same date is replaced, because it has been resumed.
    """
    others = [one for one in runs if one.date != run.date]
    return [*others, run][-most:]
