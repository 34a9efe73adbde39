"""The machine: its fingerprint, its measured peaks, and what in the environment holds it back."""

from __future__ import annotations

from dataclasses import dataclass, field


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
