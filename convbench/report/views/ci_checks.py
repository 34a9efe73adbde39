"""Report a run for CI: a check for each cell and each doubtful twin, a point for each time."""

from __future__ import annotations

from collections.abc import Iterator

from convbench.report.typeset import clean
from convbench.report.views import scale
from convbench.report.views.table import Check, Kind, Outcome, Point
from convbench.results.model import Agreement, Cell, Duplicate, ResultFile, Status
from convbench.results.resolution import claim_of

_OUTCOMES: dict[Status, Outcome] = {
    "ok": "passed",
    "wrong": "failed",
    "failed": "failed",
    "unsupported": "left-out",
    "skipped": "left-out",
    "pending": "left-out",
}


def checks(result: ResultFile) -> tuple[Check, ...]:
    """Return a check for every cell, then one for every twin whose (layer, pass) is unreliable."""
    unreliable = (twin for twin in result.duplicates if not twin.reliable)
    return (*map(cell_check, result.cells), *map(_twin_check, unreliable))


def points(result: ResultFile) -> tuple[Point, ...]:
    """Return the time of every cell that is right and was timed."""
    extra = f"{scale.counted(result.threads, 'thread')}, {result.machine.cpu}"
    return tuple(_points(result.cells, extra))


def cell_check(cell: Cell) -> Check:
    # Where a cell is right, its reason is a remark (memory that could not be metered).
    evidence = cell.reason if cell.status == "ok" else _error(cell.agreement)
    return Check(_name(cell), _OUTCOMES[cell.status], clean(_message(cell)), evidence or "")


def _name(cell: Cell | Duplicate) -> str:
    return f"{cell.layer} {cell.pass_} {cell.implementation}"


def _message(cell: Cell) -> str:
    """Say how a cell that is right agrees; for any other cell, give its status and the reason."""
    if cell.status == "ok":
        return _agreement(cell.agreement)
    diagnosis = cell.agreement.diagnosis if cell.agreement else None
    why = diagnosis if cell.status == "wrong" and diagnosis else cell.reason
    return f"{cell.status}: {why}" if why else cell.status


def _agreement(agreement: Agreement | None) -> str:
    """Write `integers exact, floats within their rounding bound (4.1 % of it)`."""
    found = []
    if agreement and agreement.exact:
        found.append("integers exact")
    if agreement and agreement.error_over_bound is not None:
        share = scale.percent(agreement.error_over_bound)
        found.append(f"floats within their rounding bound ({share} % of it)")
    return ", ".join(found) or "agrees"


def _error(agreement: Agreement | None) -> str:
    """Say how far off a result is. The text is empty if the result was not compared."""
    if agreement is None or agreement.max_abs_error is None or agreement.error_over_bound is None:
        return ""
    error, share = map(scale.significant, (agreement.max_abs_error, agreement.error_over_bound))
    return f"largest error {error}; largest error over its bound {share}"


def _twin_check(twin: Duplicate) -> Check:
    interval = f" {scale.bounds(twin.ci99)}" if twin.ci99 else ""
    ratio = scale.significant(twin.ratio)
    claimed = claim_of(twin)
    told = "" if claimed is None else f"; the run claims to tell {scale.width(claimed)} apart"
    return Check(
        f"{_name(twin)} twin",
        "inconclusive",
        f"the same code ran twice, and the second one took {ratio}{interval} times as long{told}",
        "quiet the machine and run again",
    )


def _points(cells: tuple[Cell, ...], extra: str) -> Iterator[Point]:
    for cell in cells:
        if cell.status == "ok" and cell.time is not None:
            low, high = cell.time.ci99_s or (None, None)
            yield Point(
                _name(cell),
                scale.unit(Kind.TIME_S),
                cell.time.time_s * 1e3,
                None if low is None or high is None else (low * 1e3, high * 1e3),
                f"{scale.counted(cell.time.rounds, 'round')}, {extra}",
            )
