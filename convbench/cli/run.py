"""`convbench run`: check, time and meter a suite, print the tables, save one result file."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convbench.cli.console import Watcher, complain, guarded
from convbench.cli.show import Format, print_result
from convbench.errors import PRECEDENCE, ConvbenchError, ExitCode

if TYPE_CHECKING:
    from convbench.results import ResultFile
    from convbench.schedule import Session
    from convbench.suite import Suite


class EffortName(StrEnum):
    SMOKE = "smoke"
    QUICK = "quick"
    STANDARD = "standard"
    RIGOROUS = "rigorous"


@guarded
def run(
    target: Annotated[
        str | None,
        typer.Argument(
            help="A suite: a YAML file, or a shipped one by name (mnist).", metavar="SUITE"
        ),
    ] = None,
    impl: Annotated[
        list[str] | None,
        typer.Option(
            "--impl",
            help="Only these implementations; FILE.py:NAME adds your own f(x, kernel), NCHW. "
            "Repeatable.",
        ),
    ] = None,
    pass_: Annotated[
        list[str] | None, typer.Option("--pass", help="Only these passes. Repeatable.")
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option("--layer", help="Only layers whose name matches, e.g. 'conv*'. Repeatable."),
    ] = None,
    threads: Annotated[
        str | None, typer.Option(help="Threads for every implementation: 'all' or a number.")
    ] = None,
    effort: Annotated[
        EffortName | None,
        typer.Option(help="How much is measured.  [default: the suite's, or standard]"),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(help="Seconds for the whole run: fewer rounds, then fewer arms.", min=1),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of operands and of the order.  [default: 0]", min=0)
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(help="Seconds after which a cell that does not answer is given up.", min=1),
    ] = 300.0,
    time_wrong: Annotated[
        bool, typer.Option("--time-wrong", help="Time wrong cells too; they are not ranked.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The result file.  [default: results/SUITE-TIME.json]"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the result file.")] = False,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with this result file.", metavar="FILE")
    ] = None,
    format_: Annotated[
        Format, typer.Option("--format", help="How the tables are printed.")
    ] = Format.TABLE,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Check, time and meter a suite; print the tables; save one result file.

    Exit code 0 when all is well, 3 when a duplicate arm shows that the timings cannot be trusted,
    5 when a cell is wrong or crashed.
    """
    from convbench import result_file
    from convbench.schedule import Options
    from convbench.schedule import run as run_schedule
    from convbench.schedule.events import Saved
    from convbench.schedule.options import worker_environment
    from convbench.suite_file import read_suite

    if (target is None) == (resume is None):
        raise ConvbenchError(
            "name a suite, or a result file to --resume; one of the two",
            hint="convbench run configs/mnist.yaml",
        )
    if resume is not None:
        chosen = {
            "--impl": impl,
            "--pass": pass_,
            "--layer": layer,
            "--threads": threads,
            "--seed": seed,
            "--output": output,
        }
        given = [option for option, value in chosen.items() if value is not None]
        if given:
            raise ConvbenchError(
                f"--resume goes on with what {resume} was started with: {', '.join(given)} "
                "cannot be changed",
                hint="--effort, --budget, --timeout and --time-wrong can",
            )
        session = _resumed(resume, effort)
        result_file.reserve(session.path, force=True)
    else:
        suite = _selected(read_suite(str(target)), impl, pass_, layer)
        path = output or result_file.default_path(suite.name)
        if path.suffix != ".json":
            raise ConvbenchError(f"{path}: a result file ends in .json")
        result_file.reserve(path, force)
        session = _session(suite, threads, effort, seed or 0, path)
    options = Options(
        environment=worker_environment(os.environ, session.suite.environment),
        budget_s=budget,
        timeout_s=timeout,
        time_wrong=time_wrong,
    )

    interrupted = False
    asked_for = session.path
    events = run_schedule(session, options)
    with Watcher(quiet) as watcher:
        try:
            for event in events:
                watcher.show(event)
                if isinstance(event, Saved) and event.path != asked_for:
                    asked_for = event.path
                    complain(f"warning: results now go to {event.path}: the folder failed")
        except KeyboardInterrupt:
            interrupted = True
            events.close()
            session.save()

    result = session.result()
    print_result(result, format_)
    complain(f"saved {session.path}")
    if interrupted:
        complain(f"interrupted after {result.rounds} rounds: convbench run --resume {session.path}")
        raise SystemExit(ExitCode.INTERRUPTED)
    raise SystemExit(exit_code(result))


