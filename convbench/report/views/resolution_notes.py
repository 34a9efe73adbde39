"""Say what a run can tell apart: its resolution, its twins, how calm the machine was, precision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from convbench.report.views import scale
from convbench.report.views.table import Note
from convbench.results.model import Duplicate, Imprecise, Resolution, ResultFile
from convbench.results.resolution import (
    MANY_DISTURBED,
    cause_of_width,
    claim_of,
    half_width,
    resolution_of,
)
from convbench.results.stats import MIN_ROUNDS
from convbench.suites.suite import FASTEST_KERAS

WIDE_TWIN = 0.1
"""Largest half width, as a fraction, of a twin's 99 % interval without a warning. A twin that is
known no better than that agrees with its arm whatever the machine did."""

MOST_NAMED = 6
"""Number of things that a note names at most. The rest is counted."""


def resolution_notes(result: ResultFile, can_go_on: bool = True) -> Iterator[Note]:
    """Say what a run can tell apart. `can_go_on`: the command has `--precision` and `--resume`."""
    found = result.resolution
    if found is None:  # a file of an earlier version
        found = resolution_of(result.speedups, result.duplicates)
    compared = bool(result.speedups)
    yield from _notes(result, found, result.duplicates, compared, can_go_on)


def twins_notes(result: ResultFile, twins: Sequence[Duplicate], compared: bool) -> Iterator[Note]:
    """Say what a gate can tell apart, by twins of its own. `compared`: it compared something."""
    if twins or compared:
        yield from _notes(result, resolution_of((), twins), twins, compared, can_go_on=False)


def _notes(
    result: ResultFile,
    resolution: Resolution | None,
    twins: Sequence[Duplicate],
    compared: bool,
    can_go_on: bool,
) -> Iterator[Note]:
    times = [cell.time for cell in result.cells if cell.time]
    if resolution is not None:
        yield Note(f"{_resolved(resolution)}; {_agreeing(twins)}.")
    elif times and not any(time.ci99_s for time in times):
        yield _nothing_yet(result, max(time.rounds for time in times), can_go_on)
    elif compared:
        yield Note(f"{_agreeing(twins).capitalize()}.")
    unreliable = [twin for twin in twins if not twin.reliable]
    if unreliable:
        yield _unreliable(result, unreliable)
    wide = [twin for twin in twins if twin.reliable and _width_of(twin) > WIDE_TWIN]
    if wide:
        yield _wide(result, wide, can_go_on)


def _resolved(resolution: Resolution) -> str:
    told = f"This run can tell differences of {scale.width(resolution.typical)}"
    unit = f"{resolution.layer} {resolution.pass_}"
    if resolution.layer_passes == 1:
        return f"{told} ({unit})"
    return (
        f"{told} (median of {resolution.layer_passes} layer passes; "
        f"worst: {unit}, {scale.width(resolution.worst)})"
    )


def _agreeing(twins: Sequence[Duplicate]) -> str:
    if not twins:
        return "without twins nothing says whether the machine was calm"
    agree = sum(twin.reliable for twin in twins)
    if len(twins) == 1:
        return "1 twin agrees" if agree else "the twin does not agree"
    of = "" if agree == len(twins) else f" of {len(twins)}"
    return f"{agree}{of} twins agree{'s' if agree == 1 else ''}"


def _nothing_yet(result: ResultFile, rounds: int, can_go_on: bool) -> Note:
    more = "let the run come to its end"
    if _was_cut_short(result):
        more = "give a larger --budget"
    elif result.effort == "smoke":
        more = f"--effort quick measures {MIN_ROUNDS} rounds"
    going_on = "; --resume FILE measures only the missing ones" if can_go_on else ""
    give = "gives" if rounds == 1 else "give"
    return Note(
        f"Nothing can be told apart yet: {scale.counted(rounds, 'round')} {give} no interval, "
        f"{MIN_ROUNDS} do.",
        details=more + going_on,
    )


def _was_cut_short(result: ResultFile) -> bool:
    return any(caution.kind == "budget" for caution in result.warnings)


# Twins


def _unreliable(result: ResultFile, twins: Sequence[Duplicate]) -> Note:
    subject = "1 twin differs from its arm"
    if len(twins) > 1:
        subject = f"{len(twins)} twins differ from their arms"
    remedies = {
        "other-processes": "stop the other processes, then run again",
        "neighbour": "wait until the neighbour is gone, then run again",
        "few-rounds": "quiet the machine, then run again",
    }
    return Note(
        f"warning: {subject} by more than this run claims to tell, though both run the same code: "
        "comparisons there are not reliable",
        "warning",
        details=remedies[cause_of_width(result)],
        points=named([_point(twin) for twin in twins]),
    )


def _point(twin: Duplicate) -> str:
    claimed = claim_of(twin)
    told = "" if claimed is None else f"; the claim is {scale.width(claimed)}"
    off = scale.width(twin.deviation)
    return f"{twin.layer} {twin.pass_}: {twin.implementation} and its twin differ by {off}{told}"


def _wide(result: ResultFile, twins: Sequence[Duplicate], can_go_on: bool) -> Note:
    subject, its = "the interval of 1 twin is", "its"
    if len(twins) > 1:
        subject, its = f"the intervals of {len(twins)} twins are", "their"
    why, remedy = _why_wide(result, can_go_on)
    points = [
        f"{twin.layer} {twin.pass_}: {twin.implementation}, ±{scale.width(_width_of(twin))}"
        for twin in sorted(twins, key=_width_of, reverse=True)
    ]
    return Note(
        f"warning: {subject} wider than ±{100 * WIDE_TWIN:g} %, so {its} agreement says little: "
        f"{why}",
        "warning",
        details=remedy,
        points=named(points),
    )


def _width_of(twin: Duplicate) -> float:
    """Return the half width of a twin's interval, or 0 without an interval."""
    return 0.0 if twin.ci99 is None else half_width(twin.ci99)


