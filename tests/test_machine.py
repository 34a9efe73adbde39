"""Test what is known of the machine: what /proc and /sys say, its peaks, and the cautions."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from convbench import runtimes
from convbench.errors import ConvbenchError
from convbench.machine import tuning
from convbench.machine.affinity import usable_cpus
from convbench.machine.calibration import calibrate, copy_array_bytes, neighbour_load, sgemm_rate_in
from convbench.machine.cautions import COSTS_NOTHING, cautions
from convbench.machine.description import (
    BlasLibrary,
    Calibration,
    Caution,
    Load,
    Machine,
    available_memory,
    blas_libraries,
    fingerprint,
    software,
)
from convbench.machine.system import is_linux
from convbench.measure.environment import Environment
from tests.systems import linux

KIB, MIB, GIB = 1024, 1024**2, 1024**3

MACHINE = Machine(
    hostname="test",
    cpu="A CPU",
    cores=4,
    logical_cpus=8,
    isa=("avx2",),
    governor="performance",
    caches={},
    memory_bytes=GIB,
    cpu_quota=None,
    platform="Linux",
)
OPENBLAS = BlasLibrary("openblas", "0.3.31", "SkylakeX", 4, "numpy")
HASWELL = {"OPENBLAS_CORETYPE": "Haswell"}

EPYC = """\
processor\t: 0
model name\t: AMD EPYC 7763 64-Core Processor
flags\t\t: fpu sse4_2 avx fma avx2 sha_ni

