"""Run `convbench profile`: why is an implementation slower, and what would help?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from convbench.cli.console import Watcher, complain, guarded
from convbench.cli.measuring import (
    InterruptedRun,
    new_session,
    options_of,
    selected,
    watched,
    with_implementations,
)
from convbench.cli.options import (
    Conditions,
    EffortName,
    EffortOption,
    FormatName,
    Layouts,
    Part,
    ReportPath,
    Shown,
    SuiteName,
    grouped,
)
from convbench.cli.run import exit_code
from convbench.cli.show import print_report, refuse_checks
from convbench.errors import ConvbenchError, ExitCode
from convbench.suites.suite import FASTEST_KERAS, KERAS_WAYS

if TYPE_CHECKING:
    from convbench.problem.layer import Layer
    from convbench.profile.document import Profile
    from convbench.report.views.table import Report
    from convbench.suites.suite import Suite

LADDER = "ladder"
"""The shipped suite that the ladder is measured on."""

HEAVY = 0.5
"""Share of the heaviest layer's FLOPs. The first layer with so many is profiled by default."""


@dataclass(frozen=True)
class Subject:
    """The options that say what is profiled, and what it is compared with."""

    impl: Annotated[
        str | None,
        typer.Option(
            "--impl",
            help="Implementation to profile; FILE.py:NAME is your own code.  [default: the "
            "suite's first]",
        ),
    ] = None
    versus: Annotated[
        str, typer.Option(help="Implementation to compare it with, or fastest-keras.")
    ] = FASTEST_KERAS
    layer: Annotated[
        str | None, typer.Option(help="Layer to profile.  [default: the first heavy one]")
    ] = None
    pass_: Annotated[str, typer.Option("--pass", help="Pass to profile.")] = "forward"
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Profile code even if its result is wrong.")
    ] = False


class _Measuring(NamedTuple):
    """The options that say how much is measured, and under which conditions."""

    conditions: Conditions
    effort: EffortName | None
    quiet: bool


@guarded
@grouped
def profile(
    *,
    target: SuiteName = None,
    subject: Subject,
    layouts: Layouts,
    conditions: Conditions,
    effort: EffortOption = None,
    ladder: Annotated[
        bool,
        typer.Option(
            "--ladder",
            help="Show what each step from the plain loop to fast code gains here.  "
            "[default SUITE: ladder]",
        ),
    ] = False,
    output: ReportPath = None,
    shown: Shown,
) -> None:
    """Take one cell apart: where does its time go, and what would help?

    A cell is one implementation of one pass of one layer. The exit code is 0, or 5 if the code is
    wrong or crashes: `convbench check` tells what is wrong.
    """
    from convbench.profile.tables import report
    from convbench.report import format_of

    refuse_checks(shown.format_, "profile")
    if output is not None and str(output) != "-":
        format_of(output)
    measuring = _Measuring(conditions, effort, shown.quiet)
    if ladder:
        if subject.impl or subject.versus != FASTEST_KERAS:
            raise ConvbenchError(
                "--ladder has its own steps: --impl and --versus cannot be given with it"
            )
        _climb(target or LADDER, subject.layer, measuring, output, shown.format_)
    elif target is None:
        raise ConvbenchError("name a suite", hint="convbench profile mnist, or --ladder")
    else:
        found = _taken_apart(target, subject, layouts, measuring)
        _show(report(found), shown.format_, output)


def _taken_apart(target: str, subject: Subject, layouts: Layouts, measuring: _Measuring) -> Profile:
    import tempfile

    from convbench.profile.schedule import Request
    from convbench.profile.schedule import profile as take_apart

    suite, name = _one_cell(target, subject, layouts)
    with tempfile.TemporaryDirectory() as folder, Watcher(measuring.quiet) as watcher:
        path = Path(folder) / "run.json"
        session = new_session(suite, measuring.conditions, path, measuring.effort)
        options = options_of(session, measuring.conditions)
        try:
            request = Request(name, subject.versus, subject.anyway)
            return watched(session, take_apart(session, request, options), watcher)
        except InterruptedRun:
            complain("interrupted: an unfinished profile is not saved")
            raise SystemExit(ExitCode.INTERRUPTED) from None


def _one_cell(target: str, subject: Subject, layouts: Layouts) -> tuple[Suite, str]:
    """Return the suite with one layer and one pass, and the implementation that is profiled."""
    from convbench.suites.file import read_suite

    suite = read_suite(target)
    name = subject.impl or next(n for n in suite.implementations if n not in KERAS_WAYS)
    against_keras = subject.versus == FASTEST_KERAS
    if name == subject.versus or (against_keras and name in KERAS_WAYS):
        raise ConvbenchError(
            f"{name} cannot be compared with itself", hint="give another --impl or --versus"
        )
    others = list(KERAS_WAYS) if against_keras else [subject.versus]
    suite = with_implementations(suite, [name, *others], layouts, only_own=True)
    layer = subject.layer or _first_heavy(suite).name
    suite = selected(suite, Part([subject.pass_], [layer]))
    if len(suite.layers) != 1:
        names = ", ".join(each.name for each in suite.layers)
        raise ConvbenchError(f"--layer: found {len(suite.layers)} ({names}), expected one")
    return suite, name


def _show(report: Report, format_: FormatName, output: Path | None) -> None:
    """Print the report, and also write it to `output` if a file is named."""
    if output is not None and str(output) != "-":
        print_report(report, format_, output)
        complain(f"saved {output}")
    print_report(report, format_, None)


def _climb(
    target: str,
    layer: str | None,
    measuring: _Measuring,
    output: Path | None,
    format_: FormatName,
) -> None:
    """Measure the ladder like any run, and show it."""
    import tempfile
    from dataclasses import replace

    from convbench.profile import ladder_tables
    from convbench.schedule import run as run_schedule

    suite = _with_rungs(target, layer)
    saves = output is not None and output.suffix == ".json"
    with tempfile.TemporaryDirectory() as folder, Watcher(measuring.quiet) as watcher:
        path = output if output is not None and saves else Path(folder) / "run.json"
        session = new_session(suite, measuring.conditions, path, measuring.effort)
        options = replace(options_of(session, measuring.conditions), metering=False)
        try:
            watched(session, run_schedule(session, options), watcher)
        except InterruptedRun:
            complain("interrupted: the report shows the measurements so far")
            _show(ladder_tables.report(session.result()), format_, None)
            raise SystemExit(ExitCode.INTERRUPTED) from None
        result = session.result()
    if saves:
        complain(f"saved {output}")
    _show(ladder_tables.report(result), format_, None if saves else output)
    raise SystemExit(exit_code(result))


def _with_rungs(target: str, layer: str | None) -> Suite:
    """Return the suite with one layer, its forward pass, the steps of the ladder, and Keras."""
    from dataclasses import replace

    from convbench.profile.ladder import RUNGS
    from convbench.suites.file import read_suite

    suite = read_suite(target)
    chosen = selected(suite, Part(["forward"], [layer or _first_heavy(suite).name]))
    return replace(
        chosen,
        implementations=(*(rung.name for rung in RUNGS), *KERAS_WAYS),
        own=tuple(rung.own_code for rung in RUNGS),
    )


def _first_heavy(suite: Suite) -> Layer:
    heaviest = max(layer.flops for layer in suite.layers)
    return next(layer for layer in suite.layers if layer.flops >= HEAVY * heaviest)
