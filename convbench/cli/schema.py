"""Run `convbench schema`: print the JSON Schema of suites, networks and result files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from convbench import addons
from convbench.cli.console import guarded, write

SUITE, RESULT = "suite", "result"


def documents() -> list[str]:
    """Return the kinds of files with a schema: suites, those that add-ons read, and results."""
    return [SUITE, *addons.kinds(), RESULT]


def _known(document: str) -> str:
    if document not in documents():
        names = ", ".join(map(repr, documents()))
        raise typer.BadParameter(f"{document!r} is not one of {names}.")
    return document


@guarded
def schema(
    document: Annotated[
        str,
        typer.Argument(help="Kind of file.", metavar=f"[{'|'.join(documents())}]", callback=_known),
    ] = SUITE,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File for the schema.  [default: stdout]")
    ] = None,
) -> None:
    """Print the JSON Schema of suites, networks or result files.

    That of a result file describes its key `convbench`.
    """
    if document == RESULT:
        from convbench.results.file import json_schema as schema_of
    elif document == SUITE:
        from convbench.suites.file import json_schema as schema_of
    else:
        from convbench.suites.file.document import Kind

        schema_of = addons.found(addons.kinds()[document], Kind).schema
    write(json.dumps(schema_of(), indent=2, ensure_ascii=False) + "\n", output)
