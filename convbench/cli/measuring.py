"""Share what all commands that measure need: the suite, the session, watching it."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from convbench.cli.console import Watcher, complain
from convbench.cli.options import Conditions, EffortName, Layouts, Part, ResultTarget
from convbench.errors import ConvbenchError

if TYPE_CHECKING:
    from convbench.implementations.registry import Registry
    from convbench.results.file import Saved
    from convbench.results.model import ResultFile
    from convbench.schedule import Options, Session
    from convbench.schedule.events import Event
    from convbench.schedule.session import BaseSession
    from convbench.suites.suite import Suite

Outcome = TypeVar("Outcome")


MAX_LISTED = 20
"""Largest number of layers that a message names."""


class InterruptedRun(Exception):  # noqa: N818 - it is no error: what was measured is saved
    """The news that Ctrl-C ended the measurements of a session."""


def watched(
    session: BaseSession[Any],
    events: Generator[Event, None, Outcome],
    watcher: Watcher,
    save: bool = True,
) -> Outcome:
    """Show the generator's events and return what it returns. Raises InterruptedRun on Ctrl-C."""
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
                complain(
                    f"warning: results now go to {event.path}, because the first folder failed"
                )
    except KeyboardInterrupt:
        events.close()
        if save:
            session.save()
        raise InterruptedRun from None


def result_path(
    target: ResultTarget,
    suite: str,
    shard: tuple[int, int] | None = None,
    resumes: bool = False,
) -> Path:
    """Return the path of the result file, once it is known that the file can be written.

    `resumes` says whether the command has `--resume`, which an error can then advise.
    """
    from convbench.results import file as result_file

    name = f"{suite}-{shard[0]}of{shard[1]}" if shard else suite
    path = target.output or result_file.default_path(name)
    if path.suffix != ".json":
        raise ConvbenchError(f"{path}: a result file ends in .json")
    result_file.reserve(path, target.force, resumes)
    return path


def options_of(
    session: BaseSession[Any],
    conditions: Conditions,
    budget: float | None = None,
    time_wrong: bool = False,
    comparing: bool = False,
    confirm: bool = False,
) -> Options:
    """Return the options of a session, from those of the command line."""
    from convbench.measure.environment import Environment
    from convbench.schedule import Options

    return Options(
        environment=Environment(os.environ, session.suite.environment),
        budget_s=budget,
        timeout_s=conditions.timeout,
        time_wrong=time_wrong,
        comparing=comparing,
        confirm=confirm,
    )


def any_wrong(result: ResultFile, but_for: str | None = None) -> bool:
    """Return whether a cell is wrong or crashed.

    `but_for` names an implementation that may be wrong: an old version that is mended now.
    """
    return any(
        cell.status in ("wrong", "failed") and cell.implementation != but_for
        for cell in result.cells
    )


def with_implementations(
    suite: Suite,
    impl: list[str] | None,
    layouts: Layouts,
    only_own: bool = False,
) -> Suite:
    """Return the suite with only the implementations that the options name.

    The user's own code is added to the suite's others; with `only_own` it stands alone.
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
        "--layout": (layouts.layout, ACTIVATION_AXES),
        "--kernel-layout": (layouts.kernel_layout, KERNEL_AXES),
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
        if layouts != Layouts() or name not in described:
            described[name] = OwnCode(name, name, layouts.layout or "", layouts.kernel_layout or "")
    suite = replace(suite, implementations=names, own=tuple(described.values()))
    registry = REGISTRY.knowing(*suite.own)
    for name in names:  # an unknown name, or a file that is not there, must fail at once
        registry.get(name)
    return suite


def shard_of(text: str | None) -> tuple[int, int] | None:
    """Read `2/8` as (2, 8). Raises ConvbenchError for anything else."""
    if text is None:
        return None
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise ConvbenchError(
            f"--shard: found {text!r}, expected I/N, the I-th of N parts", hint="--shard 2/8"
        )
    return int(index), int(count)


def selected(suite: Suite, part: Part, shard: tuple[int, int] | None = None) -> Suite:
    """Return the suite with only the passes and layers that the options name, or a shard of it."""
    from dataclasses import replace
    from difflib import get_close_matches
    from fnmatch import fnmatchcase

    from convbench.problem.layer import Pass
    from convbench.suites.suite import shard as shard_of_suite

    if passes := part.pass_:
        unknown = [name for name in passes if name not in list(Pass)]
        if unknown:
            close = get_close_matches(unknown[0], list(Pass), n=1)
            raise ConvbenchError(
                f"--pass: there is no pass {unknown[0]!r}",
                hint=(f"did you mean '{close[0]}'? " if close else "")
                + f"Known: {', '.join(Pass)}",
            )
        suite = replace(suite, passes=tuple(p for p in Pass if p in passes))
    if layers := part.layer:
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
    return shard_of_suite(suite, *shard) if shard else suite


def new_session(
    suite: Suite,
    conditions: Conditions,
    path: Path,
    effort: EffortName | None = None,
    shard: tuple[int, int] | None = None,
    registry: Registry | None = None,
) -> Session:
    """Return a session that has measured nothing yet and will save to `path`.

    `registry` is for a suite some of whose implementations are neither built in nor own code.
    """
    from convbench import runtimes
    from convbench.implementations.registry import REGISTRY
    from convbench.machine import description as machine
    from convbench.measure.environment import Environment
    from convbench.results import file as result_file
    from convbench.schedule import Session

    count = thread_count(suite.threads if conditions.threads is None else conditions.threads)
    environment = Environment(os.environ, suite.environment)
    return Session(
        suite=suite,
        machine=machine.fingerprint(),
        software=machine.software(runtimes.versions()),
        environment=environment.recorded(count),
        threads=count,
        effort=effort.value if effort is not None else suite.effort,
        seed=conditions.seed or 0,
        path=path,
        metadata=result_file.pyperf_metadata(),
        shard=shard,
        tune=not conditions.no_tune,
        registry=registry or REGISTRY,
    )


def refuse_to_mix(problem: str, compared: Iterable[tuple[str, object, object]], hint: str) -> None:
    """Raise ResultError, with exit code 4, if a file was made under other conditions than today's.

    `compared` has the name of each condition, its value in the file, and its value now.
    """
    from convbench.errors import ExitCode, ResultError

    differences = [f"{what}: {then} then, {now} now" for what, then, now in compared if then != now]
    if differences:
        error = ResultError(f"{problem}: {'; '.join(differences)}", hint=hint)
        error.exit_code = ExitCode.INCOMPARABLE
        raise error


def recall_runs(session: Session) -> None:
    """Tell the session how much earlier runs on this machine differed from each other."""
    from convbench.results.run_memory_file import recall

    if session.state == "warm":
        known = recall(session.machine, session.software, session.threads)
        if known is not None:
            session.earlier_runs, session.deviations = known.runs, known.deviations


def remember_run(saved: Saved, subject: str | None = None) -> None:
    """Keep the figures of a finished run for later runs. See run_memory.run_of for `subject`."""
    from convbench.results.run_memory import run_of
    from convbench.results.run_memory_file import remember

    run = run_of(saved, subject)
    if run is not None:
        remember(saved.result.machine, saved.result.software, saved.result.threads, run)


def thread_count(asked: str | int) -> int:
    """Return the number of threads that was asked for. Raises ConvbenchError if there is none."""
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
