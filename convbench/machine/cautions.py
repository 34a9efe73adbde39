"""Record the environment, find what in it holds a library back, and tell by what factor."""

from __future__ import annotations

import fnmatch
import functools
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from convbench.errors import ConvbenchError
from convbench.machine.affinity import keeps_threads, usable_cpus
from convbench.machine.description import (
    BlasLibrary,
    Caution,
    Load,
    Machine,
    installed_version,
    read_integer,
)
from convbench.machine.system import VARIABLE
from convbench.machine.tuning import ROOT

SgemmMeter = Callable[[Mapping[str, str], int], float]
"""Function that measures the FLOP/s of SGEMM in a fresh process, from its environment and number of
threads."""

RELEVANT = re.compile(
    r"(OMP|KMP|GOMP|OPENBLAS|GOTO|MKL|BLIS|NVPL|VECLIB|NUMBA|MALLOC|TCMALLOC|TBB)_.+"
    r"|PYTHONHASHSEED|PYTHONMALLOC|PYTHONDEVMODE|PYTHONOPTIMIZE"
    r"|GLIBC_TUNABLES|LD_PRELOAD|LD_LIBRARY_PATH|DYLD_INSERT_LIBRARIES"
    rf"|{VARIABLE}"
)
"""Variables of BLAS, threads, memory and Python that change figures. A runtime names its own."""

TERRAFORM = re.compile(
    r"TF_(CLI|VAR|TOKEN|HTTP|LOG|DATA_DIR|WORKSPACE|INPUT|IN_AUTOMATION|PLUGIN|REGISTRY|STATE)(_.*)?"
)
"""Variables of Terraform. They begin like TensorFlow's, and some hold credentials."""

SET_BY_US = "KMP_DUPLICATE_LIB_OK"
"""Variable that threadpoolctl sets in each process that imports it. It changes no figure, and says
nothing about the caller's environment."""

SECRET = re.compile(r"TOKEN|KEY|PASSWORD|PASSWD|SECRET|CREDENTIAL", re.IGNORECASE)
"""Parts of the names of variables that may hold a secret. Such variables are never recorded."""


def relevant_environment(environ: Mapping[str, str], of_runtimes: Iterable[str]) -> dict[str, str]:
    """Return the variables that change figures, sorted by name, without any that may be a secret.

    `of_runtimes` are shell patterns of the variables that runtimes read.
    """
    patterns = [RELEVANT, *(re.compile(fnmatch.translate(each)) for each in of_runtimes)]
    return {
        name: environ[name]
        for name in sorted(environ)
        if any(pattern.fullmatch(name) for pattern in patterns)
        and not TERRAFORM.fullmatch(name)
        and not SECRET.search(name)
        and name != SET_BY_US
    }


BLAS_PINS = {
    "OPENBLAS_CORETYPE": ("openblas", "pins OpenBLAS to {} kernels"),
    "MKL_DEBUG_CPU_TYPE": ("mkl", "makes MKL take this CPU for type {}"),
    "MKL_ENABLE_INSTRUCTIONS": ("mkl", "limits MKL to {} instructions"),
    "BLIS_ARCH_TYPE": ("blis", "pins BLIS to {} kernels"),
}
"""BLAS library that reads each variable, by threadpoolctl's name, and what the variable does."""

THREAD_CAPS = (
    *("OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS"),
    *("MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"),
)
"""Variables that cap the threads of a BLAS library."""

COSTS_NOTHING = 1.05
"""Smallest measured factor that counts. Two equal measurements may differ by less."""

BUSY_SHARE = 0.1
"""Share of the CPUs that other processes may keep busy without a warning."""

UNMEASURED = "its cost was not measured"


