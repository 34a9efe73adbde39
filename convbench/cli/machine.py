"""Run `convbench machine`: tell what this machine is and can do, and what holds it back."""

from __future__ import annotations

import os

from convbench.cli.console import Watcher, guarded
from convbench.cli.options import ReportPath, Shown, grouped
from convbench.cli.show import print_report

CALIBRATION_S = 3.0
"""Seconds that measuring the peaks takes, about."""


@guarded
@grouped
def machine(
    *,
    output: ReportPath = None,
    shown: Shown,
) -> None:
    """Show this machine's CPU, caches, BLAS, versions and peaks.

    The peaks are those of matrix products in float32 and float64, of copies, of calls and of fresh
    pages.
    """
    from convbench.machine.affinity import usable_cpus
    from convbench.measure.environment import Environment
    from convbench.report.views.machine_tables import report
    from convbench.results.run_memory_file import recall
    from convbench.schedule import describe

    description = describe(Environment(os.environ, {}), len(usable_cpus()), CALIBRATION_S)
    with Watcher(shown.quiet) as watcher:
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
    print_report(report(described, known), shown.format_, output)
