"""Run `convbench merge`: join result files of parts of a suite."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from convbench.cli.console import complain, guarded
from convbench.cli.measuring import Force, Top, result_path
from convbench.cli.show import Format, print_result


@guarded
def merge(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE.json...", help="Result files of parts of one suite."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The result file of the whole.", metavar="FILE")
    ],
    allow_different_machine: Annotated[
        bool,
        typer.Option(
            "--allow-different-machine", help="Join files of other machines or versions too."
        ),
    ] = False,
    format_: Annotated[
        Format, typer.Option("--format", help="How the tables are printed.")
    ] = Format.TABLE,
    top: Top = None,
    force: Force = False,
) -> None:
    """Join result files whose layers are parts of one suite; print the tables of the whole.

    Exit code 0, or 4 where machines or versions differ.
    """
    from convbench.compare.joining import join
    from convbench.results.file import load, save

    path = result_path(output, "merged", force)
    whole = join([(str(file), load(file)) for file in files], allow_different_machine)
    path = save(path, whole)
    print_result(whole.result, format_, top=top)
    complain(f"saved {path}")