def cautions(
    machine: Machine,
    environ: Mapping[str, str],
    threads: int,
    measure_sgemm: SgemmMeter | None,
    *,
    load: Load | None = None,
    blas: tuple[BlasLibrary, ...] = (),
    of_runtimes: Iterable[Caution] = (),
    root: Path = ROOT,
) -> tuple[Caution, ...]:
    """Return what holds the libraries back, with the worst known factor first.

    `environ` is the workers' environment, and `threads` is the number that each arm is asked to
    use. `measure_sgemm` (`calibration.sgemm_rate_in`, or None to measure nothing) is called only
    if there is something to measure. `load` comes from `calibration.neighbour_load`, `blas` from
    the workers, and `of_runtimes` from the runtimes, each of which knows what holds it back.
    """
    measure = None if measure_sgemm is None else functools.partial(_rate, measure_sgemm)
    found = [
        *_pinned_kernels(environ, measure, blas),
        *of_runtimes,
        *_capped_threads(environ, threads, measure, blas),
        *_governor(machine, root),
        *_neighbours(load),
        *_quota(machine, environ, threads, measure),
        *_missing_threads(machine, blas, threads),
        *_missing_means(),
    ]
    return tuple(sorted(found, key=lambda caution: -(caution.factor or 0.0)))


_Meter = Callable[[Mapping[str, str], int], float | None]


def _rate(measure: SgemmMeter, environ: Mapping[str, str], threads: int) -> float | None:
    try:
        return measure(environ, threads)
    except ConvbenchError:
        return None  # The caution stands, and says that its cost was not measured.


_Setting = tuple[Mapping[str, str], int]


def _ratio_of_rates(measure: _Meter | None, above: _Setting, below: _Setting) -> float | None:
    """Return the SGEMM rate in the setting `above` over the rate in the setting `below`.

    Each setting is measured three times, in turn. The highest rate counts, since whatever disturbs
    a measurement slows it.
    """
    if measure is None:
        return None
    pairs = [(measure(*above), measure(*below)) for _ in range(3)]
    return _ratio(*(max(rate or 0.0 for rate in rates) for rates in zip(*pairs, strict=True)))


def _gain(
    measure: _Meter | None, environ: Mapping[str, str], names: list[str], threads: int
) -> float | None:
    """Return how many times faster SGEMM is without the variables `names`."""
    without = {name: value for name, value in environ.items() if name not in names}
    return _ratio_of_rates(measure, (without, threads), (environ, threads))


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above and below else None


def _weighed(what: str, hint: str, factor: float | None) -> Caution:
    """Return the caution. It says so if its factor is unknown or too small to matter."""
    if factor is None:
        return Caution(f"{what}; {UNMEASURED}", hint)
    if factor < COSTS_NOTHING:
        return Caution(f"{what}, which costs nothing measurable here", hint, factor)
    return Caution(what, hint, factor)


def unmeasured(what: str, hint: str) -> Caution:
    """Return a caution whose factor is not measured."""
    return _weighed(what, hint, None)


def unset(names: list[str]) -> str:
    """Return the advice to unset these variables."""
    nulls = ", ".join(f"{name}: null" for name in names)
    return f"unset {' and '.join(names)}, or set environment: {{{nulls}}} in the suite"


def _pinned_kernels(
    environ: Mapping[str, str], measure: _Meter | None, blas: tuple[BlasLibrary, ...]
) -> Iterator[Caution]:
    loaded = {library.library for library in blas}
    for name, (library, effect) in BLAS_PINS.items():
        value = environ.get(name)
        if not value:
            continue
        what = f"{name}={value} {effect.format(value)}"
        if loaded and library not in loaded:
            yield Caution(f"{what}; NumPy does not use that library here", unset([name]))
        else:
            # One thread tells enough, since each core runs its own kernels, and other processes
            # hardly disturb a single thread.
            yield _weighed(what, unset([name]), _gain(measure, environ, [name], threads=1))


def _capped_threads(
    environ: Mapping[str, str],
    threads: int,
    measure: _Meter | None,
    blas: tuple[BlasLibrary, ...],
) -> Iterator[Caution]:
    # OMP_NUM_THREADS may list a number for each level of nesting; the first is the outermost.
    first = {name: environ.get(name, "").split(",")[0].strip() for name in THREAD_CAPS}
    names = [n for n, value in first.items() if value.isdigit() and 0 < int(value) < threads]
    if not names:
        return
    # All of them are lifted together: if two are set, lifting one alone would show nothing.
    settings = " and ".join(f"{name}={environ[name]}" for name in names)
    what = f"{settings} may keep BLAS to fewer than the {threads} threads asked for"
    if blas and all(library.threads >= threads for library in blas):
        # This is surer than a rate: beside a busy neighbour, the rates of several threads differ
        # by a factor of two.
        yield Caution(
            f"{what}; here it runs {threads}, because workers set the number", unset(names)
        )
    else:
        yield _weighed(what, unset(names), _gain(measure, environ, names, threads))


