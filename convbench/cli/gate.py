"""Run `convbench gate`: run a suite, or take a result file, and hold it to its rules."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from convbench.cli.console import Watcher, complain, guarded
from convbench.cli.gate_terms import Selection, refuse_nothing_supported, to_run, with_rules
from convbench.cli.measuring import (
    InterruptedRun,
    any_wrong,
    new_session,
    options_of,
    recall_runs,
    result_path,
    watched,
)
from convbench.cli.options import (
    AnotherMachine,
    BudgetOption,
    Conditions,
    EffortName,
    EffortOption,
    Impls,
    Layouts,
    NoiseOption,
    Part,
    ResultTarget,
    Shown,
    given,
    grouped,
    percentage,
)
from convbench.cli.show import print_report
from convbench.errors import ConvbenchError, ExitCode
from convbench.report import SUFFIXES

if TYPE_CHECKING:
    from convbench.gate import Terms
    from convbench.machine.description import Machine
    from convbench.report.views.table import Report
    from convbench.results.file import Saved
    from convbench.schedule import Judged
    from convbench.suites.suite import Rule


class OnInconclusive(StrEnum):
    """The effect on the exit code of a verdict that cannot be reached."""

    FAIL = "fail"
    PASS = "pass"


@dataclass(frozen=True)
class HeldTo:
    """The options that say by what a run or a result is judged."""

    rules: Annotated[
        Path | None,
        typer.Option(help="YAML file with floors (key `gate`), which replace the suite's."),
    ] = None
    baseline: Annotated[
        Path | None,
        typer.Option(
            help="Saved result to compare with: has any speedup fallen since?", metavar="OLD.json"
        ),
    ] = None
    against: Annotated[
        str | None,
        typer.Option(
            help="Other version of the one --impl FILE.py:NAME, to run beside it: a file, a "
            "folder or a git ref.",
            metavar="PATH_OR_GIT_REF",
        ),
    ] = None
    tolerance: Annotated[
        str | None,
        typer.Option(
            help="Slowdown to accept.  [default: 1% against a baseline or version, 0% for floors]",
            metavar="PERCENT",
        ),
    ] = None
    noise: NoiseOption = None
    allow_different_machine: AnotherMachine = False


@guarded
@grouped
def gate(
    *,
    target: Annotated[
        str,
        typer.Argument(help="A suite to run and judge, or a result file (.json) to judge."),
    ],
    held_to: HeldTo,
    inconclusive: Annotated[
        OnInconclusive | None,
        typer.Option(
            help="How to count a verdict that cannot be reached.  [default: pass against a "
            "baseline or version, fail for floors]"
        ),
    ] = None,
    impl: Impls = None,
    layouts: Layouts,
    part: Part,
    conditions: Conditions,
    effort: EffortOption = None,
    budget: BudgetOption = None,
    result_file: ResultTarget,
    report: Annotated[
        list[Path] | None,
        typer.Option(
            help=f"Also write the verdicts to this file: {' '.join(SUFFIXES)}. Repeatable.",
            metavar="FILE",
        ),
    ] = None,
    shown: Shown,
) -> None:
    """Judge a suite or a result by floors, or by an earlier version.

    The earlier version is a saved result (--baseline) or other code (--against). The exit code is 0
    if everything holds, 1 if something regressed, 3 if a verdict cannot be reached or the timings
    cannot be trusted, 4 if the baseline cannot be compared, and 5 if a cell is wrong.
    """
    from convbench import report as formats
    from convbench.results.file import reserve

    for path in report or ():  # a path that cannot be used must fail before anything is measured
        formats.format_of(path)
        reserve(path, force=True)
    chosen = Selection(impl, layouts, part)
    measuring = _Measuring(conditions, effort, budget, result_file, shown.quiet)
    if target.endswith(".json"):
        _refuse_to_run(target, held_to, chosen, measuring)
        held = _file_held_to(Path(target), held_to)
    else:
        held = _run_held_to(target, held_to, chosen, measuring)

    told, code = _told(target, held, held_to.baseline, inconclusive)
    print_report(told, shown.format_, None)
    for path in report or ():
        print_report(told, shown.format_, path)
    raise SystemExit(code)


class _Measuring(NamedTuple):
    """The options of a run that is judged afterwards."""

    conditions: Conditions
    effort: EffortName | None
    budget: float | None
    result_file: ResultTarget
    quiet: bool


class _Held(NamedTuple):
    """A result, the terms that it was held to, and the verdicts."""

    saved: Saved
    terms: Terms
    judged: Judged
    alpha: float
    notes: tuple[str, ...]


def _terms(held_to: HeldTo) -> Terms:
    """Read the terms that the options set, except for the rules and the deviations."""
    from convbench.gate import Terms
    from convbench.results.file import load

    if held_to.baseline is None and (held_to.noise or held_to.allow_different_machine):
        raise ConvbenchError(
            "--noise and --allow-different-machine need a --baseline, and none was given"
        )
    tolerance = held_to.tolerance
    return Terms(
        baseline=None if held_to.baseline is None else load(held_to.baseline),
        tolerance=None if tolerance is None else percentage(tolerance, "--tolerance"),
        allow_different_machine=held_to.allow_different_machine,
    )


def _rules(held_to: HeldTo) -> tuple[Rule, ...] | None:
    """Read the floors of `--rules`. Return None if it is not given: the suite's floors hold."""
    from convbench.suites.file import read_rules

    return None if held_to.rules is None else read_rules(held_to.rules)


