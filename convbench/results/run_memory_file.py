"""Keep the memory of runs on disk, beside that of trials (machine/tuning.py)."""

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
"""Environment variable with the path of the file. If it is empty, nothing is kept on disk."""

SCHEMA = "convbench-runs/1"
"""Name and version of the file's format."""

MAX_RUNS = 60
"""Number of runs that are kept of each population (machine, threads and versions): the latest."""

MAX_POPULATIONS = 8
"""Number of populations that are kept: those with the latest runs."""


def memory_path() -> Path | None:
    """Return the path of the file of runs; None if nothing is to be remembered."""
    return cache_file.path_of("runs.json", MEMORY_VARIABLE)


def recall(machine: Machine, software: Software, threads: int) -> Known | None:
    """Return what earlier runs with as many threads showed; None if nothing is remembered."""
    path = memory_path()
    if path is None:
        return None
    document = cache_file.read(path, SCHEMA) or {}
    return learn(
        from_documents(_by_population(document).get(population(machine, software, threads)))
    )


def remember(machine: Machine, software: Software, threads: int, run: RememberedRun) -> None:
    """Keep a run. Nothing is raised, whatever is wrong with the file."""
    key = population(machine, software, threads)

    def with_this(document: dict[str, Any]) -> dict[str, Any]:
        populations = _by_population(document)
        runs = with_run(from_documents(populations.pop(key, None)), run, MAX_RUNS)
        populations[key] = list(map(as_document, runs))
        return {"runs": dict(list(populations.items())[-MAX_POPULATIONS:])}

    cache_file.update(memory_path(), SCHEMA, with_this)


def _by_population(document: dict[str, Any]) -> dict[str, Any]:
    return dict(cache_file.entries(document.get("runs")))
