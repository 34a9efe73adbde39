"""Keep the memory of runs on disk, beside that of trials (see tuning.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from convbench.machine import cache_file
from convbench.machine.description import Machine, Software
from convbench.results.run_memory import (
    Known,
    RememberedRun,
    as_document,
    from_documents,
    learn,
    population,
    with_run,
)

MEMORY_VARIABLE = "CONVBENCH_RUN_MEMORY"
"""A path in place of the default one; empty: nothing is kept on disk."""

SCHEMA = "convbench-runs/1"

MAX_RUNS = 60
"""The latest so many runs are kept of a population (machine, threads and versions)."""

MAX_POPULATIONS = 8
"""The latest so many populations are kept."""


def memory_path() -> Path | None:
    """Where runs are remembered; None where nothing shall be."""
    return cache_file.path_of("runs.json", MEMORY_VARIABLE)


def recall(machine: Machine, software: Software, threads: int) -> Known | None:
    """What earlier runs with so many threads showed; None where nothing is to be remembered."""
    path = memory_path()
    if path is None:
        return None
    document = cache_file.read(path, SCHEMA) or {}
    return learn(
        from_documents(_by_population(document).get(population(machine, software, threads)))
    )


def remember(machine: Machine, software: Software, threads: int, run: RememberedRun) -> None:
    """Keeps a run. Whatever is wrong with the file, nothing raises."""
    key = population(machine, software, threads)

    def with_this(document: dict[str, Any]) -> dict[str, Any]:
        populations = _by_population(document)
        runs = with_run(from_documents(populations.pop(key, None)), run, MAX_RUNS)
        populations[key] = list(map(as_document, runs))
        return {"runs": dict(list(populations.items())[-MAX_POPULATIONS:])}

    cache_file.update(memory_path(), SCHEMA, with_this)


def _by_population(document: dict[str, Any]) -> dict[str, Any]:
    return dict(cache_file.entries(document.get("runs")))
