"""Name what sets two result files apart besides their figures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from convbench.compare.document import CellName, Difference, Session
from convbench.machine.description import BlasLibrary
from convbench.problem.layer import Layer
from convbench.results.model import ResultFile

if TYPE_CHECKING:
    from convbench.results.file import Saved


def incomparable(old: ResultFile, new: ResultFile) -> tuple[str, ...]:
    """Say why a comparison of two files tells nothing about the code; empty where it does.

    The names of host and kernel do not matter.
    """
    return _changed(*_what_decides(old, new))


def not_alike(old: ResultFile, new: ResultFile) -> tuple[str, ...]:
    """Return the names of what `incomparable` says, such as `BLAS`."""
    return tuple(name for name, then, now in _what_decides(old, new) if then != now)


def _what_decides(old: ResultFile, new: ResultFile) -> tuple[_Triple, ...]:
    """List what must be equal for figures to tell about the code: its name, then and now."""
    then, now = old.machine, new.machine
    return (
        ("CPU", then.cpu, now.cpu),
        # Virtual machines often give no model. Instruction sets tell CPUs apart as well, and
        # libraries choose their kernels by them.
        ("ISA", " ".join(then.isa), " ".join(now.isa)),
        ("caches", _words(then.caches), _words(now.caches)),
        ("logical CPUs", then.logical_cpus, now.logical_cpus),
        ("CPU quota", then.cpu_quota or "none", now.cpu_quota or "none"),
        ("BLAS", _blas(old, new), _blas(new, old)),
        ("threads", old.threads, new.threads),
        ("state", old.state, new.state),
    )


def _words(caches: dict[str, int]) -> str:
    return " ".join(f"{name}={size}" for name, size in caches.items())


def changes_of_environment(old: ResultFile, new: ResultFile) -> tuple[str, ...]:
    """Say which versions, variables and options differ. They are worth knowing, but no obstacle."""
    then, now = old.software, new.software
    return _changed(
        ("convbench", then.convbench, now.convbench),
        ("Python", then.python, now.python),
        *_entries(then.versions, now.versions, "absent"),
        *_entries(old.environment, new.environment, "unset"),
        ("effort", old.effort, new.effort),
        ("seed", old.seed, new.seed),
        ("trials", _trials(old), _trials(new)),
    )


def _trials(result: ResultFile) -> str:
    return "allowed" if result.tune else "none"


def other_geometry(old: ResultFile, new: ResultFile) -> dict[str, tuple[str, str]]:
    """Find layers that have one name but are different convolutions.

    Returns the old and the new geometry of each in words, by name.
    """
    then = {layer.name: layer for layer in old.suite.layers}
    return {
        now.name: (then[now.name].geometry(), now.geometry())
        for now in new.suite.layers
        if now.name in then and _convolution(then[now.name]) != _convolution(now)
    }


def _convolution(layer: Layer) -> Layer:
    """Return the layer without what does not change the convolution.

    These are its name, its count, and the way in which its padding is written.
    """
    return replace(layer, name="", count=1, padding=layer.pads)


_Triple = tuple[str, object, object]


def _changed(*triples: _Triple) -> tuple[str, ...]:
    return tuple(f"{name}: {then} then, {now} now" for name, then, now in triples if then != now)


def _entries(
    then: dict[str, str], now: dict[str, str], nothing: str
) -> Iterator[tuple[str, str, str]]:
    for name in dict.fromkeys([*then, *now]):
        yield name, then.get(name, nothing), now.get(name, nothing)


def _blas(result: ResultFile, other: ResultFile) -> str:
    """Describe the BLAS libraries of a result, for the runtimes of which `other` has some as well.

    One more runtime that was looked at in only one file tells nothing about the machine.
    """
    libraries = result.software.blas
    shared = {blas.used_by for blas in libraries} & {blas.used_by for blas in other.software.blas}
    found = [blas for blas in libraries if blas.used_by in shared or not shared]
    return "; ".join(dict.fromkeys(map(_blas_words, found))) or "none known"


def _blas_words(blas: BlasLibrary) -> str:
    known = (blas.library, blas.version, blas.kernels, f"{blas.threads} threads")
    return " ".join(part for part in known if part)


def difference(old: ResultFile, new: ResultFile) -> Difference:
    """Find what sets a new file apart from an old one besides its figures."""
    geometry = other_geometry(old, new)
    then, now = (
        [
            CellName(c.layer, c.pass_, c.implementation)
            for c in result.cells
            if c.layer not in geometry
        ]
        for result in (old, new)
    )
    return Difference(
        incomparable(old, new),
        changes_of_environment(old, new),
        geometry,
        only_in_old=tuple(name for name in then if name not in set(now)),
        only_in_new=tuple(name for name in now if name not in set(then)),
        not_alike=not_alike(old, new),
    )


def session(path: str, saved: Saved) -> Session:
    """Describe the session that a file's figures come from."""
    result = saved.result
    dates = (run.metadata.get("date") for runs in saved.benchmarks.values() for run in runs)
    return Session(
        path=path,
        suite=result.suite.name,
        date=min((str(date) for date in dates if date), default=None),
        cpu=result.machine.cpu,
        threads=result.threads,
        effort=result.effort,
        rounds=result.rounds,
    )
