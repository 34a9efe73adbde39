"""Run `convbench check`: is code right, in every pass? If it is not, what is the mistake?"""

from __future__ import annotations

import secrets
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convbench.cli.console import Watcher, complain, guarded
from convbench.cli.measuring import (
    InterruptedRun,
    any_wrong,
    new_session,
    options_of,
    result_path,
    selected,
    shard_of,
    watched,
    with_implementations,
)
from convbench.cli.options import (
    Conditions,
    Force,
    Impls,
    Layouts,
    Part,
    ResultTarget,
    ShardOption,
    Shown,
    grouped,
)
from convbench.cli.show import print_result
from convbench.errors import ConvbenchError, ExitCode

if TYPE_CHECKING:
    from convbench.schedule import Session
    from convbench.suites.suite import Suite

BUILT_IN = "coverage"
"""The shipped suite of small layers that together have every pair of what Conv2D can vary."""

BUDGET_S = 30.0
"""Seconds for which the built-in layers are asked. Code whose calls take less than a millisecond is
asked all of them in a third of it."""

RANDOM_LAYERS = 300
"""Number of random layers that are asked at a time."""


@guarded
@grouped
def check(
    *,
    target: Annotated[
        list[str] | None,
        typer.Argument(
            help="Your code: FILE.py, FILE.py:NAME or package.module:NAME. Name a suite to check "
            f"other layers than the built-in ones ({BUILT_IN}).",
            metavar="[CODE]... [SUITE]",
        ),
    ] = None,
    impl: Impls = None,
    layouts: Layouts,
    part: Part,
    shard: ShardOption = None,
    conditions: Conditions,
    budget: Annotated[
        float | None,
        typer.Option(
            "--budget",
            help="Seconds to check for; layers that are left are not asked.  [default: "
            f"{BUDGET_S:g} on the built-in layers]",
            min=1,
        ),
    ] = None,
    thorough: Annotated[
        float | None,
        typer.Option(
            "--thorough",
            help="Seconds to go on with random layers, until one is wrong.",
            metavar="SECONDS",
            min=1,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Result file to save.", metavar="FILE.json"),
    ] = None,
    force: Force = False,
    shown: Shown,
) -> None:
    """Check that implementations are right, in every pass. Nothing is timed.

    If code is wrong, convbench names the mistake as far as it can tell. The exit code is 0, or 5 if
    a cell is wrong or crashed.
    """
    from convbench.results import file as result_file
    from convbench.schedule import check as check_schedule

    one_of = shard_of(shard)
    suite = selected(_asked_for(target or [], impl, layouts), part, one_of)
    path = result_file.default_path(suite.name)
    if output is not None:
        path = result_path(ResultTarget(output, force), suite.name)
    session = new_session(suite, conditions, path, shard=one_of)
    if budget is None and suite.name == BUILT_IN:
        budget = BUDGET_S
    options = replace(options_of(session, conditions), budget_s=budget)

    interrupted = False
    told = ""
    with Watcher(shown.quiet) as watcher:
        try:
            watched(session, check_schedule(session, options), watcher, save=output is not None)
            if thorough is not None and not any_wrong(session.result()):
                session, told = _thorough(session, suite, conditions, thorough, watcher)
        except InterruptedRun:
            interrupted = True
    if output is not None:
        complain(f"saved {session.save()}")
    result = session.result()
    print_result(result, shown.format_)
    if told:
        complain(told)
    if interrupted:
        complain("interrupted: pending cells were not checked")
        raise SystemExit(ExitCode.INTERRUPTED)
    raise SystemExit(ExitCode.WRONG if any_wrong(result) else ExitCode.FINE)


def _thorough(
    session: Session, suite: Suite, conditions: Conditions, seconds: float, watcher: Watcher
) -> tuple[Session, str]:
    """Check random layers until one is wrong or the time is up.

    Return the session to report, which is that of the wrong layer if there is one, and a sentence
    on what was asked.
    """
    from convbench.schedule import check as check_schedule
    from convbench.suites.coverage import random_layers

    seed = secrets.randbelow(10**6) if conditions.seed is None else conditions.seed
    layers, asked, deadline = random_layers(seed), 0, time.monotonic() + seconds
    while (left_s := deadline - time.monotonic()) > 0:
        part = replace(suite, layers=tuple(islice(layers, RANDOM_LAYERS)))
        further = new_session(part, conditions, session.path)
        options = replace(options_of(further, conditions), budget_s=left_s)
        watched(further, check_schedule(further, options), watcher, save=False)
        result = further.result()
        asked += len({cell.layer for cell in result.cells if cell.status != "skipped"})
        if any_wrong(result):
            return further, f"the wrong layer is one of {asked} random ones (--seed {seed})"
    return session, f"{asked} random layers are right, too (--seed {seed})"


def _asked_for(targets: list[str], impl: list[str] | None, layouts: Layouts) -> Suite:
    """Return the suite. Code that is named replaces the suite's implementations."""
    from convbench.own_code.description import OwnCode
    from convbench.suites.file import read_suite

    code = [name for name in targets if OwnCode.is_spelled(name)]
    suites = [name for name in targets if name not in code]
    if len(suites) > 1:
        raise ConvbenchError(
            f"found {len(suites)} suites ({', '.join(suites)}), expected one",
            hint="your own code is FILE.py, FILE.py:NAME or package.module:NAME",
        )
    if not targets and not impl:
        raise ConvbenchError(
            "name what to check: your code, or a suite", hint="convbench check my_conv.py"
        )
    suite = read_suite(suites[0] if suites else BUILT_IN)
    named = [*code, *(impl or [])]
    return with_implementations(suite, named, layouts, only_own=True)
