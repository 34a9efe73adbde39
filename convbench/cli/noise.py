"""Run `convbench noise`: try the gate on known pairs, to see if this machine is good enough."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convbench.cli.console import Watcher, complain, guarded
from convbench.cli.measuring import (
    InterruptedRun,
    any_wrong,
    new_session,
    options_of,
    refuse_to_mix,
    remember_run,
    selected,
    watched,
)
from convbench.cli.options import (
    BudgetOption,
    Conditions,
    EffortOption,
    Force,
    Part,
    Shown,
    grouped,
    percentage,
)
from convbench.cli.show import print_report, refuse_checks
from convbench.errors import ConvbenchError, ExitCode
from convbench.report.views.scale import counted

if TYPE_CHECKING:
    from convbench.noise.trials import NoiseFile, NoiseRun
    from convbench.schedule import Options, Pairs, Session
    from convbench.schedule.events import Event
    from convbench.suites.suite import Suite

DEFAULT_PATH = Path("results/noise.json")
"""Noise file that is saved if none is named."""


@dataclass(frozen=True)
class Trials:
    """The options that say which arms are compared, and how often."""

    runs: Annotated[int, typer.Option(help="Number of runs of the gate.", min=1)] = 5
    inject: Annotated[
        str,
        typer.Option(help="Slowdowns of further arms; '' for none.", metavar="2%,5%,..."),
    ] = "2%,5%,10%"
    each: Annotated[
        bool,
        typer.Option("--each", help="Judge each pair alone, and skip the jobs of all pairs."),
    ] = False
    impl: Annotated[
        str | None,
        typer.Option(
            "--impl",
            help="Implementation to compare with itself.  [default: the suite's first that is "
            "neither loop nor Keras]",
        ),
    ] = None


@guarded
@grouped
def noise(
    *,
    target: Annotated[
        str,
        typer.Argument(help="The suite; `noise` runs without TensorFlow.", metavar="SUITE"),
    ] = "noise",
    trials: Trials,
    part: Part,
    conditions: Conditions,
    effort: EffortOption = None,
    budget: BudgetOption = None,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="Noise file to save. Runs are added to one of the same machine and suite.",
        ),
    ] = DEFAULT_PATH,
    force: Force = False,
    shown: Shown,
) -> None:
    """Try the gate on known differences, to see what it can detect.

    An implementation runs against itself, and against itself slowed by known delays. The gate's own
    code judges each pair. The findings are saved for `convbench gate --noise`. The exit code is 0,
    or 5 if a cell is wrong or crashed.
    """
    from convbench.implementations.registry import REGISTRY
    from convbench.schedule import Pairs
    from convbench.suites.file import read_suite

    refuse_checks(shown.format_, "noise")
    slowdowns = [text for text in trials.inject.split(",") if text.strip()]
    injected = sorted({percentage(text, "--inject") for text in slowdowns} - {0})
    suite = selected(read_suite(target), part)
    subject = _subject(suite, trials.impl)
    pairs = Pairs.of(subject, injected)
    deadline = None if budget is None else time.monotonic() + budget
    with tempfile.TemporaryDirectory(prefix="convbench-noise-") as folder:
        first = new_session(
            pairs.suite(suite),
            conditions,
            Path(folder) / "run.json",
            effort,
            registry=REGISTRY.knowing(*suite.own, *pairs.variants),
        )
        begun = _begun(output, force, first, subject)
        options = options_of(first, conditions, comparing=True)
        with Watcher(shown.quiet) as watcher:
            runs = _runs(first, options, (pairs, not trials.each), trials.runs, deadline, watcher)
            file, end = _saved(output, begun, runs)
    _tell(file, output, end, shown)


class _End(StrEnum):
    """How a campaign of runs ended."""

    FINE = "fine"
    WRONG = "wrong"
    INTERRUPTED = "interrupted"


def _saved(
    path: Path, file: NoiseFile, runs: Iterable[tuple[Session, NoiseRun]]
) -> tuple[NoiseFile, _End]:
    """Add each run to the file as soon as it is made. Return the file, and how the runs ended."""
    from convbench.noise.file import save

    end = _End.FINE
    try:
        for session, done in runs:
            if any_wrong(session.result()):
                end = _End.WRONG
            file = replace(file, machine=session.machine, software=session.software)
            file = replace(file, runs=(*file.runs, done))
            save(path, file)
            remember_run(session.saved(), file.implementation)
    except InterruptedRun:
        end = _End.INTERRUPTED
    return file, end


def _tell(file: NoiseFile, path: Path, end: _End, shown: Shown) -> None:
    """Print what the file holds, and exit unless all is fine."""
    from convbench.report.views.noise_tables import report

    if file.runs:
        print_report(report(file), shown.format_, None)
        complain(f"saved {path}")
    if end is _End.INTERRUPTED:
        made = counted(len(file.runs), "run")
        complain(f"interrupted after {made}: the next command adds further runs to the file")
        raise SystemExit(ExitCode.INTERRUPTED)
    if end is _End.WRONG:
        raise SystemExit(ExitCode.WRONG)


def _subject(suite: Suite, impl: str | None) -> str:
    """Return the implementation that is run against itself.

    Raises ConvbenchError for a name that is not known.
    """
    from convbench.implementations.registry import REGISTRY
    from convbench.suites.suite import KERAS_WAYS, LOOP

    if impl is not None:
        REGISTRY.knowing(*suite.own).get(impl)
        return impl
    others = [name for name in suite.implementations if name not in (LOOP, *KERAS_WAYS)]
    return (others or list(suite.implementations))[0]


def _begun(path: Path, force: bool, session: Session, subject: str) -> NoiseFile:
    """Return the file to add to: the one that exists, or a new one.

    Raises ResultError for a file of another machine, other software or another campaign.
    """
    from convbench.noise.file import load
    from convbench.noise.trials import SCHEMA, NoiseFile
    from convbench.results.file import reserve

    new = NoiseFile(
        schema_=SCHEMA,
        machine=session.machine,
        software=session.software,
        environment=session.environment,
        suite=session.suite.name,
        implementation=subject,
        threads=session.threads,
        effort=session.effort,
    )
    if path.suffix != ".json":
        raise ConvbenchError(f"{path}: a noise file ends in .json")
    reserve(path, force=True)
    if force or not path.exists():
        return new
    old = load(path)
    refuse_to_mix(
        f"{path} cannot be added to",
        (
            ("CPU", old.machine.cpu, new.machine.cpu),
            ("CPUs", old.machine.logical_cpus, new.machine.logical_cpus),
            ("versions", old.software.versions, new.software.versions),
            ("variables", old.environment, new.environment),
            ("suite", old.suite, new.suite),
            ("implementation", old.implementation, new.implementation),
            ("threads", old.threads, new.threads),
            ("effort", old.effort, new.effort),
        ),
        hint="start the file again with --force, or name another one with -o",
    )
    return old


def _runs(
    first: Session,
    options: Options,
    what: tuple[Pairs, bool],
    number: int,
    deadline: float | None,
    watcher: Watcher,
) -> Generator[tuple[Session, NoiseRun], None, None]:
    """Yield one run after the other, as many as are asked for and end before the deadline.

    Cells that the first run found right are not checked again. Each run has its own processes.
    """
    from convbench.schedule import campaign_run

    session = first
    longest = 0.0
    for run in range(1, number + 1):
        if deadline is not None and time.monotonic() + longest > deadline and run > 1:
            complain(f"the budget allowed {run - 1} of {number} runs")
            return
        session = session if run == 1 else _again(first, run)
        events: Generator[Event, None, NoiseRun] = campaign_run(session, options, *what)
        began = time.monotonic()
        found = watched(session, _labelled(events, run, number), watcher)
        longest = max(longest, time.monotonic() - began)
        yield session, found


def _again(first: Session, run: int) -> Session:
    """Return the same session without samples, and with another order of its arms."""
    return replace(first, benchmarks={}, seed=first.seed + run - 1, cells=dict(first.cells))


def _labelled(
    events: Generator[Event, None, NoiseRun], run: int, number: int
) -> Generator[Event, None, NoiseRun]:
    """Yield the events. Events of progress name the run."""
    from convbench.schedule.events import Progress

    while True:
        try:
            event = next(events)
        except StopIteration as done:
            found: NoiseRun = done.value
            return found
        if isinstance(event, Progress):
            event = replace(event, what=f"run {run} of {number}, {event.what}")
        yield event
