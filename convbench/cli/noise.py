"""Run `convbench noise`: try the gate on known pairs, to see if this machine is good enough."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convbench.cli.console import Watcher, complain, guarded
from convbench.cli.gate_terms import part
from convbench.cli.measuring import (
    EffortOption,
    Force,
    InterruptedRun,
    Layers,
    NoTune,
    Passes,
    Quiet,
    SeedOption,
    Threads,
    Timeout,
    any_wrong,
    new_session,
    options_of,
    remember_run,
    selected,
    watched,
)
from convbench.cli.show import Format, print_report, refuse_checks
from convbench.errors import ConvbenchError, ExitCode
from convbench.report.views.scale import counted

if TYPE_CHECKING:
    from convbench.noise.trials import NoiseFile, NoiseRun
    from convbench.schedule import Options, Pairs, Session
    from convbench.schedule.events import Event
    from convbench.suites.suite import Suite

DEFAULT_PATH = Path("results/noise.json")


@guarded
def noise(
    target: Annotated[
        str, typer.Argument(help="A suite; `noise` is one without TensorFlow.", metavar="SUITE")
    ] = "noise",
    runs: Annotated[int, typer.Option(help="How many runs of the gate.", min=1)] = 5,
    inject: Annotated[
        str,
        typer.Option(help="Slowdowns to put into further arms; '' for none.", metavar="2%,5%,..."),
    ] = "2%,5%,10%",
    each: Annotated[
        bool,
        typer.Option("--each", help="Each pair is a job of its own only; not all together too."),
    ] = False,
    impl: Annotated[
        str | None,
        typer.Option(
            "--impl",
            help="What is run against itself.  [default: the suite's first that is neither loop "
            "nor Keras]",
        ),
    ] = None,
    pass_: Passes = None,
    layer: Layers = None,
    threads: Threads = None,
    effort: EffortOption = None,
    budget: Annotated[
        float | None, typer.Option(help="Seconds for all runs: fewer of them.", min=1)
    ] = None,
    seed: SeedOption = None,
    no_tune: NoTune = False,
    timeout: Timeout = 300.0,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The noise file; one of the same machine and suite is added to.  "
            "[default: results/noise.json]",
        ),
    ] = None,
    force: Force = False,
    format_: Annotated[
        Format, typer.Option("--format", help="How the figures are printed.")
    ] = Format.TABLE,
    quiet: Quiet = False,
) -> None:
    """Try the gate on arms whose difference is known: false alarms, power, what it can detect.

    Runs an implementation against itself and against itself slowed by known delays, through the
    gate's own code, and saves what it found for `convbench gate --noise`. Exit code 0; 5 when a
    cell is wrong or crashed.
    """
    from convbench.implementations.registry import REGISTRY
    from convbench.noise.file import save
    from convbench.report.views.noise_tables import report
    from convbench.schedule import Pairs
    from convbench.suites.file import read_suite

    refuse_checks(format_, "noise")
    injected = sorted({part(text, "--inject") for text in inject.split(",") if text.strip()} - {0})
    suite = selected(read_suite(target), pass_, layer)
    subject = _subject(suite, impl)
    pairs = Pairs.of(subject, injected)
    path = output or DEFAULT_PATH
    deadline = None if budget is None else time.monotonic() + budget
    with tempfile.TemporaryDirectory(prefix="convbench-noise-") as folder, Watcher(quiet) as shown:
        first = new_session(
            pairs.suite(suite),
            threads,
            effort,
            seed or 0,
            Path(folder) / "run.json",
            tune=not no_tune,
            registry=REGISTRY.knowing(*suite.own, *pairs.variants),
        )
        file = _begun(path, force, first, subject)
        options = options_of(first, None, timeout, comparing=True)
        interrupted = wrong = False
        try:
            for session, done in _runs(first, options, (pairs, not each), runs, deadline, shown):
                wrong |= any_wrong(session.result())
                file = replace(file, machine=first.machine, software=first.software)
                file = replace(file, runs=(*file.runs, done))
                save(path, file)
                remember_run(session.saved(), subject)
        except InterruptedRun:
            interrupted = True
    if file.runs:
        print_report(report(file), format_, None)
        complain(f"saved {path}")
    if interrupted:
        made = counted(len(file.runs), "run")
        complain(f"interrupted after {made}; the next command goes on with the file")
        raise SystemExit(ExitCode.INTERRUPTED)
    if wrong:
        raise SystemExit(ExitCode.WRONG)


def _subject(suite: Suite, impl: str | None) -> str:
    """What is run against itself. Raises ConvbenchError for what is not known."""
    from convbench.implementations.registry import REGISTRY
    from convbench.suites.suite import KERAS_WAYS, LOOP

    if impl is not None:
        REGISTRY.knowing(*suite.own).get(impl)
        return impl
    others = [name for name in suite.implementations if name not in (LOOP, *KERAS_WAYS)]
    return (others or list(suite.implementations))[0]


def _begun(path: Path, force: bool, session: Session, subject: str) -> NoiseFile:
    """The file to add to: the one that is there, or a new one. Raises for another machine's."""
    from convbench.errors import ResultError
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
    differences = [
        f"{what}: {then} then, {now} now"
        for what, then, now in (
            ("CPU", old.machine.cpu, new.machine.cpu),
            ("CPUs", old.machine.logical_cpus, new.machine.logical_cpus),
            ("versions", old.software.versions, new.software.versions),
            ("variables", old.environment, new.environment),
            ("suite", old.suite, new.suite),
            ("implementation", old.implementation, new.implementation),
            ("threads", old.threads, new.threads),
            ("effort", old.effort, new.effort),
        )
        if then != now
    ]
    if differences:
        error = ResultError(
            f"{path} cannot be added to: {'; '.join(differences)}",
            hint="--force begins it anew, -o names another file",
        )
        error.exit_code = ExitCode.INCOMPARABLE
        raise error
    return old


def _runs(
    first: Session,
    options: Options,
    what: tuple[Pairs, bool],
    number: int,
    deadline: float | None,
    watcher: Watcher,
) -> Generator[tuple[Session, NoiseRun], None, None]:
    """One run after the other, as many as are asked for and fit before the deadline.

    What the first run found right is not checked again; every run has processes of its own.
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
    """The same session without samples, in another order."""
    return replace(first, benchmarks={}, seed=first.seed + run - 1, cells=dict(first.cells))


def _labelled(
    events: Generator[Event, None, NoiseRun], run: int, number: int
) -> Generator[Event, None, NoiseRun]:
    """The events, those of progress saying which run it is."""
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
