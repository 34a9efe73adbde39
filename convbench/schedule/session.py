"""Keep what a session knows so far: every cell's state, every raw sample, and where it is saved.

`BaseSession` has what all sessions share, those of add-ons included. `Session` measures the layers
and passes of a suite.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Generic, TypeVar

from convbench.implementations.registry import REGISTRY, Registry
from convbench.machine import usage
from convbench.machine.description import Caution, Machine, Software
from convbench.measure.messages import Sampled
from convbench.problem.layer import Layer, Pass
from convbench.results import file as result_file
from convbench.results.model import (
    LOAD,
    SCHEMA,
    Benchmarks,
    Cell,
    Deviation,
    Precision,
    ResultFile,
    RoundSamples,
    State,
)
from convbench.results.summary import summarise
from convbench.runtimes.contract import Runtime
from convbench.suites.suite import Suite

SAVING = 0.05
"""Largest share of a run's time that is spent on saving."""

CellKey = tuple[str, Pass, str]
"""Name of the layer, pass, and name of the implementation of a cell."""

Unit = tuple[Layer, Pass]
Key = TypeVar("Key")


@dataclass
class BaseSession(Generic[Key]):
    """The state of a session, the one place that changes while it runs. All of it is saved.

    Cells are kept by a key, whose type a subclass chooses.
    """

    suite: Suite
    machine: Machine
    software: Software
    environment: dict[str, str]
    threads: int
    effort: str
    seed: int
    path: Path
    cells: dict[Key, Cell] = field(default_factory=dict)
    benchmarks: Benchmarks = field(default_factory=dict)
    cautions: tuple[Caution, ...] = ()
    metadata: dict[str, str | int | float] = field(default_factory=dict)
    tune: bool = True
    registry: Registry = REGISTRY
    _saved_at: float = field(default=-math.inf, init=False, repr=False)
    _save_s: float = field(default=0.0, init=False, repr=False)

    def __post_init__(self) -> None:
        self.registry = self.registry.knowing(*self.suite.own)

    def runtime_of(self, implementation: str) -> Runtime:
        """Return the runtime of the implementation with this name."""
        return self.registry.get(implementation).runtime

    def update(self, key: Key, **changes: object) -> Cell:
        """Change fields of a cell, and return the cell that now stands in its place."""
        self.cells[key] = replace(self.cells[key], **changes)  # type: ignore[arg-type]
        return self.cells[key]

    def caution(self, *cautions: Caution) -> None:
        """Add cautions for the reader, each of them once."""
        new = [caution for caution in cautions if caution not in self.cautions]
        self.cautions = (*self.cautions, *new)

    def add(self, name: str, samples: RoundSamples) -> None:
        """Keep a benchmark's samples of a round.

        A round that is measured again replaces its earlier samples, since the arms of a round are
        compared with each other.
        """
        others = [run for run in self.benchmarks.get(name, ()) if run.round != samples.round]
        self.benchmarks[name] = tuple(sorted([*others, samples], key=lambda run: run.round))

    def rounds_of(self, benchmark: str) -> set[int]:
        """Return the numbers of the rounds that a benchmark has samples of."""
        return {run.round for run in self.benchmarks.get(benchmark, ())}

    def random_of(self, number: int) -> random.Random:
        """Return a round's random numbers. They differ between rounds, and repeat with the seed."""
        return random.Random(f"{self.seed} {number}")

    def result(self) -> ResultFile:
        """Return the result of the samples so far."""
        return summarise(self._bare(), self.benchmarks)

    def _bare(self) -> ResultFile:
        """Return the result without the figures that are derived from samples."""
        return ResultFile(
            schema_=SCHEMA,
            suite=self.suite,
            machine=self.machine,
            software=self.software,
            environment=self.environment,
            warnings=self.cautions,
            threads=self.threads,
            effort=self.effort,
            seed=self.seed,
            rounds=0,
            cells=tuple(self.cells.values()),
            tune=self.tune,
        )

    def saved(self) -> result_file.Saved:
        """Return the content of the result file."""
        return result_file.Saved(self.result(), self.benchmarks, self.metadata)

    def save(self) -> Path:
        """Write the result file, and return the path that it went to (see result_file.save)."""
        started = time.monotonic()
        self.path = result_file.save(self.path, self.saved())
        self._saved_at = time.monotonic()
        self._save_s = self._saved_at - started
        return self.path

    def keep(self) -> Path | None:
        """Save, unless more than the share SAVING of the time would go into saving.

        Files of thousands of cells take seconds to write. Smaller ones are written whenever
        something is new. Returns the path, or None if nothing was written.
        """
        if time.monotonic() - self._saved_at < self._save_s / SAVING:
            return None
        return self.save()


