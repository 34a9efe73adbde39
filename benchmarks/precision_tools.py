"""Ask each tool for the speedup of a pair, with more and more effort until it claims the precision.

All of a tool's wall time counts: the start of its processes, imports, warm-up, checks. Each tool is
asked as its documentation says. Its interval is the one that it prints, or one that follows from
what it prints.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from kernels import without_pins
from precision_answers import Finding, Pair

from convbench.results import stats

ROOT = Path(__file__).parents[1]
PAIRS_FOLDER = Path(__file__).with_name("pairs")
SHARED = ("operands.py", "pair.yaml", "pytest_pair.py", "loop.py")

CONFIDENCE = 0.95
"""Confidence of the intervals of every tool but convbench: pyperf tests at this level
(pyperf/_utils.py, `is_significant`); the others name none and are given the same."""

LEAST_PROCESSES = 3
"""Number of processes with which pyperf starts each function. One process gives three values."""

FIRST_MAX_TIME_S = 1.0
"""Seconds that pytest-benchmark gives a function by default."""

SPARE = 1.1
"""Factor of what is measured over what the last interval asks for. Without it, half of all next
intervals would be too wide."""

LARGEST_STEP = 4.0
"""Largest factor by which a step raises what is measured in all: the first widths are uncertain."""

THREAD_CAPS = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"),
    *("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"),
)
"""Variables that tell NumPy's BLAS and TensorFlow their number of threads."""

GRACE = 2.0
"""Number of times its ceiling after which a tool is killed."""

FINE = (0, 3)
"""Exit codes of `convbench run` with a result. Code 3 says that a twin differs from its arm."""

SETUP = "from {arm} import conv; from operands import kernel, x; conv(x, kernel)"
STATEMENT = "conv(x, kernel)"


class ToolError(Exception):
    """A tool ended with an error. The text names the tool, and says what it printed last."""


class OutOfTimeError(Exception):
    """A tool was killed because it had run much longer than its ceiling."""


@dataclass(frozen=True)
class Request:
    """One question to a tool: `a.py` and `b.py` in `folder`, within `ceiling_s` from now.

    `environment` is the whole environment of all processes.
    """

    folder: Path
    precision: float
    ceiling_s: float
    threads: int
    environment: Mapping[str, str]
    started: float = field(default_factory=time.perf_counter)

    @property
    def elapsed_s(self) -> float:
        return time.perf_counter() - self.started

    @property
    def left_s(self) -> float:
        return self.ceiling_s - self.elapsed_s

    def python(self, *words: str, fine: Sequence[int] = (0,)) -> str:
        """Run Python in the folder, and return its stdout.

        Raises ToolError for any other exit code, and OutOfTimeError if Python has to be killed.
        """
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=self.folder,
            env=dict(self.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that its workers can be killed with it
        )
        try:
            limit = GRACE * self.ceiling_s - self.elapsed_s
            output, errors = process.communicate(timeout=max(limit, 1.0))
        except subprocess.TimeoutExpired:
            _kill(process)
            raise OutOfTimeError from None
        except BaseException:  # a process in a session of its own does not get Ctrl-C itself
            _kill(process)
            raise
        if process.returncode not in fine:
            last = "\n".join((errors or output).splitlines()[-10:])
            raise ToolError(f"python {' '.join(words)}: exit code {process.returncode}\n{last}")
        return output


