"""Say what stands around the tables of a diff: the files, what sets them apart, marks, counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from convbench.compare import (
    MOST_ROUNDS,
    TO_SHOW,
    CellName,
    CellRow,
    Change,
    Compared,
    Deviations,
    Diff,
    Quantity,
    Session,
    Verdict,
)
from convbench.problem.layer import Pass
from convbench.report.views import deviation_words, scale
from convbench.report.views.diff_flat import rows_of
from convbench.report.views.run_tables import TONE_OF_STATUS
from convbench.report.views.table import Fact, Kind, Note, Tone
from convbench.results.model import Part
from convbench.results.stats import MIN_ROUNDS
from convbench.suites.suite import FASTEST_KERAS

K = TypeVar("K")
V = TypeVar("V", bound=Hashable)


class About(NamedTuple):
    """Words for a quantity, and for its changes: `up` and `down`."""

    title: str
    kind: Kind
    up: str = ""
    down: str = ""

    def word(self, verdict: Verdict) -> str:
        return self.up if verdict == "up" else self.down


ABOUT: dict[Quantity, About] = {
    "time": About("Time", Kind.TIME_S, "slower", "faster"),
    "speedup": About("Speedup", Kind.RATIO, "faster", "slower"),
    "peak_memory": About("Peak memory", Kind.BYTES, "more", "less"),
    "fraction_of_peak": About("Per cent of peak", Kind.FRACTION, "higher", "lower"),
}
_COUNTED_AS: dict[Verdict, str] = {
    "up": "",
    "down": "",
    "equal": "=",
    "unclear": "~",
    "estimated": "estimated",
    "no_interval": "without interval",
}
_TO_SHOW = f"{100 * TO_SHOW:g} %"


def name_of(compared: Compared) -> str:
    versus = "the fastest Keras" if compared.versus == FASTEST_KERAS else compared.versus
    return ABOUT[compared.quantity].title + (f" over {versus}" if versus else "")


# Before the tables


def facts(diff: Diff, names: tuple[str, ...]) -> Iterator[Fact]:
    yield from map(_session_fact, names, diff.files)
    for name, found in zip(names[1:], diff.differences, strict=True):
        of = f"{name}: " if len(names) > 2 else ""
        yield from (Fact("not alike", of + reason) for reason in found.incomparable)
        if found.environment:
            yield Fact("changed", of + "; ".join(found.environment))
        for layer, (then, now) in found.other_geometry.items():
            yield Fact("not compared", f"{of}{layer}: {then} then; {now} now")
        for only, cells in ((names[0], found.only_in_old), (name, found.only_in_new)):
            if cells:
                yield Fact("in one file", f"{of}only in {only}: {_listed(cells)}")


def _session_fact(name: str, session: Session) -> Fact:
    known = (
        session.path,
        session.date and session.date[:16],  # to the minute
        session.cpu,
        scale.counted(session.threads, "thread"),
        f"{session.effort} effort",
        scale.counted(session.rounds, "round"),
    )
    return Fact(name, ", ".join(part for part in known if part))


def _listed(cells: Iterable[CellName]) -> str:
    """List cells as `conv1, conv2 (every pass: loop, im2col)`, with layers and passes grouped."""
    implementations: dict[tuple[str, Part], tuple[str, ...]] = {}
    for cell in cells:
        key = (cell.layer, cell.pass_)
        implementations[key] = (*implementations.get(key, ()), cell.implementation)
    layers: dict[str, str] = {}
    for layer in dict.fromkeys(layer for layer, _ in implementations):
        of_layer = {pass_: who for (name, pass_), who in implementations.items() if name == layer}
        layers[layer] = "; ".join(
            f"{_passes(passes)}: {', '.join(who)}" for who, passes in grouped(of_layer).items()
        )
    return ", ".join(f"{', '.join(same)} ({what})" for what, same in grouped(layers).items())


def _passes(passes: Sequence[Part]) -> str:
    return "every pass" if set(passes) == set(Pass) else ", ".join(passes)


def grouped(mapping: Mapping[K, V]) -> dict[V, list[K]]:
    """Return the keys of each value, in order."""
    groups: dict[V, list[K]] = {}
    for key, value in mapping.items():
        groups.setdefault(value, []).append(key)
    return groups


# Below the tables


def notes(diff: Diff, names: tuple[str, ...]) -> Iterator[Note]:
    yield from _call_outs(diff, names)
    changes = [
        change
        for compared in diff.compared
        for row in rows_of(compared)
        for change in row.changes
        if change
    ]
    verdicts = {change.verdict for change in changes}
    yield from _legend(changes)
    if "no_interval" in verdicts:
        yield Note(
            f"a change without ± may be noise: fewer than {MIN_ROUNDS} rounds give no interval",
            "dim",
        )
    if verdicts & {"up", "down", "unclear"}:
        yield Note(_deviations(diff.deviations), "dim")
    if any(change.verdict == "unclear" and not change.rounds_to_show for change in changes):
        yield Note(
            f"~ without a number of rounds: sessions differ so much that not even {MOST_ROUNDS} "
            f"rounds would show {_TO_SHOW}",
            "dim",
            details="run both versions in one session: convbench gate --against",
        )
    for index, name in enumerate(names[1:]):
        yield Note(_answer(diff, index, f"{name} against {names[0]}"), "strong")


def _call_outs(diff: Diff, names: tuple[str, ...]) -> Iterator[Note]:
    for index, (name, found) in enumerate(zip(names[1:], diff.differences, strict=True)):
        of = f"warning: {name} against {names[0]}: "
        if found.incomparable:
            what = ", ".join(found.not_alike)
            yield Note(f"{of}not the same {what}: a change need not come from the code", "warning")
        if found.other_geometry:
            layers = ", ".join(found.other_geometry)
            yield Note(f"{of}not compared, since the convolutions differ: {layers}", "warning")
        for row in _rows_of_time(diff):
            then, now = row.figures[0], row.figures[index + 1]
            if then and now and then.status != now.status:
                tone: Tone = "bad" if TONE_OF_STATUS[now.status] == "bad" else "warning"
                cell = f"{row.layer} {row.pass_} {row.implementation}"
                yield Note(f"{of}{cell} was {then.status} and now is {now.status}", tone)


def _rows_of_time(diff: Diff) -> tuple[CellRow, ...]:
    return next((c.rows for c in diff.compared if c.quantity == "time"), ())


def _legend(changes: Iterable[Change]) -> Iterator[Note]:
    """Explain the marks that occur in the tables."""
    verdicts = {change.verdict for change in changes}
    marks = []
    if verdicts & {"up", "down"} and any(change.ci99 for change in changes):
        marks.append("±: half of the 99 % interval; for a change, the half towards 0")
    if "unclear" in verdicts:
        marks.append("~: no change shows at 99 %")
    if any(change.rounds_to_show for change in changes):
        marks.append(f"(rounds): this many in both files would show {_TO_SHOW}")
    if "equal" in verdicts:
        marks.append("=: equal to the byte")
    if "estimated" in verdicts:
        marks.append("~ for memory: not measured exactly")
    if any(not change.reliable for change in changes):
        marks.append("?: not reliable")
    if marks:
        yield Note("; ".join(marks), "dim")


def _deviations(deviations: Deviations) -> str:
    if deviations.learnt:
        return f"the same code differs in two sessions: {deviation_words.between_two(deviations)}"
    known = "assumed" if deviations.source is None else f"from {deviations.source}"
    return (
        "between sessions the same code differs by a standard deviation of "
        f"{100 * deviations.speedup:.2g} % (speedups) and "
        f"{100 * deviations.time:.2g} % (times), {known}"
    )


def _answer(diff: Diff, index: int, what: str) -> str:
    """Write `new against old: time 2 faster, 1 slower, 9 ~; peak memory 12 =.`"""
    counts = []
    for compared in diff.compared:
        about = ABOUT[compared.quantity]
        words: dict[Verdict, str] = {**_COUNTED_AS, "up": about.up, "down": about.down}
        found = Counter(change.verdict for row in compared.rows if (change := row.changes[index]))
        if found:
            each = (f"{found[verdict]} {word}" for verdict, word in words.items() if found[verdict])
            name = name_of(compared)
            counts.append(f"{name[0].lower()}{name[1:]} {', '.join(each)}")
    return f"{what}: {'; '.join(counts) or 'no cell can be compared'}."
