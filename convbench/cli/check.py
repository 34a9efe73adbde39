"""Run `convbench check`: is it right, in every pass? If not, what is the mistake?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convbench.cli.console import Watcher, complain, guarded
from convbench.cli.measuring import (
    Force,
    Impls,
    InterruptedRun,
    KernelLayout,
    Layers,
    LayoutOption,
    NoTune,
    Passes,
    Quiet,
    SeedOption,
    ShardOption,
    Threads,
    Timeout,
    any_wrong,
    new_session,
    options_of,
    result_path,
    selected,
    shard_of,
    watched,
    with_implementations,
)
from convbench.cli.show import Format, print_result
from convbench.errors import ConvbenchError, ExitCode

if TYPE_CHECKING:
    from convbench.suites.suite import Suite

BUILT_IN = "geometry"
"""The shipped suite of small layers that has every geometry of Conv2D."""


@guarded
def check(
    target: Annotated[
        list[str] | None,
        typer.Argument(
            help="Your code: FILE.py, FILE.py:NAME or package.module:NAME; and a suite, if it "
            f"shall not be the built-in layers ({BUILT_IN}).",
            metavar="[CODE]... [SUITE]",
        ),
    ] = None,
    impl: Impls = None,
    layout: LayoutOption = None,
    kernel_layout: KernelLayout = None,
    pass_: Passes = None,
    layer: Layers = None,
    shard: ShardOption = None,
    threads: Threads = None,
    seed: SeedOption = None,
    no_tune: NoTune = False,
    timeout: Timeout = 300.0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Save the result file.", metavar="FILE.json"),
    ] = None,
    force: Force = False,
    format_: Annotated[
        Format, typer.Option("--format", help="How the tables are printed.")
    ] = Format.TABLE,
    quiet: Quiet = False,
) -> None:
    """Check that implementations compute the convolution, in every pass; nothing is timed.

    Of what is wrong the mistake is named, if it is one that can be told. Exit code 0, or 5 when a
    cell is wrong or crashed.
    """
    from convbench.results import file as result_file
    from convbench.schedule import check as check_schedule

    part = shard_of(shard)
    suite = selected(_asked_for(target or [], impl, layout, kernel_layout), pass_, layer, part)
    path = output or result_file.default_path(suite.name)
    if output is not None:
        path = result_path(output, suite.name, force)
    session = new_session(suite, threads, None, seed or 0, path, part, not no_tune)
    options = options_of(session, None, timeout)

    interrupted = False
    with Watcher(quiet) as watcher:
        try:
            watched(session, check_schedule(session, options), watcher, save=output is not None)
        except InterruptedRun:
            interrupted = True
    if output is not None:
        complain(f"saved {session.save()}")
    result = session.result()
    print_result(result, format_)
    if interrupted:
        complain("interrupted: what is pending was not checked")
        raise SystemExit(ExitCode.INTERRUPTED)
    raise SystemExit(ExitCode.WRONG if any_wrong(result) else ExitCode.FINE)


def _asked_for(
    targets: list[str],
    impl: list[str] | None,
    layout: str | None,
    kernel_layout: str | None,
) -> Suite:
    """The suite, with the code that is named alone, if any is."""
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
    return with_implementations(suite, named, layout, kernel_layout, only_own=True)
