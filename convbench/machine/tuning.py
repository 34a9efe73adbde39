"""Tell implementations what to choose by: cache sizes, short trials, and times of earlier trials.

The times of a trial are kept on disk, by machine and convolution, so each trial is made once. The
cache is a convenience: whatever is wrong with its file, nothing raises, and a trial is made anew.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

from convbench.machine import cache_file
from convbench.problem.layer import Layer, Pass

ROOT = Path("/")
"""Folder in which /proc and /sys are. Tests use a tree of their own."""

TYPICAL_L1D_BYTES = 32 * 1024
TYPICAL_L2_BYTES = 1024 * 1024
"""Sizes that are assumed where the system does not tell."""

_CACHE_FILES = ("level", "type", "size")
_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}


@dataclass(frozen=True)
class CacheSizes:
    """Sizes in bytes of the data caches that one core has to itself."""

    l1d: int = TYPICAL_L1D_BYTES
    l2: int = TYPICAL_L2_BYTES


def read_caches(root: Path = ROOT) -> dict[str, int]:
    """Return the bytes of the caches that CPU 0 sees, by name (`L1d`, `L1i`, `L2`, `L3`).

    Return an empty dictionary where they are unknown.
    """
    caches = {}
    for index in sorted((root / "sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = ((index / name).read_text().strip() for name in _CACHE_FILES)
        except OSError:
            continue
        match = re.fullmatch(r"(\d+)([KMG]?)", size)
        if match and int(match[1]):
            name = f"L{level}" + {"Data": "d", "Instruction": "i"}.get(kind, "")
            caches[name] = int(match[1]) * _UNITS[match[2]]
    return caches


@functools.cache
def cache_bytes(root: Path = ROOT) -> CacheSizes:
    """Return the sizes of one core's L1d and L2, or typical ones where the system does not tell."""
    caches = read_caches(root)
    return CacheSizes(
        l1d=caches.get("L1d", TYPICAL_L1D_BYTES), l2=caches.get("L2", TYPICAL_L2_BYTES)
    )


def read_text(path: Path) -> str | None:
    """Return the text of a file without white space at its ends, or None if it cannot be read."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


def read_cpu(root: Path = ROOT) -> tuple[str, frozenset[str]]:
    """Return the model and the flags of the first CPU in /proc/cpuinfo."""
    import platform

    first = (read_text(root / "proc/cpuinfo") or "").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    values = {key.strip(): value.strip() for key, _, value in pairs}
    model = values.get("model name") or platform.processor() or platform.machine()
    return model, frozenset((values.get("flags") or values.get("Features") or "").split())


# Trials

HOPELESS = 3.0
"""Largest ratio of a candidate's first call to the fastest one's. A candidate that is slower is not
called again."""

SHORT_CALL_S = 0.01
"""Seconds below which a first call is mostly start-up. Such a candidate is called again at once."""

SAMPLE_S = 1e-3
"""Length of a sample in seconds. It is made of as many calls as fill this time."""

SAMPLES = 5
"""Number of samples of each candidate, unless time runs out."""

AT_LEAST = 2
"""Fewest samples of each candidate beside its first call, which meets fresh pages. If some
candidate's call takes all of the trial's time, there may be none."""


SETTLE_S = 0.3
"""Longest wait in seconds, before a sample, for the threads of whatever ran last."""

GLANCE_S = 0.002
"""Seconds for which the threads of this process are watched, to see whether one computes."""


def is_quiet() -> bool:
    """Return whether no thread of this process computes. It takes GLANCE_S."""
    before = time.process_time()
    time.sleep(GLANCE_S)
    return time.process_time() - before < GLANCE_S / 4


def settle() -> bool:
    """Wait until no thread of this process computes. Return False if some thread never stopped.

    BLAS's threads spin for up to 0.1 s after a product in case another comes, and take the CPU from
    the threads of whatever is sampled next: a 1x1 layer took 2.0 instead of 1.1 ms (measured).
    """
    deadline = time.perf_counter() + SETTLE_S
    while time.perf_counter() < deadline:
        if is_quiet():
            return True
    return False


RESUMED_S = 0.02
"""Shortest call in seconds that is not resumed before a sample."""

RESUME_S = 0.005
"""Seconds for which a candidate with short calls is called before a sample, untimed and at least
once. Since its last turn other candidates have taken the caches, and threads slept. On a virtual
machine, threads need some calls until they run side by side again: calls took 6.6, 4.1, 3.5 and
then 3.0 ms (measured)."""


def resume_s(call_s: float) -> float:
    """Return for how many seconds to call a candidate before a sample, if a call takes `call_s`."""
    return RESUME_S if call_s < RESUMED_S else 0.0


def resume(run: Callable[[], object], call_s: float) -> None:
    """Call `run` for `resume_s(call_s)` seconds, untimed."""
    for _ in range(math.ceil(resume_s(call_s) / max(call_s, 1e-7))):
        run()


class _Settling:
    """The waiting for other threads before a trial's calls, and the seconds that it took.

    It ends for good once some thread did not stop, since then the process has threads that always
    compute.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._is_worthwhile = True
        self.waited = 0.0

    def __call__(self) -> None:
        if self._is_worthwhile:
            start = self._clock()
            self._is_worthwhile = settle()
            self.waited += self._clock() - start


