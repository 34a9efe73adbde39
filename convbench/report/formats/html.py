"""Write a report as one HTML page, which works offline, in light and dark, without a script."""

from __future__ import annotations

from html import escape

from convbench.report.formats import svg
from convbench.report.typeset import clean, printable
from convbench.report.views import scale
from convbench.report.views.table import Column, Note, Report, Row, Section, Table, Value

STYLE = """
:root { color-scheme: light dark; --text: #1f2328; --dim: #59636e; --page: #ffffff;
  --line: #d1d9e0; --code: #f6f8fa; --good: #1a7f37; --bad: #cf222e; --warning: #9a6700; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --dim: #9198a1; --page: #0d1117;
  --line: #3d444d; --code: #151b23; --good: #3fb950; --bad: #f85149; --warning: #d29922; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; }
dt { color: var(--dim); } dd { margin: 0; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .8rem .2rem 0; text-align: left; vertical-align: top; }
th { color: var(--dim); font-weight: 600; border-bottom: 1px solid var(--line); }
.number { text-align: right; white-space: nowrap; } .section th { border: 0; color: var(--text); }
.dim { color: var(--dim); } .strong { font-weight: 600; } .good { color: var(--good); }
.bad { color: var(--bad); } .warning { color: var(--warning); }
pre { background: var(--code); padding: .7rem; overflow-x: auto; border-radius: 6px; }
"""


def render(report: Report) -> str:
    facts = "".join(f"<dt>{_text(f.label)}</dt><dd>{_text(f.text)}</dd>" for f in report.facts)
    body = [
        f"<h1>{_text(report.title)}</h1>",
        *[_note(note) for note in report.notes if note.tone == "strong"],
        *(f"<figure>{svg.element(chart)}</figure>" for chart in report.charts),
        *(part for table in report.tables for part in _table(table)),
        *[_note(note) for note in report.notes if note.tone != "strong"],
        f"<dl>{facts}</dl>",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(report.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _note(note: Note) -> str:
    words = _text(note.text) + (f" — {_text(note.details)}" if note.details else "")
    parts = [f'<p class="{note.tone}">{words}</p>']
    if note.points:
        parts.append(
            "<ul>" + "".join(f"<li>{_text(point)}</li>" for point in note.points) + "</ul>"
        )
    if note.verbatim:
        parts.append(
            "<pre>" + "\n".join(escape(printable(line)) for line in note.verbatim) + "</pre>"
        )
    return "".join(parts)


def _table(table: Table) -> list[str]:
    head = "".join(f"<th{_align(column)}>{_heading(column)}</th>" for column in table.columns)
    rows = "".join(_section(section, table.columns) for section in table.sections)
    grid = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return [f"<h2>{_text(table.title)}</h2>", f'<div class="wide">{grid}</div>']


def _section(section: Section, columns: tuple[Column, ...]) -> str:
    heading = ""
    if section.heading:
        words = f"{_text(section.heading)} <span class='dim'>{_text(section.details)}</span>"
        heading = f'<tr class="section"><th colspan="{len(columns)}">{words}</th></tr>'
    return heading + "".join(_row(row, columns) for row in section.rows)


def _row(row: Row, columns: tuple[Column, ...]) -> str:
    cells = "".join(
        f'<td class="{value.tone}{_number(column)}">{_value(value)}</td>'
        for value, column in zip(row.values, columns, strict=False)
    )
    if row.remark is None:
        return f"<tr>{cells}</tr>"
    remark = f'<span class="{row.remark.tone}">{_text(str(row.remark.raw))}</span>'
    if len(row.values) == 1:
        return f'<tr>{cells}<td colspan="{len(columns) - 1}">{remark}</td></tr>'
    return f'<tr>{cells}</tr><tr><td></td><td colspan="{len(columns) - 1}">{remark}</td></tr>'


def _heading(column: Column) -> str:
    return _text(column.heading + (f" ({column.unit})" if column.unit else ""))


def _align(column: Column) -> str:
    return f' class="{_number(column).strip()}"'


def _number(column: Column) -> str:
    return "" if column.align == "left" else " number"


def _value(value: Value) -> str:
    if value.raw is None:
        return "-"
    return _text(scale.bounded(value) if value.is_number else str(value.raw))


def _text(words: str) -> str:
    return escape(clean(words))
