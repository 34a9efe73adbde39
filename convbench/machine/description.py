"""Describe the machine and its software, so that results of different ones are told apart."""

from __future__ import annotations

import contextlib
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from convbench.machine.affinity import usable_cpus
from convbench.machine.system import is_linux
from convbench.machine.tuning import ROOT, read_caches, read_cpu, read_text
from convbench.machine.version import __version__


@dataclass(frozen=True)
class Calibration:
    """Peaks measured on this machine. `sgemm` and `dgemm` are FLOP/s by number of threads.

    `calibration.calibrate` says how each is measured.
    """

    sgemm: dict[int, float]
    dgemm: dict[int, float]
    copy_bytes_per_s: float
    small_call_s: float
    fresh_page_s: float

    def best_with(self, other: Calibration) -> Calibration:
        """Return the better figure of each kind, since whatever else a machine does spoils them."""
        rates = {
            kind: {
                count: max(rate, getattr(other, kind).get(count, 0.0))
                for count, rate in getattr(self, kind).items()
            }
            for kind in ("sgemm", "dgemm")
        }
        return Calibration(
            **rates,
            copy_bytes_per_s=max(self.copy_bytes_per_s, other.copy_bytes_per_s),
            small_call_s=min(self.small_call_s, other.small_call_s),
            fresh_page_s=min(self.fresh_page_s, other.fresh_page_s),
        )


@dataclass(frozen=True)
class Machine:
    """A machine, as this process may use it.

    `caches` are bytes by level (`L1d`, `L2`, `L3`), as one core sees them. `cpu_quota` is the
    number of CPUs whose time a container may use (cgroup), or None without a limit.
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
    """A BLAS library that a worker loaded; `kernels` is the CPU architecture that it chose."""

    library: str
    version: str | None
    kernels: str | None
    threads: int
    used_by: str


@dataclass(frozen=True)
class Software:
    """Versions of the packages that take part, by name, and the BLAS libraries in use."""

    convbench: str
    python: str
    versions: dict[str, str] = field(default_factory=dict)
    blas: tuple[BlasLibrary, ...] = ()


CautionKind = Literal["setting", "other-processes", "budget"]
"""Kinds of cautions: a setting or the like, other processes, or a budget that ended a run."""


@dataclass(frozen=True)
class Caution:
    """A warning about something that holds figures back: what it is, how much it costs, a remedy.

    `factor` says how many times faster code would be without it, as measured; None if that cannot
    be measured. Code decides by `kind`, and never by the sentences.
    """

    what: str
    hint: str
    factor: float | None = None
    kind: CautionKind = "setting"


@dataclass(frozen=True)
class MachineDescription:
    """The machine, its software and its environment, as every result file records them."""

    machine: Machine
    software: Software
    environment: dict[str, str]
    warnings: tuple[Caution, ...]


@dataclass(frozen=True)
class Load:
    """The share (0 to 1) of the usable CPUs that other processes use, and the busiest of them."""

    share: float
    busiest: tuple[str, ...] = ()


SGEMM_FLAGS = (
    *("sse4_2", "avx", "avx2", "fma", "avx_vnni", "avx512f", "avx512bw", "avx512vl"),
    *("avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8"),
    *("asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2", "sme"),
)
"""CPU flags, in Linux's spelling, by which a BLAS chooses its kernels."""

TOOLS = ("scipy", "pyperf", "memray", "memory-profiler", "threadpoolctl", "torch", "onnxruntime")
"""Packages whose versions are recorded if they are installed, beside those of the runtimes:
convbench measures with some, and people's own code may wrap others."""