@dataclass
class Session(BaseSession[CellKey]):
    """A session that checks, meters and times the cells of a suite."""

    call_s: dict[CellKey, float] = field(default_factory=dict)
    shard: tuple[int, int] | None = None
    state: State = "warm"
    precision: Precision | None = None
    deviations: tuple[Deviation, ...] = ()
    earlier_runs: int | None = None
    _layers: dict[str, Layer] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._layers = {layer.name: layer for layer in self.suite.layers}
        for layer, pass_, name in product(
            self.suite.layers, self.suite.passes, self.suite.implementations
        ):
            key = (layer.name, pass_, name)
            self.cells.setdefault(key, Cell(*key, status="pending"))

    @classmethod
    def resume(cls, saved: result_file.Saved, path: Path) -> Session:
        """Return the session that wrote a result file, ready to go on."""
        result = saved.result
        cells = {(c.layer, Pass(c.pass_), c.implementation): _retried(c) for c in result.cells}
        session = cls(
            suite=result.suite,
            machine=result.machine,
            software=result.software,
            environment=result.environment,
            threads=result.threads,
            effort=result.effort,
            seed=result.seed,
            path=path,
            cells=cells,
            benchmarks=dict(saved.benchmarks),
            cautions=result.warnings,
            metadata=saved.metadata,
            shard=result.shard,
            tune=result.tune,
            state=result.state,
            precision=result.precision,
            deviations=result.deviations,
            earlier_runs=result.earlier_runs,
        )
        session.call_s = {
            key: cell.time.time_s for key, cell in cells.items() if cell.time is not None
        }
        return session

    @property
    def units(self) -> list[Unit]:
        """Every (layer, pass), in the suite's order."""
        return list(product(self.suite.layers, self.suite.passes))

    def layer(self, name: str) -> Layer:
        """Return the layer with this name."""
        return self._layers[name]

    def keys_of(self, unit: Unit) -> list[CellKey]:
        """Return the keys of the cells of a (layer, pass), in the suite's order."""
        layer, pass_ = unit
        return [(layer.name, pass_, name) for name in self.suite.implementations]

    def _bare(self) -> ResultFile:
        return replace(
            super()._bare(),
            shard=self.shard,
            state=self.state,
            precision=self.precision,
            deviations=self.deviations,
            earlier_runs=self.earlier_runs,
        )


def _retried(cell: Cell) -> Cell:
    """Return a cell as a resumed session has it: one that lacked only time is due again."""
    agrees = cell.agreement is not None and cell.agreement.verdict == "agrees"
    return replace(cell, status="ok", reason=None) if cell.status == "skipped" and agrees else cell


def round_samples(
    number: int,
    visits: Sequence[Sampled],
    order: tuple[int, ...],
    seen: Mapping[str, float] = MappingProxyType({}),
) -> RoundSamples:
    """Collect the visits to one arm in a round, as the result file keeps them.

    `order` has the arm's place in each sweep, and `seen` further figures of the round.
    """
    return RoundSamples(
        round=number,
        order=order,
        loops=visits[0].visited.loops,
        values=tuple(value for visit in visits for value in visit.visited.values),
        warmups=tuple(warmup for visit in visits for warmup in visit.visited.warmups),
        metadata={**circumstances(), **seen},
        visits=tuple(len(visit.visited.values) for visit in visits),
        probes=tuple(visit.probes for visit in visits),
    )


def circumstances() -> dict[str, str | int | float]:
    """Return the date and the load of the machine, which are recorded with samples."""
    return {
        "date": datetime.now().isoformat(" "),
        LOAD: round(usage.load(), 2),
    }
