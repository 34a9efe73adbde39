"""Run `convbench show`: print the tables of a saved result file again."""

from __future__ import annotations

import os
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Annotated

import typer

from convbench import addons
from convbench.cli.console import complain, guarded, write
from convbench.cli.measuring import selected
from convbench.cli.options import FormatName, FormatOption, Part, ReportPath, Top, grouped
from convbench.errors import ConvbenchError

if TYPE_CHECKING:
    from convbench.report.views.table import Report
    from convbench.results.file import Saved
    from convbench.results.model import ResultFile


@guarded
@grouped
def show(
    *,
    file: Annotated[Path, typer.Argument(help="Result file that a command saved.")],
    format_: FormatOption = FormatName.TABLE,
    output: ReportPath = None,
    part: Part,
    top: Top = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Show every cell, even if the run is large.")
    ] = False,
) -> None:
    """Print the tables of a result file. The exit code is 0 if it can be read."""
    from convbench.results.file import parsed, read_json

    document = read_json(file)
    if name := addons.writer(document):
        add_on = addons.ADD_ONS[name]
        if part != Part():
            raise ConvbenchError(
                f"{file} is the result of a {add_on.result}, which has no layers to choose from"
            )
        print_report(addons.found(add_on.show, FunctionType)(file), format_, output)
        return
    saved = parsed(file, document)
    result = _narrowed(saved, part) if part != Part() else saved.result
    print_result(result, format_, output, top, everything)


def _narrowed(saved: Saved, part: Part) -> ResultFile:
    """Return the result of some passes and layers, with means and totals over them alone."""
    from dataclasses import replace

    from convbench.results.summary import summarise

    suite = selected(saved.result.suite, part)
    names = {layer.name for layer in suite.layers}
    cells = tuple(
        cell for cell in saved.result.cells if cell.layer in names and cell.pass_ in suite.passes
    )
    return summarise(replace(saved.result, suite=suite, cells=cells), saved.benchmarks)


def print_result(
    result: ResultFile,
    format_: FormatName,
    output: Path | None = None,
    top: int | None = None,
    everything: bool = False,
) -> None:
    """Print the tables of a run, a check or a training."""
    from convbench.report.views import check_tables, network_tables, run_tables

    if check_tables.is_check(result):
        report = check_tables.report(result)
    else:
        report = run_tables.report(result, top or network_tables.TOP, everything)
    print_report(report, format_, output)


def refuse_checks(format_: FormatName, command: str) -> None:
    """Raise ConvbenchError for a format of checks or points, which this command has none of."""
    if format_ in (FormatName.JUNIT, FormatName.SMALLER):
        raise ConvbenchError(
            f"--format {format_.value}: {command} checks nothing, so there is nothing to write",
            hint="run, show and gate have checks",
        )


def print_report(report: Report, format_: FormatName, output: Path | None) -> None:
    """Print a report, or write it to `output`, whose suffix then chooses the format.

    On a terminal, tables fit its width.
    """
    from convbench import report as formats

    if output is not None and str(output) != "-":
        write(formats.render(report, formats.format_of(output)), output)
    elif format_ is FormatName.TABLE:
        from convbench.report.formats.terminal import for_stdout

        write(for_stdout(report), None)
    elif format_ is FormatName.GITHUB:
        _print_for_github(report)
    else:
        write(formats.render(report, format_.value), output)


def _print_for_github(report: Report) -> None:
    """Append the summary to the step's file in GitHub Actions; print the rest on stdout."""
    from convbench.report.formats import github

    file = os.environ.get("GITHUB_STEP_SUMMARY")
    if os.environ.get("GITHUB_ACTIONS") != "true" or not file:
        complain("this is not a step of GitHub Actions, so the summary goes to stdout, too")
    elif _appended(report, Path(file)):
        write(github.annotations(report), None)
        return
    write(github.render(report), None)


def _appended(report: Report, file: Path) -> bool:
    """Append a report to the summary of the step, and return whether that worked."""
    from convbench.report.formats import github

    try:
        with file.open("ab") as stream:
            stream.write(github.summary(report, github.SUMMARY_BYTES - stream.tell()).encode())
    except OSError as error:
        complain(
            f"warning: the step summary {file} cannot be written ({error.strerror or error}): "
            "it goes to stdout instead"
        )
        return False
    return True
