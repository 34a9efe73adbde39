"""Record the environment, and find what in it holds a library back, by what factor."""

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
"""FLOP/s of SGEMM in a fresh process with that environment and number of threads."""

RELEVANT = re.compile(
    r"(OMP|KMP|GOMP|OPENBLAS|GOTO|MKL|BLIS|NVPL|VECLIB|NUMBA|MALLOC|TCMALLOC|TBB)_.+"
    r"|PYTHONHASHSEED|PYTHONMALLOC|PYTHONDEVMODE|PYTHONOPTIMIZE"
    r"|GLIBC_TUNABLES|LD_PRELOAD|LD_LIBRARY_PATH|DYLD_INSERT_LIBRARIES"
    rf"|{VARIABLE}"
)
"""Variables of BLAS, of threads, of memory and of Python. Each runtime knows its own."""

TERRAFORM = re.compile(
    r"TF_(CLI|VAR|TOKEN|HTTP|LOG|DATA_DIR|WORKSPACE|INPUT|IN_AUTOMATION|PLUGIN|REGISTRY|STATE)(_.*)?"
)
"""Terraform's variables begin like TensorFlow's, and some hold credentials."""
SET_BY_US = "KMP_DUPLICATE_LIB_OK"
"""Variable that threadpoolctl sets in each process that imports it. It changes no figure, and says
nothing of the caller's environment."""

SECRET = re.compile(r"TOKEN|KEY|PASSWORD|PASSWD|SECRET|CREDENTIAL", re.IGNORECASE)