def fingerprint(root: Path = ROOT) -> Machine:
    """Describe this machine, as far as this process may use it.

    It takes a few milliseconds and imports no NumPy.
    """
    import psutil

    cpu, flags = read_cpu(root)
    cpus = usable_cpus()
    return Machine(
        hostname=platform.node(),
        cpu=cpu,
        cores=_cores(cpus, root),
        logical_cpus=len(cpus),
        isa=tuple(flag for flag in SGEMM_FLAGS if flag in flags),
        governor=read_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        caches=read_caches(root),
        memory_bytes=psutil.virtual_memory().total,
        cpu_quota=_cpu_quota(root),
        platform=platform.platform(),
    )


def available_memory(root: Path = ROOT) -> int:
    """Return the bytes that can still be allocated without swapping, within our cgroups' limits."""
    import psutil

    room = [psutil.virtual_memory().available]
    for folder in _cgroups("memory", root):
        limit = read_integer(folder / "memory.max") or read_integer(
            folder / "memory.limit_in_bytes"
        )
        if limit is not None:
            room.append(max(limit - _memory_in_use(folder), 0))
    return min(room)


def blas_libraries(used_by: str) -> tuple[BlasLibrary, ...]:
    """Return the BLAS libraries that this process has loaded by now, marked as `used_by`'s."""
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


def software(versions: Mapping[str, str], blas: tuple[BlasLibrary, ...] = ()) -> Software:
    """Describe the software: the runtimes with the given versions, TOOLS, and the BLAS libraries.

    Nothing is imported to find the versions of TOOLS.
    """
    tools = {name: version for name in TOOLS if (version := installed_version(name)) is not None}
    found = {**versions, **tools}
    return Software(__version__, platform.python_version(), found, blas)


def installed_version(*names: str) -> str | None:
    """Return the version of the package that has one of these names, or None without it."""
    from importlib import metadata

    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return None


def read_integer(path: Path) -> int | None:
    """Return the integer that a file holds, or None if it holds none."""
    text = read_text(path) or ""
    return int(text) if re.fullmatch(r"-?\d+", text) else None


def _cores(cpus: tuple[int, ...], root: Path) -> int:
    """Return the number of physical cores among `cpus`, of which hyperthreads share one.

    Every CPU counts as a core of its own if the system does not tell.
    """
    if not is_linux():
        import psutil

        return min(psutil.cpu_count(logical=False) or len(cpus), len(cpus))
    topology = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    return len({read_text(root / topology.format(cpu)) or f"only {cpu}" for cpu in cpus})


def _cgroups(controller: str, root: Path) -> Iterator[Path]:
    """Yield the folders of this process's control group and of those above it, innermost first.

    Both cgroup v1 and v2 are looked at. In a container the path may be the host's, of which only
    the topmost folder is visible.
    """
    for line in (read_text(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        for mount in (controllers, controller) if controllers else ("", "unified"):
            parts = [part for part in path.split("/") if part not in ("", "..")]
            for depth in range(len(parts), -1, -1):
                yield root.joinpath("sys/fs/cgroup", mount, *parts[:depth])


def _cpu_quota(root: Path) -> float | None:
    """Return the number of CPUs whose time the tightest cgroup grants, or None without a limit."""
    quotas = []
    for folder in _cgroups("cpu", root):
        if match := re.fullmatch(r"(\d+) (\d+)", read_text(folder / "cpu.max") or ""):
            quotas.append(int(match[1]) / int(match[2]))
        quota = read_integer(folder / "cpu.cfs_quota_us") or -1
        period = read_integer(folder / "cpu.cfs_period_us") or 0
        if quota > 0 and period > 0:
            quotas.append(quota / period)
    return min(quotas, default=None)


def _memory_in_use(folder: Path) -> int:
    """Return a cgroup's memory in bytes, without the file pages that the kernel can drop."""
    used = (
        read_integer(folder / "memory.current")
        or read_integer(folder / "memory.usage_in_bytes")
        or 0
    )
    droppable = re.search(
        r"^(?:total_)?inactive_file (\d+)$", read_text(folder / "memory.stat") or "", re.MULTILINE
    )
    return used - (int(droppable[1]) if droppable else 0)
