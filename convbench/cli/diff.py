"""Run `convbench diff`: put saved result files side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from convbench.cli.console import guarded
from convbench.cli.show import Format, print_report, refuse_checks


@guarded
def diff(
    old: Annotated[
        Path,
        typer.Argument(metavar="OLD.json", help="The result file that others are held against."),
    ],
    new: Annotated[Path, typer.Argument(metavar="NEW.json", help="A newer result file.")],
    more: Annotated[
        list[Path] | None, typer.Argument(metavar="[MORE.json]...", help="Further result files.")
    ] = None,
    noise: Annotated[
        Path | None,
        typer.Option(help="What `convbench noise` saved about this machine.", metavar="FILE"),
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="How it is printed.")] = Format.TABLE,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A file: .txt .md .csv .json .svg .html; - is stdout."),
    ] = None,
) -> None:
    """Compare saved result files; always exit code 0 when they can be read."""
    from convbench.compare import diff as compare
    from convbench.compare import learnt_by
    from convbench.noise.file import deviations_of
    from convbench.report.views.diff_tables import report
    from convbench.results.file import load

    refuse_checks(format_, "diff")
    files = [(str(path), load(path)) for path in (old, new, *(more or ()))]
    newest = files[-1][1].result
    deviations = learnt_by(newest)
    if noise is not None:
        deviations = deviations_of(noise, newest.machine, newest.threads)
    print_report(report(compare(files, deviations)), format_, output)
