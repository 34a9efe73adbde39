"""Report a check: what is right in which pass and why something is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial

from convbench.problem.layer import Pass
from convbench.report.views import scale
from convbench.report.views.agreement_notes import agreement_notes
from convbench.report.views.ci_checks import checks
from convbench.report.views.origin import origin
from convbench.report.views.run_flat import flat_table
from convbench.report.views.table import (
    MISSING,
    Column,
    Fact,
    Note,
    Report,
    Row,
    Section,
    Table,
    Tone,
    Value,
    text,
)
from convbench.results.model import Cell, ResultFile, Status

COUNTED: dict[Status, tuple[str, Tone]] = {
    "ok": ("right", "plain"),
    "wrong": ("wrong", "bad"),
    "failed": ("crashed", "bad"),
    "skipped": ("skipped", "warning"),
    "unsupported": ("unsupported", "dim"),
    "pending": ("pending", "dim"),
}


_VERBS = {"crashed": "crashes"}


def is_check(result: ResultFile) -> bool:
    """Return whether the result holds agreement only, and neither times nor memory."""
    return bool(result.cells) and not any(cell.time or cell.memory for cell in result.cells)


def report(result: ResultFile) -> Report:
    """Return the report of a check, finished or not."""
    return Report(
        title=f"convbench check: {result.suite.name}",
        facts=_facts(result),
        tables=(_table(result),),
        notes=(
            *_legend(result),
            *agreement_notes(result),
            *_skipped(result.cells),
            Note(_answer(result), "strong"),
        ),
        flat=partial(flat_table, result),
        document=result,
        checks=checks(result),
    )


def _facts(result: ResultFile) -> tuple[Fact, ...]:
    software, layers = result.software, scale.counted(len(result.suite.layers), "layer")
    return (
        *origin(result.suite),
        Fact(
            "run",
            f"{layers}, {scale.counted(result.threads, 'thread')}, seed {result.seed}"
            f"{'' if result.tune else ', no trials'}",
        ),
        Fact("versions", f"convbench {software.convbench}, Python {software.python}"),
    )


def _cells_of(result: ResultFile, implementation: str, pass_: Pass) -> list[Cell]:
    return [c for c in result.cells if (c.implementation, c.pass_) == (implementation, pass_)]


def _table(result: ResultFile) -> Table:
    columns = (
        Column("pass", "pass"),
        *(Column(status, word, align="right") for status, (word, _) in COUNTED.items()),
        Column("agreement", "agreement"),
    )
    sections = tuple(
        Section(
            tuple(
                _row(pass_, _cells_of(result, implementation, pass_))
                for pass_ in result.suite.passes
            ),
            heading=implementation,
        )
        for implementation in result.suite.implementations
    )
    return Table("Agreement", columns, sections).without_empty_columns()


def _row(pass_: Pass, cells: list[Cell]) -> Row:
    counts = Counter(cell.status for cell in cells)
    return Row(
        (
            text(pass_),
            *(
                text(str(counts[status]), tone) if counts[status] else MISSING
                for status, (_, tone) in COUNTED.items()
            ),
            _agreement(cells),
        )
    )


def _agreement(cells: list[Cell]) -> Value:
    """Say how closely the cells that are right agree, by the worst of them."""
    found = [cell.agreement for cell in cells if cell.status == "ok" and cell.agreement]
    if not found:
        return MISSING
    if all(agreement.exact for agreement in found):
        return text("exact")
    share = max(agreement.error_over_bound or 0 for agreement in found)
    return text(f"{share:.2g} of the bound")


def _legend(result: ResultFile) -> tuple[Note, ...]:
    if not any(cell.status == "ok" for cell in result.cells):
        return ()
    words = (
        "exact: integers equal the oracle's, and floats lie within their rounding bound; "
        "otherwise the largest error is given as a part of its bound"
    )
    return (Note(words, "dim"),)


def _skipped(cells: Sequence[Cell]) -> Iterator[Note]:
    """Say how many layers were skipped, and why."""
    by_reason: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.status == "skipped":
            by_reason.setdefault(cell.reason or "", []).append(cell)
    for reason, skipped in by_reason.items():
        named = {cell.pass_ for cell in skipped}
        passes = scale.listed([pass_ for pass_ in Pass if pass_ in named])
        of_all = scale.counted(len({cell.layer for cell in cells}), "layer")
        count = len({cell.layer for cell in skipped})
        yield Note(f"Skipped: {passes} on {count} of {of_all}: {reason}.", "warning")


def _answer(result: ResultFile) -> str:
    sentences = [_sentence(result, name) for name in result.suite.implementations]
    return " ".join(sentences)


def _sentence(result: ResultFile, implementation: str) -> str:
    """Write `my_conv.py:f is right in forward and is not checked in input-gradient.`"""
    passes: dict[str, list[str]] = {}
    for pass_ in result.suite.passes:
        counts = Counter(cell.status for cell in _cells_of(result, implementation, pass_))
        bad = [word for status, (word, _) in COUNTED.items() if status in counts]
        worst = next((w for w in ("wrong", "crashed", "right", "skipped") if w in bad), "pending")
        if set(bad) == {"unsupported"}:
            worst = "not checked"
        passes.setdefault(worst, []).append(pass_)
    clauses = [
        f"{_VERBS.get(word, f'is {word}')} in {scale.listed(names)}"
        for word, names in passes.items()
    ]
    return f"{implementation} {scale.listed(clauses)}."
