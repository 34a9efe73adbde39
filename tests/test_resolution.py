"""Test what a run can tell apart, why it cannot tell more, and what reports say about both."""

from __future__ import annotations

from dataclasses import replace

import pytest

from convbench.machine.description import Caution
from convbench.report.views.resolution_notes import (
    MOST_NAMED,
    named,
    phases_notes,
    precision_notes,
    resolution_notes,
    twins_notes,
)
from convbench.results.model import Duplicate, Imprecise, Phases, Precision, ResultFile, Speedup
from convbench.results.resolution import cause_of_width, claim_of, resolution_of
from tests.report_fixture import FORWARD, KERNEL, busy_run, small_run, typical_run

CALM = Phases(visits=100, disturbed=1, set_aside=0, load=1.0)
BUSY = Caution("other processes keep 48% of the CPUs busy", "stop them", 1.9, "other-processes")
CUT = Caution("the budget allowed 3 of 8 rounds", "more", kind="budget")


def speedup(layer: str, versus: str, half: float | None, ratio: float = 2.0) -> Speedup:
    ci99 = None if half is None else (ratio / (1 + half), ratio * (1 + half))
    return Speedup(layer, FORWARD, "im2col", versus, versus, ratio, ci99, 8, True)


def twin(layer: str, ratio: float, half: float | None, claimed: float | None = None) -> Duplicate:
    ci99 = None if half is None else (ratio / (1 + half), ratio * (1 + half))
    return Duplicate(layer, FORWARD, "im2col", ratio, ci99, claimed=claimed)


# The figure


def test_a_layer_pass_counts_with_its_widest_interval():
    speedups = [speedup("a", "keras", 0.02), speedup("a", "fastest-keras", 0.05)]
    found = resolution_of([*speedups, speedup("b", "keras", 0.01)], ())
    assert found is not None
    assert found.worst == pytest.approx(0.05)
    assert found.typical == pytest.approx(0.03)
    assert (found.layer, found.pass_, found.layer_passes) == ("a", FORWARD, 2)


def test_speedups_over_the_loop_count_only_where_there_are_no_others():
    both = [speedup("a", "loop", 0.3), speedup("a", "fastest-keras", 0.02)]
    assert resolution_of(both, ()).worst == pytest.approx(0.02)
    assert resolution_of(both[:1], ()).worst == pytest.approx(0.3)


def test_a_difference_as_large_as_a_twins_deviation_cannot_be_told():
    speedups = [speedup("a", "keras", 0.02), speedup("b", "keras", 0.03)]
    found = resolution_of(speedups, [twin("a", 1 / 1.33, 0.4, 0.02), twin("b", 1.001, 0.01, 0.03)])
    assert (found.worst, found.layer) == (pytest.approx(0.33), "a")


def test_where_nothing_was_compared_the_twins_say_what_can_be_told():
    assert resolution_of((), [twin("a", 1.001, 0.04)]).worst == pytest.approx(0.04)
    assert resolution_of((), [twin("a", 1.001, 0.04, 0.05)]).worst == pytest.approx(0.05)


def test_without_intervals_nothing_can_be_told():
    assert resolution_of([speedup("a", "keras", None)], [twin("a", 1.2, None)]) is None
    assert resolution_of((), ()) is None
    assert claim_of(twin("a", 1.2, None)) is None


# The cause


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({}, "few-rounds"),
        ({"phases": None}, "few-rounds"),
        ({"warnings": (BUSY,)}, "other-processes"),
        ({"warnings": (CUT,)}, "few-rounds"),
        # A load of 5 is the run's own: four threads of an arm, and the process that waits for it.
        ({"phases": replace(CALM, load=4.9)}, "few-rounds"),
        ({"phases": replace(CALM, load=5.1)}, "other-processes"),
        ({"phases": replace(CALM, disturbed=30)}, "neighbour"),
        ({"phases": replace(CALM, disturbed=30, set_aside=28)}, "few-rounds"),
        (
            {"phases": replace(CALM, disturbed=30, load=None), "warnings": (BUSY,)},
            "other-processes",
        ),
    ],
)
def test_the_likeliest_cause_of_wide_intervals_is_named(changes, cause):
    assert cause_of_width(replace(typical_run(), **{"phases": CALM, **changes})) == cause


WIDE = (Duplicate("conv1", FORWARD, "im2col", 1.02, (0.9, 1.16), claimed=0.2),)


def wide(**changes: object) -> str:
    """Return the warning about a wide twin of a run with these changes, and its remedy."""
    settings = {"phases": CALM, "duplicates": WIDE, **changes}
    (note,) = (
        note
        for note in resolution_notes(replace(typical_run(), **settings))  # type: ignore[arg-type]
        if note.tone == "warning"
    )
    assert note.points == ("conv1 forward: im2col, ±14 %",)
    return f"{note.text.partition(': ')[2]} | {note.details}"


