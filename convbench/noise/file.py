"""Write noise files atomically, and refuse damaged ones with a sentence that says what is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from convbench.compare import Deviations
from convbench.errors import ExitCode, ResultError
from convbench.machine.description import Machine
from convbench.noise.trials import SCHEMA, NoiseFile
from convbench.results.between_runs import LEAST_RUNS
from convbench.results.file import read_json, write_atomically

if TYPE_CHECKING:
    from pydantic import TypeAdapter


def save(path: Path, file: NoiseFile) -> None:
    """Write the file atomically. Raises ResultError if it cannot be written."""
    data = _adapter().dump_python(file, mode="json", by_alias=True)
    try:
        write_atomically(path, json.dumps(data, separators=(",", ":"), allow_nan=False) + "\n")
    except OSError as error:
        raise ResultError(f"{path} cannot be written: {error.strerror}") from None


def load(path: Path) -> NoiseFile:
    """Read a noise file. Raises ResultError, which says what is wrong and where."""
    from pydantic import ValidationError

    data = read_json(path)
    schema = data.get("schema")
    if schema != SCHEMA:
        raise ResultError(
            f"{path}: found schema {schema!r}, expected {SCHEMA!r}",
            hint="convbench noise writes such files",
        )
    try:
        file: NoiseFile = _adapter().validate_python(data)
    except ValidationError as error:
        problems = [
            f"{path}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5]
        ]
        raise ResultError("\n".join(problems), hint="the file was edited, or is damaged") from None
    return file


def deviations_of(path: Path, here: Machine, threads: int) -> Deviations:
    """Return the deviations that a noise file knows of this machine and number of threads.

    Raises ResultError if the file is of another machine or of another number of threads, or if it
    has too few sessions.
    """
    file = load(path)
    then = file.machine
    if (then.cpu, then.isa, then.logical_cpus, file.threads) != (
        here.cpu,
        here.isa,
        here.logical_cpus,
        threads,
    ):
        error = ResultError(
            f"{path} comes from another machine or other threads: {then.cpu}, "
            f"{then.logical_cpus} CPUs, {file.threads} threads; here {here.cpu}, "
            f"{here.logical_cpus} CPUs, {threads} threads",
            hint=f"convbench noise --threads {threads} measures this machine",
        )
        error.exit_code = ExitCode.INCOMPARABLE
        raise error
    if file.deviations is None:
        raise ResultError(
            f"{path}: {len(file.runs)} runs do not tell how sessions differ; at least {LEAST_RUNS} "
            "runs of the same layers are needed",
            hint="convbench noise adds runs to the file: run it again",
        )
    return replace(file.deviations, source=str(path))


@cache
def _adapter() -> TypeAdapter[NoiseFile]:
    from pydantic import TypeAdapter

    return TypeAdapter(NoiseFile)
