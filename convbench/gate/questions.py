"""Ask a gate's questions of result files: about floors, a saved result, another version."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from convbench.compare import ASSUMED, Deviations, incomparable, learnt_by, other_geometry
from convbench.gate.decision import ROOM, TOLERANCE, Margins, Question, Subject
from convbench.results import stats, summary
from convbench.results.model import Cell, Duplicate, ResultFile, Step, benchmark_name
from convbench.results.summary import RatioKey
from convbench.suites.suite import FASTEST_KERAS, KERAS_WAYS, LOOP, QUANTITIES, Rule, Suite

if TYPE_CHECKING:
    from convbench.results.file import Saved

OTHER_MACHINE = 0.10
"""Standard deviation (of logs) of a speedup that is assumed between two machines. It is a choice,
not a measurement: caches and cores differ, and ratios with them."""

_LEFT_OUT = "unsupported"


def floors(rules: Iterable[Rule], saved: Saved, tolerance: float | None = None) -> list[Question]:
    """Return a question for each cell that a rule matches, or one for their geometric mean.

    A floor has no room beyond it. It holds if it is credibly reached, and fails if it is credibly
    missed by more than `tolerance`, which is 0 where none is given.
    """
    margins = Margins(tolerance or 0.0, tolerance or 0.0)
    distrust = why_unreliable(saved.result.duplicates)
    known = summary.speedups(saved.result, saved.benchmarks)
    return [
        replace(question, distrust=distrust, quantity=rule.quantity)
        for rule in rules
        for question in _floor(rule, saved, margins, known)
    ]


_Known = dict[RatioKey, summary.Ratio]


def _floor(rule: Rule, saved: Saved, margins: Margins, known: _Known) -> Iterator[Question]:
    cells = _matching(rule, saved.result)
    if not cells:
        subject = Subject(rule.implementation, rule.versus, rule.layer, rule.pass_)
        reason = "nothing of this run matches the rule"
        yield Question(
            "floor", subject, _words(rule), margins, settled="inconclusive", reason=reason
        )
    elif rule.of == "geometric_mean":
        yield _mean_floor(rule, saved, cells, margins, known)
    else:
        for cell in cells:
            yield _cell_floor(rule, saved, cell, margins, known)


def _matching(rule: Rule, result: ResultFile) -> list[Cell]:
    """Return the cells that a rule matches, without those that are unsupported."""
    return [
        cell
        for cell in result.cells
        if cell.implementation == rule.implementation
        and rule.pass_ in (None, cell.pass_)
        and fnmatchcase(cell.layer, rule.layer)
        and cell.status != _LEFT_OUT
    ]


def _cell_floor(rule: Rule, saved: Saved, cell: Cell, margins: Margins, known: _Known) -> Question:
    subject = Subject(cell.implementation, rule.versus, cell.layer, cell.pass_)
    question = Question("floor", subject, _words(rule), margins)
    if cell.status != "ok":
        reason = f"the cell is {cell.status}" + (f": {cell.reason}" if cell.reason else "")
        return replace(question, settled="inconclusive", reason=reason)
    if rule.at_most_bytes is not None:
        return _memory_floor(question, cell, rule.at_most_bytes)
    if rule.per_cent_of_peak is not None:
        return _peak_floor(question, saved, cell, rule.per_cent_of_peak / 100)
    assert rule.at_least is not None
    ratio = _speedup(rule, saved, cell, known)
    if ratio is None:
        return _unmeasured(question, f"no speedup over {rule.versus} was measured")
    return _speedup_floor(question, ratio.estimate, rule.at_least)


def _speedup(rule: Rule, saved: Saved, cell: Cell, known: _Known) -> summary.Ratio | None:
    """Return the cell's speedup over what the rule names; None if either was not timed."""
    assert rule.versus is not None
    key = (cell.layer, cell.pass_, cell.implementation, rule.versus)
    if rule.versus in (LOOP, FASTEST_KERAS):
        return known.get(key)
    return summary.speedup_over(saved.result, saved.benchmarks, key)


