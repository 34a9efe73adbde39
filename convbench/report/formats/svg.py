"""Draw charts as SVG: bars on a logarithmic scale, readable in a light and in a dark page."""

from __future__ import annotations

import math
from collections.abc import Iterator
from xml.sax.saxutils import escape

from convbench.report.formats.terminal import svg as terminal_svg
from convbench.report.typeset import clean
from convbench.report.views.scale import scaled, unit
from convbench.report.views.table import Bar, Chart, Report

WIDTH = 760
LABELS = 200
VALUES = 150
BAR, GAP, TOP, FOOT = 18, 8, 44, 30
FEWEST_TICKS = 2

STYLE = """
.chart text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.chart .title { font-weight: 600; font-size: 15px; }
.chart .tick, .chart .value { fill: #59636e; font-variant-numeric: tabular-nums; }
.chart line { stroke: #d1d9e0; }
.chart .plain { fill: #4a79b8; } .chart .dim { fill: #9aa4af; } .chart .strong { fill: #1f2328; }
.chart .bad { fill: #c9510c; } .chart .good { fill: #2d8a4e; } .chart .warning { fill: #b08800; }
@media (prefers-color-scheme: dark) {
  .chart text { fill: #e6edf3; } .chart .tick, .chart .value { fill: #9198a1; }
  .chart line { stroke: #3d444d; } .chart .strong { fill: #e6edf3; }
  .chart .plain { fill: #6ea8f0; } .chart .bad { fill: #f0883e; } .chart .good { fill: #56d364; }
}
"""


def render(report: Report) -> str:
    """Draw the report's charts. Without charts, draw the report as a terminal shows it."""
    if not report.charts:
        return terminal_svg(report)
    top = 0
    parts = []
    for chart in report.charts:
        parts.append(f'<g transform="translate(0 {top})">{"".join(_drawn(chart))}</g>')
        top += height(chart) + GAP
    inside = "\n".join(parts)
    background = (
        "<style>.page { fill: #ffffff; } @media (prefers-color-scheme: dark) "
        "{ .page { fill: #0d1117; } }</style>"
        f'<rect class="page" width="{WIDTH}" height="{top}"/>'
    )
    return _svg(background + inside, top, report.title)


def element(chart: Chart) -> str:
    """Return one chart as an element of a page. The page gives the background."""
    return _svg("".join(_drawn(chart)), height(chart), chart.title)


def height(chart: Chart) -> int:
    return TOP + len(chart.bars) * (BAR + GAP) + FOOT


def _svg(inside: str, tall: int, title: str) -> str:
    return (
        f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {tall}" '
        f'width="100%" style="max-width: {WIDTH}px" role="img" aria-label="{_text(title)}">'
        f"<style>{STYLE}</style>{inside}</svg>\n"
    )


def _drawn(chart: Chart) -> Iterator[str]:
    ends = [end for bar in chart.bars for end in (bar.low, bar.high) if end > 0]
    low, high = (min(ends), max(ends)) if ends else (1.0, 10.0)
    low, high = low / 1.1, high * 1.1
    across = WIDTH - LABELS - VALUES

    def x(value: float) -> float:
        return LABELS + across * math.log(max(value, low) / low) / math.log(high / low)

    yield f'<text class="title" x="0" y="18">{_text(chart.title)}</text>'
    bottom = TOP + len(chart.bars) * (BAR + GAP)
    for tick in _ticks(low, high):
        label = f"{scaled(chart.kind, tick)} {unit(chart.kind)}".rstrip()
        yield f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{TOP - 8}" y2="{bottom}"/>'
        yield (
            f'<text class="tick" x="{x(tick):.1f}" y="{bottom + 16}" text-anchor="middle">'
            f"{_text(label)}</text>"
        )
    for index, bar in enumerate(chart.bars):
        yield from _bar(bar, TOP + index * (BAR + GAP), x)


def _bar(bar: Bar, y: float, x: object) -> Iterator[str]:
    assert callable(x)
    start, end = sorted((x(bar.low), x(bar.high)))
    middle = y + BAR - 5
    yield f'<text x="0" y="{middle}">{_text(bar.label)}</text>'
    yield (
        f'<rect class="{bar.tone}" x="{start:.1f}" y="{y}" width="{max(end - start, 2):.1f}" '
        f'height="{BAR}" rx="2"/>'
    )
    yield f'<text class="value" x="{WIDTH - VALUES + 12}" y="{middle}">{_text(bar.value)}</text>'


def _ticks(low: float, high: float) -> list[float]:
    """Return the powers of ten in the range, with 2 and 5 times each where there are too few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for steps in ((1,), (1, 2, 5)):
        found = [step * 10.0**p for p in powers for step in steps if low <= step * 10.0**p <= high]
        if len(found) > FEWEST_TICKS:
            break
    return found


def _text(words: str) -> str:
    return escape(clean(words), {'"': "&quot;"})