processor\t: 1
model name\t: something else
flags\t\t: avx512f
"""
GRAVITON = """\
processor\t: 0
BogoMIPS\t: 2100.00
Features\t: fp asimd asimddp sve bf16 i8mm
CPU implementer\t: 0x41
"""


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def caches(*rows: tuple[str, str, str]) -> dict[str, str]:
    return {
        f"sys/devices/system/cpu/cpu0/cache/index{index}/{name}": text
        for index, row in enumerate(rows)
        for name, text in zip(("level", "type", "size"), row, strict=True)
    }


@pytest.fixture
def four_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    if not is_linux():
        pytest.skip("a made-up tree of Linux's files is read on Linux only")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 4, 5})


class Meter:
    """A meter that makes up SGEMM rates and remembers what it was asked."""

    def __init__(self, rate) -> None:
        self.rate = rate
        self.calls: list[tuple[dict[str, str], int]] = []

    def __call__(self, environ, threads: int) -> float:
        self.calls.append((dict(environ), threads))
        return self.rate(environ, threads)


def only(found: tuple[Caution, ...]) -> Caution:
    (caution,) = [each for each in found if not is_of_the_system(each)]
    return caution


def is_of_the_system(caution: Caution) -> bool:
    """Whether it is about what this system lacks, whatever a test makes up."""
    return caution.what.startswith(("threads cannot be kept", "memray is not installed"))


# The fingerprint


@linux
def test_the_fingerprint_describes_this_machine():
    machine = fingerprint()
    assert machine.hostname == socket.gethostname()
    assert machine.logical_cpus == len(os.sched_getaffinity(0))
    assert 1 <= machine.cores <= machine.logical_cpus
    assert machine.cpu in Path("/proc/cpuinfo").read_text()
    assert machine.memory_bytes == psutil.virtual_memory().total
    assert 0 < available_memory() <= machine.memory_bytes


def test_a_fingerprint_is_quick_and_imports_neither_numpy_nor_tensorflow():
    program = (
        "import sys, time; from convbench import runtimes;"
        "from convbench.machine import description as machine;"
        "start = time.perf_counter();"
        "machine.fingerprint(); machine.software(runtimes.versions());"
        "took = time.perf_counter() - start;"
        "print(took, 'numpy' in sys.modules, 'tensorflow' in sys.modules)"
    )
    output = subprocess.check_output([sys.executable, "-c", program], text=True)
    seconds, *imported = output.split()
    assert imported == ["False", "False"]
    assert float(seconds) < 0.5  # it takes a tenth of that when nothing else runs

    start = time.perf_counter()
    fingerprint()
    assert time.perf_counter() - start < 0.05


def test_the_fingerprint_reads_proc_and_sys(tmp_path: Path, four_cpus: None):
    siblings = {0: "0,4", 4: "0,4", 1: "1,5", 5: "1,5"}
    files = {
        "proc/cpuinfo": EPYC,
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil",
        **caches(("1", "Data", "32K"), ("1", "Instruction", "64K"), ("2", "Unified", "1M")),
        **{
            f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list": text
            for cpu, text in siblings.items()
        },
    }
    machine = fingerprint(tree(tmp_path, files))
    assert machine.cpu == "AMD EPYC 7763 64-Core Processor"
    assert machine.isa == ("sse4_2", "avx", "avx2", "fma")
    assert (machine.cores, machine.logical_cpus) == (2, 4)
    assert machine.governor == "schedutil"
    assert machine.caches == {"L1d": 32 * KIB, "L1i": 64 * KIB, "L2": MIB}
    assert machine.cpu_quota is None


def test_the_fingerprint_of_an_arm_machine_names_its_features(tmp_path: Path):
    machine = fingerprint(tree(tmp_path, {"proc/cpuinfo": GRAVITON}))
    assert machine.cpu  # /proc/cpuinfo has no model name there
    assert machine.isa == ("asimd", "asimddp", "bf16", "i8mm", "sve")


def test_a_system_without_proc_and_sys_has_a_fingerprint(tmp_path: Path, four_cpus: None):
    machine = fingerprint(tmp_path)
    assert machine.cpu
    assert (machine.isa, machine.caches) == ((), {})
    assert (machine.governor, machine.cpu_quota) == (None, None)
    assert machine.cores == machine.logical_cpus == 4
    assert available_memory(tmp_path) > 0


V1 = "4:cpu,cpuacct:{0}\n5:memory:{0}\n0::/"


@pytest.mark.parametrize(
    ("cgroup", "files", "quota"),
    [
        ("0::/", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("0::/a/b", {"cpu.max": "400000 100000", "a/b/cpu.max": "max 100000"}, 4.0),
        ("0::/a/b", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "300000 100000"}, 2.0),
        ("0::/../other", {"cpu.max": "50000 100000"}, 0.5),
        (
            V1.format("/docker/123"),  # this is the host's path; a container sees the top only
            {"cpu,cpuacct/cpu.cfs_quota_us": "250000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            2.5,
        ),
        (
            V1.format("/job"),
            {"cpu/job/cpu.cfs_quota_us": "100000", "cpu/job/cpu.cfs_period_us": "50000"},
            2.0,
        ),
        (V1.format("/"), {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
    ],
)
def test_the_cpu_quota_is_that_of_the_tightest_cgroup(
    tmp_path: Path, cgroup: str, files: dict[str, str], quota: float | None
):
    tree(tmp_path / "sys/fs/cgroup", files)
    assert fingerprint(tree(tmp_path, {"proc/self/cgroup": cgroup})).cpu_quota == quota


@pytest.mark.parametrize(
    ("cgroup", "files", "room"),
    [
        ("0::/", {"memory.max": str(64 * MIB), "memory.current": str(48 * MIB)}, 16 * MIB),
        (
            "0::/",
            {
                "memory.max": str(64 * MIB),
                "memory.current": str(48 * MIB),
                "memory.stat": f"anon 5\ninactive_file {8 * MIB}\nactive_file 7",
            },
            24 * MIB,
        ),
        ("0::/", {"memory.max": str(MIB), "memory.current": str(2 * MIB)}, 0),
        (
            V1.format("/job"),
            {
                "memory/job/memory.limit_in_bytes": str(64 * MIB),
                "memory/job/memory.usage_in_bytes": str(60 * MIB),
                "memory/job/memory.stat": f"inactive_file 1\ntotal_inactive_file {MIB}",
                "memory/memory.limit_in_bytes": "9223372036854771712",
            },
            4 * MIB + 1,
        ),
    ],
)
def test_a_memory_limit_leaves_what_is_not_used(
    tmp_path: Path, cgroup: str, files: dict[str, str], room: int
):
    tree(tmp_path / "sys/fs/cgroup", files)
    assert available_memory(tree(tmp_path, {"proc/self/cgroup": cgroup})) == room


def test_without_a_memory_limit_all_of_the_machine_is_available(tmp_path: Path):
    tree(tmp_path / "sys/fs/cgroup", {"memory.max": "max", "memory.current": str(GIB)})
    room = available_memory(tree(tmp_path, {"proc/self/cgroup": "0::/"}))
    assert room == pytest.approx(psutil.virtual_memory().available, rel=0.2)


def test_cache_sizes_are_read_and_assumed_where_they_are_unknown(tmp_path: Path):
    known = tree(tmp_path / "known", caches(("1", "Data", "48K"), ("2", "Unified", "2048K")))
    assert tuning.cache_bytes(known) == tuning.CacheSizes(48 * KIB, 2 * MIB)
    assert tuning.cache_bytes(known) is tuning.cache_bytes(known)
    odd = tree(tmp_path / "odd", caches(("1", "Data", "unknown"), ("2", "Unified", "0K")))
    for root in (odd, tmp_path / "nothing"):
        assert tuning.cache_bytes(root) == tuning.CacheSizes(32 * KIB, MIB)


def test_the_software_has_versions_and_the_libraries_of_blas():
    import numpy as np

    found = software(runtimes.versions(), blas_libraries("numpy"))
    assert found.versions["numpy"] == np.__version__
    assert {"tensorflow", "keras", "pyperf", "memray", "threadpoolctl"} <= set(found.versions)
    assert found.blas
    assert all(library.used_by == "numpy" and library.threads >= 1 for library in found.blas)


# The peaks


def test_calibration_keeps_to_its_time_and_finds_plausible_peaks():
    calibrate((1,), 0.3)  # so that imports do not count below
    start = time.perf_counter()
    peaks = calibrate((1, 2), 1.5)
    assert time.perf_counter() - start < 5.0  # it takes 1.5 s when nothing else runs
    assert set(peaks.sgemm) == set(peaks.dgemm) == {1, 2}
    assert 1e9 < peaks.dgemm[1] < peaks.sgemm[1] < 1e12  # single precision is twice as fast
    assert 1e8 < peaks.copy_bytes_per_s < 1e12
    assert 2e-8 < peaks.small_call_s < 2e-5
    assert 1e-8 < peaks.fresh_page_s < 1e-4


def test_calibration_leaves_the_threads_of_blas_alone():
    before = blas_libraries("numpy")
    calibrate((1,), 0.1)
    assert blas_libraries("numpy") == before


@pytest.mark.parametrize(
    ("l3", "expected"), [("4M", 16 * MIB), ("32M", 64 * MIB), ("266240K", 128 * MIB)]
)
def test_the_copied_array_is_larger_than_the_caches(tmp_path: Path, l3: str, expected: int):
    rows = ("1", "Data", "32K"), ("2", "Unified", "1M"), ("3", "Unified", l3)
    assert copy_array_bytes(tree(tmp_path, caches(*rows))) == expected


def test_a_failing_sgemm_process_says_why(tmp_path: Path):
    (tmp_path / "numpy.py").write_text("raise ImportError('no NumPy here')")
    with pytest.raises(ConvbenchError, match="could not be measured: ImportError: no NumPy here"):
        sgemm_rate_in({**os.environ, "PYTHONPATH": str(tmp_path)}, 1)


# The environment


def test_the_recorded_environment_has_what_counts_and_no_secret():
    counts = dict.fromkeys(
        (
            *("GOTO_NUM_THREADS", "KERAS_BACKEND", "LD_PRELOAD", "MALLOC_ARENA_MAX"),
            *("MKL_NUM_THREADS", "NPY_DISABLE_CPU_FEATURES", "OMP_NUM_THREADS"),
            *("ONEDNN_MAX_CPU_ISA", "OPENBLAS_CORETYPE", "PYTHONHASHSEED"),
            *("TF_ENABLE_ONEDNN_OPTS", "TF_NUM_INTRAOP_THREADS", "XLA_FLAGS"),
        ),
        "1",
    )
    does_not = dict.fromkeys(
        (
            *("HOME", "PATH", "COMPOSE_FILE", "OMPI_COMM_WORLD_SIZE", "TF_"),
            *("TF_CLI_CONFIG_FILE", "TF_VAR_db", "TF_TOKEN_app_terraform_io", "TF_LOG"),
            *("KERAS_API_KEY", "TF_SECRET", "XLA_PASSWORD", "MKL_License_Token"),
            "KMP_DUPLICATE_LIB_OK",  # threadpoolctl sets it, not the caller
        ),
        "hidden",
    )
    found = Environment({**does_not, **counts}, {}).recorded(1)
    counts |= {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}  # as workers have them
    counts |= {"TF_CPP_MIN_LOG_LEVEL": "2"}
    assert found == counts
    assert list(found) == sorted(counts)


# The cautions


def of_runtimes(environ):
    return [caution for runtime in runtimes.runtimes() for caution in runtime.cautions(environ)]


def test_a_good_machine_gives_no_caution_and_measures_nothing():
    meter = Meter(lambda environ, threads: 1.0)
    environ = {
        "OMP_NUM_THREADS": "4,1",
        "OPENBLAS_CORETYPE": "",
        "ONEDNN_MAX_CPU_ISA": "DEFAULT",
        "TF_ENABLE_ONEDNN_OPTS": "1",
        "XLA_FLAGS": "--xla_dump_to=/tmp/x",
        "MKL_NUM_THREADS": "many",
    }
    machine = replace(MACHINE, cpu_quota=4.0)
    found = [
        *cautions(machine, environ, 4, meter, load=Load(0.05), blas=(OPENBLAS,)),
        *of_runtimes(environ),
    ]
    assert [each for each in found if not is_of_the_system(each)] == []
    assert meter.calls == []


@pytest.mark.alone
def test_the_cost_of_pinned_kernels_is_measured_for_real():
    """The factor follows from rates measured here, and the sentence follows from the factor.

    What Haswell kernels cost depends on the CPU. On an EPYC of family 25, model 17, they cost
    nothing: SGEMM is 0.95 to 0.99 times as fast without them (six measurements).
    """
    import numpy  # noqa: F401 - only libraries that are loaded are found

    if "avx512f" not in fingerprint().isa or sys.platform != "linux":
        pytest.skip("Haswell kernels cost something only where there are better ones")
    if all(library.library != "openblas" for library in blas_libraries("numpy")):
        pytest.skip("NumPy uses another BLAS")
    pinned = {**os.environ, **HASWELL}
    caution = only(cautions(MACHINE, pinned, 2, sgemm_rate_in))
    free = {name: value for name, value in pinned.items() if name not in HASWELL}
    rates = [(sgemm_rate_in(free, 1), sgemm_rate_in(pinned, 1)) for _ in range(3)]
    expected = max(above for above, _ in rates) / max(below for _, below in rates)
    assert caution.factor == pytest.approx(expected, rel=0.15)
    said = "OPENBLAS_CORETYPE=Haswell pins OpenBLAS to Haswell kernels"
    costs_nothing = caution.factor < COSTS_NOTHING
    assert caution.what == said + ", which costs nothing measurable here" * costs_nothing
    assert caution.hint.endswith("set environment: {OPENBLAS_CORETYPE: null} in the suite")


def test_pinned_kernels_are_measured_with_one_thread_and_nothing_else_changed():
    meter = Meter(lambda environ, threads: 1e11 if "OPENBLAS_CORETYPE" in environ else 2e11)
    caution = only(cautions(MACHINE, {**HASWELL, "A": "b"}, 4, meter, blas=(OPENBLAS,)))
    assert caution.factor == 2.0
    assert all(environ.get("A") == "b" and threads == 1 for environ, threads in meter.calls)


def test_a_single_disturbed_measurement_does_not_count():
    rates = iter([2e11, 1e11, 0.5e11, 2e11, 2e11, 0.4e11])
    caution = only(cautions(MACHINE, HASWELL, 1, Meter(lambda environ, threads: next(rates))))
    assert caution.factor == 1.0


def test_a_pin_that_costs_nothing_says_so():
    caution = only(cautions(MACHINE, HASWELL, 4, Meter(lambda environ, threads: 1e11)))
    assert caution.what.endswith("kernels, which costs nothing measurable here")
    assert caution.factor == 1.0


def test_a_pin_of_a_library_that_is_not_there_is_not_measured():
    meter = Meter(lambda environ, threads: 1e11)
    caution = only(cautions(MACHINE, {"MKL_DEBUG_CPU_TYPE": "5"}, 4, meter, blas=(OPENBLAS,)))
    assert caution.what.endswith("type 5; NumPy does not use that library here")
    assert (caution.factor, meter.calls) == (None, [])


def failing(environ, threads: int) -> float:
    raise ConvbenchError("no NumPy there")


@pytest.mark.parametrize("meter", [None, failing])
def test_a_pin_that_cannot_be_measured_is_reported_without_a_factor(meter):
    caution = only(cautions(MACHINE, HASWELL, 4, meter))
    assert caution.what.endswith("Haswell kernels; its cost was not measured")
    assert caution.factor is None


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("TF_ENABLE_ONEDNN_OPTS", "0", "TensorFlow only); its cost was not measured"),
        ("ONEDNN_MAX_CPU_ISA", "AVX2", "limits oneDNN to AVX2 (this affects TensorFlow only)"),
        ("DNNL_MAX_CPU_ISA", "SSE41", "limits oneDNN to SSE41 (this affects TensorFlow only)"),
        ("NPY_DISABLE_CPU_FEATURES", "AVX2", "loops from using AVX2; BLAS is not affected"),
        ("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false", "keeps XLA to one thread"),
        ("XLA_FLAGS", "intra_op_parallelism_threads=1", "keeps XLA to one thread"),
    ],
)
def test_what_blas_does_not_read_is_not_measured_by_sgemm(name: str, value: str, says: str):
    meter = Meter(lambda environ, threads: 1e11)
    environ = {name: value}
    caution = only(cautions(MACHINE, environ, 4, meter, of_runtimes=of_runtimes(environ)))
    assert caution.what.startswith(f"{name}={value} ")
    assert says in caution.what
    assert name in caution.hint
    assert (caution.factor, meter.calls) == (None, [])


def test_caps_on_threads_are_lifted_together():
    caps = {"OMP_NUM_THREADS": "1,8", "OPENBLAS_NUM_THREADS": "2", "MKL_NUM_THREADS": "4"}
    low = {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"}
    meter = Meter(lambda environ, threads: 1e11 if low & environ.keys() else 3e11)
    caution = only(cautions(MACHINE, caps, 4, meter))
    assert caution.what == (
        "OMP_NUM_THREADS=1,8 and OPENBLAS_NUM_THREADS=2 may keep BLAS to fewer than the "
        "4 threads asked for"
    )
    assert "{OMP_NUM_THREADS: null, OPENBLAS_NUM_THREADS: null}" in caution.hint
    assert caution.factor == 3.0


def test_a_cap_that_the_workers_lift_is_recognised_by_their_threads():
    meter = Meter(lambda environ, threads: 1e11)
    caution = only(cautions(MACHINE, {"OMP_NUM_THREADS": "1"}, 4, meter, blas=(OPENBLAS,)))
    assert caution.what.endswith("here it runs 4, because workers set the number")
    assert (caution.factor, meter.calls) == (None, [])


@pytest.mark.parametrize("governor", ["powersave", "conservative"])
@pytest.mark.parametrize(
    ("frequency", "factor", "says"),
    [
        ("2000000", 1.75, ""),
        ("3450000", 3.5 / 3.45, ", which costs nothing measurable here"),
        (None, None, "; its cost was not measured"),
    ],
)
def test_a_governor_that_saves_power_is_a_caution_with_its_factor(
    tmp_path: Path,
    four_cpus: None,
    governor: str,
    frequency: str | None,
    factor: float | None,
    says: str,
):
    files = {f"cpu{cpu}/cpufreq/cpuinfo_max_freq": "3500000" for cpu in (0, 1)}
    if frequency:
        files |= {
            "cpu0/cpufreq/scaling_cur_freq": "800000",  # of an idle CPU
            "cpu1/cpufreq/scaling_cur_freq": frequency,
        }
    tree(tmp_path / "sys/devices/system/cpu", files)
    machine = replace(MACHINE, governor=governor)
    caution = only(cautions(machine, {}, 4, None, root=tmp_path))
    assert caution.what == f"the CPU frequency governor is {governor}{says}"
    assert caution.factor == (None if factor is None else pytest.approx(factor))
    assert "intel_pstate" in caution.hint


def spin() -> None:
    while True:
        pass


def test_a_busy_neighbour_is_seen_and_named():
    neighbour = multiprocessing.get_context("spawn").Process(target=spin, daemon=True)
    neighbour.start()
    try:
        deadline = time.monotonic() + 10  # waits until its Python has started
        while psutil.Process(neighbour.pid).cpu_times().user < 0.3 and time.monotonic() < deadline:
            time.sleep(0.05)
        load = neighbour_load()
    finally:
        neighbour.kill()
        neighbour.join()
    assert load.share > 0.5 / len(usable_cpus())
    assert any(f"(process {neighbour.pid})" in name for name in load.busiest)
    caution = only(cautions(MACHINE, {}, 1, None, load=load))
    assert f"(process {neighbour.pid})" in caution.what
    assert caution.factor == pytest.approx(min(1 / (1 - min(load.share, 0.999)), 100))


def test_the_load_counts_steal_and_only_the_cpus_that_may_be_used(
    tmp_path: Path, four_cpus: None, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "proc/stat"

    def write(busy: int, steal: int, idle: int) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            f"cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 {busy} 0 0 {idle} 0 0 0 {steal} {busy} 0\n"
            "cpu3 5000 0 0 0 0 0 0 0 0 0\nintr 1 2 3\n"
        )

    write(busy=100, steal=10, idle=90)
    later = {"busy": 130, "steal": 20, "idle": 150}
    monkeypatch.setattr(time, "sleep", lambda seconds: write(**later))
    assert neighbour_load(0.3, tmp_path).share == pytest.approx(0.4)


def test_a_machine_that_others_take_whole_has_a_finite_factor():
    caution = only(cautions(MACHINE, {}, 4, None, load=Load(1.0, ("rogue (process 1)",))))
    assert caution.what == "other processes keep 100% of the CPUs busy: rogue (process 1)"
    assert caution.factor == pytest.approx(100)


@pytest.mark.parametrize(
    ("quota", "meter", "factor"),
    [
        (2.0, Meter(lambda environ, threads: 1e11 * threads**0.5), 2**0.5),
        (2.5, Meter(lambda environ, threads: 1e11 * threads), 4 / 2.5),
        (2.0, Meter(lambda environ, threads: 1e11 / threads), 2.0),  # a disturbed measurement
        (0.5, Meter(lambda environ, threads: 1e11), 8.0),
        (2.5, None, 1.6),
        (2.5, failing, 1.6),
    ],
)
def test_a_cpu_quota_below_the_threads_is_a_caution(quota: float, meter, factor: float):
    caution = only(cautions(replace(MACHINE, cpu_quota=quota), {}, 4, meter))
    assert caution.what.startswith(f"the container's CPU quota is {quota:g} CPUs, below the 4")
    assert f"ask for {max(int(quota), 1)} threads" in caution.hint
    assert caution.factor == pytest.approx(factor)


def test_fewer_blas_threads_than_asked_for_are_a_caution():
    library = replace(OPENBLAS, threads=1)
    caution = only(cautions(MACHINE, {}, 4, None, blas=(library,)))
    assert caution.what.startswith("the openblas of numpy runs only 1 of the 4 threads asked for;")
    assert caution.factor is None

    calibration = Calibration({1: 1e11, 4: 3e11}, {}, 1e10, 1e-6, 1e-7)
    calibrated = replace(MACHINE, calibration=calibration)
    assert only(cautions(calibrated, {}, 4, None, blas=(library,))).factor == pytest.approx(3.0)


def test_the_worst_caution_comes_first_and_the_unmeasured_last():
    environ = {"TF_ENABLE_ONEDNN_OPTS": "0", **HASWELL}
    meter = Meter(lambda environ, threads: 1e11 if "OPENBLAS_CORETYPE" in environ else 2e11)
    given = {"load": Load(0.2), "of_runtimes": of_runtimes(environ)}
    found = cautions(replace(MACHINE, cpu_quota=0.5), environ, 4, meter, **given)
    assert [caution.factor for caution in found] == [8.0, 2.0, 1.25, None]
