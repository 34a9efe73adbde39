"""Run `convbench run`: check, time and meter a suite, print the tables, save one result file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convbench import addons
from convbench.cli.console import Watcher, complain, guarded
from convbench.cli.measuring import (
    InterruptedRun,
    any_wrong,
    new_session,
    options_of,
    recall_runs,
    refuse_to_mix,
    remember_run,
    result_path,
    selected,
    shard_of,
    watched,
    with_implementations,
)
from convbench.cli.options import (
    BudgetOption,
    Conditions,
    EffortName,
    EffortOption,
    Impls,
    Layouts,
    Part,
    ResultTarget,
    ShardOption,
    Shown,
    SuiteName,
    TimeWrong,
    Top,
    given,
    grouped,
    percentage,
)
from convbench.cli.show import print_result
from convbench.errors import PRECEDENCE, ConvbenchError, ExitCode
from convbench.report.views.scale import counted

if TYPE_CHECKING:
    from convbench.results.model import Precision, ResultFile
    from convbench.schedule import Session


class StateName(StrEnum):
    """A state of the threads in which a call is timed."""

    WARM = "warm"
    COLD_THREADS = "cold-threads"


@dataclass(frozen=True)
class Chosen:
    """The options that say what is run. A resumed run keeps those that it began with."""

    impl: Impls = None
    shard: ShardOption = None
    state: Annotated[
        StateName | None,
        typer.Option(
            "--state",
            help="What to time: calls in a tight loop, or the first call after a pause, when "
            "threads sleep.  [default: warm]",
        ),
    ] = None


@guarded
@grouped
def run(
    *,
    target: SuiteName = None,
    chosen: Chosen,
    layouts: Layouts,
    part: Part,
    conditions: Conditions,
    effort: EffortOption = None,
    budget: BudgetOption = None,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            help="Measure until every speedup's interval is this narrow, or the budget ends.",
            metavar="PERCENT",
        ),
    ] = None,
    confirm: Annotated[
        bool,
        typer.Option(
            "--confirm", help="Also time each cell by a plain loop in a process of its own."
        ),
    ] = False,
    time_wrong: TimeWrong = False,
    result_file: ResultTarget,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with the run of this result file.", metavar="FILE")
    ] = None,
    top: Top = None,
    shown: Shown,
) -> None:
    """Check a suite, and measure its times and memory.

    The tables are printed, and one result file is saved. The exit code is 0 if all is well, 3 if
    the timings cannot be trusted because equal code was timed as different, and 5 if a cell is
    wrong or crashed.
    """
    from convbench.schedule import run as run_schedule

    if (target is None) == (resume is None):
        raise ConvbenchError(
            "name either a suite, or a result file to --resume",
            hint="convbench run configs/mnist.yaml",
        )
    if resume is not None:
        _refuse_to_change(resume, chosen, layouts, part, conditions, result_file)
        session = _resumed(resume, effort)
    else:
        session = _begun(str(target), chosen, layouts, part, conditions, effort, result_file)
    if precision is not None:
        session.precision = _precision(precision, session)
    options = options_of(session, conditions, budget, time_wrong, confirm=confirm)

    interrupted = False
    with Watcher(shown.quiet) as watcher:
        try:
            watched(session, run_schedule(session, options), watcher)
        except InterruptedRun:
            interrupted = True

    saved = session.saved()
    if not interrupted:
        remember_run(saved)
    result = saved.result
    print_result(result, shown.format_, top=top)
    complain(f"saved {session.path}")
    if interrupted:
        done = counted(result.rounds, "round")
        complain(f"interrupted after {done}: go on with convbench run --resume {session.path}")
        raise SystemExit(ExitCode.INTERRUPTED)
    raise SystemExit(exit_code(result))


def _begun(
    target: str,
    chosen: Chosen,
    layouts: Layouts,
    part: Part,
    conditions: Conditions,
    effort: EffortName | None,
    result_file: ResultTarget,
) -> Session:
    """Return the session of a new run, whose result file can be written."""
    from convbench.suites.file import read_suite

    shard = shard_of(chosen.shard)
    suite = selected(with_implementations(read_suite(target), chosen.impl, layouts), part, shard)
    path = result_path(result_file, suite.name, shard, resumes=True)
    session = new_session(suite, conditions, path, effort, shard)
    if chosen.state is not None:
        session.state = chosen.state.value
    recall_runs(session)
    return session


def _refuse_to_change(
    resume: Path,
    chosen: Chosen,
    layouts: Layouts,
    part: Part,
    conditions: Conditions,
    result_file: ResultTarget,
) -> None:
    """Raise ConvbenchError for options that a run which is resumed cannot change."""
    groups = (chosen, layouts, part, conditions, result_file)
    if fixed := given(*groups, except_for=("--timeout", "--force")):
        raise ConvbenchError(
            f"--resume keeps the options that {resume} was started with: {', '.join(fixed)} "
            "cannot be changed",
            hint="--effort, --budget, --precision, --confirm, --timeout and --time-wrong can",
        )


def _precision(asked: str, session: Session) -> Precision:
    """Read `--precision`. A resumed run keeps its first stage, on which its intervals rest."""
    from convbench.results.model import Precision
    from convbench.results.stats import MIN_ROUNDS
    from convbench.schedule.effort import EFFORTS

    target = percentage(asked, "--precision")
    if target <= 0:
        raise ConvbenchError(f"--precision: found {asked!r}, expected more than 0 %")
    if session.precision is not None:
        return Precision(target, session.precision.first_rounds)
    made = session.result().rounds
    return Precision(target, max(EFFORTS[session.effort].rounds, MIN_ROUNDS, made))


def exit_code(result: ResultFile) -> ExitCode:
    """Return 5 for a wrong or crashed cell, else 3 for an unreliable run, else 0."""
    from convbench.results.summary import is_unreliable

    found = {ExitCode.FINE}
    if any_wrong(result):
        found.add(ExitCode.WRONG)
    if is_unreliable(result):
        found.add(ExitCode.INCONCLUSIVE)
    return next(code for code in PRECEDENCE if code in found)


def _resumed(path: Path, effort: EffortName | None) -> Session:
    """Return the session of a result file, which may be written.

    Raises ResultError for a file of another machine or other software.
    """
    from convbench import runtimes
    from convbench.errors import ResultError
    from convbench.machine import description as machine
    from convbench.measure.environment import Environment
    from convbench.results import file as result_file
    from convbench.schedule import Session

    document = result_file.read_json(path)
    if name := addons.writer(document):
        what = addons.ADD_ONS[name].result
        raise ResultError(
            f"{path} is the result of a {what}, which `run` cannot go on with",
            hint=f"`convbench {name} --help` tells what that command can go on with",
        )
    session = Session.resume(result_file.parsed(path, document), path)
    here, there = machine.fingerprint(), session.machine
    workers = Environment(os.environ, session.suite.environment)
    environment = workers.recorded(session.threads)
    refuse_to_mix(
        f"{path} cannot be resumed here",
        (
            ("CPU", there.cpu, here.cpu),
            ("CPUs", there.logical_cpus, here.logical_cpus),
            ("versions", session.software.versions, machine.software(runtimes.versions()).versions),
            ("variables", session.environment, environment),
        ),
        hint="rounds of two machines, versions or settings do not belong together: start a new run",
    )
    if effort is not None:
        session.effort = effort.value
    result_file.reserve(session.path, force=True)
    return session
