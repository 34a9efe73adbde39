"""Share what the commands that measure have in common: options, the session, watching it."""

from __future__ import annotations

import os
from collections.abc import Generator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from convbench.cli.console import Watcher, complain
from convbench.errors import ConvbenchError

if TYPE_CHECKING:
    from convbench.implementations.registry import Registry
    from convbench.results.file import Saved
    from convbench.results.model import ResultFile
    from convbench.schedule import Options, Session
    from convbench.schedule.events import Event
    from convbench.suites.suite import Suite

Outcome = TypeVar("Outcome")


MAX_LISTED = 20
"""Number of layers that a message names."""


class EffortName(StrEnum):
    SMOKE = "smoke"
    QUICK = "quick"
    STANDARD = "standard"
    RIGOROUS = "rigorous"


Impls = Annotated[
    list[str] | None,
    typer.Option(
        "--impl",
        help="Only these implementations; FILE.py:NAME or package.module:NAME adds your own. "
        "Repeatable.",
    ),
]
LayoutOption = Annotated[
    str | None,
    typer.Option("--layout", help="Axes of your own code's input, e.g. NHWC.  [default: NCHW]"),
]
KernelLayout = Annotated[
    str | None,
    typer.Option(
        "--kernel-layout", help="Axes of your own code's kernel, e.g. HWIO.  [default: OIHW]"
    ),
]
Passes = Annotated[list[str] | None, typer.Option("--pass", help="Only these passes. Repeatable.")]
Layers = Annotated[
    list[str] | None,
    typer.Option("--layer", help="Only layers whose name matches, e.g. 'conv*'. Repeatable."),
]
Threads = Annotated[
    str | None, typer.Option(help="Threads for every implementation: 'all' or a number.")
]
EffortOption = Annotated[
    EffortName | None,
    typer.Option("--effort", help="How much is measured.  [default: the suite's, or standard]"),
]
BudgetOption = Annotated[
    float | None,
    typer.Option(
        "--budget", help="Seconds for the whole run: fewer rounds, then fewer arms.", min=1
    ),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="Go on until every speedup's interval is this narrow, or the budget ends.",
        metavar="PERCENT",
    ),
]


class StateName(StrEnum):
    WARM = "warm"
    COLD_THREADS = "cold-threads"


StateOption = Annotated[
    StateName | None,
    typer.Option(
        "--state",
        help="What is timed: calls in a tight loop, or the first call after a pause, whose threads "
        "sleep.  [default: warm]",
    ),
]
ConfirmOption = Annotated[
    bool,
    typer.Option("--confirm", help="Time each cell by a plain loop in a process of its own, too."),
]
SeedOption = Annotated[
    int | None,
    typer.Option("--seed", help="Seed of operands and of the order.  [default: 0]", min=0),
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        help="Only one part of the suite's layers, such as 2/8; `merge` joins the results.",
        metavar="I/N",
    ),
]
NoTune = Annotated[
    bool,
    typer.Option("--no-tune", help="`auto` chooses by its cost model alone, without trials."),
]
Top = Annotated[
    int | None,
    typer.Option(
        "--top", help="How many layers of a network are named.  [default: 3]", metavar="N", min=1
    ),
]
Timeout = Annotated[
    float,
    typer.Option(help="Seconds after which a cell that does not answer is given up.", min=1),
]
ResultPath = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="The result file.  [default: results/SUITE-TIME.json]"),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the result file.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


class InterruptedRun(Exception):  # noqa: N818 - it is no error: what was measured is saved
    """Ctrl-C came while a session was measured; the session is saved."""


def watched(
    session: Session,
    events: Generator[Event, None, Outcome],
    watcher: Watcher,
    save: bool = True,
) -> Outcome:
    """What the generator returns; its events are shown. Raises InterruptedRun on Ctrl-C."""
    from convbench.schedule.events import Saved

    asked_for = session.path
    try:
        while True:
            try:
                event = next(events)
            except StopIteration as done:
                outcome: Outcome = done.value
                return outcome
            watcher.show(event)
            if isinstance(event, Saved) and event.path != asked_for:
                asked_for = event.path
                complain(f"warning: results now go to {event.path}: the folder failed")
    except KeyboardInterrupt:
        events.close()
        if save:
            session.save()
        raise InterruptedRun from None


def result_path(
    output: Path | None,
    suite: str,
    force: bool,
    part: tuple[int, int] | None = None,
    resumes: bool = False,
) -> Path:
    """Where the result goes; made sure of before anything is measured.

    `resumes`: the command has `--resume`.
    """
    from convbench.results import file as result_file

    name = f"{suite}-{part[0]}of{part[1]}" if part else suite
    path = output or result_file.default_path(name)
    if path.suffix != ".json":
        raise ConvbenchError(f"{path}: a result file ends in .json")
    result_file.reserve(path, force, resumes)
    return path


def options_of(
    session: Session,
    budget: float | None,
    timeout: float,
    time_wrong: bool = False,
    comparing: bool = False,
    confirm: bool = False,
) -> Options:
    from convbench.measure.environment import Environment
    from convbench.schedule import Options

    return Options(
        environment=Environment(os.environ, session.suite.environment),
        budget_s=budget,
        timeout_s=timeout,
        time_wrong=time_wrong,
        comparing=comparing,
        confirm=confirm,
    )