@pytest.mark.parametrize(
    ("changes", "why", "remedy"),
    [
        ({}, "8 rounds are few", "--effort rigorous or --precision 3% measures longer"),
        ({"effort": "rigorous"}, "8 rounds are few", "--precision 3% measures longer"),
        ({"precision": Precision(0.03, 8)}, "8 rounds are few", "a larger --budget measures more"),
        ({"warnings": (CUT,)}, "8 rounds are few", "a larger --budget measures more"),
        (
            {"warnings": (BUSY,)},
            "other processes kept CPUs busy",
            "stop the other processes and run again; ",
        ),
        (
            {"phases": replace(CALM, disturbed=41)},
            "a neighbour slowed a CPU during 41 % of the visits",
            "close the neighbour, or wait until it is gone; --effort rigorous or --precision 3%",
        ),
    ],
)
def test_a_wide_twin_is_a_warning_with_its_cause_and_what_to_do(changes, why, remedy):
    told = wide(**changes)
    assert why in told
    assert f"| {remedy}" in told


def test_a_twin_of_ten_per_cent_or_less_is_no_warning():
    narrow = (replace(WIDE[0], ci99=(1.02 / 1.099, 1.02 * 1.099)),)
    assert [n.tone for n in resolution_notes(replace(typical_run(), duplicates=narrow))] == [
        "plain"
    ]


# Without intervals


def first(result: ResultFile) -> tuple[str, str]:
    note = next(resolution_notes(result))
    return note.text, note.details


def test_without_intervals_the_report_says_how_to_get_them():
    text, details = first(small_run())
    assert text == "Nothing can be told apart yet: 3 rounds give no interval, 5 do."
    assert (
        details == "--effort quick measures 5 rounds; --resume FILE measures only the missing ones"
    )
    short = replace(small_run(), effort="standard", warnings=(CUT,))
    assert first(short)[1].startswith("give a larger --budget")
    assert first(replace(small_run(), effort="standard"))[1].startswith("let the run come to its")


def test_a_run_without_times_has_no_note_on_resolution():
    nothing = replace(
        small_run(),
        cells=tuple(replace(cell, time=None) for cell in small_run().cells),
        speedups=(),
        duplicates=(),
    )
    assert list(resolution_notes(nothing)) == []
    assert list(twins_notes(typical_run(), (), compared=False)) == []


def test_a_file_of_an_earlier_version_has_its_resolution_too():
    old = replace(
        typical_run(),
        resolution=None,
        phases=None,
        duplicates=tuple(replace(twin, claimed=None) for twin in typical_run().duplicates),
    )
    assert first(old) == first(typical_run())


def test_a_gate_asks_its_own_twins():
    twins = [twin("a", 1.004, 0.01, 0.012), twin("b", 0.99, 0.02, 0.022)]
    (note,) = twins_notes(busy_run(), twins, compared=True)
    assert note.text == (
        "This run can tell differences of 1.7 % (median of 2 layer passes; worst: b forward, "
        "2.2 %); 2 twins agree."
    )


# Phases and precision


def told(result: ResultFile, visits: int, disturbed: int, set_aside: int) -> list[str]:
    seen = Phases(visits, disturbed, set_aside)
    return [note.text for note in phases_notes(replace(result, phases=seen))]


def test_a_neighbour_is_reported_from_a_few_per_cent_of_the_visits_on():
    result = typical_run()
    assert told(result, 100, 5, 5) == []
    assert told(result, 100, 6, 1) == [
        "A neighbour slowed a CPU during 6.0 % of the visits (as a fixed loop beside each "
        "visit shows); 1 visit was set aside because the same arm had a calm visit in that round."
    ]
    (all_count,) = told(result, 100, 100, 0)
    assert all_count.endswith(
        "; all of them count, since no arm had a calm visit in the same round."
    )
    assert list(phases_notes(replace(result, phases=None))) == []


def test_a_precision_is_reported_only_where_it_was_asked_for():
    result = typical_run()
    assert list(precision_notes(result)) == []
    asked = replace(result, precision=Precision(0.03, 8))
    (note,) = precision_notes(asked)
    assert note.text.startswith("Every speedup is known to 3 % within this run")
    alone = Imprecise("conv1", KERNEL, "im2col", "im2col", 0.041)
    (note,) = precision_notes(replace(asked, speedups=(), imprecise=(alone,)))
    assert note.text == "warning: 1 time did not reach the 3 % that --precision asked for"
    assert note.points == ("conv1 kernel-gradient: im2col, ±4.1 %",)


def test_points_beyond_six_are_counted():
    assert named(["a"] * MOST_NAMED) == ("a",) * 6
    assert named(["a"] * 8) == (*("a",) * 6, "and 2 more")
