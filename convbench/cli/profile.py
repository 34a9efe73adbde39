"""`convbench profile`: why is it slower, and what would help."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convbench.cli.console import Watcher, complain, guarded
from convbench.cli.measuring import (
    EffortOption,
    InterruptedRun,
    KernelLayout,
    LayoutOption,
    NoTune,
    Quiet,
    SeedOption,
    Threads,
    Timeout,
    new_session,
    options_of,
    selected,
    watched,
    with_implementations,
)
from convbench.cli.show import Format, print_report, refuse_checks
from convbench.errors import ConvbenchError, ExitCode

if TYPE_CHECKING:
    from convbench.layer import Layer
    from convbench.suite import Suite

HEAVY = 0.5
"""The first layer with this part of the heaviest one's FLOPs is the one to look at."""


@guarded
def profile(
    target: Annotated[
        str,
        typer.Argument(
            help="A suite: a YAML file, or a shipped one by name (mnist).", metavar="SUITE"
        ),
    ],
    impl: Annotated[
        str | None,
        typer.Option(
            "--impl",
            help="What is profiled; FILE.py:NAME is your own.  [default: the suite's first]",
        ),
    ] = None,
    versus: Annotated[
        str, typer.Option(help="What it is held against: fastest-keras, or an implementation.")
    ] = "fastest-keras",
    layout: LayoutOption = None,
    kernel_layout: KernelLayout = None,
    layer: Annotated[
        str | None, typer.Option(help="The layer.  [default: the first heavy one]")
    ] = None,
    pass_: Annotated[str, typer.Option("--pass", help="The pass.")] = "forward",
    threads: Threads = None,
    effort: EffortOption = None,
    seed: SeedOption = None,
    no_tune: NoTune = False,
    timeout: Timeout = 300.0,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Profile code whose result is wrong.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A file: .json .md .svg .html .txt .csv; - is stdout."),
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="How it is printed.")] = Format.TABLE,
    quiet: Quiet = False,
) -> None:
    """Take one cell apart: where its time goes, why the gap, and what would help how much.

    Exit code 0, or 5 where the code is wrong or crashes: `check` tells what is wrong.
    """
    import tempfile

    from convbench.report import format_of, profile_tables
    from convbench.schedule.profiling import Request
    from convbench.schedule.profiling import profile as take_apart
    from convbench.suite import FASTEST_KERAS, KERAS_WAYS
    from convbench.suite_file import read_suite

    refuse_checks(format_, "profile")
    if output is not None and str(output) != "-":
        format_of(output)
    suite = read_suite(target)
    name = impl or next(n for n in suite.implementations if n not in KERAS_WAYS)
    others = list(KERAS_WAYS) if versus == FASTEST_KERAS else [versus]
    if name == versus or (versus == FASTEST_KERAS and name in KERAS_WAYS):
        raise ConvbenchError(f"{name} cannot be held against itself", hint="--impl, --versus")
    suite = with_implementations(suite, [name, *others], layout, kernel_layout)
    chosen = layer or _first_heavy(suite).name
    suite = selected(suite, [pass_], [chosen], None)
    if len(suite.layers) != 1:
        names = ", ".join(each.name for each in suite.layers)
        raise ConvbenchError(f"--layer: found {len(suite.layers)} ({names}), expected one")
    mine = suite.implementations[0]
    with tempfile.TemporaryDirectory() as folder, Watcher(quiet) as watcher:
        path = Path(folder) / "run.json"
        session = new_session(suite, threads, effort, seed or 0, path, None, not no_tune)
        options = options_of(session, None, timeout)
        try:
            request = Request(mine, versus, anyway)
            found = watched(session, take_apart(session, request, options), watcher)
        except InterruptedRun:
            complain("interrupted: a profile is of one piece, nothing was saved")
            raise SystemExit(ExitCode.INTERRUPTED) from None
    report = profile_tables.report(found)
    if output is not None and str(output) != "-":
        print_report(report, format_, output)
        complain(f"saved {output}")
        output = None
    print_report(report, format_, output)


def _first_heavy(suite: Suite) -> Layer:
    heaviest = max(layer.flops for layer in suite.layers)
    return next(layer for layer in suite.layers if layer.flops >= HEAVY * heaviest)