def relevant_environment(environ: Mapping[str, str], of_runtimes: Iterable[str]) -> dict[str, str]:
    """Return the variables that change what is measured, sorted, but none that may be a secret.

    `of_runtimes` are patterns, as shells have them, of the variables that runtimes read.
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
"""The library that reads the variable, as threadpoolctl calls it, and what it does then."""

OTHER_PINS = {
    "NPY_DISABLE_CPU_FEATURES": "takes {} from NumPy's element-wise loops; BLAS is not affected",
    "ONEDNN_MAX_CPU_ISA": "limits oneDNN to {}; it concerns TensorFlow only",
    "DNNL_MAX_CPU_ISA": "limits oneDNN to {}; it concerns TensorFlow only",
}
THREAD_CAPS = (
    *("OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS"),
    *("MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"),
)

COSTS_NOTHING = 1.05
"""A measured factor below this is within what two equal measurements differ by."""
BUSY_SHARE = 0.1
UNMEASURED = "what it costs is not measured"


def cautions(
    machine: Machine,
    environ: Mapping[str, str],
    threads: int,
    measure_sgemm: SgemmMeter | None,
    *,
    load: Load | None = None,
    blas: tuple[BlasLibrary, ...] = (),
    root: Path = ROOT,
) -> tuple[Caution, ...]:
    """What holds the libraries back, worst known factor first.

    `environ` is the workers' environment, `threads` what each arm is asked to use. `measure_sgemm`
    (`calibration.sgemm_rate_in`; None: do not measure) is called only where there is something to
    measure. `load` comes from `calibration.neighbour_load`, `blas` from the workers.
    """
    measure = None if measure_sgemm is None else functools.partial(_rate, measure_sgemm)
    found = [
        *_pinned_kernels(environ, measure, blas),
        *_pinned_tensorflow(environ),
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
        return None  # The caution stands without its factor, and says that it was not measured.


_Setting = tuple[Mapping[str, str], int]


def _ratio_of_rates(measure: _Meter | None, above: _Setting, below: _Setting) -> float | None:
    """The SGEMM rate in one (environment, threads) over that in another.

    Of three rates each, taken in turn, the highest: whatever disturbs a measurement slows it.
    """
    if measure is None:
        return None
    pairs = [(measure(*above), measure(*below)) for _ in range(3)]
    return _ratio(*(max(rate or 0.0 for rate in rates) for rates in zip(*pairs, strict=True)))


def _gain(
    measure: _Meter | None, environ: Mapping[str, str], names: list[str], threads: int
) -> float | None:
    """How many times faster SGEMM is without the variables `names`."""
    without = {name: value for name, value in environ.items() if name not in names}
    return _ratio_of_rates(measure, (without, threads), (environ, threads))


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above and below else None


def _weighed(what: str, hint: str, factor: float | None) -> Caution:
    """The caution, which says so where its factor is unknown or too small to matter."""
    if factor is None:
        return Caution(f"{what}; {UNMEASURED}", hint)
    if factor < COSTS_NOTHING:
        return Caution(f"{what}, which costs nothing measurable here", hint, factor)
    return Caution(what, hint, factor)


def _unset(names: list[str]) -> str:
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
            yield Caution(f"{what}; NumPy does not use that library here", _unset([name]))
        else:
            # Kernels are each core's own matter, and one thread is hardly disturbed by others.
            yield _weighed(what, _unset([name]), _gain(measure, environ, [name], threads=1))


def _pinned_tensorflow(environ: Mapping[str, str]) -> Iterator[Caution]:
    for name, effect in OTHER_PINS.items():
        value = environ.get(name, "")
        if value and value.upper() not in ("ALL", "DEFAULT"):
            yield _weighed(f"{name}={value} {effect.format(value)}", _unset([name]), None)
    if environ.get("TF_ENABLE_ONEDNN_OPTS", "").lower() in ("0", "false"):
        what = "TF_ENABLE_ONEDNN_OPTS=0 turns oneDNN's kernels off; it concerns TensorFlow only"
        yield _weighed(what, _unset(["TF_ENABLE_ONEDNN_OPTS"]), None)
    flags = environ.get("XLA_FLAGS", "")
    if re.search(r"xla_cpu_multi_thread_eigen=(false|0)|intra_op_parallelism_threads=1\b", flags):
        what = f"XLA_FLAGS={flags} keeps XLA to one thread; it concerns TensorFlow only"
        yield _weighed(what, "take that flag out of XLA_FLAGS", None)


def _capped_threads(
    environ: Mapping[str, str],
    threads: int,
    measure: _Meter | None,
    blas: tuple[BlasLibrary, ...],
) -> Iterator[Caution]:
    # OMP_NUM_THREADS may be a list by level of nesting; the first is the outermost.
    first = {name: environ.get(name, "").split(",")[0].strip() for name in THREAD_CAPS}
    names = [n for n, value in first.items() if value.isdigit() and 0 < int(value) < threads]
    if not names:
        return
    # Together: with two of them set, removing one alone would show nothing.
    settings = " and ".join(f"{name}={environ[name]}" for name in names)
    what = f"{settings}: below the {threads} threads asked for"
    if blas and all(library.threads >= threads for library in blas):
        # Surer than a rate: several threads beside a busy neighbour differ by a factor of two.
        yield Caution(
            f"{what}; BLAS runs {threads} all the same, as its workers set it", _unset(names)
        )
    else:
        yield _weighed(what, _unset(names), _gain(measure, environ, names, threads))


def _governor(machine: Machine, root: Path) -> Iterator[Caution]:
    if machine.governor in ("powersave", "conservative"):
        what = f"the CPU frequency governor is {machine.governor}"
        hint = (
            "sudo cpupower frequency-set -g performance; with intel_pstate in active mode "
            "powersave is the normal setting and still speeds up under load"
        )
        yield _weighed(what, hint, _frequency_headroom(root))


def _frequency_headroom(root: Path) -> float | None:
    """The highest frequency over that of the fastest CPU now, under load; None if not readable."""
    end = time.perf_counter() + 0.05
    while time.perf_counter() < end:
        pass  # The governor decides by load: give it some, on whichever CPU we are.
    folders = [root / f"sys/devices/system/cpu/cpu{cpu}/cpufreq" for cpu in usable_cpus()]
    highest = max((read_integer(folder / "cpuinfo_max_freq") or 0 for folder in folders), default=0)
    current = max((read_integer(folder / "scaling_cur_freq") or 0 for folder in folders), default=0)
    return highest / current if highest and current else None


def _neighbours(load: Load | None) -> Iterator[Caution]:
    if load is not None and load.share > BUSY_SHARE:
        what = f"other processes keep {load.share:.0%} of the CPUs busy"
        if load.busiest:
            what += f": {', '.join(load.busiest)}"
        # A machine wholly taken would give an infinite factor, which no JSON holds.
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
        # A product is shorter than the quota's period (0.1 s), so that the best one ran unhindered.
        scaling = _ratio_of_rates(measure, (environ, threads), (environ, whole))
        # More threads at a lower rate than fewer: a neighbour was measured, not the quota.
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
                f"{library.library} as {library.used_by} uses it runs {library.threads} "
                f"of the {threads} threads asked for"
            )
            factor = _ratio(rates.get(threads), rates.get(library.threads))
            hint = "look for a limit on its threads in the environment, or how it was built"
            yield _weighed(what, hint, factor)


def _missing_means() -> Iterator[Caution]:
    """What cannot be done on this system, or with what is installed, and what that means."""
    if not keeps_threads():
        yield Caution(
            "threads cannot be kept to CPUs on this system: threads of one call may take turns on "
            "a CPU, and the probes see one CPU only",
            "nothing to do here; on Linux threads can be kept to CPUs",
        )
    if installed_version("memray") is None:
        yield Caution(
            "memray is not installed: memory that Python's own allocators do not see, as "
            "TensorFlow's, is told by resident pages, which is not exact",
            "pip install memray, on Linux or macOS; there is none for Windows",
        )
