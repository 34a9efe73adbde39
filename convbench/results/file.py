"""Read and write result files: pyperf's JSON with the key `convbench` beside its own.

pyperf keeps `benchmarks`, each with `runs`; here a run is one round. Files are written atomically.
A file that cannot be read is refused with its name, the place in it, and what was expected.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convbench.errors import ResultError
from convbench.machine.cautions import SET_BY_US
from convbench.results.model import SCHEMA, Benchmarks, Probe, RemarkKind, ResultFile, RoundSamples

if TYPE_CHECKING:
    from pydantic import TypeAdapter

PYPERF_FORMAT = "1.0"
"""Version of pyperf's JSON format in which files are written."""

MAJOR = int(SCHEMA.rpartition("/")[2])
"""Newest version of the schema that this convbench reads."""

SHORTEST_S, LONGEST_S = 1e-12, 1e7
"""Seconds between which every measured sample lies; a file with others was edited."""

ROOM_BYTES = 4 * 2**20
"""Bytes that must be free on a disk before a run. A file of 5,000 cells takes about as much."""


@dataclass(frozen=True)
class Saved:
    """A result file's two halves, convbench's figures and pyperf's raw samples, with metadata."""

    result: ResultFile
    benchmarks: Benchmarks
    metadata: dict[str, str | int | float]


def default_path(suite: str) -> Path:
    """Return `results/<suite>-<UTC time>.json`, a path in the current folder."""
    return Path("results") / f"{suite}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"


def reserve(path: Path, force: bool, resumes: bool = False) -> None:
    """Check, before anything is measured, that the file can be written.

    `resumes` says that the command has `--resume`, which goes on with an existing file. Raises
    ResultError if the file exists already (without `force`), or if its folder cannot be made,
    cannot be written to, or has no room left.
    """
    if path.is_dir():
        raise ResultError(f"{path} is a folder", hint="name a file: -o FILE.json")
    if path.exists() and not force:
        resume = " --resume goes on with it," if resumes else ""
        raise ResultError(
            f"{path} exists already",
            hint=f"--force overwrites it,{resume} -o chooses another name",
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent) as probe:
            probe.write(bytes(ROOM_BYTES))
            probe.flush()
    except OSError as error:
        raise ResultError(
            f"results cannot be saved in {path.parent}: {error.strerror}",
            hint="name a folder that can be written and has room: -o FOLDER/FILE.json",
        ) from None


def save(path: Path, saved: Saved) -> Path:
    """Write the file atomically, or to the temporary folder if its own folder fails now.

    Returns the path that was written. Raises ResultError if neither can be.
    """
    text = dumps(saved)
    try:
        write_atomically(path, text)
    except OSError as problem:
        try:
            fallback = Path(tempfile.mkdtemp(prefix="convbench-")) / path.name
            write_atomically(fallback, text)
        except OSError:
            raise ResultError(f"{path} cannot be written: {problem.strerror}") from None
        return fallback
    return path


def write_atomically(path: Path, text: str) -> None:
    """Replace a file so that, whatever happens, it is the whole old one or the whole new one.

    Raises OSError if it cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def dumps(saved: Saved) -> str:
    """Return the file's text. Without any sample it has no `benchmarks`, and is not pyperf's."""
    document: dict[str, Any] = {"version": PYPERF_FORMAT, "metadata": saved.metadata}
    benchmarks = [
        {
            "metadata": {"name": name, "unit": "second"},
            "runs": [_pyperf_run(run) for run in runs],
        }
        for name, runs in saved.benchmarks.items()
        if runs
    ]
    if benchmarks:
        document["benchmarks"] = benchmarks
    document["convbench"] = as_data(saved.result)
    return json.dumps(document, separators=(",", ":"), allow_nan=False) + "\n"


def as_data(result: ResultFile) -> dict[str, Any]:
    """Return the key `convbench` as plain data, under the file's own names (`pass`, `schema`)."""
    data: dict[str, Any] = _adapter().dump_python(result, mode="json", by_alias=True)
    return data


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the key `convbench`."""
    schema = _adapter().json_schema(by_alias=True, mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


VOLATILE = ("date", "load_avg_1min", "mem_max_rss", "runnable_threads", "uptime")
"""Names of pyperf's metadata that hold for one moment only, and so belong to a run."""

