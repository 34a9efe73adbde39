"""Write a report for github-action-benchmark, whose tool `customSmallerIsBetter` reads the points.

The action draws a chart over time for each name. It refuses a file without any entry.
"""

from __future__ import annotations

import json
import math

from convbench.report.typeset import clean
from convbench.report.views import scale
from convbench.report.views.table import Point, Report


def render(report: Report) -> str:
    """Return a JSON array with an entry for each point whose value is finite."""
    entries = [_entry(point) for point in report.points if math.isfinite(point.value)]
    return json.dumps(entries, indent=2, ensure_ascii=False) + "\n"


def _entry(point: Point) -> dict[str, str | float]:
    entry: dict[str, str | float] = {
        "name": clean(point.name),
        "unit": point.unit,
        "value": point.value,
    }
    if point.interval:
        entry["range"] = scale.half_width(point.interval).replace("±", "± ")
    if point.extra:
        entry["extra"] = "\n".join(map(clean, point.extra.splitlines()))
    return entry
