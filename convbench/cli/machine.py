"""Run `convbench machine`: what this machine is, what it can do, and what holds it back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from convbench.cli.console import Watcher, guarded
from convbench.cli.show import Format, print_report

CALIBRATION_S = 3.0


@guarded
def machine(
    format_: Annotated[Format, typer.Option("--format", help="How it is printed.")] = Format.TABLE,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A file: .txt .md .csv .json .svg; - is stdout."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Show CPU, caches, BLAS, versions, and measured peaks: SGEMM, DGEMM, copies, calls, pages."""
    from convbench.machine.affinity import usable_cpus
    from convbench.measure.environment import Environment
    from convbench.report.views.machine_tables import report
    from convbench.results.run_memory_file import recall
    from convbench.schedule import describe

    description = describe(Environment(os.environ, {}), len(usable_cpus()), CALIBRATION_S)
    with Watcher(quiet) as watcher:
        while True:
            try:
                watcher.show(next(description))
            except StopIteration as done:
                described = done.value
                break
    known = {
        threads: found
        for threads in sorted({1, len(usable_cpus())})
        if (found := recall(described.machine, described.software, threads)) is not None
    }
    print_report(report(described, known), format_, output)