PATHS = ("python_executable", "python_cflags", "python_config_args")
"""Names of pyperf's metadata that tell where things lie on a disk. They are not kept."""


def pyperf_metadata() -> dict[str, str | int | float]:
    """Return what pyperf records of this machine and this Python, common to every run."""
    import pyperf

    collected = pyperf.Run([1.0]).get_metadata()
    return {name: value for name, value in collected.items() if name not in (*VOLATILE, *PATHS)}


def load(path: Path) -> Saved:
    """Read a result file. Raises ResultError, which says what is wrong and where."""
    return parsed(path, read_json(path))


def parsed(path: Path, document: dict[str, Any]) -> Saved:
    """Return the result file that `document` was read from. Raises ResultError, as `load` does."""
    part = document.get("convbench")
    if not isinstance(part, dict):
        raise ResultError(
            f"{path}: there is no key 'convbench'",
            hint="convbench reads the files that `convbench run` saves, not every pyperf file",
        )
    _check_schema(path, part.get("schema"))
    from pydantic import ValidationError

    _with_kinds(part)
    if isinstance(environment := part.get("environment"), dict):
        environment.pop(SET_BY_US, None)  # earlier versions took it for the caller's
    try:
        result: ResultFile = _adapter().validate_python(part)
    except ValidationError as error:
        problems = [
            f"{path}: convbench.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()
        ]
        raise ResultError("\n".join(problems), hint="the file was edited, or is damaged") from None
    benchmarks = _benchmarks(path, document.get("benchmarks", []))
    _check_references(path, result, benchmarks)
    return Saved(result, benchmarks, document.get("metadata", {}))


_FIGURES = re.compile(r"\d+")


def _with_kinds(part: dict[str, Any]) -> None:
    """Fill in the kinds of explanations and remarks in a file that an earlier version saved.

    Such a file has sentences alone. Two sentences are of the same kind if only their figures
    differ. This is the one place where convbench looks into a sentence of its own.
    """
    cells = part.get("cells")
    for cell in cells if isinstance(cells, list) else ():
        agreement = cell.get("agreement") if isinstance(cell, dict) else None
        if not isinstance(agreement, dict):
            continue
        if "remark_kinds" not in agreement and isinstance(agreement.get("remarks"), list):
            agreement["remark_kinds"] = [
                RemarkKind.LIKE_A_TRANSFORM
                if "bound of direct sums" in str(remark)
                else RemarkKind.SHARED_WORKSPACE
                for remark in agreement["remarks"]
            ]
        explanation = agreement.get("explanation")
        if isinstance(explanation, dict) and "kinds" not in explanation:
            words = _FIGURES.sub("#", str(explanation.get("sentence")))
            causes = explanation.get("causes")
            explanation["kinds"] = [
                {"cause": cause, "variant": words}
                for cause in (causes if isinstance(causes, list) and causes else [""])
            ]


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object that a file holds. Raises ResultError for anything else."""
    try:
        document = json.loads(path.read_text())
    except OSError as error:
        raise ResultError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ResultError(f"{path}: this is not text, so it is no result file") from None
    except json.JSONDecodeError as error:
        raise ResultError(
            f"{path}:{error.lineno}:{error.colno}: this is not JSON: {error.msg}",
            hint="a result file that was cut short or edited by hand cannot be used",
        ) from None
    except ValueError as error:  # a number of thousands of digits
        raise ResultError(f"{path}: this is not JSON that can be read: {error}") from None
    except RecursionError:
        raise ResultError(f"{path}: the JSON is nested too deeply for a result file") from None
    if not isinstance(document, dict):
        raise ResultError(f"{path}: expected an object at the top, found {_kind(document)}")
    return document


def _check_schema(path: Path, schema: object) -> None:
    name, _, version = str(schema).rpartition("/")
    if name != SCHEMA.rpartition("/")[0] or not version.isdigit():
        raise ResultError(f"{path}: convbench.schema: found {schema!r}, expected {SCHEMA!r}")
    if int(version) > MAJOR:
        raise ResultError(
            f"{path}: written as {schema}, but this convbench reads up to {SCHEMA}",
            hint="update convbench: pip install --upgrade convbench",
        )


def _check_references(path: Path, result: ResultFile, benchmarks: Benchmarks) -> None:
    """Raise ResultError unless each cell's layer is in the suite and its benchmark in the file."""
    layers = {layer.name for layer in result.suite.layers}
    if result.training is not None:
        layers.add(result.suite.name)
    for index, cell in enumerate(result.cells):
        problem = ""
        if cell.layer not in layers:
            problem = f"layer: the suite has no layer {cell.layer!r}"
        elif cell.time is not None and cell.time.benchmark not in benchmarks:
            problem = f"time.benchmark: there is no benchmark {cell.time.benchmark!r}"
        if problem:
            raise ResultError(
                f"{path}: convbench.cells.{index}.{problem}",
                hint="the file was edited, or is damaged",
            )