def _governor(machine: Machine, root: Path) -> Iterator[Caution]:
    if machine.governor in ("powersave", "conservative"):
        what = f"the CPU frequency governor is {machine.governor}"
        hint = (
            "run `sudo cpupower frequency-set -g performance`; with intel_pstate in active mode, "
            "powersave is the normal setting and still speeds up under load"
        )
        yield _weighed(what, hint, _frequency_headroom(root))


def _frequency_headroom(root: Path) -> float | None:
    """Return the highest possible frequency over that of the fastest CPU now, under load.

    Return None if the frequencies cannot be read.
    """
    end = time.perf_counter() + 0.05
    while time.perf_counter() < end:
        pass  # The governor raises the frequency under load, so this loop makes some.
    folders = [root / f"sys/devices/system/cpu/cpu{cpu}/cpufreq" for cpu in usable_cpus()]
    highest = max((read_integer(folder / "cpuinfo_max_freq") or 0 for folder in folders), default=0)
    current = max((read_integer(folder / "scaling_cur_freq") or 0 for folder in folders), default=0)
    return highest / current if highest and current else None


def _neighbours(load: Load | None) -> Iterator[Caution]:
    if load is not None and load.share > BUSY_SHARE:
        what = f"other processes keep {load.share:.0%} of the CPUs busy"
        if load.busiest:
            what += f": {', '.join(load.busiest)}"
        # On a machine that is wholly taken the factor would be infinite, which JSON cannot hold.
        factor = 1 / max(1 - load.share, 0.01)
        hint = "stop them, or wait until they are done"
        yield Caution(what, hint, factor, "other-processes")


def _quota(
    machine: Machine, environ: Mapping[str, str], threads: int, measure: _Meter | None
) -> Iterator[Caution]:
    quota = machine.cpu_quota
    if quota is None or quota >= threads:
        return
    whole = max(int(quota), 1)
    factor = threads / quota
    if quota >= 1:
        # A product is shorter than the quota's period (0.1 s), so the best one ran unhindered.
        scaling = _ratio_of_rates(measure, (environ, threads), (environ, whole))
        # If more threads have a lower rate than fewer, a neighbour was measured and not the quota.
        if scaling is not None and scaling >= 1:
            factor = scaling * whole / quota
    what = f"the container's CPU quota is {quota:g} CPUs, below the {threads} threads asked for"
    hint = f"raise the quota (docker run --cpus={threads}), or ask for {whole} threads"
    yield _weighed(what, hint, factor)


def _missing_threads(
    machine: Machine, blas: tuple[BlasLibrary, ...], threads: int
) -> Iterator[Caution]:
    rates = {} if machine.calibration is None else machine.calibration.sgemm
    for library in blas:
        if library.threads < threads:
            what = (
                f"the {library.library} of {library.used_by} runs only {library.threads} "
                f"of the {threads} threads asked for"
            )
            factor = _ratio(rates.get(threads), rates.get(library.threads))
            hint = "look for a variable that limits its threads, or check how it was built"
            yield _weighed(what, hint, factor)


def _missing_means() -> Iterator[Caution]:
    """Yield what this system or what is installed cannot do, and what that means for figures."""
    if not keeps_threads():
        yield Caution(
            "threads cannot be kept to CPUs on this system: several threads of a call may share a "
            "CPU, and the probes look at one CPU only",
            "this cannot be changed here; on Linux, threads can be kept to CPUs",
        )
    if installed_version("memray") is None:
        yield Caution(
            "memray is not installed: memory that Python's own allocators do not see, such as "
            "TensorFlow's, is estimated from resident pages, which is not exact",
            "pip install memray on Linux or macOS; there is no version for Windows",
        )
