"""Print a report: boxed and coloured on a terminal, plain and at natural width anywhere else.

The module layout.py lays out the lines. Rich finds the width, colours (NO_COLOR, FORCE_COLOR) and
draws SVG. It never reads texts as markup, so names with [brackets] stay as they are.
"""

from __future__ import annotations

import sys
from io import StringIO

from rich.console import Console
from rich.text import Text

from convbench.report.formats.columns import Line
from convbench.report.formats.layout import Frame, lines
from convbench.report.views.table import Report, Tone

SVG_WIDTH = 100

_STYLES: dict[Tone, str] = {
    "plain": "",
    "strong": "bold",
    "dim": "dim",
    "good": "green",
    "bad": "red",
    "warning": "yellow",
}
_BOX_IN_ASCII = str.maketrans("╭╮╰╯├┤─│", "++++++-|")


def print_report(report: Report, console: Console | None = None) -> None:
    """Print the report: fitted to the console's width on a terminal, unwrapped anywhere else."""
    console = console or Console()
    on_terminal = console.is_terminal
    _print(report, console, Frame(console.width if on_terminal else None, boxed=on_terminal))


def for_stdout(report: Report) -> str:
    """Return the report as stdout shows it best, for a caller who writes there."""
    stream = _LikeStdout()
    print_report(report, Console(file=stream))
    return stream.getvalue()


class _LikeStdout(StringIO):
    """A buffer with stdout's encoding that is a terminal if stdout is one."""

    def isatty(self) -> bool:
        return sys.stdout.isatty()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # StringIO's cannot be set
        return sys.stdout.encoding


def text(report: Report) -> str:
    """Return the report as it is piped: without boxes and colours, and with lines unwrapped."""
    stream = StringIO()
    console = Console(file=stream, force_terminal=False, color_system=None)
    _print(report, console, Frame(None, boxed=False))
    return stream.getvalue()


def svg(report: Report) -> str:
    """Return the report as an image of a terminal, SVG_WIDTH columns wide or as wide as needed."""
    frame = Frame(SVG_WIDTH, boxed=True)
    widest = max(Text.assemble(*line).cell_len for line in lines(report, frame))
    console = Console(
        file=StringIO(),
        record=True,
        width=max(SVG_WIDTH, widest),
        force_terminal=True,
        color_system="truecolor",
        legacy_windows=False,
    )
    _print(report, console, frame)
    return console.export_svg(title="convbench")


def _print(report: Report, console: Console, frame: Frame) -> None:
    for line in lines(report, frame):
        console.print(_styled(line, console), soft_wrap=True, highlight=False)


def _styled(line: Line, console: Console) -> Text:
    styled = Text.assemble(
        *((_encodable(words, console), _STYLES[tone]) for words, tone in line), overflow="ignore"
    )
    styled.rstrip()
    return styled


def _encodable(words: str, console: Console) -> str:
    """Replace what a terminal without UTF-8 cannot show. Boxes are drawn in ASCII there."""
    if not console.options.ascii_only:
        return words
    return (
        words.translate(_BOX_IN_ASCII).encode(console.encoding, "replace").decode(console.encoding)
    )
