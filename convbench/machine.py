"""The machine: its fingerprint, its measured peaks, and what in the environment holds it back."""

from __future__ import annotations

import functools
import os
import platform
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import convbench
from convbench.errors import ConvbenchError
from convbench.tuning import ROOT, read_caches


@dataclass(frozen=True)
class Calibration:
    """Peaks measured on this machine. `sgemm` and `dgemm` are FLOP/s by number of threads."""

    sgemm: dict[int, float]
    dgemm: dict[int, float]
    copy_bytes_per_s: float
    small_call_s: float
    fresh_page_s: float


@dataclass(frozen=True)
class Machine:
    """What this machine is. `caches` are bytes by level (`L1d`, `L2`, `L3`), of one core's view.

    `cpu_quota` is how many CPUs' time a container may use (cgroup), None without a limit.
    """

    hostname: str
    cpu: str
    cores: int
    logical_cpus: int
    isa: tuple[str, ...]
    governor: str | None
    caches: dict[str, int]
    memory_bytes: int
    cpu_quota: float | None
    platform: str
    calibration: Calibration | None = None


@dataclass(frozen=True)
class BlasLibrary:
    """One BLAS library that a worker loaded; `kernels` is the architecture that it chose."""

    library: str
    version: str | None
    kernels: str | None
    threads: int
    used_by: str


@dataclass(frozen=True)
class Software:
    """Versions of what was measured, by package name, and the BLAS libraries in use."""

    convbench: str
    python: str
    versions: dict[str, str] = field(default_factory=dict)
    blas: tuple[BlasLibrary, ...] = ()


@dataclass(frozen=True)
class Caution:
    """A setting that makes figures less than they could be: what, by how much, how to lift it.

    `factor` is measured (how many times faster it would be without), None where it cannot be.
    """

    what: str
    hint: str
    factor: float | None = None


@dataclass(frozen=True)
class Load:
    """The share (0 to 1) of the usable CPUs that others keep busy, and their busiest processes."""

    share: float
    busiest: tuple[str, ...] = ()


SgemmMeter = Callable[[Mapping[str, str], int], float]
"""FLOP/s of SGEMM in a fresh process with that environment and number of threads."""

SGEMM_FLAGS = (
    *("sse4_2", "avx", "avx2", "fma", "avx_vnni", "avx512f", "avx512bw", "avx512vl"),
    *("avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8"),
    *("asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2", "sme"),
)
"""CPU flags, as Linux spells them, by which a BLAS chooses its kernels."""

PACKAGES = {
    "numpy": ("numpy",),
    "tensorflow": ("tensorflow", "tensorflow-cpu", "tf-nightly", "tf-nightly-cpu"),
    "keras": ("keras", "keras-nightly"),
    **{name: (name,) for name in ("scipy", "pyperf", "memray", "memory-profiler", "threadpoolctl")},
}
"""Whose versions are recorded, and the names under which they are published."""


def fingerprint(root: Path = ROOT) -> Machine:
    """What this machine is, of what this process may use; no NumPy, a few milliseconds."""
    import psutil

    cpu, flags = _cpu(root)
    cpus = usable_cpus()
    return Machine(
        hostname=platform.node(),
        cpu=cpu,
        cores=_cores(cpus, root),
        logical_cpus=len(cpus),
        isa=tuple(flag for flag in SGEMM_FLAGS if flag in flags),
        governor=_read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        caches=read_caches(root),
        memory_bytes=psutil.virtual_memory().total,
        cpu_quota=_cpu_quota(root),
        platform=platform.platform(),
    )


def usable_cpus() -> tuple[int, ...]:
    """The logical CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def available_memory(root: Path = ROOT) -> int:
    """Bytes that can still be allocated without swapping, within the limits of our cgroups."""
    import psutil

    room = [psutil.virtual_memory().available]
    for folder in _cgroups("memory", root):
        limit = _integer(folder / "memory.max") or _integer(folder / "memory.limit_in_bytes")
        if limit is not None:
            room.append(max(limit - _memory_in_use(folder), 0))
    return min(room)


def blas_libraries(used_by: str) -> tuple[BlasLibrary, ...]:
    """The BLAS libraries that this process has loaded by now, as `used_by` uses them."""
    from threadpoolctl import threadpool_info  # type: ignore[import-untyped, unused-ignore]

    return tuple(
        BlasLibrary(
            library=str(pool["internal_api"]),
            version=pool.get("version"),
            kernels=pool.get("architecture"),
            threads=int(pool["num_threads"]),
            used_by=used_by,
        )
        for pool in threadpool_info()
        if pool["user_api"] == "blas"
    )


def software(blas: tuple[BlasLibrary, ...] = ()) -> Software:
    """Versions of what takes part in a measurement and is installed; imports none of it."""
    from importlib import metadata

    versions = {}
    for name, distributions in PACKAGES.items():
        for distribution in distributions:
            try:
                versions[name] = metadata.version(distribution)
            except metadata.PackageNotFoundError:
                continue
            break
    return Software(convbench.__version__, platform.python_version(), versions, blas)


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


def _integer(path: Path) -> int | None:
    text = _read(path) or ""
    return int(text) if re.fullmatch(r"-?\d+", text) else None


def _cpu(root: Path) -> tuple[str, frozenset[str]]:
    """Model and flags of the first CPU in /proc/cpuinfo."""
    first = (_read(root / "proc/cpuinfo") or "").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    values = {key.strip(): value.strip() for key, _, value in pairs}
    model = values.get("model name") or platform.processor() or platform.machine()
    return model, frozenset((values.get("flags") or values.get("Features") or "").split())


def _cores(cpus: tuple[int, ...], root: Path) -> int:
    """Physical cores among `cpus`: those with the same siblings are one. Without a word, all."""
    topology = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    return len({_read(root / topology.format(cpu)) or f"only {cpu}" for cpu in cpus})


def _cgroups(controller: str, root: Path) -> Iterator[Path]:
    """This process's control group and those above it, innermost first, of cgroup v1 and v2.

    In a container the path may be the host's, of which only the topmost folder is visible.
    """
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        for mount in (controllers, controller) if controllers else ("", "unified"):
            parts = [part for part in path.split("/") if part not in ("", "..")]
            for depth in range(len(parts), -1, -1):
                yield root.joinpath("sys/fs/cgroup", mount, *parts[:depth])


def _cpu_quota(root: Path) -> float | None:
    """CPUs' worth of time that the tightest of our cgroups grants; None without a limit."""
    quotas = []
    for folder in _cgroups("cpu", root):
        if match := re.fullmatch(r"(\d+) (\d+)", _read(folder / "cpu.max") or ""):
            quotas.append(int(match[1]) / int(match[2]))
        quota = _integer(folder / "cpu.cfs_quota_us") or -1
        period = _integer(folder / "cpu.cfs_period_us") or 0
        if quota > 0 and period > 0:
            quotas.append(quota / period)
    return min(quotas, default=None)


