"""Declare the options that several commands share, each once, and gather them in groups.

A command takes a group as one parameter. `grouped` shows Typer the fields of the group in its
place, and makes the group of the values that were given. An option of a single command is declared
in that command's file.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import Field, dataclass, fields, is_dataclass
from enum import StrEnum
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar, cast, get_type_hints

import typer
from typer.models import OptionInfo

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


def given(*groups: object, except_for: Collection[str] = ()) -> list[str]:
    """Return the options of these groups that have other values than their defaults, by name."""
    return [
        option
        for group in groups
        for field, option in _options(type(group))
        if option not in except_for and getattr(group, field.name) != field.default
    ]


def _options(group: type[Any]) -> Iterator[tuple[Field[Any], str]]:
    """Yield the fields of a group, and the name of each one's option."""
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        (option,) = (
            part for part in hints[field.name].__metadata__ if isinstance(part, OptionInfo)
        )
        names = option.param_decls or (f"--{field.name.strip('_').replace('_', '-')}",)
        yield field, names[0]


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


class FormatName(StrEnum):
    """A format in which a report is printed."""

    TABLE = "table"
    MARKDOWN = "markdown"
    CSV = "csv"
    JSON = "json"
    GITHUB = "github"
    JUNIT = "junit"
    SMALLER = "customSmallerIsBetter"


class EffortName(StrEnum):
    """The name of an effort: how much a command measures."""

    SMOKE = "smoke"
    QUICK = "quick"
    STANDARD = "standard"
    RIGOROUS = "rigorous"


SuiteName = Annotated[
    str | None,
    typer.Argument(
        help="The suite: a YAML file, or the name of a shipped suite (mnist).", metavar="SUITE"
    ),
]
Impls = Annotated[
    list[str] | None,
    typer.Option(
        "--impl",
        help="Use only this implementation; FILE.py:NAME or package.module:NAME adds your own "
        "code. Repeatable.",
    ),
]
EffortOption = Annotated[
    EffortName | None,
    typer.Option("--effort", help="How much to measure.  [default: the suite's, or standard]"),
]
BudgetOption = Annotated[
    float | None,
    typer.Option(
        "--budget",
        help="Seconds for the whole run. Rounds are left out first, then the slowest arms.",
        min=1,
    ),
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        help="Use one part of the suite's layers, such as 2/8; `merge` joins the results.",
        metavar="I/N",
    ),
]
TimeWrong = Annotated[
    bool, typer.Option("--time-wrong", help="Time wrong implementations, too. They are not ranked.")
]
AnotherMachine = Annotated[
    bool,
    typer.Option(
        "--allow-different-machine",
        help="Accept files from another machine, BLAS, version or thread count.",
    ),
]
NoiseOption = Annotated[
    Path | None,
    typer.Option(
        "--noise", help="File that `convbench noise` saved on this machine.", metavar="FILE"
    ),
]
Top = Annotated[
    int | None,
    typer.Option(
        "--top", help="Number of a network's layers to name.  [default: 3]", metavar="N", min=1
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
FormatOption = Annotated[FormatName, typer.Option("--format", help="Format of the printed report.")]
ReportPath = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help=f"Write the report to this file: {' '.join(SUFFIXES)}; - is stdout.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the file that the command writes.")]


@dataclass(frozen=True)
class Layouts:
    """The options that say in which order the axes of own code come."""

    layout: Annotated[
        str | None,
        typer.Option(
            "--layout", help="Axes of your own code's input, such as NHWC.  [default: NCHW]"
        ),
    ] = None
    kernel_layout: Annotated[
        str | None,
        typer.Option(
            "--kernel-layout",
            help="Axes of your own code's kernel, such as HWIO.  [default: OIHW]",
        ),
    ] = None


@dataclass(frozen=True)
class Part:
    """The options that choose passes and layers of a suite."""

    pass_: Annotated[
        list[str] | None, typer.Option("--pass", help="Use only this pass. Repeatable.")
    ] = None
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "--layer", help="Use only layers whose name matches, such as 'conv*'. Repeatable."
        ),
    ] = None


@dataclass(frozen=True)
class Conditions:
    """The options for conditions that all implementations of a command share."""

    threads: Annotated[
        str | None, typer.Option(help="Number of threads of every implementation, or 'all'.")
    ] = None
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", help="Seed of the operands and of the random order.  [default: 0]", min=0
        ),
    ] = None
    no_tune: Annotated[
        bool,
        typer.Option(
            "--no-tune", help="Let `auto` choose by its cost model alone, without trials."
        ),
    ] = False
    timeout: Annotated[
        float,
        typer.Option(help="Seconds to wait for an answer before a cell is given up.", min=1),
    ] = 300.0


@dataclass(frozen=True)
class ResultTarget:
    """The options for the result file that a command saves."""

    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Result file to save.  [default: results/SUITE-TIME.json]"
        ),
    ] = None
    force: Force = False


@dataclass(frozen=True)
class Shown:
    """The options for a command's progress and the report that it prints."""

    format_: FormatOption = FormatName.TABLE
    quiet: Quiet = False
