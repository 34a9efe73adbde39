"""Run `convbench diff`: put saved result files side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from convbench.cli.console import guarded
from convbench.cli.options import FormatName, FormatOption, NoiseOption, ReportPath
from convbench.cli.show import print_report, refuse_checks


@guarded
def diff(
    old: Annotated[
        Path,
        typer.Argument(metavar="OLD.json", help="Result file to compare the others with."),
    ],
    new: Annotated[Path, typer.Argument(metavar="NEW.json", help="Newer result file.")],
    more: Annotated[
        list[Path] | None, typer.Argument(metavar="[MORE.json]...", help="Further result files.")
    ] = None,
    noise: NoiseOption = None,
    format_: FormatOption = FormatName.TABLE,
    output: ReportPath = None,
) -> None:
    """Compare saved result files. The exit code is 0 if all of them can be read."""
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
