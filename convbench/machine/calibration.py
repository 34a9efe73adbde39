"""Measure this machine's peaks: SGEMM, copying, a small NumPy call, fresh memory, idleness.

`calibrate` and `sgemm_rate` import NumPy, so they run in a process of their own. The other public
functions import no NumPy.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from convbench.errors import ConvbenchError
from convbench.machine.affinity import usable_cpus
from convbench.machine.description import Calibration, Load
from convbench.machine.system import is_linux
from convbench.machine.tuning import ROOT, cache_bytes, read_caches

SINGLE, DOUBLE = "float32", "float64"
MATRIX_SIZES = (1536, 1024, 512)
"""Rows of the square matrices that are multiplied. On an AVX-512 core these sizes reach 99 %, 97 %
and 90 % of the peak (measured)."""

MATRIX_CALLS = 4
"""Number of products for which the time must suffice if a size is to be chosen: one that warms up,
and the three that `_best_s` times at least."""

COPY_BYTES_MOST = 128 * 1024**2
"""Limit in bytes on twice L3's size as the size of the array that is copied."""

PAGE_BYTES = 4096
FRESH_BYTES = 16 * 1024**2
"""Bytes that are newly mapped to time the first touch of their pages."""

SMALL_CALLS = 2000
"""Number of small NumPy calls that are timed together."""

BUSIEST = 3
"""Number of the busiest processes that are named."""

SUBPROCESS_MEASURES_S = 0.3
"""Seconds for which a fresh process measures SGEMM."""

SUBPROCESS_TIMEOUT_S = 60.0
"""Seconds after which a process that measures SGEMM is killed."""

# The folder comes last in the path, so that a package beside convbench cannot shadow the standard
# library.
_SGEMM_PROGRAM = """
import sys
sys.path.append(sys.argv[1])
from convbench.machine.calibration import sgemm_rate
print(sgemm_rate(int(sys.argv[2]), float(sys.argv[3])))
"""


def calibrate(threads: tuple[int, ...], seconds: float = 1.5) -> Calibration:
    """Measure the peaks that kernels are held against, in about `seconds` in all.

    - `sgemm` and `dgemm` are FLOP/s for each number of threads, of np.matmul with `out` on square
      matrices of the largest of MATRIX_SIZES that the time allows. More threads are never slower
      than fewer: a neighbour can make several threads wait for each other.
    - `copy_bytes_per_s` counts bytes read plus bytes written while one thread copies an array of
      `copy_array_bytes()` to another. If L3 is larger than 64 MiB, the figure may be L3's rate
      instead of memory's.
    - `small_call_s` is the time of np.add of two arrays of one element into a third.
    - `fresh_page_s` is the time of the first touch of 4 KiB of newly mapped memory, without huge
      pages, less the time of touching it again.
    """
    deadlines = _deadlines(2 * len(threads) + 3, seconds)
    # The products come last: BLAS threads go on spinning for a while after a call, and would
    # disturb the other measurements.
    small_call_s = _small_call_s(next(deadlines))
    fresh_page_s = _fresh_page_s(next(deadlines))
    copy_bytes_per_s = _copy_bytes_per_s(next(deadlines))
    return Calibration(
        sgemm=_gemm_rates(SINGLE, threads, deadlines),
        dgemm=_gemm_rates(DOUBLE, threads, deadlines),
        copy_bytes_per_s=copy_bytes_per_s,
        small_call_s=small_call_s,
        fresh_page_s=fresh_page_s,
    )


def copy_array_bytes(root: Path = ROOT) -> int:
    """Return the bytes of the array that is copied: twice L3, and at least 16 times L2.

    Twice L3 is limited to COPY_BYTES_MOST, so that the first touch and five copies take a fifth of
    a second at most.
    """
    beyond_l3 = min(2 * read_caches(root).get("L3", 0), COPY_BYTES_MOST)
    return max(beyond_l3, 16 * cache_bytes(root).l2)


def sgemm_rate(threads: int, seconds: float = SUBPROCESS_MEASURES_S) -> float:
    """Return the FLOP/s of float32 matrix products in this process with `threads` BLAS threads."""
    return _gemm_rates(SINGLE, (threads,), _deadlines(1, seconds))[threads]


