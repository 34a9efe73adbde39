"""Turn saved runs of suites into tables: means over the fastest Keras, worst cells, targets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from kernel_targets import Finding, Run, findings

from convbench.problem.layer import Pass
from convbench.report.views import scale
from convbench.report.views.run_notes import blas_line
from convbench.report.views.scale import figures
from convbench.report.views.table import (
    MISSING,
    Column,
    Fact,
    Kind,
    Note,
    Report,
    Row,
    Section,
    Table,
    Value,
    text,
)
from convbench.results import stats
from convbench.results.model import Cell
from convbench.suites.suite import KERAS_WAYS

WORST = 5
WORST_OF = ("auto", "im2col")


def report(runs: Sequence[Run], remarks: Iterable[str] = ()) -> Report:
    """Return the report. The campaign's `remarks` say what is not installed and what it unset."""
    tables = [table for run in runs for table in (_means(run), _worst(run)) if table.rows]
    targets = _targets(list(findings(runs)))
    return Report(
        title="convbench: kernels against the fastest Keras",
        facts=_facts(runs),
        tables=(*tables, targets) if targets.rows else tuple(tables),
        notes=tuple(_notes(runs, remarks)),
        flat=lambda: targets,
        document=None,
    )


def _facts(runs: Sequence[Run]) -> tuple[Fact, ...]:
    machines = dict.fromkeys(
        f"{run.result.machine.cpu}, {scale.counted(run.result.machine.cores, 'core')}"
        for run in runs
    )
    versions = dict.fromkeys(
        ", ".join(f"{name} {version}" for name, version in run.result.software.versions.items())
        for run in runs
    )
    blas = dict.fromkeys(blas_line(library) for run in runs for library in run.result.software.blas)
    listed = {"machine": machines, "BLAS": blas, "versions": versions}
    return tuple(Fact(label, words) for label, of in listed.items() for words in of)


def _means(run: Run) -> Table:
    result = run.result
    columns = (
        Column("implementation", "implementation"),
        *(figures(pass_, Kind.RATIO, pass_) for pass_ in result.suite.passes),
        figures("all", Kind.RATIO, "all"),
        Column("cells", "layer passes", align="right"),
        figures("of_sgemm", Kind.FRACTION, "of SGEMM"),
        figures("peak", Kind.BYTES, "peak memory"),
        figures("beyond", Kind.BYTES, "beyond result, a thread"),
        Column("left_out", "not compared"),
    )
    rows = [_row(run, name) for name in result.suite.implementations]
    return Table(
        f"{run.name}: times as fast as the fastest Keras, geometric means over the layers",
        columns,
        (Section(tuple(rows), _head(run)),),
    )


def _head(run: Run) -> str:
    result = run.result
    twins = result.duplicates
    words = [f"{result.effort} effort", scale.counted(result.rounds, "round")]
    if twins:
        largest = max(max(twin.ratio, 1 / twin.ratio) - 1 for twin in twins)
        found = "which their intervals cover" if run.is_reliable else "NOT RELIABLE"
        if result.rounds < stats.MIN_ROUNDS:
            found = "too few rounds to tell"
        words.append(f"twins differ by {scale.percent(largest)} % at most, {found}")
    calibration = result.machine.calibration
    if calibration and (rate := calibration.sgemm.get(result.threads)):
        words.append(f"SGEMM {scale.scaled(Kind.RATE, rate)} {scale.unit(Kind.RATE)}")
    return "; ".join(words)


def _row(run: Run, name: str) -> Row:
    cells = run.cells(name)
    right = [cell for cell in cells if cell.status == "ok"]
    compared = len(run.ratios_of(name))
    statuses = Counter(cell.status for cell in cells if cell.status != "ok")
    left_out = [f"{count} {status}" for status, count in statuses.items()]
    if others := len(right) - compared:
        why = "the fastest itself" if name in KERAS_WAYS else "without a figure or Keras's"
        left_out.append(f"{others} {why}")
    metered = [cell for cell in right if cell.memory is not None]
    peak = max(metered, key=_peak_bytes, default=None)
    beyond = max(metered, key=lambda c: run.beyond_result(c) or 0, default=None)
    mark = "" if run.is_reliable else "?"
    return Row(
        (
            text(name.rpartition(":")[2]),  # of own code, FILE.py:NAME
            *(_mean(run.mean(name, pass_), mark) for pass_ in run.result.suite.passes),
            _mean(run.mean(name), mark),
            text(f"{compared} of {len(cells)}"),
            _of_sgemm(run, right),
            MISSING if peak is None else _bytes(peak, _peak_bytes(peak)),
            MISSING if beyond is None else _bytes(beyond, run.beyond_result(beyond)),
            text(", ".join(left_out)) if left_out else MISSING,
        )
    )


