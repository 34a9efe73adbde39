"""Compare every algorithm on every suite with the fastest way to run Keras, and with the targets.

    python benchmarks/kernels.py [--suites mnist lenet] [-o FOLDER] > results/kernels.txt
    python benchmarks/kernels.py --from results/kernels/*.json

Each suite and number of threads takes one `convbench run` in a process of its own, without the
variables that pin BLAS kernels, and gives one result file in FOLDER. A campaign that was killed
goes on when it is started again. Nothing else may run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from kernel_tables import report
from kernel_targets import NETWORKS, SMALL, Run

from convbench.errors import ConvbenchError
from convbench.implementations.registry import BUILT_IN
from convbench.machine.cautions import BLAS_PINS
from convbench.problem.layer import Pass
from convbench.report.formats.terminal import print_report
from convbench.report.views.scale import counted
from convbench.results import file as result_file
from convbench.runtimes.numpy import NumPy
from convbench.runtimes.tensorflow import TensorFlow
from convbench.schedule.budget import arm_s
from convbench.schedule.effort import EFFORTS
from convbench.suites.file import read_suite
from convbench.suites.suite import KERAS_WAYS, Suite, shipped_suites

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "results" / "kernels"
SUITES = (*SMALL, *NETWORKS, "mobilenet")
"""Suites that have a target. `--suites all` takes the other networks too."""

NO_BENCHMARKS = ("coverage", "geometry", "ladder", "noise", "smoke")
"""Shipped suites that check agreement, the gate or the installation, and are not measured here."""

TOO_SLOW = ("loop",)
TOO_SLOW_FOR_NETWORKS = ("naive-im2col",)
OTHERS = {
    "torch": ("PyTorch", "benchmarks/others/torch_conv.py:Torch"),
    "onnxruntime": ("ONNX Runtime", "benchmarks/others/onnxruntime_conv.py:OnnxRuntime"),
}
"""Other frameworks by the module that they need. They run as own code, in their own processes."""

PINS = (
    *BLAS_PINS,
    *NumPy.pins,
    *TensorFlow.pins,
    "OPENBLAS_L2_SIZE",
    "NVPL_BLAS_DEBUG_CPU_TYPE",
)
GUESSED_RATE = 30e9
"""Guessed FLOP/s of one thread, and of the check of a cell, to forecast how long a run takes."""

CHECKED_S = 1.5
"""Seconds to check and meter one cell, without what grows with the layer."""

FINE = (0, 3, 5)
"""Exit codes to go on with. The tables show unreliable timings (3) and wrong cells (5)."""


def main() -> None:
    options = _options()
    try:
        paths = options.from_ or list(campaign(options))
        runs = [Run.of(result_file.load(path)) for path in paths]
    except ConvbenchError as error:
        sys.exit(f"kernels.py: {error.message}")
    print_report(report(runs, remarks(runs, {} if options.from_ else os.environ)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suites", nargs="+", default=list(SUITES), help="names, or `all`")
    parser.add_argument("--implementations", nargs="+", help="beside the three Keras ways")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--effort", choices=list(EFFORTS), default="quick")
    parser.add_argument("--passes", nargs="+", choices=list(Pass), default=list(Pass))
    parser.add_argument("--from", dest="from_", nargs="+", type=Path, metavar="RESULT.json")
    parser.add_argument("-o", dest="folder", type=Path, default=FOLDER, metavar="FOLDER")
    options = parser.parse_args()
    if options.suites == ["all"]:
        others = [name for name in shipped_suites() if name not in (*SUITES, *NO_BENCHMARKS)]
        options.suites = [*SUITES, *others]
    return options


def campaign(options: argparse.Namespace) -> Iterator[Path]:
    """Make the runs that are not there yet, and yield all result files. Exit if a run fails."""
    suites = [read_suite(name) for name in options.suites]
    passes = tuple(Pass(name) for name in options.passes)
    names = {suite.name: implementations(suite.name, options.implementations) for suite in suites}
    planned = [(suite, threads) for suite in suites for threads in options.threads]
    minutes = [
        seconds(suite, names[suite.name], passes, threads, options.effort) / 60
        for suite, threads in planned
    ]
    _say(f"about {sum(minutes):.0f} minutes in all, less for what was measured already")
    _say(*remarks([], os.environ))
    options.folder.mkdir(parents=True, exist_ok=True)
    for (suite, threads), expected in zip(planned, minutes, strict=True):
        path = (options.folder / f"{suite.name}-{threads}.json").resolve()
        _say(f"{suite.name}, {counted(threads, 'thread')}: about {expected:.0f} minutes")
        command = ["--effort", options.effort]
        if path.exists():
            _check_same(path, names[suite.name], passes, threads)
            command += ["--resume", str(path)]
        else:
            command += [
                str(Path(suite.source).resolve()),
                "--threads",
                str(threads),
                "-o",
                str(path),
            ]
            command += [word for name in names[suite.name] for word in ("--impl", name)]
            command += [word for pass_ in passes for word in ("--pass", pass_)]
        code = subprocess.run(
            [sys.executable, "-m", "convbench", "run", *command],
            cwd=ROOT,
            env=without_pins(os.environ),
            stdout=subprocess.DEVNULL,
        ).returncode
        if code not in FINE:
            sys.exit(f"kernels.py: convbench run {' '.join(command)}: exit code {code}")
        yield path


def implementations(suite: str, asked: Sequence[str] | None) -> tuple[str, ...]:
    """Return those asked for, or all that a suite can be run with, and the three Keras ways."""
    slow = TOO_SLOW if suite in SMALL else (*TOO_SLOW, *TOO_SLOW_FOR_NETWORKS)
    known = [name for name in BUILT_IN if name not in slow]
    others = [code for module, (_, code) in OTHERS.items() if find_spec(module)]
    return tuple(dict.fromkeys([*(asked or [*known, *others]), *KERAS_WAYS]))


def seconds(
    suite: Suite, names: Sequence[str], passes: Sequence[Pass], threads: int, effort_name: str
) -> float:
    """Return a rough forecast of a run's seconds, which knows FLOPs and no algorithms."""
    effort = EFFORTS[effort_name]
    imports = TensorFlow.import_s + 2 * NumPy.import_s
    total = effort.rounds * imports
    for layer in suite.layers:
        arm = arm_s(effort, layer.flops / (GUESSED_RATE * threads))
        check = CHECKED_S + effort.rss_s + 3 * layer.flops / GUESSED_RATE
        # Each pass has one more arm, its twin.
        total += len(passes) * (effort.rounds * arm * (len(names) + 1) + check * len(names))
    return total


