"""Test visits on a made-up clock: what is called, for how long, and what lies in between."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest

from convbench.measure import clock
from convbench.measure.clock import Plan, visit, wake_s

PLAN = Plan(wake_s=0.2, sample_s=0.0025, visit_s=0.05, least=2)


class Machine:
    """A clock that calls move, and an arm that falls asleep when time passes without calls."""

    def __init__(self, awake_s: float = 0.0, quick: float = 3e-4, slow: float = 6e-4) -> None:
        self.now = 0.0
        self.calls = 0
        self._awake_s, self._quick, self._slow = awake_s, quick, slow
        self._ended = -1.0  # when the last call ended
        self._streak = 0.0

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def run(self) -> None:
        if self.now > self._ended + 1e-9:
            self._streak = 0.0
        took = self._quick if self._streak >= self._awake_s else self._slow
        self.now += took
        self._streak += took
        self._ended = self.now
        self.calls += 1


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[[Machine], Machine]:
    def install(machine: Machine) -> Machine:
        monkeypatch.setattr(clock.time, "perf_counter", machine.time)
        monkeypatch.setattr(clock.time, "sleep", machine.sleep)
        return machine

    return install


def test_samples_follow_the_waking_calls_and_each_other_without_a_gap(on):
    machine = on(Machine(awake_s=0.06))
    found = visit(machine.run, PLAN)
    assert found.values == pytest.approx([3e-4] * 20)
    assert found.loops == 9  # as many calls as fill 2.5 ms
    assert found.awake_s(3e-4) == pytest.approx(0.06, abs=clock.WAKE_SAMPLE_S)
    assert found.awake_s(1e-4) is None
    # Only calls have moved the clock: the harness takes no time between them.
    assert machine.now == pytest.approx(
        found.loops * sum(found.values) + sum(calls * s for calls, s in found.warmups)
    )


def test_an_arm_that_is_not_woken_up_is_measured_asleep(on):
    """Earlier versions did this: 5 ms of calls do not wake such an arm."""
    machine = on(Machine(awake_s=0.06))
    found = visit(machine.run, Plan(wake_s=0.005, sample_s=0.01, visit_s=0.01))
    assert found.values == pytest.approx([6e-4])


def test_garbage_is_collected_before_the_first_call_only(on, monkeypatch):
    machine = on(Machine())
    collected = []
    monkeypatch.setattr(gc, "collect", lambda: collected.append(machine.calls))
    assert gc.isenabled()
    enabled = []

    def run():
        enabled.append(gc.isenabled())
        machine.run()

    visit(run, PLAN)
    assert collected == [0]
    assert not any(enabled)
    assert gc.isenabled()


def test_the_collector_is_on_again_when_a_call_raises(on):
    on(Machine())
    with pytest.raises(ZeroDivisionError):
        visit(lambda: 1 / 0, PLAN)
    assert gc.isenabled()


def test_a_slow_arm_gives_few_samples_of_one_call(on):
    machine = on(Machine(quick=0.06, slow=0.06))
    found = visit(machine.run, PLAN)
    assert found.loops == 1
    assert len(found.values) == 2
    assert sum(calls for calls, _ in found.warmups) == 4  # they fill the 0.2 s of waking up


def test_a_visit_of_one_sample_knows_its_quickest_call(on):
    """A call that is longer than the waking and the visit together leaves a single value."""
    machine = on(Machine(quick=0.5, slow=0.5))
    found = visit(machine.run, Plan(wake_s=0.2, sample_s=0.0025, visit_s=0.05, least=1))
    assert (len(found.warmups), len(found.values)) == (1, 1)
    assert found.quickest_s == pytest.approx(0.5)
    assert wake_s(0.2, [found]) > 0


def test_a_plan_knows_how_long_it_takes(on):
    for quick in (1e-5, 3e-4, 0.03, 0.5):
        machine = on(Machine(quick=quick, slow=quick))
        visit(machine.run, PLAN)
        assert machine.now == pytest.approx(PLAN.seconds(quick), rel=0.35)


def test_cold_threads_are_measured_by_the_first_call_after_a_pause(on):
    machine = on(Machine(awake_s=0.06))
    found = visit(machine.run, Plan(0.2, 0.0025, 0.05, state="cold-threads"))
    assert found.loops == 1
    assert found.values == pytest.approx([6e-4] * clock.COLD_SAMPLES)


def test_an_arm_keeps_its_number_of_calls_in_a_sample(on):
    machine = on(Machine())
    assert visit(machine.run, PLAN, loops=4).loops == 4


def test_an_arm_is_woken_up_for_twice_as_long_as_it_needed(on):
    def seen(awake_s):
        return visit(on(Machine(awake_s=awake_s)).run, PLAN)

    assert wake_s(0.2, []) == 0.2
    assert wake_s(0.2, [seen(0.0)]) == 0.2  # one visit is not enough to know
    assert wake_s(0.2, [seen(0.04), seen(0.06)]) == pytest.approx(0.1, abs=0.02)
    assert wake_s(0.2, [seen(0.0), seen(0.0)]) < 0.02
    assert wake_s(0.2, [seen(0.18), seen(0.18)]) == 0.2


def test_an_arm_that_never_woke_up_while_it_was_watched_is_not_left_asleep(on):
    """Something kept the arm asleep in its first visits: it is not taken to be awake at once."""
    asleep = on(Machine(awake_s=9.9))
    watched = [visit(asleep.run, PLAN), visit(asleep.run, PLAN)]
    awake = on(Machine(awake_s=0.06))
    seen = visit(awake.run, PLAN)
    assert wake_s(0.2, [*watched, seen]) == 0.2


def test_an_arm_that_is_asleep_in_its_later_visits_is_woken_up_for_longer_again(on):
    """While it was watched, the arm was awake at once, because its process had just been called."""
    quick = [visit(on(Machine()).run, PLAN) for _ in range(2)]
    short = Plan(wake_s=clock.LEAST_WAKE_S, sample_s=0.0025, visit_s=0.02)
    late = [visit(on(Machine(awake_s=0.06)).run, short) for _ in range(3)]
    assert wake_s(0.2, quick) < 0.02
    assert wake_s(0.2, [*quick, *late]) == 0.2