def sgemm_rate_in(environ: Mapping[str, str], threads: int) -> float:
    """Return the FLOP/s of SGEMM in a fresh process with exactly this environment.

    It takes less than a second. The process sets its threads as workers do, so a variable that
    caps threads shows the effect that it has on a run. Raises ConvbenchError if the process fails.
    """
    package = Path(__file__).resolve().parents[2]
    arguments = (str(package), str(threads), str(SUBPROCESS_MEASURES_S))
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _SGEMM_PROGRAM, *arguments],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SUBPROCESS_TIMEOUT_S,
            check=True,
        )
        return float(done.stdout.split()[-1])
    except subprocess.TimeoutExpired:
        raise ConvbenchError(f"SGEMM did not end within {SUBPROCESS_TIMEOUT_S:.0f} s") from None
    except (subprocess.CalledProcessError, OSError, ValueError, IndexError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines() or ["no output"]
        raise ConvbenchError(f"SGEMM could not be measured: {said[-1]}") from error


def neighbour_load(seconds: float = 0.3, root: Path = ROOT) -> Load:
    """Measure how busy other processes keep the CPUs that this process may use.

    Call it while no worker runs. Time that a hypervisor gave to other guests (steal) counts as
    busy. It takes `seconds`, and the time of two scans of all processes.
    """
    # The scans use CPU time of this process, so they stay outside the two readings.
    cpu_time_before, _ = _cpu_time_by_process()
    busy_before, total_before = _cpu_times(root)
    time.sleep(seconds)
    busy, total = _cpu_times(root)
    cpu_time, names = _cpu_time_by_process()
    used = {pid: cpu_time[pid] - cpu_time_before.get(pid, 0.0) for pid in cpu_time}
    busiest = sorted((pid for pid in used if used[pid] > 0.1 * seconds), key=lambda pid: -used[pid])
    elapsed = total - total_before
    return Load(
        share=(busy - busy_before) / elapsed if elapsed > 0 else 0.0,
        busiest=tuple(f"{names[pid]} (process {pid})" for pid in busiest[:BUSIEST]),
    )


def _cpu_time_by_process() -> tuple[dict[int, float], dict[int, str]]:
    """Return CPU time so far in seconds, and names, of all other processes, by process id."""
    import psutil

    cpu_time, names = {}, {}
    for process in psutil.process_iter(["name", "cpu_times"]):
        times = process.info["cpu_times"]
        if times and process.pid != os.getpid():
            cpu_time[process.pid] = times.user + times.system
            names[process.pid] = process.info["name"]
    return cpu_time, names


def _cpu_times(root: Path) -> tuple[float, float]:
    """Return busy time and all time so far of the CPUs that this process may use.

    The unit differs by system; only the ratio of two differences means anything.
    """
    return _ticks(root) if is_linux() else _portable_cpu_times()


def _portable_cpu_times() -> tuple[float, float]:
    """Return busy time and all time in seconds, from psutil.

    psutil's fields differ by system, but those of idle and waiting CPUs have the same names.
    """
    import psutil

    times = psutil.cpu_times(percpu=True)
    chosen = [times[cpu] for cpu in usable_cpus() if cpu < len(times)]
    # User time includes guest time already.
    total = sum(
        sum(each) - getattr(each, "guest", 0.0) - getattr(each, "guest_nice", 0.0)
        for each in chosen
    )
    idle = sum(each.idle + getattr(each, "iowait", 0.0) for each in chosen)
    return total - idle, total


def _ticks(root: Path) -> tuple[int, int]:
    """Return busy time and all time in ticks, from /proc/stat; zeros if it cannot be read."""
    wanted = {f"cpu{cpu}" for cpu in usable_cpus()}
    busy = total = 0
    try:
        lines = (root / "proc/stat").read_text().splitlines()
    except OSError:
        return 0, 0
    for name, *fields in (line.split() for line in lines if line.startswith("cpu")):
        if name in wanted:
            # User time includes guest time already, so the fields from the ninth on are left out.
            user, nice, system, idle, iowait, irq, softirq, steal = map(int, fields[:8])
            busy += user + nice + system + irq + softirq + steal
            total += user + nice + system + idle + iowait + irq + softirq + steal
    return busy, total


def _deadlines(count: int, seconds: float) -> Iterator[float]:
    """Yield when each of `count` measurements has to end; they share what is left of `seconds`."""
    end = time.perf_counter() + seconds
    for left in range(count, 0, -1):
        now = time.perf_counter()
        yield now + max(end - now, 0.0) / left


def _best_s(call: Callable[[], object], deadline: float = 0.0) -> float:
    """Return the shortest time in seconds of the calls that fit in before the deadline.

    One call warms up first, and at least three are timed. The minimum counts, since a peak is
    wanted and whatever else the machine does only adds time.
    """
    clock = time.perf_counter
    call()
    times: list[float] = []
    while len(times) < 3 or clock() < deadline:
        start = clock()
        call()
        times.append(clock() - start)
    return min(times)


def _gemm_rates(
    kind: str, threads: tuple[int, ...], deadlines: Iterator[float]
) -> dict[int, float]:
    """Return FLOP/s by number of threads, from the shortest of several products."""
    import numpy as np
    from threadpoolctl import (  # type: ignore[import-untyped, unused-ignore]
        ThreadpoolController,
    )

    controller = ThreadpoolController()
    rng = np.random.default_rng(0)
    # Zeros would not do: on them a core draws less power and may clock higher than in real work.
    # `out` is filled as well, since it must not be fresh memory.
    largest = rng.random((3, MATRIX_SIZES[0] ** 2)).astype(kind)

    def product_s(size: int, count: int, deadline: float) -> float:
        a, b, out = largest[:, : size**2].reshape(3, size, size)
        with controller.limit(limits=count, user_api="blas"):
            return _best_s(lambda: np.matmul(a, b, out=out), deadline)

    # One thread chooses the size, since several stall on a small matrix beside a busy neighbour.
    trial = MATRIX_SIZES[-1]
    flop_s = product_s(trial, 1, 0.0) / trial**3
    rates = {}
    for count in threads:
        deadline = next(deadlines)
        room = deadline - time.perf_counter()
        fits = (size for size in MATRIX_SIZES if MATRIX_CALLS * flop_s * size**3 <= room)
        size = next(fits, trial)
        rates[count] = 2 * size**3 / product_s(size, count, deadline)
    return {count: max(rate for fewer, rate in rates.items() if fewer <= count) for count in rates}


def _copy_bytes_per_s(deadline: float) -> float:
    """Return the bytes that np.copyto reads and writes, together, in a second."""
    import numpy as np

    source = np.ones(copy_array_bytes() // 8)
    target = np.empty_like(source)
    best = _best_s(lambda: np.copyto(target, source), deadline)
    return 2 * source.nbytes / best


def _small_call_s(deadline: float) -> float:
    """Return the seconds of one NumPy call that computes next to nothing."""
    import numpy as np

    a, b, out = np.ones((3, 1), dtype=np.float32)

    def calls() -> None:
        for _ in itertools.repeat(None, SMALL_CALLS):
            np.add(a, b, out=out)

    return _best_s(calls, deadline) / SMALL_CALLS


def _fresh_page_s(deadline: float) -> float:
    """Return the seconds of the first touch of 4 KiB, less those of a second touch."""
    import numpy as np

    first: list[float] = []
    again: list[float] = []
    while len(first) < 3 or time.perf_counter() < deadline:
        region = mmap.mmap(-1, FRESH_BYTES)
        # Kernels without huge pages refuse this advice, and other systems do not know it.
        with contextlib.suppress(OSError, AttributeError):
            region.madvise(mmap.MADV_NOHUGEPAGE)
        pages = np.frombuffer(region, dtype=np.uint8)[::PAGE_BYTES]
        for times in (first, again):
            start = time.perf_counter()
            pages[:] = 1
            times.append(time.perf_counter() - start)
        del pages, region
    # Minima count for the same reason as in `_best_s`. The clock may not tell the two apart.
    return max(min(first) - min(again), 0.0) / (FRESH_BYTES // PAGE_BYTES)
