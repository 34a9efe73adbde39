"""Run `convbench profile`: why is it slower, and what would help?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convbench.cli.console import Watcher, complain, guarded
from convbench.cli.measuring import (
    EffortName,
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
from convbench.cli.run import exit_code
from convbench.cli.show import Format, print_report, refuse_checks
from convbench.errors import ConvbenchError, ExitCode

if TYPE_CHECKING:
    from convbench.problem.layer import Layer
    from convbench.report.views.table import Report
    from convbench.suites.suite import Suite

LADDER = "ladder"
"""The shipped suite that the ladder is measured on."""

HEAVY = 0.5
"""The first layer with this part of the heaviest one's FLOPs is the one to look at."""


@guarded
def profile(
    target: Annotated[
        str | None,
        typer.Argument(
            help="A suite: a YAML file, or a shipped one by name (mnist).", metavar="SUITE"
        ),
    ] = None,
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
    ladder: Annotated[
        bool,
        typer.Option(
            "--ladder",
            help="What each step from the loop to what is fast is worth here.  [SUITE: ladder]",
        ),
    ] = False,
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

    from convbench.profile import tables as profile_tables
    from convbench.profile.schedule import Request
    from convbench.profile.schedule import profile as take_apart
    from convbench.report import format_of
    from convbench.suites.file import read_suite
    from convbench.suites.suite import FASTEST_KERAS, KERAS_WAYS

    refuse_checks(format_, "profile")
    if output is not None and str(output) != "-":
        format_of(output)
    if ladder:
        given = {"--impl": impl, "--versus": None if versus == FASTEST_KERAS else versus}
        if any(given.values()):
            raise ConvbenchError("--ladder has its own steps: --impl and --versus are not for it")
        suite = _with_rungs(read_suite(target or LADDER), layer)
        _climb(suite, threads, effort, seed or 0, timeout, quiet, output, format_)
        return
    if target is None:
        raise ConvbenchError("name a suite", hint="convbench profile mnist, or --ladder")
    suite = read_suite(target)
    name = impl or next(n for n in suite.implementations if n not in KERAS_WAYS)
    others = list(KERAS_WAYS) if versus == FASTEST_KERAS else [versus]
    if name == versus or (versus == FASTEST_KERAS and name in KERAS_WAYS):
        raise ConvbenchError(f"{name} cannot be held against itself", hint="--impl, --versus")
    suite = with_implementations(suite, [name, *others], layout, kernel_layout, only_own=True)
    chosen = layer or _first_heavy(suite).name
    suite = selected(suite, [pass_], [chosen], None)
    if len(suite.layers) != 1:
        names = ", ".join(each.name for each in suite.layers)
        raise ConvbenchError(f"--layer: found {len(suite.layers)} ({names}), expected one")
    with tempfile.TemporaryDirectory() as folder, Watcher(quiet) as watcher:
        path = Path(folder) / "run.json"
        session = new_session(suite, threads, effort, seed or 0, path, None, not no_tune)
        options = options_of(session, None, timeout)
        try:
            request = Request(name, versus, anyway)
            found = watched(session, take_apart(session, request, options), watcher)
        except InterruptedRun:
            complain("interrupted: a profile is of one piece, nothing was saved")
            raise SystemExit(ExitCode.INTERRUPTED) from None
    _show(profile_tables.report(found), format_, output)


def _show(report: Report, format_: Format, output: Path | None) -> None:
    """Into the file that was named, and on stdout in any case."""
    if output is not None and str(output) != "-":
        print_report(report, format_, output)
        complain(f"saved {output}")
    print_report(report, format_, None)


def _climb(
    suite: Suite,
    threads: str | None,
    effort: EffortName | None,
    seed: int,
    timeout: float,
    quiet: bool,
    output: Path | None,
    format_: Format,
) -> None:
    """Measures the ladder as any run, and shows it."""
    import tempfile
    from dataclasses import replace

    from convbench.profile import ladder_tables
    from convbench.schedule import run as run_schedule

    saves = output is not None and output.suffix == ".json"
    with tempfile.TemporaryDirectory() as folder, Watcher(quiet) as watcher:
        path = output if output is not None and saves else Path(folder) / "run.json"
        session = new_session(suite, threads, effort, seed, path)
        options = replace(options_of(session, None, timeout), metering=False)
        try:
            watched(session, run_schedule(session, options), watcher)
        except InterruptedRun:
            complain("interrupted: what was measured until then is shown")
            _show(ladder_tables.report(session.result()), format_, None)
            raise SystemExit(ExitCode.INTERRUPTED) from None
        result = session.result()
    if saves:
        complain(f"saved {output}")
    _show(ladder_tables.report(result), format_, None if saves else output)
    raise SystemExit(exit_code(result))


def _with_rungs(suite: Suite, layer: str | None) -> Suite:
    """One layer of the suite, forward, with the steps of the ladder and Keras."""
    from dataclasses import replace

    from convbench.profile.ladder import RUNGS
    from convbench.suites.suite import KERAS_WAYS

    chosen = selected(suite, ["forward"], [layer or _first_heavy(suite).name])
    return replace(
        chosen,
        implementations=(*(rung.name for rung in RUNGS), *KERAS_WAYS),
        own=tuple(rung.own_code for rung in RUNGS),
    )


def _first_heavy(suite: Suite) -> Layer:
    heaviest = max(layer.flops for layer in suite.layers)
    return next(layer for layer in suite.layers if layer.flops >= HEAVY * heaviest)
