"""Run `convbench export`: write a suite's layers for another tool."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from convbench.cli.console import complain, guarded, write
from convbench.cli.measuring import selected
from convbench.cli.options import Force, Part, grouped
from convbench.errors import ConvbenchError


class Tool(StrEnum):
    """A tool that a suite can be written for."""

    BENCHDNN = "benchdnn"


@guarded
@grouped
def export(
    *,
    tool: Annotated[Tool, typer.Argument(help="Tool to write for.")],
    suite: Annotated[
        str,
        typer.Argument(
            help="The suite: a YAML file, or the name of a shipped suite.", metavar="SUITE"
        ),
    ],
    part: Part,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write.  [default: stdout]", metavar="FILE"),
    ] = None,
    force: Force = False,
) -> None:
    """Write a suite's layers for another tool.

    For benchdnn they become problem descriptors, with dilation converted. Layers that the tool
    cannot run are left out, and named.
    """
    from convbench.importers import benchdnn
    from convbench.suites.file import read_suite

    if output is not None and output.exists() and not force:
        raise ConvbenchError(f"{output} exists already", hint="--force overwrites it")
    chosen = selected(read_suite(suite), part)
    text, left_out = benchdnn.write(chosen)
    for entry in left_out:
        complain(f"left out: {entry}")
    if len(left_out) == len(chosen.layers):
        raise ConvbenchError(f"{suite}: {tool} can run none of its layers")
    write(text, output)
    complain(f"{tool}: {len(chosen.layers) - len(left_out)} of {len(chosen.layers)} layers")