def _kill(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def prepare(pair: Pair, folder: Path) -> None:
    """Copy the two functions into a folder, as a.py and b.py, and the files that call them."""
    for name in SHARED:
        shutil.copy(PAIRS_FOLDER / name, folder)
    shutil.copy(PAIRS_FOLDER / pair.a, folder / "a.py")
    shutil.copy(PAIRS_FOLDER / pair.b, folder / "b.py")


def environment(environ: Mapping[str, str], threads: int) -> dict[str, str]:
    """Return the variables of every tool's processes: kernels not pinned, threads set, no GPU."""
    paths = [str(ROOT), *filter(None, [environ.get("PYTHONPATH")])]
    return {
        **without_pins(environ),
        **dict.fromkeys(THREAD_CAPS, str(threads)),
        "CUDA_VISIBLE_DEVICES": "-1",
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "PYTHONPATH": os.pathsep.join(paths),
    }


def further(done: float, half_width: float, precision: float) -> float:
    """Return how much more to measure after `done`, as half widths fall with the square root of it.

    The answer is 0 if the precision is reached.
    """
    if half_width <= precision:
        return 0.0
    return (min(SPARE * (half_width / precision) ** 2, LARGEST_STEP) - 1) * done


def ratio_of(
    ratio: float, errors: Sequence[float], degrees: float, confidence: float, said: str
) -> Finding:
    """Return a finding from the relative standard errors of both times, by Student's t."""
    quantile = stats.t_quantile((1 + confidence) / 2, degrees)
    return Finding.of_logs(math.log(ratio), quantile * math.hypot(*errors), said)


# convbench


def ask_convbench(request: Request) -> Finding | None:
    result = request.folder / "result.json"
    request.python(*convbench_command(request, result), fine=FINE)
    return convbench_finding(json.loads(result.read_text()))


def convbench_command(request: Request, result: Path) -> list[str]:
    """Return what a user would type, without `python`."""
    return [
        *("-m", "convbench", "run", "pair.yaml", "--quiet"),
        *("--precision", f"{request.precision * 100:g}%"),
        *("--budget", f"{max(request.left_s, 1.0):.0f}"),
        *("--threads", str(request.threads), "-o", str(result)),
    ]


def convbench_finding(document: Mapping[str, object]) -> Finding | None:
    """Return the speedup of b.py over a.py in a result file, or None if it has no interval.

    Raises ToolError for a file without that speedup.
    """
    found = next(
        (
            speedup
            for speedup in document["convbench"]["speedups"]  # type: ignore[index]
            if Path(speedup["implementation"]).name.startswith("b.py")
        ),
        None,
    )
    if found is None:
        raise ToolError("convbench run: the result compares b.py with nothing")
    if found["ci99"] is None:
        return None
    remark = "" if found["reliable"] else ", not reliable"
    return Finding(found["ratio"], *found["ci99"], f"{found['rounds']} rounds{remark}")


# pyperf


def ask_pyperf(request: Request) -> Finding | None:
    """Run `pyperf timeit` of each function into a file, then more processes with --append."""
    loops = dict.fromkeys("ab", "0")
    done, step = 0, LEAST_PROCESSES
    while True:
        for arm in "ab":
            request.python(*pyperf_command(arm, step, loops[arm]))
        done += step
        values = {}
        for arm in "ab":
            values[arm], loops[arm] = pyperf_values(request.folder / f"{arm}.json")
        found = pyperf_finding(values["a"], values["b"])
        fitting = math.floor(request.left_s / (request.elapsed_s / done))
        step = min(math.ceil(further(done, found.half_width, request.precision)), fitting)
        if step < 1:
            break
    verdict = request.python("-m", "pyperf", "compare_to", "a.json", "b.json").strip()
    said = f"{done} processes each: {' '.join(verdict.split())}"
    return Finding(found.ratio, found.low, found.high, said)


def pyperf_command(arm: str, processes: int, loops: str) -> list[str]:
    """Return pyperf's command. Loops of "0" let it calibrate; later processes take its number."""
    return [
        *("-m", "pyperf", "timeit", "--quiet", "--copy-env", "--name", "conv"),
        *("--processes", str(processes), "--loops", loops, "--append", f"{arm}.json"),
        *("--setup", SETUP.format(arm=arm), STATEMENT),
    ]


def pyperf_values(path: Path) -> tuple[tuple[float, ...], str]:
    """Return the seconds a call of every value in a file, and the loops of its last run."""
    import pyperf

    benchmark = pyperf.Benchmark.load(str(path))
    return tuple(benchmark.get_values()), str(benchmark.get_runs()[-1].get_loops())


def pyperf_finding(a: Sequence[float], b: Sequence[float]) -> Finding:
    """Return the ratio of the means, with the interval that `compare_to`'s t-test implies.

    The test pools all values of all processes. It says "Not significant!" of two functions if the
    interval holds 1.
    """
    errors = [statistics.stdev(of) / math.sqrt(len(of)) / statistics.fmean(of) for of in (a, b)]
    ratio = statistics.fmean(a) / statistics.fmean(b)
    return ratio_of(ratio, errors, len(a) + len(b) - 2, CONFIDENCE, "")


# pytest-benchmark


def ask_pytest_benchmark(request: Request) -> Finding | None:
    """Run both functions in one file, again with a larger --benchmark-max-time where needed."""
    max_time_s = FIRST_MAX_TIME_S
    while True:
        before_s = request.elapsed_s
        output = request.folder / f"{max_time_s:.3f}.json"
        request.python(
            *("-m", "pytest", "pytest_pair.py", "-q", "-p", "no:cacheprovider", "--rootdir", "."),
            f"--benchmark-max-time={max_time_s}",
            f"--benchmark-json={output}",
        )
        found = pytest_finding(json.loads(output.read_text()), f"max-time {max_time_s:.3g} s")
        each_s = (request.elapsed_s - before_s) / max_time_s
        longer_s = max_time_s + further(max_time_s, found.half_width, request.precision)
        longer_s = min(longer_s, request.left_s / each_s)
        if longer_s <= max_time_s:
            return found
        max_time_s = longer_s


def pytest_finding(document: Mapping[str, object], said: str) -> Finding:
    """Return the ratio of the medians, with an interval from the standard errors of the means.

    The tool's table has medians, means, standard deviations and rounds, and no interval. Its user
    can work out the standard error stddev / sqrt(rounds).
    """
    of = {entry["name"]: entry["stats"] for entry in document["benchmarks"]}  # type: ignore[attr-defined]
    a, b = of["test_a"], of["test_b"]
    errors = [each["stddev"] / math.sqrt(each["rounds"]) / each["mean"] for each in (a, b)]
    degrees = a["rounds"] + b["rounds"] - 2
    return ratio_of(a["median"] / b["median"], errors, degrees, CONFIDENCE, said)


# Plain loops


def ask_plain_loop(request: Request) -> Finding | None:
    """Time one function after the other, each in a process of its own, in batches back to back."""
    wanted = math.log1p(request.precision) / math.sqrt(2)
    a = _loop(request, "a", wanted, request.left_s / 2)
    b = _loop(request, "b", wanted, request.left_s)
    half_width = math.hypot(a["half_width"], b["half_width"])
    said = f"{a['batches']} and {b['batches']} batches"
    return Finding.of_logs(a["log"] - b["log"], half_width, said)


def ask_loop_in_turns(request: Request) -> Finding | None:
    """Time both functions in one process, a batch of each in turn."""
    found = _loop(request, "turns", math.log1p(request.precision), request.left_s)
    said = f"{found['batches']} batches each"
    return Finding.of_logs(found["log"], found["half_width"], said)


def _loop(request: Request, what: str, half_width: float, seconds: float) -> dict[str, float]:
    words = ("loop.py", what, str(half_width), str(max(seconds, 0.0)))
    found: dict[str, float] = json.loads(request.python(*words))
    return found


# The table


@dataclass(frozen=True)
class Tool:
    """A tool of the comparison. `claim` tells the table's readers what counts as its interval. The
    module `module` must be installed."""

    name: str
    ask: Callable[[Request], Finding | None]
    confidence: float
    claim: str
    module: str = ""


TOOLS = {
    tool.name: tool
    for tool in (
        Tool(
            "convbench",
            ask_convbench,
            0.99,
            "`convbench run --precision`: speedup and 99 % interval of its result file; checks and "
            "memory meters included",
        ),
        Tool(
            "pyperf",
            ask_pyperf,
            CONFIDENCE,
            "`pyperf timeit` of each, processes added until it is narrow, then `compare_to`: ratio "
            'of means, with the interval for which its t-test says "Not significant!"',
            "pyperf",
        ),
        Tool(
            "pytest-benchmark",
            ask_pytest_benchmark,
            CONFIDENCE,
            "both in one process, larger max-time until it is narrow: ratio of medians, with the "
            "interval from stddev / sqrt(rounds)",
            "pytest_benchmark",
        ),
        Tool(
            "plain loop",
            ask_plain_loop,
            CONFIDENCE,
            "a process each, 0.3 s of warm-up, batches of 10 ms: ratio of the medians of the "
            "batches, with their order-statistic intervals",
        ),
        Tool(
            "loop in turns",
            ask_loop_in_turns,
            CONFIDENCE,
            "one process, batches of 10 ms of both in turn: median of their ratios, with its "
            "order-statistic interval",
        ),
    )
}


def missing(names: Sequence[str]) -> dict[str, str]:
    """Return the reasons why tools cannot be asked here, by name, without the tools that can."""
    found = {
        name: "not installed (pip install '.[benchmarks]')"
        for name in names
        if TOOLS[name].module and not find_spec(TOOLS[name].module)
    }
    if "convbench" in names and not _has_precision():
        found["convbench"] = "this version's `run` has no --precision"
    return found


def _has_precision() -> bool:
    command = [sys.executable, "-m", "convbench", "run", "--help"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, cwd=ROOT)
    return "--precision" in done.stdout
