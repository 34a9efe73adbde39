"""Turn a result into neutral tables, and tables into text. Measure nothing.

`views/` decide what is told: each turns one kind of result, such as a run, a diff or a judgement,
into a `views.table.Report`, whose tables hold raw numbers and whose notes are whole sentences.
`formats/` decide how it is written: each renders any Report, and knows no kind of result. A view
imports no format, and `typeset.py` has what both do with words. To add a format, write a module in
`formats/` with a function from Report to str, and add a line to FORMATS.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import PurePath
from typing import TYPE_CHECKING, NamedTuple

from convbench.errors import ConvbenchError

if TYPE_CHECKING:
    from convbench.report.views.table import Report


class Format(NamedTuple):
    """A report format. `renderer` is `module:function`, imported at first use."""

    renderer: str
    suffixes: tuple[str, ...]


FORMATS: dict[str, Format] = {
    "table": Format("convbench.report.formats.terminal:text", (".txt",)),
    "markdown": Format("convbench.report.formats.markdown:render", (".md", ".markdown")),
    "csv": Format("convbench.report.formats.csv_:render", (".csv",)),
    "json": Format("convbench.report.formats.json_:render", (".json",)),
    "svg": Format("convbench.report.formats.svg:render", (".svg",)),
    "html": Format("convbench.report.formats.html:render", (".html", ".htm")),
    "github": Format("convbench.report.formats.github:render", ()),
    "junit": Format("convbench.report.formats.junit:render", (".xml",)),
    "customSmallerIsBetter": Format("convbench.report.formats.benchmark_action:render", ()),
}


SUFFIXES = tuple(format.suffixes[0] for format in FORMATS.values() if format.suffixes)
"""Suffixes of files, one for each format that a suffix can ask for."""


def render(report: Report, format: str) -> str:
    """Return the report in a format of FORMATS, ending in a newline. Raises ConvbenchError if the
    format is not known."""
    if format not in FORMATS:
        raise ConvbenchError(
            f"there is no report format {format!r}", hint=f"known formats: {', '.join(FORMATS)}"
        )
    module, _, function = FORMATS[format].renderer.partition(":")
    rendered: str = getattr(import_module(module), function)(report)
    return rendered


def format_of(path: str | PurePath) -> str:
    """Return the format that the suffix of `path` asks for. Raises ConvbenchError if none does."""
    suffix = PurePath(path).suffix.lower()
    for name, format in FORMATS.items():
        if suffix in format.suffixes:
            return name
    known = ", ".join(suffix for format in FORMATS.values() for suffix in format.suffixes)
    found = (
        f"{suffix!r} is not the suffix of a report format" if suffix else "the name has no suffix"
    )
    raise ConvbenchError(f"{path}: {found}", hint=f"known suffixes: {known}")