def _why_wide(result: ResultFile, can_go_on: bool) -> tuple[str, str]:
    """Say why a twin's interval is wide, and what to do about it."""
    more = _how_to_measure_more(result, can_go_on)
    match cause_of_width(result):
        case "other-processes":
            why = "other processes kept CPUs busy"
            return why, f"stop the other processes and run again; {more}"
        case "neighbour":
            why = f"a neighbour slowed a CPU during {_disturbed(result)} % of the visits"
            return why, f"close the neighbour, or wait until it is gone; {more}"
    few = "is" if result.rounds == 1 else "are"
    return f"{scale.counted(result.rounds, 'round')} {few} few for this machine", more


def _how_to_measure_more(result: ResultFile, can_go_on: bool) -> str:
    """Say which options would give narrower intervals than those of this run."""
    if _was_cut_short(result) or result.precision is not None:
        return "a larger --budget measures more rounds"
    options = [] if result.effort == "rigorous" else ["--effort rigorous"]
    options += ["--precision 3%"] if can_go_on else []
    if not options:
        return "run again when the machine is calm"
    return f"{' or '.join(options)} measures longer"


# The machine


def phases_notes(result: ResultFile) -> Iterator[Note]:
    """Say how much of the run a neighbour disturbed, if that is more than a few per cent."""
    seen = result.phases
    if seen is None or seen.disturbed <= MANY_DISTURBED * seen.visits:
        return
    count = scale.counted(seen.set_aside, "visit")
    was = "was" if seen.set_aside == 1 else "were"
    aside = f"{count} {was} set aside because the same arm had a calm visit in that round"
    if not seen.set_aside:
        aside = "all of them count, since no arm had a calm visit in the same round"
    yield Note(
        f"A neighbour slowed a CPU during {_disturbed(result)} % of the visits (as a fixed "
        f"loop beside each visit shows); {aside}."
    )


def _disturbed(result: ResultFile) -> str:
    assert result.phases is not None
    return scale.percent(result.phases.disturbed / result.phases.visits)


# Precision


def precision_notes(result: ResultFile) -> Iterator[Note]:
    """Say whether every speedup's interval is as narrow as `--precision` asked for."""
    asked = result.precision
    if asked is None or not any(cell.time for cell in result.cells):
        return
    target, missed = f"{100 * asked.target:.3g} %", result.imprecise
    if not missed:
        yield Note(
            f"Every {'speedup' if result.speedups else 'time'} is known to {target} within this "
            "run (half of its 99 % interval), as --precision asked."
        )
        return
    what = scale.counted(len(missed), "speedup" if result.speedups else "time")
    yield Note(
        f"warning: {what} did not reach the {target} that --precision asked for",
        "warning",
        details="--resume FILE goes on from here; give it a larger --budget",
        points=named([_missed(one) for one in missed]),
    )


def _missed(one: Imprecise) -> str:
    versus = "the fastest Keras" if one.versus == FASTEST_KERAS else one.versus
    over = "" if one.versus == one.implementation else f" over {versus}"
    width = "no interval" if one.half_width is None else f"±{scale.width(one.half_width)}"
    return f"{one.layer} {one.pass_}: {one.implementation}{over}, {width}"


def named(points: Sequence[str]) -> tuple[str, ...]:
    """Return the first MOST_NAMED points, and a line that counts the rest."""
    rest = len(points) - MOST_NAMED
    return (*points[:MOST_NAMED], *([f"and {rest} more"] if rest > 0 else []))
