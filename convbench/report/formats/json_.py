"""Write a report as JSON: the document behind the tables, in the result file's names."""

from __future__ import annotations

import json
import math

from convbench.report.views.table import Report


def render(report: Report) -> str:
    text = json.dumps(document(report), indent=2, ensure_ascii=False, allow_nan=False)
    # UTF-8 cannot encode lone surrogates, so they become JSON's own escapes.
    return text.encode("utf-8", "backslashreplace").decode("utf-8") + "\n"


def document(report: Report) -> object:
    """Return the report's document as plain data. Infinite and undefined numbers become null, since
    JSON does not have them."""
    from pydantic import TypeAdapter

    adapter: TypeAdapter[object] = TypeAdapter(type(report.document))
    return _finite(adapter.dump_python(report.document, mode="json", by_alias=True))


def _finite(data: object) -> object:
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
