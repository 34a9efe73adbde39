"""`convbench show`: the tables of a saved result file again."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convbench.cli.console import complain, guarded, write

if TYPE_CHECKING:
    from convbench.report.table import Report
    from convbench.results import ResultFile


class Format(StrEnum):
    TABLE = "table"
    MARKDOWN = "markdown"
    CSV = "csv"
    JSON = "json"
    GITHUB = "github"
    JUNIT = "junit"
    SMALLER = "customSmallerIsBetter"


@guarded
def show(
    file: Annotated[Path, typer.Argument(help="A result file that `convbench run` saved.")],
    format_: Annotated[Format, typer.Option("--format", help="How it is printed.")] = Format.TABLE,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A file: .txt .md .csv .json .svg .xml; - is stdout."),
    ] = None,
) -> None:
    """Print the tables of a result file; always exit code 0 when it can be read."""
    from convbench.result_file import load

    print_result(load(file).result, format_, output)


def print_result(result: ResultFile, format_: Format, output: Path | None = None) -> None:
    """The tables of a run, or of a check."""
    from convbench.report import check_tables, run_tables

    tables = check_tables if check_tables.is_check(result) else run_tables
    print_report(tables.report(result), format_, output)


def refuse_checks(format_: Format, command: str) -> None:
    """Raises ConvbenchError for a format that holds checks or points, of a command without any."""
    from convbench.errors import ConvbenchError

    if format_ in (Format.JUNIT, Format.SMALLER):
        raise ConvbenchError(
            f"--format {format_.value}: {command} checks nothing, so there is nothing to write",
            hint="run, show and gate have checks",
        )


def print_report(report: Report, format_: Format, output: Path | None) -> None:
    """On a terminal tables fit its width; the suffix of `output` chooses the format."""
    from convbench import report as formats

    if output is not None and str(output) != "-":
        write(formats.render(report, formats.format_of(output)), output)
    elif format_ is Format.TABLE:
        from convbench.report.terminal import print_report as print_on_terminal

        print_on_terminal(report)
    elif format_ is Format.GITHUB:
        _print_for_github(report)
    else:
        write(formats.render(report, format_.value), output)


def _print_for_github(report: Report) -> None:
    """In a step of GitHub Actions the summary goes to the step's file, the rest to stdout."""
    from convbench.report import github

    file = os.environ.get("GITHUB_STEP_SUMMARY")
    if os.environ.get("GITHUB_ACTIONS") != "true" or not file:
        complain("this is not a step of GitHub Actions: its summary goes to stdout too")
    elif _appended(report, Path(file)):
        write(github.annotations(report), None)
        return
    write(github.render(report), None)


def _appended(report: Report, file: Path) -> bool:
    """Whether the step's summary could be written; what other commands wrote there stays."""
    from convbench.report import github

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