def _mean_floor(
    rule: Rule, saved: Saved, cells: list[Cell], margins: Margins, known: _Known
) -> Question:
    assert rule.at_least is not None
    subject = Subject(rule.implementation, rule.versus, None, rule.pass_)
    question = Question("floor", subject, _words(rule), margins)
    ratios = [_speedup(rule, saved, cell, known) for cell in cells]
    # The mean over those cells that happened to be measured would be another figure.
    missing = sum(ratio is None for ratio in ratios)
    mean = summary.mean_over(ratio for ratio in ratios if ratio is not None)
    if mean is None or missing:
        return _unmeasured(question, f"{missing} of {len(ratios)} speedups were not measured")
    return _speedup_floor(question, mean, rule.at_least)


def _speedup_floor(question: Question, speedup: stats.Estimate, at_least: float) -> Question:
    slowdown = replace(speedup, log=math.log(at_least) - speedup.log)
    return replace(question, slowdown=slowdown, found=speedup.value, limit=at_least)


def _peak_floor(question: Question, saved: Saved, cell: Cell, at_least: float) -> Question:
    fraction = cell.work.fraction_of_peak if cell.work else None
    if cell.time is None or fraction is None or fraction <= 0:
        return _unmeasured(question, "no rate and no peak were measured")
    time = summary.time_of(saved.benchmarks, cell.time.benchmark)
    slowdown = replace(time, log=math.log(at_least / fraction))
    return replace(question, slowdown=slowdown, found=fraction, limit=at_least)


def _memory_floor(question: Question, cell: Cell, at_most: int) -> Question:
    """Settle a floor on memory at once.

    Bytes are counted and not estimated, so that they have no interval and no margin. A figure that
    is not exact decides nothing.
    """
    if cell.memory is None:
        return _unmeasured(question, cell.reason or "memory was not metered")
    found = cell.memory.peak_bytes
    question = replace(question, found=found, limit=at_most)
    if not cell.memory.exact:
        return _unmeasured(question, f"the figure is not exact: {cell.memory.method}")
    return replace(question, settled="regressed" if found > at_most else "holds")


def _unmeasured(question: Question, reason: str) -> Question:
    return replace(question, settled="inconclusive", reason=reason)


def _words(rule: Rule) -> str:
    over = f"geometric mean over {rule.layer} " if rule.of == "geometric_mean" else ""
    return over + QUANTITIES[rule.quantity].rule.format(limit=rule.limit, versus=rule.versus)


def _margins(tolerance: float | None) -> Margins:
    fails_above = TOLERANCE if tolerance is None else tolerance
    return Margins(fails_above, fails_above + ROOM)


def against_baseline(
    old: Saved,
    new: Saved,
    tolerance: float | None = None,
    deviations: Deviations = Deviations(),  # noqa: B008 - frozen
    allow_different_machine: bool = False,
) -> list[Question]:
    """Ask of each speedup that both results have whether it has fallen.

    The speedups of NumPy and of user code are judged. Those of the yardsticks, `loop` and Keras,
    are judged only where there are no others.
    """
    distrust = why_unreliable(new.result.duplicates)
    if distrusted := why_unreliable(old.result.duplicates):
        distrust = f"in the baseline {distrusted}"
    deviations = deviations_between(old, new, deviations, allow_different_machine)
    obstacles = () if allow_different_machine else incomparable(old.result, new.result)
    changed = other_geometry(old.result, new.result)
    before = summary.speedups(old.result, old.benchmarks)
    now = summary.speedups(new.result, new.benchmarks)
    questions = []
    for key in in_common(old, new.result.suite):
        question = Question("baseline", _subject(key), "no slower than before", _margins(tolerance))
        if obstacles:
            question = replace(question, settled="incomparable", reason="; ".join(obstacles))
        elif key[0] in changed:
            was, is_ = changed[key[0]]
            reason = f"another convolution: {was} then, {is_} now"
            question = replace(question, settled="incomparable", reason=reason)
        elif key not in now:
            question = _unmeasured(question, _why_missing(new.result, key))
        else:
            question = replace(
                question,
                slowdown=stats.quotient(
                    before[key].estimate,
                    now[key].estimate,
                    *deviations.of_speedup(summary.between(key[2], now[key].chosen)),
                ),
                found=now[key].estimate.value,
                limit=before[key].estimate.value,
                reason=_other_yardstick(before[key].chosen, now[key].chosen),
                distrust=distrust,
            )
        questions.append(question)
    return questions


