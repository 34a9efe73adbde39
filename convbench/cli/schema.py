"""Run `convbench schema`: print the JSON Schema of suites, networks and result files."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from convbench.cli.console import guarded, write


class Document(StrEnum):
    """A kind of file that has a schema."""

    SUITE = "suite"
    NETWORK = "network"
    RESULT = "result"


@guarded
def schema(
    document: Annotated[Document, typer.Argument(help="Which file's schema.")] = Document.SUITE,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file instead of stdout.")
    ] = None,
) -> None:
    """Print the JSON Schema of a suite or a network, or of the key `convbench` in a result file."""
    if document is Document.SUITE:
        from convbench.suites.file import json_schema
    elif document is Document.NETWORK:
        from convbench.training.file import network_schema as json_schema
    else:
        from convbench.results.file import json_schema
    write(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n", output)
