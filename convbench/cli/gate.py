"""Run `convbench gate`: run a suite, or take a result file, and hold it to its rules."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from convbench.cli.console import Watcher, complain, guarded
from convbench.cli.gate_terms import Selection, part, refuse_nothing_supported, to_run, with_rules
from convbench.cli.measuring import (
    BudgetOption,
    EffortOption,
    Force,
    InterruptedRun,
    KernelLayout,
    Layers,
    LayoutOption,
    NoTune,
    Passes,
    Quiet,
    ResultPath,
    SeedOption,
    Threads,
    Timeout,
    any_wrong,
    new_session,
    options_of,
    recall_runs,
    result_path,
    watched,
)
from convbench.cli.show import Format, print_report
from convbench.errors import ConvbenchError, ExitCode

if TYPE_CHECKING:
    from convbench.gate import Terms
    from convbench.results.file import Saved
    from convbench.schedule import Judged, Options, Session
    from convbench.suites.suite import Rule


class OnInconclusive(StrEnum):
    FAIL = "fail"
    PASS = "pass"


@guarded
def gate(
    target: Annotated[
        str,
        typer.Argument(
            help="A suite, which is run and judged, or a result file (.json), which is judged."
        ),
    ],
    rules: Annotated[
        Path | None,
        typer.Option(help="A YAML file with the floors (key `gate`), in place of the suite's."),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(help="A saved result: has any speedup fallen since?", metavar="OLD.json"),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="Another version of --impl, run in turn with it: a file, a folder or a git ref.",
            metavar="PATH_OR_GIT_REF",
        ),
    ] = None,
    impl: Annotated[
        list[str] | None,
        typer.Option(
            "--impl",
            help="Only these implementations; with --against the one FILE.py:NAME. Repeatable.",
        ),
    ] = None,
    layout: LayoutOption = None,
    kernel_layout: KernelLayout = None,
    pass_: Passes = None,
    layer: Layers = None,
    tolerance: Annotated[
        str | None,
        typer.Option(
            help="A slowdown that is none.  [default: 1% against a baseline or version, 0% for "
            "floors]",
            metavar="PER CENT",
        ),
    ] = None,
    noise: Annotated[
        Path | None,
        typer.Option(help="What `convbench noise` saved about this machine.", metavar="FILE"),
    ] = None,
    allow_different_machine: Annotated[
        bool,
        typer.Option(
            "--allow-different-machine",
            help="Judge a baseline of another machine, BLAS or thread count, with wider bounds.",
        ),
    ] = False,
    inconclusive: Annotated[
        OnInconclusive | None,
        typer.Option(
            help="What a verdict that cannot be reached does.  [default: pass against a baseline "
            "or version, fail for floors]"
        ),
    ] = None,
    threads: Threads = None,
    effort: EffortOption = None,
    budget: BudgetOption = None,
    seed: SeedOption = None,
    no_tune: NoTune = False,
    timeout: Timeout = 300.0,
    output: ResultPath = None,
    force: Force = False,
    report: Annotated[
        list[Path] | None,
        typer.Option(
            help="Write the verdicts to a file too: .txt .md .csv .json .xml .svg .html. "
            "Repeatable.",
            metavar="FILE",
        ),
    ] = None,
    format_: Annotated[
        Format, typer.Option("--format", help="How the verdicts are printed.")
    ] = Format.TABLE,
    quiet: Quiet = False,
) -> None:
    """Hold a suite or a result to floors, to an earlier result, or to another version of the code.

    Exit code 0 when everything holds, 1 when something regressed, 3 when it cannot be told or the
    timings cannot be trusted, 4 when the baseline cannot be compared, 5 when a cell is wrong.
    """
    from convbench import report as formats
    from convbench.gate import Judgement, Terms, exit_code
    from convbench.report.views.gate_tables import report as tables
    from convbench.results.file import load, reserve
    from convbench.suites.file import read_rules

    for path in report or ():  # raises before anything is measured
        formats.format_of(path)
        reserve(path, force=True)
    if baseline is None and (noise is not None or allow_different_machine):
        raise ConvbenchError(
            "--noise and --allow-different-machine concern a --baseline, and none was given"
        )
    given = None if rules is None else read_rules(rules)
    terms = Terms(
        baseline=None if baseline is None else load(baseline),
        tolerance=None if tolerance is None else part(tolerance, "--tolerance"),
        allow_different_machine=allow_different_machine,
    )
    if target.endswith(".json"):
        _only_judged(
            target,
            {
                "--against": against,
                "--impl": impl,
                "--layout": layout,
                "--kernel-layout": kernel_layout,
                "--pass": pass_,
                "--layer": layer,
                "--threads": threads,
                "--effort": effort,
                "--budget": budget,
                "--seed": seed,
                "--no-tune": no_tune or None,
                "--output": output,
            },
        )
        held = _file_held_to(terms, Path(target), given, noise)
    else:
        with ExitStack() as stack:
            chosen = Selection(impl, (layout, kernel_layout), pass_, layer)
            suite, terms, notes = to_run(stack, target, terms, given, against, chosen)
            path = result_path(output, suite.name, force)
            session = new_session(suite, threads, effort, seed or 0, path, tune=not no_tune)
            recall_runs(session)
            options = options_of(session, budget, timeout, comparing=against is not None)
            terms = _measured_here(terms, noise, session.threads)
            held = _run_held_to(terms, session, options, quiet, notes)
            if terms.versions is not None:
                refuse_nothing_supported(terms.versions[0], held.saved.result)

    policy: Literal["fail", "pass"] | None = None
    if inconclusive is not None:
        policy = "fail" if inconclusive is OnInconclusive.FAIL else "pass"
    result, old_version = held.saved.result, terms.versions and terms.versions[1]
    code = exit_code(held.judged.verdicts, policy, any_wrong(result, old_version))
    told = tables(
        Judgement(
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
        ),
        result,
    )
    print_report(told, format_, None)
    for path in report or ():
        print_report(told, format_, path)
    raise SystemExit(code)


class _Held(NamedTuple):
    """A result, what it was held to, and what came of it."""

    saved: Saved
    terms: Terms
    judged: Judged
    alpha: float
    notes: tuple[str, ...]


def _file_held_to(
    terms: Terms, path: Path, rules: tuple[Rule, ...] | None, noise: Path | None
) -> _Held:
    from convbench.gate import look_alpha
    from convbench.noise.file import deviations_of
    from convbench.results.file import load
    from convbench.schedule import Judged

    saved = load(path)
    suite = saved.result.suite
    if rules is None:  # its own, of which a narrower run may have left some out
        terms, notes = with_rules(terms, suite.gate, None, suite)
    else:
        terms, notes = with_rules(terms, rules, suite, suite)
    if noise is not None:
        here = saved.result
        terms = replace(terms, deviations=deviations_of(noise, here.machine, here.threads))
    alpha = look_alpha(1)
    return _Held(saved, terms, Judged(tuple(terms.verdicts(saved, alpha)), 1), alpha, notes)


def _measured_here(terms: Terms, noise: Path | None, threads: int) -> Terms:
    from convbench.machine.description import fingerprint
    from convbench.noise.file import deviations_of

    if noise is None:
        return terms
    return replace(terms, deviations=deviations_of(noise, fingerprint(), threads))


def _run_held_to(
    terms: Terms, session: Session, options: Options, quiet: bool, notes: tuple[str, ...]
) -> _Held:
    from convbench.gate import look_alpha
    from convbench.schedule import run_and_judge

    with Watcher(quiet) as watcher:
        try:
            judged = watched(session, run_and_judge(session, options, terms.verdicts), watcher)
        except InterruptedRun:
            complain(f"interrupted: nothing was judged; what was measured is in {session.path}")
            raise SystemExit(ExitCode.INTERRUPTED) from None
    complain(f"saved {session.path}")
    return _Held(session.saved(), terms, judged, look_alpha(), notes)


def _only_judged(target: str, options: dict[str, object]) -> None:
    given = [option for option, value in options.items() if value is not None]
    if given:
        raise ConvbenchError(
            f"{target} is a result file, which is judged and not run: {', '.join(given)} cannot "
            "be given",
            hint="name a suite to run it",
        )