def deviations_between(
    old: Saved, new: Saved, deviations: Deviations, allow_different_machine: bool
) -> Deviations:
    """Return the deviations between two results' sessions.

    Where none are given, they are what the newer result knew of earlier runs. They are widened
    where two machines that differ are compared all the same.
    """
    if deviations == ASSUMED:
        deviations = learnt_by(new.result)
    if not allow_different_machine or not incomparable(old.result, new.result):
        return deviations
    learnt = (deviations.of_speedup(one.between)[0] for one in deviations.learnt)
    wider = max(deviations.speedup, OTHER_MACHINE, *learnt)
    source = "chosen for two machines, not measured"
    return Deviations(speedup=wider, time=max(deviations.time, wider), source=source)


def in_common(old: Saved, suite: Suite) -> list[RatioKey]:
    """Return the speedups of a baseline that a run of the suite has to give as well."""
    layers = set(suite.subjects)
    parts = {*suite.passes, Step.TRAINING}
    keys = [
        key
        for key in summary.speedups(old.result, old.benchmarks)
        if key[0] in layers and key[1] in parts and key[2] in set(suite.implementations)
    ]
    return [key for key in keys if key[2] not in (*KERAS_WAYS, LOOP)] or keys


def _subject(key: RatioKey) -> Subject:
    layer, pass_, implementation, versus = key
    return Subject(implementation, versus, layer, pass_)


def _why_missing(result: ResultFile, key: RatioKey) -> str:
    layer, pass_, implementation, versus = key
    of = {c.implementation: c for c in result.cells if (c.layer, c.pass_) == (layer, pass_)}
    cell = of.get(implementation)
    if cell is not None and cell.status != "ok":
        return f"the cell is {cell.status} now" + (f": {cell.reason}" if cell.reason else "")
    return f"no speedup over {versus} was measured now"


def _other_yardstick(then: str, now: str) -> str | None:
    return None if then == now else f"the fastest Keras was {then} then and is {now} now"


def against_version(
    saved: Saved, new: str, old: str, tolerance: float | None = None
) -> list[Question]:
    """Ask whether an implementation is slower than its other version, measured in the same run."""
    distrust = why_unreliable(summary.quickest_twins(saved.result, saved.benchmarks))
    questions = []
    for cell in saved.result.cells:
        if cell.implementation != new or cell.status == _LEFT_OUT:
            continue
        key = (cell.layer, cell.pass_, new, old)
        question = Question("version", _subject(key), "no slower", _margins(tolerance))
        ratio = summary.quickest_over(saved.result, saved.benchmarks, key)
        if ratio is None:
            question = _unmeasured(question, _why_not_compared(saved.result, key))
        else:
            estimate = ratio.estimate
            slowdown = replace(estimate, log=-estimate.log)
            question = replace(
                question, slowdown=slowdown, found=estimate.value, limit=1.0, distrust=distrust
            )
        questions.append(question)
    return questions


def _why_not_compared(result: ResultFile, key: RatioKey) -> str:
    layer, pass_, new, old = key
    reasons = [
        f"{cell.implementation} is {cell.status}" + (f": {cell.reason}" if cell.reason else "")
        for cell in result.cells
        if (cell.layer, cell.pass_) == (layer, pass_)
        and cell.implementation in (new, old)
        and cell.status != "ok"
    ]
    return "; ".join(reasons) or "not timed"


def why_unreliable(twins: Iterable[Duplicate]) -> str | None:
    """Say why timings cannot be trusted: a twin's differed from its arm's. None if they can be."""
    bad = [twin for twin in twins if not twin.reliable]
    if not bad:
        return None
    where = ", ".join(
        f"{benchmark_name(twin.layer, twin.pass_, twin.implementation)} ({twin.ratio:.3f})"
        for twin in bad
    )
    return f"the same code, timed twice, differed: {where}"