def fastest(
    candidates: Mapping[str, Callable[[], object]],
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Return the least seconds a call of each candidate; the fastest candidate comes first.

    Candidates take turns, in their order. Each is called once, and then gives AT_LEAST samples
    unless it is hopeless or some call takes `seconds`. Further samples are taken if they fit into
    `seconds`; the time that is spent waiting for other threads does not count.
    """
    settling = _Settling(clock)
    deadline = clock() + seconds
    times: dict[str, float] = {}
    for name, run in candidates.items():
        settling()
        times[name] = _seconds_a_call(run, 1, clock)
        if times[name] < SHORT_CALL_S:
            times[name] = _seconds_a_call(run, 1, clock)
    limit = HOPELESS * min(times.values())
    racing = {name: run for name, run in candidates.items() if times[name] <= limit}
    if len(racing) > 1:
        loops = {name: max(1, math.ceil(SAMPLE_S / max(times[name], 1e-7))) for name in racing}
        at_least = AT_LEAST if max(times[name] for name in racing) < seconds else 0
        for turn, (name, run) in itertools.product(range(SAMPLES), racing.items()):
            end = deadline + settling.waited
            sample_s = resume_s(times[name]) + loops[name] * times[name]
            if turn >= at_least and clock() + sample_s > end:
                break
            settling()
            resume(run, times[name])
            times[name] = min(times[name], _seconds_a_call(run, loops[name], clock))
    return dict(sorted(times.items(), key=lambda entry: entry[1]))


def _seconds_a_call(run: Callable[[], object], loops: int, clock: Callable[[], float]) -> float:
    calls = repeat(None, loops)
    start = clock()
    for _ in calls:
        run()
    return (clock() - start) / loops


@dataclass
class _Switch:
    on: bool = True


_TRIALS = _Switch()


def allow_trials(allowed: bool) -> None:
    """Set whether implementations of this process may choose by trials, new or kept."""
    _TRIALS.on = allowed


def trials_allowed() -> bool:
    """Return whether implementations of this process may choose by trials."""
    return _TRIALS.on


# The times of trials, kept on disk

CACHE_VARIABLE = "CONVBENCH_TUNING_CACHE"
"""Variable that replaces the default path. If it is empty, nothing is kept on disk."""

CACHE_SCHEMA = "convbench-tuning/1"
"""Name and version of the file's format."""

MAX_MACHINES = 8
MAX_TRIALS = 4000
"""Most machines that the file keeps, and most trials of each. The latest ones are kept."""

Trials = dict[str, dict[str, dict[str, float]]]
"""Seconds a call, by machine (`fingerprint`), convolution (`convolution`) and candidate."""


def convolution(layer: Layer, pass_: Pass, threads: int) -> str:
    """Return a line that is the same for all layers that are the same convolution.

    Their names and counts, and the way in which their padding is written, may differ.
    """
    plain = replace(layer, name="", count=1, padding=layer.pads)
    return f"{plain.geometry()}, {pass_}, threads {threads}"


@functools.cache
def fingerprint(root: Path = ROOT) -> str:
    """Return a line that differs where trials may come out differently.

    It names the CPU, its caches, the loaded BLAS libraries, NumPy and convbench's algorithms.
    Import NumPy first, so that its BLAS is loaded.
    """
    from importlib import metadata

    from threadpoolctl import threadpool_info  # type: ignore[import-untyped, unused-ignore]

    model, flags = read_cpu(root)
    caches = cache_bytes(root)
    blas = {
        f"{pool['internal_api']} {pool.get('version')} {pool.get('architecture')}"
        for pool in threadpool_info()
        if pool["user_api"] == "blas"
    }
    parts = (
        f"{model} ({zlib.crc32(' '.join(sorted(flags)).encode()):08x})",
        f"L1d {caches.l1d}, L2 {caches.l2}",
        *sorted(blas),
        f"numpy {metadata.version('numpy')}",
        f"convbench {_algorithms():08x}",
    )
    return "; ".join(parts)


def _algorithms(folder: Path = Path(__file__).parents[1] / "implementations") -> int:
    """Return a checksum of the source of the implementations and of this module.

    A version number would not do, since it stays the same while somebody works on the source.
    """
    return checksum((Path(__file__), *sorted(folder.rglob("*.py"))))


def checksum(files: Iterable[Path]) -> int:
    """Return a checksum of the contents of the files, in their order, made of their CRC-32s."""
    return functools.reduce(lambda sum_, path: zlib.crc32(path.read_bytes(), sum_), files, 0)


def cache_path() -> Path | None:
    """Return the path of the file that keeps trials, or None where nothing is to be kept."""
    return cache_file.path_of("tuning.json", CACHE_VARIABLE)


def recall(machine: str, key: str) -> dict[str, float] | None:
    """Return the seconds a call by candidate, the fastest first, that a kept trial gave.

    Return None if no trial of the convolution `key` on that machine is kept.
    """
    path = cache_path()
    document = None if path is None else cache_file.read(path, CACHE_SCHEMA)
    found = _trials(document or {}).get(machine, {}).get(key)
    return None if not found else dict(sorted(found.items(), key=lambda entry: entry[1]))


def remember(machine: str, key: str, times: dict[str, float]) -> dict[str, float]:
    """Keep the times of a trial, and return the times that are kept.

    If another process has kept times of the same candidates meanwhile, those are returned, so that
    all processes of a run choose alike. A file that another program wrote is left as it is.
    """
    kept = times

    def with_trial(document: dict[str, Any]) -> dict[str, Any]:
        nonlocal kept
        trials = _trials(document)
        of_machine = trials.pop(machine, {})
        before = of_machine.pop(key, {})
        kept = before if before.keys() == times.keys() else times
        of_machine[key] = kept
        trials[machine] = dict(list(of_machine.items())[-MAX_TRIALS:])
        return {"trials": dict(list(trials.items())[-MAX_MACHINES:])}

    if not cache_file.update(cache_path(), CACHE_SCHEMA, with_trial):
        return times
    return dict(sorted(kept.items(), key=lambda entry: entry[1]))


def _trials(document: dict[str, Any]) -> Trials:
    """Return the trials in a document, without damaged ones."""
    return {
        machine: {key: times for key, times in of_machine.items() if _are_times(times)}
        for machine, of_machine in cache_file.entries(document.get("trials"))
        if isinstance(of_machine, dict)
    }


def _are_times(found: Any) -> bool:
    return bool(cache_file.entries(found)) and all(
        isinstance(value, int | float) and 0 < value < math.inf for value in found.values()
    )