def _mean(mean: stats.Estimate | None, mark: str) -> Value:
    if mean is None:
        return MISSING
    return Value(Kind.RATIO, mean.value, mean.interval(), after=mark)


def _peak_bytes(cell: Cell) -> int:
    assert cell.memory is not None
    return cell.memory.peak_bytes


def _bytes(cell: Cell, size: float | None) -> Value:
    assert cell.memory is not None
    return Value(Kind.BYTES, size, before="" if cell.memory.exact else "~")


def _of_sgemm(run: Run, cells: Sequence[Cell]) -> Value:
    """Return the rate of all cells over SGEMM's, with each layer as often as the network has it."""
    done = at_peak = 0.0
    for cell in cells:
        if cell.work is not None and cell.work.fraction_of_peak:
            flops = cell.work.flops_in_bounds * run.layers[cell.layer].count
            done += flops
            at_peak += flops / cell.work.fraction_of_peak
    return Value(Kind.FRACTION, done / at_peak) if done else MISSING


def _worst(run: Run) -> Table:
    columns = (
        Column("cell", "layer, pass"),
        figures("ratio", Kind.RATIO, "× fastest Keras"),
        Column("chosen", "which is"),
        figures("time", Kind.TIME_S, "time"),
    )
    unreliable = {(t.layer, t.pass_) for t in run.result.duplicates if not t.reliable}
    sections = []
    for name in WORST_OF:
        ratios = run.ratios_of(name)
        seconds = {(c.layer, c.pass_): c.time.time_s for c in run.cells(name) if c.time}
        keys = sorted(ratios, key=lambda k: ratios[k].estimate.value)[:WORST]
        rows = tuple(
            Row(
                (
                    text(f"{key[0]} {key[1]}"),
                    _mean(ratios[key].estimate, "?" if key[:2] in unreliable else ""),
                    text(ratios[key].chosen),
                    Value(Kind.TIME_S, seconds[key[:2]]),
                )
            )
            for key in keys
        )
        if rows:
            sections.append(Section(rows, name))
    return Table(f"{run.name}: the slowest cells", columns, tuple(sections))


def _targets(found: Sequence[Finding]) -> Table:
    columns = (
        Column("target", "target"),
        Column("suite", "suite"),
        Column("threads", "threads", align="right"),
        Column("wanted", "wanted"),
        Column("figure", "found"),
        Column("verdict", "verdict"),
        Column("where", "where"),
    )
    rows = tuple(
        Row(
            (
                text(one.what),
                text(one.suite),
                text(str(one.threads)),
                text(f"{'at most' if one.is_bytes else 'at least'} {_figure(one, one.wanted)}"),
                text(_figure(one, one.figure, one.interval)) if one.figure is not None else MISSING,
                text(one.verdict, "good" if one.verdict == "met" else "bad"),
                text(one.where) if one.where else MISSING,
            )
        )
        for one in found
    )
    return Table("Targets", columns, (Section(rows),))


def _figure(one: Finding, figure: float, interval: tuple[float, float] | None = None) -> str:
    if one.is_bytes:
        return scale.mebibytes(figure)
    return scale.bounded(Value(Kind.RATIO, figure, interval))


def _notes(runs: Sequence[Run], remarks: Iterable[str]) -> Iterable[Note]:
    for run in runs:
        for cell in run.result.cells:
            if cell.status in ("wrong", "failed"):
                which = f"{cell.layer} {cell.pass_} {cell.implementation}"
                yield Note(f"{run.name}: {which} is {cell.status}, and not ranked", "bad")
                if cell.reason:
                    yield Note(f"  {cell.reason}", "dim")
        for caution in run.result.warnings:
            yield Note(f"{run.name}: warning: {caution.what}", "warning", caution.hint)
    names = {layer_pass for run in runs for layer_pass in run.result.suite.passes}
    if runs and names != set(Pass):
        yield Note(f"only {scale.listed([p for p in Pass if p in names])}", "warning")
    yield Note(
        "±: half of the 99 % interval; ?: a twin differs from its arm by more than 1 %; "
        "~: estimated; of SGEMM: of the measured rate of square products; a mean is over the "
        "layer passes that are right, timed, and not the fastest Keras themselves"
    )
    yield Note("What is held against np.matmul: benchmarks/blocks.py")
    for remark in remarks:
        yield Note(remark)
