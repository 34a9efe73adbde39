"""Run `convbench run`: check, time and meter a suite, print the tables, save one result file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convbench import addons
from convbench.cli.console import Watcher, complain, guarded
from convbench.cli.gate_terms import part
from convbench.cli.measuring import (
    BudgetOption,
    ConfirmOption,
    EffortName,
    EffortOption,
    Force,
    Impls,
    InterruptedRun,
    KernelLayout,
    Layers,
    LayoutOption,
    NoTune,
    Passes,
    PrecisionOption,
    Quiet,
    ResultPath,
    SeedOption,
    ShardOption,
    StateOption,
    Threads,
    Timeout,
    Top,
    any_wrong,
    new_session,
    options_of,
    recall_runs,
    remember_run,
    result_path,
    selected,
    shard_of,
    watched,
    with_implementations,
)
from convbench.cli.show import Format, print_result
from convbench.errors import PRECEDENCE, ConvbenchError, ExitCode
from convbench.report.views.scale import counted

if TYPE_CHECKING:
    from convbench.results.model import Precision, ResultFile
    from convbench.schedule import Session


@guarded
def run(
    target: Annotated[
        str | None,
        typer.Argument(
            help="A suite: a YAML file, or a shipped one by name (mnist).", metavar="SUITE"
        ),
    ] = None,
    impl: Impls = None,
    layout: LayoutOption = None,
    kernel_layout: KernelLayout = None,
    pass_: Passes = None,
    layer: Layers = None,
    shard: ShardOption = None,
    threads: Threads = None,
    effort: EffortOption = None,
    budget: BudgetOption = None,
    precision: PrecisionOption = None,
    state: StateOption = None,
    confirm: ConfirmOption = False,
    seed: SeedOption = None,
    no_tune: NoTune = False,
    timeout: Timeout = 300.0,
    time_wrong: Annotated[
        bool, typer.Option("--time-wrong", help="Time wrong cells too; they are not ranked.")
    ] = False,
    output: ResultPath = None,
    force: Force = False,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with this result file.", metavar="FILE")
    ] = None,
    format_: Annotated[
        Format, typer.Option("--format", help="How the tables are printed.")
    ] = Format.TABLE,
    top: Top = None,
    quiet: Quiet = False,
) -> None:
    """Check, time and meter a suite; print the tables; save one result file.

    Exit code 0 when all is well, 3 when a duplicate arm shows that the timings cannot be trusted,
    5 when a cell is wrong or crashed.
    """
    from convbench.results import file as result_file
    from convbench.schedule import run as run_schedule
    from convbench.suites.file import read_suite

    if (target is None) == (resume is None):
        raise ConvbenchError(
            "name a suite, or a result file to --resume; one of the two",
            hint="convbench run configs/mnist.yaml",
        )
    if resume is not None:
        chosen = {
            "--impl": impl,
            "--layout": layout,
            "--kernel-layout": kernel_layout,
            "--pass": pass_,
            "--layer": layer,
            "--shard": shard,
            "--threads": threads,
            "--seed": seed,
            "--state": state,
            "--no-tune": no_tune or None,
            "--output": output,
        }
        given = [option for option, value in chosen.items() if value is not None]
        if given:
            raise ConvbenchError(
                f"--resume goes on with what {resume} was started with: {', '.join(given)} "
                "cannot be changed",
                hint="--effort, --budget, --precision, --confirm, --timeout and --time-wrong can",
            )
        session = _resumed(resume, effort)
        result_file.reserve(session.path, force=True)
    else:
        whole = with_implementations(read_suite(str(target)), impl, layout, kernel_layout)
        part = shard_of(shard)
        suite = selected(whole, pass_, layer, part)
        path = result_path(output, suite.name, force, part, resumes=True)
        session = new_session(suite, threads, effort, seed or 0, path, part, not no_tune)
        if state is not None:
            session.state = state.value
        recall_runs(session)
    if precision is not None:
        session.precision = _precision(precision, session)
    options = options_of(session, budget, timeout, time_wrong, confirm=confirm)

    interrupted = False
    with Watcher(quiet) as watcher:
        try:
            watched(session, run_schedule(session, options), watcher)
        except InterruptedRun:
            interrupted = True

    saved = session.saved()
    if not interrupted:
        remember_run(saved)
    result = saved.result
    print_result(result, format_, top=top)
    complain(f"saved {session.path}")
    if interrupted:
        done = counted(result.rounds, "round")
        complain(f"interrupted after {done}: convbench run --resume {session.path}")
        raise SystemExit(ExitCode.INTERRUPTED)
    raise SystemExit(exit_code(result))


def _precision(asked: str, session: Session) -> Precision:
    """What `--precision` asks for. A resumed run keeps its first stage, which its intervals use."""
    from convbench.results.model import Precision
    from convbench.results.stats import MIN_ROUNDS
    from convbench.schedule.effort import EFFORTS

    target = part(asked, "--precision")
    if target <= 0:
        raise ConvbenchError(f"--precision: found {asked!r}, expected more than 0 %")
    if session.precision is not None:
        return Precision(target, session.precision.first_rounds)
    made = session.result().rounds
    return Precision(target, max(EFFORTS[session.effort].rounds, MIN_ROUNDS, made))


def exit_code(result: ResultFile) -> ExitCode:
    """5 for a wrong or crashed cell, else 3 for an unreliable run, else 0."""
    from convbench.results.summary import is_unreliable

    found = {ExitCode.FINE}
    if any_wrong(result):
        found.add(ExitCode.WRONG)
    if is_unreliable(result):
        found.add(ExitCode.INCONCLUSIVE)
    return next(code for code in PRECEDENCE if code in found)


def _resumed(path: Path, effort: EffortName | None) -> Session:
    """The session of a result file. Raises for a file of another machine or other software."""
    from convbench import runtimes
    from convbench.errors import ResultError
    from convbench.machine import description as machine
    from convbench.measure.environment import Environment
    from convbench.results import file as result_file
    from convbench.schedule import Session

    document = result_file.read_json(path)
    if name := addons.writer(document):
        raise ResultError(
            f"{path} is of a {addons.ADD_ONS[name].result}, which `run` cannot go on with",
            hint=f"`convbench {name} --help` says what that command goes on with",
        )
    session = Session.resume(result_file.parsed(path, document), path)
    here, there = machine.fingerprint(), session.machine
    workers = Environment(os.environ, session.suite.environment)
    environment = workers.recorded(session.threads)
    differences = [
        f"{what}: {then} then, {now} now"
        for what, then, now in (
            ("CPU", there.cpu, here.cpu),
            ("CPUs", there.logical_cpus, here.logical_cpus),
            ("versions", session.software.versions, machine.software(runtimes.versions()).versions),
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