def _benchmarks(path: Path, found: Any) -> Benchmarks:
    benchmarks: dict[str, tuple[RoundSamples, ...]] = {}
    try:
        for benchmark in found:
            name = benchmark["metadata"]["name"]
            runs = tuple(_round_samples(run) for run in benchmark["runs"])
            if not runs:
                raise ResultError(f"{path}: benchmark {name!r} has no rounds")
            for run in runs:
                if not run.values or not all(SHORTEST_S < v < LONGEST_S for v in run.values):
                    raise ResultError(
                        f"{path}: benchmark {name!r}, round {run.round}: samples must be positive "
                        f"seconds, found {list(run.values)}",
                        hint="the file was edited, or is damaged",
                    )
                if run.visits and (sum(run.visits) != len(run.values) or min(run.visits) < 1):
                    raise ValueError(f"visits of {run.visits} samples, {len(run.values)} values")
            benchmarks[name] = runs
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ResultError(
            f"{path}: benchmarks: these are not as convbench writes them "
            f"({type(error).__name__}: {error})",
            hint="pyperf drops what it does not know when it writes a file: keep the original",
        ) from None
    return benchmarks


_OWN_METADATA = ("round", "order", "loops", "visits", "probes_before", "probes_after")


def _pyperf_run(run: RoundSamples) -> dict[str, Any]:
    return {
        "metadata": {
            **run.metadata,
            "loops": run.loops,
            "round": run.round,
            "order": " ".join(map(str, run.order)),
            **_visits(run),
        },
        "warmups": [[loops, value] for loops, value in run.warmups],
        "values": list(run.values),
    }


def _visits(run: RoundSamples) -> dict[str, str]:
    """Return the number of samples and the probes (model.Probe, in µs) of each visit, as text."""
    if not run.visits:
        return {}
    found = {"visits": " ".join(map(str, run.visits))}
    if run.probes:
        before, after = zip(*run.probes, strict=True)
        found["probes_before"] = " ".join(map(_probe_words, before))
        found["probes_after"] = " ".join(map(_probe_words, after))
    return found


def _probe_words(probe: Probe) -> str:
    return "/".join(f"{1e6 * seconds:.1f}" for seconds in astuple(probe))


def _probe(words: str) -> Probe:
    return Probe(*(float(word) / 1e6 for word in words.split("/")))


def _round_samples(run: dict[str, Any]) -> RoundSamples:
    metadata = run["metadata"]
    visits = tuple(int(count) for count in metadata.get("visits", "").split())
    before, after = (
        [_probe(words) for words in metadata.get(name, "").split()]
        for name in ("probes_before", "probes_after")
    )
    return RoundSamples(
        round=int(metadata["round"]),
        order=tuple(int(place) for place in metadata["order"].split()),
        loops=int(metadata["loops"]),
        values=tuple(float(value) for value in run["values"]),
        warmups=tuple((int(loops), float(value)) for loops, value in run.get("warmups", [])),
        metadata={k: v for k, v in metadata.items() if k not in _OWN_METADATA},
        visits=visits,
        probes=tuple(zip(before, after, strict=True)),
    )


@cache
def _adapter() -> TypeAdapter[ResultFile]:
    from pydantic import TypeAdapter

    return TypeAdapter(ResultFile)


def _kind(value: object) -> str:
    names: dict[type, str] = {list: "a list", str: "a text"}
    return names.get(type(value), repr(value))
