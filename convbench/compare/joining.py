"""Join result files of parts of one suite, which `run --shard` spread over jobs or evenings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from convbench.compare.sessions import changes_of_environment, incomparable
from convbench.errors import ExitCode, ResultError
from convbench.machine.description import Caution
from convbench.results.model import ResultFile
from convbench.results.summary import summarise

if TYPE_CHECKING:
    from convbench.results.file import Saved

SAME = ("name", "implementations", "passes", "threads", "environment", "own")
"""Names of the fields in which the parts of one suite agree."""


def join(files: Sequence[tuple[str, Saved]], different_machines: bool = False) -> Saved:
    """Join several results into one, in their order, with every derived figure made anew.

    Raises ResultError if the suites differ, if two files have the same layer, and, unless
    `different_machines`, if the machines or the versions differ. Speedups hold within a file, but
    means over them would mix what does not belong together.
    """
    from convbench.results.file import Saved

    (first_path, first), *others = files
    for path, other in others:
        _check_suite(first_path, first.result, path, other.result)
        if not different_machines:
            _check_machine(first_path, first.result, path, other.result)
    _check_layers(files)
    results = [saved.result for _, saved in files]
    whole = replace(
        first.result,
        suite=replace(
            first.result.suite,
            layers=tuple(layer for result in results for layer in result.suite.layers),
        ),
        cells=tuple(cell for result in results for cell in result.cells),
        warnings=_warnings(results),
        shard=None,
    )
    benchmarks = {name: runs for _, saved in files for name, runs in saved.benchmarks.items()}
    made = summarise(whole, benchmarks)
    # A cell's fraction of the peak refers to the peak of its own file, not to the first file's.
    cells = tuple(
        replace(cell, work=own.work) for cell, own in zip(made.cells, whole.cells, strict=True)
    )
    return Saved(replace(made, cells=cells), benchmarks, first.metadata)


def missing_shards(results: Sequence[ResultFile]) -> list[str]:
    """Return the parts, such as 3/8, that none of the results is."""
    shards = [result.shard for result in results if result.shard is not None]
    return [
        f"{index}/{count}"
        for count in sorted({count for _, count in shards})
        for index in range(1, count + 1)
        if (index, count) not in shards
    ]


def _check_suite(first_path: str, first: ResultFile, path: str, other: ResultFile) -> None:
    for field in SAME:
        ours, theirs = getattr(first.suite, field), getattr(other.suite, field)
        if ours != theirs:
            raise ResultError(
                f"{path} is not a part of the same suite as {first_path}: {field} is {theirs!r} "
                f"instead of {ours!r}",
                hint="run the parts of one suite with the same options",
            )


def _check_machine(first_path: str, first: ResultFile, path: str, other: ResultFile) -> None:
    differences = (*incomparable(first, other), *changes_of_environment(first, other))
    if differences:
        error = ResultError(
            f"{path} does not belong with {first_path}: {'; '.join(differences)}",
            hint="--allow-different-machine joins them anyway; means then mix both",
        )
        error.exit_code = ExitCode.INCOMPARABLE
        raise error


def _check_layers(files: Sequence[tuple[str, Saved]]) -> None:
    seen: dict[str, str] = {}
    for path, saved in files:
        for layer in saved.result.suite.layers:
            if layer.name in seen:
                raise ResultError(
                    f"{path} and {seen[layer.name]} both have the layer {layer.name!r}",
                    hint="join files that have different layers: run --shard 1/2, --shard 2/2",
                )
            seen[layer.name] = path


def _warnings(results: Sequence[ResultFile]) -> tuple[Caution, ...]:
    """Return the warnings of all files, each once, and one about missing parts."""
    found = {caution.what: caution for result in results for caution in result.warnings}
    if missing := missing_shards(results):
        what = f"shards are missing: {', '.join(missing)}"
        hint = "means and totals cover the layers that are here; a shard may have had none"
        found[what] = Caution(what, hint)
    return tuple(found.values())