def _memory_in_use(folder: Path) -> int:
    """What a cgroup's memory holds without the file pages that the kernel drops when it must."""
    used = _integer(folder / "memory.current") or _integer(folder / "memory.usage_in_bytes") or 0
    droppable = re.search(
        r"^(?:total_)?inactive_file (\d+)$", _read(folder / "memory.stat") or "", re.MULTILINE
    )
    return used - (int(droppable[1]) if droppable else 0)


# --- The environment: what is recorded, and what holds a library back -----------------------------

RELEVANT = re.compile(
    r"(OMP|KMP|GOMP|OPENBLAS|GOTO|MKL|BLIS|NVPL|VECLIB|NPY|NUMPY|NUMBA|TF|XLA|KERAS|ONEDNN|DNNL"
    r"|MALLOC|TCMALLOC|TBB)_.+"
    r"|CUDA_VISIBLE_DEVICES|PYTHONHASHSEED|PYTHONMALLOC|PYTHONDEVMODE|PYTHONOPTIMIZE"
    r"|GLIBC_TUNABLES|LD_PRELOAD|LD_LIBRARY_PATH|DYLD_INSERT_LIBRARIES"
)
TERRAFORM = re.compile(
    r"TF_(CLI|VAR|TOKEN|HTTP|LOG|DATA_DIR|WORKSPACE|INPUT|IN_AUTOMATION|PLUGIN|REGISTRY|STATE)(_.*)?"
)
"""Terraform's variables begin like TensorFlow's, and some hold credentials."""
SECRET = re.compile(r"TOKEN|KEY|PASSWORD|PASSWD|SECRET|CREDENTIAL", re.IGNORECASE)


def relevant_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that change what is measured, sorted; nothing that may be a secret."""
    return {
        name: environ[name]
        for name in sorted(environ)
        if RELEVANT.fullmatch(name) and not TERRAFORM.fullmatch(name) and not SECRET.search(name)
    }


BLAS_PINS = {
    "OPENBLAS_CORETYPE": "pins OpenBLAS to {} kernels",
    "MKL_DEBUG_CPU_TYPE": "makes MKL take this CPU for type {}",
    "MKL_ENABLE_INSTRUCTIONS": "limits MKL to {} instructions",
    "BLIS_ARCH_TYPE": "pins BLIS to {} kernels",
}
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
        *_pinned_kernels(environ, measure),
        *_pinned_tensorflow(environ),
        *_capped_threads(environ, threads, measure, blas),
        *_governor(machine, root),
        *_neighbours(load),
        *_quota(machine, environ, threads, measure),
        *_missing_threads(machine, blas, threads),
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

    Of two rates each, taken in turn, the higher: whatever disturbs a measurement only slows it.
    """
    if measure is None:
        return None
    pairs = [(measure(*above), measure(*below)) for _ in range(2)]
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


def _pinned_kernels(environ: Mapping[str, str], measure: _Meter | None) -> Iterator[Caution]:
    for name, effect in BLAS_PINS.items():
        if value := environ.get(name):
            # Kernels are each core's own matter, and one thread is hardly disturbed by others.
            factor = _gain(measure, environ, [name], threads=1)
            yield _weighed(f"{name}={value} {effect.format(value)}", _unset([name]), factor)


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
    highest = max((_integer(folder / "cpuinfo_max_freq") or 0 for folder in folders), default=0)
    current = max((_integer(folder / "scaling_cur_freq") or 0 for folder in folders), default=0)
    return highest / current if highest and current else None


def _neighbours(load: Load | None) -> Iterator[Caution]:
    if load is not None and load.share > BUSY_SHARE:
        what = f"other processes keep {load.share:.0%} of the CPUs busy"
        if load.busiest:
            what += f": {', '.join(load.busiest)}"
        # A machine wholly taken would give an infinite factor, which no JSON holds.
        factor = 1 / max(1 - load.share, 0.01)
        yield Caution(what, "stop them, or wait until they are done", factor)


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
        factor = (scaling or threads / whole) * whole / quota
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