def without_pins(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name not in PINS}


def remarks(runs: Sequence[Run], environ: Mapping[str, str]) -> list[str]:
    """Say what is not installed, and which pins of BLAS kernels were unset or left in place."""
    measured = {name for run in runs for name in run.result.suite.implementations}
    missing = [
        f"{name}: not installed"
        for module, (name, code) in OTHERS.items()
        if code not in measured and not find_spec(module)
    ]
    unset = [f"unset, so that BLAS kernels are native: {pins}"] if (pins := _pins(environ)) else []
    pinned = [
        f"{run.name}: run with {pins}, so that kernels were not native"
        for run in runs
        if (pins := _pins(run.result.environment))
    ]
    return [*missing, *unset, *pinned]


def _pins(environ: Mapping[str, str]) -> str:
    return " ".join(f"{name}={environ[name]}" for name in PINS if environ.get(name))


def _check_same(path: Path, names: Sequence[str], passes: Sequence[Pass], threads: int) -> None:
    """Check that a file was started with the same options. Raises ConvbenchError if it was not."""
    result = result_file.load(path).result
    asked = {"implementations": set(names), "passes": set(passes), "threads": threads}
    found = {
        "implementations": set(result.suite.implementations),
        "passes": set(result.suite.passes),
        "threads": result.threads,
    }
    different = [what for what in asked if asked[what] != found[what]]
    if different:
        raise ConvbenchError(
            f"{path} was started with other {' and '.join(different)}: remove it, or take another "
            "folder with -o"
        )


def _say(*lines: str) -> None:
    for line in lines:
        print(f"kernels.py: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
