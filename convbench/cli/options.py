"""Declare the options that several commands share, each once, and gather them in groups.

A command takes a group as one parameter: `grouped` shows Typer the fields of a group in its place,
and hands the command the group made of what was given. An option that only one command has is
declared in that command's file.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar, cast, get_type_hints

import typer

from convbench.errors import ConvbenchError
from convbench.report import SUFFIXES

P = ParamSpec("P")
R = TypeVar("R")


def grouped(command: Callable[P, R]) -> Callable[P, R]:
    """Return the command as Typer understands it: each field of its groups is a parameter.

    A group is a dataclass whose fields have defaults. No two groups may share a field's name.
    """
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    shown = tuple(_flattened(command, hints))

    @functools.wraps(command)
    def flat(**given: object) -> R:
        for name, group in groups.items():
            values = {field.name: given.pop(field.name) for field in fields(group)}
            given[name] = cast("type[Any]", group)(**values)
        return cast("Callable[..., R]", command)(**given)

    flat.__signature__ = signature(command).replace(parameters=shown)  # type: ignore[attr-defined]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return cast("Callable[P, R]", flat)


def _flattened(command: Callable[P, R], hints: dict[str, Any]) -> Iterator[Parameter]:
    for parameter in signature(command).parameters.values():
        hint = hints[parameter.name]
        if not is_dataclass(hint):
            yield parameter.replace(annotation=hint, kind=Parameter.KEYWORD_ONLY)
            continue
        annotations = get_type_hints(hint, include_extras=True)
        for field in fields(hint):
            yield Parameter(
                field.name,
                Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=annotations[field.name],
            )


def percentage(text: str, option: str) -> float:
    """Read `3%` as 0.03. Raises ConvbenchError for a text that is no percentage."""
    number = text.strip().removesuffix("%").strip()
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not text.strip().endswith("%") or not 0 <= value < 1000:
        raise ConvbenchError(f"{option}: found {text!r}, expected a percentage such as 3%")
    return value / 100


class Format(StrEnum):
    """How a report is printed."""

    TABLE = "table"
    MARKDOWN = "markdown"
    CSV = "csv"
    JSON = "json"
    GITHUB = "github"
    JUNIT = "junit"
    SMALLER = "customSmallerIsBetter"


class EffortName(StrEnum):
    """How much a command measures."""

    SMOKE = "smoke"
    QUICK = "quick"
    STANDARD = "standard"
    RIGOROUS = "rigorous"


SuiteName = Annotated[
    str | None,
    typer.Argument(help="A suite: a YAML file, or a shipped one by name (mnist).", metavar="SUITE"),
]
Impls = Annotated[
    list[str] | None,
    typer.Option(
        "--impl",
        help="Only these implementations; FILE.py:NAME or package.module:NAME adds your own. "
        "Repeatable.",
    ),
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
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        help="Only one part of the suite's layers, such as 2/8; `merge` joins the results.",
        metavar="I/N",
    ),
]
TimeWrong = Annotated[
    bool, typer.Option("--time-wrong", help="Time what is wrong too; it is not ranked.")
]
AnotherMachine = Annotated[
    bool,
    typer.Option(
        "--allow-different-machine",
        help="Accept files of another machine, BLAS, version or thread count.",
    ),
]
NoiseOption = Annotated[
    Path | None,
    typer.Option(
        "--noise", help="What `convbench noise` saved about this machine.", metavar="FILE"
    ),
]
Top = Annotated[
    int | None,
    typer.Option(
        "--top", help="How many layers of a network are named.  [default: 3]", metavar="N", min=1
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
FormatOption = Annotated[Format, typer.Option("--format", help="How it is printed.")]
ReportPath = Annotated[
    Path | None,
    typer.Option("--output", "-o", help=f"A file: {' '.join(SUFFIXES)}; - is stdout."),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the file that the command writes.")]


@dataclass(frozen=True)
class Layouts:
    """How the axes of the user's own code are ordered."""

    layout: Annotated[
        str | None,
        typer.Option("--layout", help="Axes of your own code's input, e.g. NHWC.  [default: NCHW]"),
    ] = None
    kernel_layout: Annotated[
        str | None,
        typer.Option(
            "--kernel-layout", help="Axes of your own code's kernel, e.g. HWIO.  [default: OIHW]"
        ),
    ] = None


@dataclass(frozen=True)
class Part:
    """The passes and layers of a suite that a command is about."""

    pass_: Annotated[
        list[str] | None, typer.Option("--pass", help="Only these passes. Repeatable.")
    ] = None
    layer: Annotated[
        list[str] | None,
        typer.Option("--layer", help="Only layers whose name matches, e.g. 'conv*'. Repeatable."),
    ] = None


@dataclass(frozen=True)
class Conditions:
    """What every implementation that a command measures or checks has alike."""

    threads: Annotated[
        str | None, typer.Option(help="Threads for every implementation: 'all' or a number.")
    ] = None
    seed: Annotated[
        int | None,
        typer.Option("--seed", help="Seed of operands and of the order.  [default: 0]", min=0),
    ] = None
    no_tune: Annotated[
        bool,
        typer.Option("--no-tune", help="`auto` chooses by its cost model alone, without trials."),
    ] = False
    timeout: Annotated[
        float,
        typer.Option(help="Seconds after which a cell that does not answer is given up.", min=1),
    ] = 300.0


@dataclass(frozen=True)
class ResultTarget:
    """The result file that a command saves."""

    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The result file.  [default: results/SUITE-TIME.json]"),
    ] = None
    force: Force = False


@dataclass(frozen=True)
class Shown:
    """How a command shows its progress and prints its tables."""

    format_: FormatOption = Format.TABLE
    quiet: Quiet = False
