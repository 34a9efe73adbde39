"""Run `convbench merge`: join result files of parts of a suite."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from convbench.cli.console import complain, guarded
from convbench.cli.measuring import result_path
from convbench.cli.options import AnotherMachine, Force, FormatName, FormatOption, ResultTarget, Top
from convbench.cli.show import print_result


@guarded
def merge(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE.json...", help="Result files of parts of one suite."),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Result file of the whole to save.", metavar="FILE"),
    ],
    allow_different_machine: AnotherMachine = False,
    format_: FormatOption = FormatName.TABLE,
    top: Top = None,
    force: Force = False,
) -> None:
    """Join the result files of parts of one suite.

    The tables of the whole are printed. The exit code is 0, or 4 if machines or versions differ.
    """
    from convbench.compare.joining import join
    from convbench.results.file import load, save

    path = result_path(ResultTarget(output, force), "merged")
    whole = join([(str(file), load(file)) for file in files], allow_different_machine)
    path = save(path, whole)
    print_result(whole.result, format_, top=top)
    complain(f"saved {path}")