def exit_code(result: ResultFile) -> ExitCode:
    """5 for a wrong or crashed cell, else 3 for an unreliable run, else 0."""
    from convbench.summary import is_unreliable

    found = {ExitCode.FINE}
    if any(cell.status in ("wrong", "failed") for cell in result.cells):
        found.add(ExitCode.WRONG)
    if is_unreliable(result):
        found.add(ExitCode.INCONCLUSIVE)
    return next(code for code in PRECEDENCE if code in found)


def _selected(
    suite: Suite, impl: list[str] | None, passes: list[str] | None, layers: list[str] | None
) -> Suite:
    """The suite with only what the options name; the user's own code is added to it."""
    from dataclasses import replace
    from difflib import get_close_matches
    from fnmatch import fnmatchcase

    from convbench import implementations
    from convbench.layer import Pass

    if impl:
        own = [name for name in impl if implementations.is_user_code(name)]
        named = [name for name in impl if name not in own] or list(suite.implementations)
        names = tuple(dict.fromkeys([*named, *own]))
        for name in names:
            implementations.get(
                name
            )  # raises for a name that is not known, a file that is not there
        suite = replace(suite, implementations=names)
    if passes:
        unknown = [name for name in passes if name not in list(Pass)]
        if unknown:
            close = get_close_matches(unknown[0], list(Pass), n=1)
            raise ConvbenchError(
                f"--pass: there is no pass {unknown[0]!r}",
                hint=(f"did you mean '{close[0]}'? " if close else "")
                + f"Known: {', '.join(Pass)}",
            )
        suite = replace(suite, passes=tuple(p for p in Pass if p in passes))
    if layers:
        kept = tuple(
            layer
            for layer in suite.layers
            if any(fnmatchcase(layer.name, pattern) for pattern in layers)
        )
        if not kept:
            names_of_all = ", ".join(layer.name for layer in suite.layers)
            raise ConvbenchError(
                f"--layer: no layer of {suite.name} matches {' or '.join(layers)}",
                hint=f"its layers: {names_of_all}",
            )
        suite = replace(suite, layers=kept)
    return suite


def _session(
    suite: Suite, threads: str | None, effort: EffortName | None, seed: int, path: Path
) -> Session:
    from convbench import cautions, machine, result_file
    from convbench.schedule import Session
    from convbench.schedule.options import worker_environment

    environment = worker_environment(os.environ, suite.environment)
    return Session(
        suite=suite,
        machine=machine.fingerprint(),
        software=machine.software(),
        environment=cautions.relevant_environment(environment),
        threads=_thread_count(threads if threads is not None else suite.threads),
        effort=effort.value if effort is not None else suite.effort,
        seed=seed,
        path=path,
        metadata=result_file.pyperf_metadata(),
    )


def _thread_count(asked: str | int) -> int:
    from convbench.machine import usable_cpus

    usable = len(usable_cpus())
    if asked == "all":
        return usable
    if not str(asked).isdigit() or not 1 <= int(asked) <= usable:
        raise ConvbenchError(
            f"threads: found {asked!r}, expected 'all' or a number from 1 to {usable}, "
            "the CPUs that this process may use"
        )
    return int(asked)


def _resumed(path: Path, effort: EffortName | None) -> Session:
    """The session of a result file. Raises for a file of another machine or other software."""
    from convbench import machine, result_file
    from convbench.cautions import relevant_environment
    from convbench.errors import ResultError
    from convbench.schedule import Session
    from convbench.schedule.options import worker_environment

    saved = result_file.load(path)
    session = Session.resume(saved, path)
    here, there = machine.fingerprint(), session.machine
    environment = relevant_environment(worker_environment(os.environ, session.suite.environment))
    differences = [
        f"{what}: {then} then, {now} now"
        for what, then, now in (
            ("CPU", there.cpu, here.cpu),
            ("CPUs", there.logical_cpus, here.logical_cpus),
            ("versions", session.software.versions, machine.software().versions),
            ("variables", session.environment, environment),
        )
        if then != now
    ]
    if differences:
        error = ResultError(
            f"{path} cannot be resumed here: {'; '.join(differences)}",
            hint="rounds of two machines, versions or settings do not belong together: start a "
            "new run",
        )
        error.exit_code = ExitCode.INCOMPARABLE
        raise error
    if effort is not None:
        session.effort = effort.value
    return session