def _file_held_to(path: Path, held_to: HeldTo) -> _Held:
    from convbench.gate import look_alpha
    from convbench.results.file import load
    from convbench.schedule import Judged

    rules, terms = _rules(held_to), _terms(held_to)
    saved = load(path)
    result = saved.result
    if rules is None:  # a run of a part of the suite may lack cells that the suite's floors name
        terms, notes = with_rules(terms, result.suite.gate, None, result.suite)
    else:
        terms, notes = with_rules(terms, rules, result.suite, result.suite)
    terms = _with_deviations(terms, held_to.noise, result.machine, result.threads)
    alpha = look_alpha(1)
    return _Held(saved, terms, Judged(tuple(terms.verdicts(saved, alpha)), 1), alpha, notes)


def _run_held_to(target: str, held_to: HeldTo, chosen: Selection, measuring: _Measuring) -> _Held:
    from convbench.gate import look_alpha
    from convbench.schedule import run_and_judge

    against, conditions = held_to.against, measuring.conditions
    with ExitStack() as stack:
        rules, terms = _rules(held_to), _terms(held_to)
        suite, terms, notes = to_run(stack, target, terms, rules, against, chosen)
        path = result_path(measuring.result_file, suite.name)
        session = new_session(suite, conditions, path, measuring.effort)
        recall_runs(session)
        options = options_of(session, conditions, measuring.budget, comparing=against is not None)
        terms = _with_deviations(terms, held_to.noise, session.machine, session.threads)
        try:
            with Watcher(measuring.quiet) as watcher:
                events = run_and_judge(session, options, terms.verdicts)
                judged = watched(session, events, watcher)
        except InterruptedRun:
            complain(f"interrupted: nothing was judged; the samples so far are in {session.path}")
            raise SystemExit(ExitCode.INTERRUPTED) from None
    complain(f"saved {session.path}")
    saved = session.saved()
    if terms.versions is not None:
        refuse_nothing_supported(terms.versions[0], saved.result)
    return _Held(saved, terms, judged, look_alpha(), notes)


def _with_deviations(terms: Terms, noise: Path | None, machine: Machine, threads: int) -> Terms:
    from convbench.noise.file import deviations_of

    if noise is None:
        return terms
    return replace(terms, deviations=deviations_of(noise, machine, threads))


def _told(
    target: str, held: _Held, baseline: Path | None, inconclusive: OnInconclusive | None
) -> tuple[Report, ExitCode]:
    """Return the report on the verdicts, and the exit code."""
    from convbench.gate import Judgement, exit_code
    from convbench.report.views.gate_tables import report

    result, versions = held.saved.result, held.terms.versions
    old_version = versions and versions[1]
    policy: Literal["fail", "pass"] | None = None
    if inconclusive is not None:
        policy = "fail" if inconclusive is OnInconclusive.FAIL else "pass"
    code = exit_code(held.judged.verdicts, policy, any_wrong(result, old_version))
    judgement = Judgement(
        target=target,
        verdicts=held.judged.verdicts,
        looks=held.judged.looks,
        alpha=held.alpha,
        exit_code=code,
        on_inconclusive=policy,
        baseline=None if baseline is None else str(baseline),
        version=old_version,
        deviations=held.terms.deviations_for(held.saved),
        twins=held.terms.twins(held.saved),
        notes=(*held.notes, *held.terms.overlooked(held.saved)),
    )
    return report(judgement, result), code


def _refuse_to_run(target: str, held_to: HeldTo, chosen: Selection, measuring: _Measuring) -> None:
    """Raise ConvbenchError if options of a run were given with a result file."""
    alone = {
        "--against": held_to.against,
        "--impl": chosen.impl,
        "--effort": measuring.effort,
        "--budget": measuring.budget,
    }
    groups = (chosen.layouts, chosen.part, measuring.conditions, measuring.result_file)
    of_a_run = [option for option, value in alone.items() if value is not None]
    of_a_run += given(*groups, except_for=("--timeout", "--force"))
    if of_a_run:
        raise ConvbenchError(
            f"{target} is a result file, which is judged and not run: {', '.join(of_a_run)} cannot "
            "be given",
            hint="name a suite to run it",
        )
