"""Run `convbench check`: is code right, in every pass? If it is not, what is the mistake?"""

from __future__ import annotations

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
    from convbench.suites.suite import Suite

BUILT_IN = "geometry"
"""The shipped suite of small layers that has every geometry of Conv2D."""


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
    options = options_of(session, conditions)

    interrupted = False
    with Watcher(shown.quiet) as watcher:
        try:
            watched(session, check_schedule(session, options), watcher, save=output is not None)
        except InterruptedRun:
            interrupted = True
    if output is not None:
        complain(f"saved {session.save()}")
    result = session.result()
    print_result(result, shown.format_)
    if interrupted:
        complain("interrupted: pending cells were not checked")
        raise SystemExit(ExitCode.INTERRUPTED)
    raise SystemExit(ExitCode.WRONG if any_wrong(result) else ExitCode.FINE)


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