def any_wrong(result: ResultFile, but_for: str | None = None) -> bool:
    """Whether a cell is wrong or crashed; an old version may be, and the new one mend it."""
    return any(
        cell.status in ("wrong", "failed") and cell.implementation != but_for
        for cell in result.cells
    )


def with_implementations(
    suite: Suite,
    impl: list[str] | None,
    layout: str | None = None,
    kernel_layout: str | None = None,
    only_own: bool = False,
) -> Suite:
    """The suite with only the implementations that the options name.

    The user's own code is added to the suite's others, or, `only_own`, stands alone.
    """
    from dataclasses import replace

    from convbench.implementations.registry import REGISTRY
    from convbench.own_code.description import (
        ACTIVATION_AXES,
        KERNEL_AXES,
        OwnCode,
        layout_problem,
    )

    options = {
        "--layout": (layout, ACTIVATION_AXES),
        "--kernel-layout": (kernel_layout, KERNEL_AXES),
    }
    for option, (letters, axes) in options.items():
        if letters is not None and (problem := layout_problem(letters, axes)):
            raise ConvbenchError(f"{option}: found {letters!r}, expected {problem}")
        if letters is not None and not any(map(OwnCode.is_spelled, impl or ())):
            raise ConvbenchError(f"{option} is for --impl FILE.py:NAME, and none was given")
    if not impl:
        return suite
    own = [name for name in impl if OwnCode.is_spelled(name)]
    others = [] if own and only_own else list(suite.implementations)
    named = [name for name in impl if name not in own] or others
    names = tuple(dict.fromkeys([*named, *own]))
    described = {code.name: code for code in suite.own}
    for name in own:
        if layout or kernel_layout or name not in described:
            described[name] = OwnCode(name, name, layout or "", kernel_layout or "")
    suite = replace(suite, implementations=names, own=tuple(described.values()))
    registry = REGISTRY.knowing(*suite.own)
    for name in names:  # raises for a name that is not known, a file that is not there
        registry.get(name)
    return suite


def shard_of(text: str | None) -> tuple[int, int] | None:
    """(2, 8) of 2/8. Raises ConvbenchError for anything else."""
    if text is None:
        return None
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise ConvbenchError(
            f"--shard: found {text!r}, expected I/N, the I-th of N parts", hint="--shard 2/8"
        )
    return int(index), int(count)


def selected(
    suite: Suite,
    passes: list[str] | None,
    layers: list[str] | None,
    part: tuple[int, int] | None = None,
) -> Suite:
    """The suite with only the passes and layers that the options name, and of these one part."""
    from dataclasses import replace
    from difflib import get_close_matches
    from fnmatch import fnmatchcase

    from convbench.problem.layer import Pass
    from convbench.suites.suite import shard

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
            names = [layer.name for layer in suite.layers[:MAX_LISTED]]
            more = len(suite.layers) - len(names)
            raise ConvbenchError(
                f"--layer: no layer of {suite.name} matches {' or '.join(layers)}",
                hint=f"its layers: {', '.join(names)}{f' and {more} more' if more else ''}",
            )
        suite = replace(suite, layers=kept)
    return shard(suite, *part) if part else suite


def new_session(
    suite: Suite,
    threads: str | None,
    effort: EffortName | None,
    seed: int,
    path: Path,
    shard: tuple[int, int] | None = None,
    tune: bool = True,
    registry: Registry | None = None,
) -> Session:
    """`registry` is for a suite whose implementations are not all built in or its own code."""
    from convbench import runtimes
    from convbench.implementations.registry import REGISTRY
    from convbench.machine import cautions
    from convbench.machine import description as machine
    from convbench.measure.environment import Environment
    from convbench.results import file as result_file
    from convbench.schedule import Session

    count = thread_count(threads if threads is not None else suite.threads)
    environment = Environment(os.environ, suite.environment).recorded(count)
    return Session(
        suite=suite,
        machine=machine.fingerprint(),
        software=machine.software(runtimes.versions()),
        environment=cautions.relevant_environment(environment),
        threads=count,
        effort=effort.value if effort is not None else suite.effort,
        seed=seed,
        path=path,
        metadata=result_file.pyperf_metadata(),
        shard=shard,
        tune=tune,
        registry=registry or REGISTRY,
    )


def recall_runs(session: Session) -> None:
    """Tells the session what earlier runs on this machine showed of how much runs differ."""
    from convbench.results.run_memory_file import recall

    if session.state == "warm":
        known = recall(session.machine, session.software, session.threads)
        if known is not None:
            session.earlier_runs, session.deviations = known.runs, known.deviations


def remember_run(saved: Saved, subject: str | None = None) -> None:
    """Keeps what a finished run showed, for later ones; for `subject` see run_memory.run_of."""
    from convbench.results.run_memory import run_of
    from convbench.results.run_memory_file import remember

    run = run_of(saved, subject)
    if run is not None:
        remember(saved.result.machine, saved.result.software, saved.result.threads, run)


def thread_count(asked: str | int) -> int:
    from convbench.machine.affinity import usable_cpus

    usable = len(usable_cpus())
    if asked == "all":
        return usable
    if not str(asked).isdigit() or not 1 <= int(asked) <= usable:
        raise ConvbenchError(
            f"threads: found {asked!r}, expected 'all' or a number from 1 to {usable}, "
            "the CPUs that this process may use"
        )
    return int(asked)
