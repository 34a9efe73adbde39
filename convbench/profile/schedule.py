"""Profile one cell: check and time it as in a run, then take it apart by experiments."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from itertools import cycle
from math import exp

from convbench.errors import ConvbenchError, ExitCode
from convbench.measure.messages import UnansweredError
from convbench.measure.process import kill_all
from convbench.profile.advising import advice
from convbench.profile.asking import Asking, one_element
from convbench.profile.bounds import bounds
from convbench.profile.document import (
    SCHEMA,
    Headline,
    Overhead,
    Profile,
)
from convbench.profile.findings import Examination
from convbench.profile.waterfall import Given, over_rounds, waterfall
from convbench.results.model import Cell, Speedup
from convbench.results.rounds import Rounds, by_round, log_median
from convbench.schedule.events import Event, PhaseStarted, Progress
from convbench.schedule.options import Options
from convbench.schedule.running import run
from convbench.schedule.session import Session
from convbench.schedule.workers import Workers
from convbench.suites.suite import FASTEST_KERAS, KERAS_WAYS

ROUNDS = {"smoke": 1, "quick": 3, "standard": 5, "rigorous": 10}
"""Rounds at each effort. They are few, because a profile is to be done within a minute."""

EXPERIMENTS = 14
"""Number of experiments that progress counts up to. A large batch makes more."""


@dataclass(frozen=True)
class Request:
    """Request to hold `implementation` against `versus` in the session's one cell.

    `versus` is FASTEST_KERAS or an implementation. With `anyway` a wrong result is profiled too.
    """

    implementation: str
    versus: str
    anyway: bool = False


def profile(
    session: Session, request: Request, options: Options
) -> Generator[Event, None, Profile]:
    """Profile the session's cell, and return what was found.

    Raises ConvbenchError if the code is wrong, crashes, or cannot compute the layer.
    """
    rounds = ROUNDS[session.effort]
    options = replace(options, rounds=rounds, time_wrong=request.anyway, metering=False)
    yield from run(session, options)
    headline = _headline(session, request)
    (layer,), (pass_,) = session.suite.layers, session.suite.passes
    try:
        workers = Workers.of(session, options)
        asking = Asking(workers, layer, pass_, headline.implementation, headline.chosen)
        yield PhaseStarted("experiments", EXPERIMENTS)
        yield Progress("experiments", f"{request.implementation}: tracing and replaying")
        each = asking.examinations(rounds)
        found = sorted(each, key=lambda one: one.call_s)[len(each) // 2]
        yield Progress("experiments", f"{headline.chosen}: one element")
        floor_s = asking.call_s(headline.chosen, one_element(layer))
        yield Progress("experiments", "products without the variables that pin BLAS")
        native = asking.native(found.dtype)
        sweeps = yield from asking.sweeps(floor_s)
        steps, unexplained = over_rounds(
            [
                waterfall(Given(*times, floor_s, layer, one, native))
                for times, one in zip(_by_round(session, headline), cycle(each), strict=False)
            ]
        )
        if len(each) < rounds:  # experiments that stand for several rounds give no interval
            steps = tuple(replace(step, ci99=None) for step in steps)
        yield Progress("experiments", "counters")
        counters, uncounted = asking.counters()
        yield Progress("experiments", "Winograd's algorithm, if it applies")
        winograd_s = asking.winograd_s()
        given = Given(headline.time_s, headline.versus_s, floor_s, layer, found, native, winograd_s)
        counsel = advice(given, steps, found.lines)
        tried = []
        for one in counsel:
            yield Progress("experiments", f"trying: {one.cause}")
            tried.append(asking.tried(one, native is not None, winograd_s))
    except UnansweredError as error:
        raise ConvbenchError(
            f"{request.implementation} was checked and timed, but cannot be taken apart: {error}",
            hint="a profile hands it a subclass of ndarray, which it may not accept; "
            "convbench run times it with plain arrays",
        ) from error
    finally:
        kill_all()
    return Profile(
        schema=SCHEMA,
        headline=headline,
        layer=layer,
        stages=found.stages,
        lines=found.lines,
        waterfall=steps,
        unexplained=unexplained,
        bounds=bounds(layer, pass_, headline, found, session.machine, session.threads),
        sweeps=sweeps,
        advice=tuple(tried),
        overhead=Overhead(
            found.traced_s / found.call_s - 1,
            None if found.lines_s is None else found.lines_s / found.call_s - 1,
        ),
        threads=session.threads,
        effort=session.effort,
        machine=session.machine,
        software=session.software,
        environment=session.environment,
        warnings=session.cautions,
        notes=tuple(_notes(found, uncounted)),
        counters=counters,
        counts={
            "NumPy calls": found.calls,
            "allocated bytes": found.allocated,
            "fresh pages s": found.fresh_pages_s,
        },
    )


def _notes(found: Examination, uncounted: str) -> Iterator[str]:
    """Yield what limits the experiments: a layer that was cut, memory, events without a count."""
    if found.note:
        yield found.note
    if not found.is_memory_kept:
        yield "Fresh pages count in the causes that touch them, since malloc has no mallopt here."
    if uncounted:
        yield uncounted


def _headline(session: Session, request: Request) -> Headline:
    """Return both times and their ratio.

    Raises ConvbenchError if a cell has no time, with exit code 5 if it is wrong or failed.
    """
    result = session.result()
    cells = {cell.implementation: cell for cell in result.cells}
    mine = _timed(cells[request.implementation])
    speedup = next(
        (
            s
            for s in result.speedups
            if s.implementation == request.implementation and s.versus == request.versus
        ),
        None,
    )
    chosen = request.versus
    if request.versus == FASTEST_KERAS:
        ways = [cells[name] for name in KERAS_WAYS if name in cells and cells[name].time]
        if not ways:
            raise ConvbenchError(
                "no way to run Keras was timed: " + "; ".join(_why(cells[n]) for n in KERAS_WAYS)
            )
        chosen = min(ways, key=lambda cell: cell.time.time_s if cell.time else 0).implementation
        chosen = speedup.chosen if speedup else chosen
    other = _timed(cells[chosen])
    assert mine.time is not None
    assert other.time is not None
    return Headline(
        layer=mine.layer,
        pass_=mine.pass_,
        implementation=mine.implementation,
        versus=request.versus,
        chosen=chosen,
        time_s=mine.time.time_s,
        ci99_s=mine.time.ci99_s,
        versus_s=other.time.time_s,
        versus_ci99_s=other.time.ci99_s,
        ratio=1 / speedup.ratio if speedup else mine.time.time_s / other.time.time_s,
        ci99=_inverse(speedup),
        rounds=result.rounds,
        reliable=speedup.reliable if speedup else True,
        verdict=mine.status,
    )


def _by_round(session: Session, headline: Headline) -> Iterator[tuple[float, float]]:
    """Yield the two times of each round, in seconds."""
    cells = {cell.implementation: cell for cell in session.result().cells}
    arms = by_round(session.benchmarks)

    def rounds_of(name: str) -> Rounds:
        timed = cells[name].time
        assert timed is not None
        return arms[timed.benchmark]

    mine, other = rounds_of(headline.implementation), rounds_of(headline.chosen)
    for index in sorted(mine.keys() & other.keys()):
        yield exp(log_median(mine[index])), exp(log_median(other[index]))


def _inverse(speedup: Speedup | None) -> tuple[float, float] | None:
    if speedup is None or speedup.ci99 is None:
        return None
    low, high = speedup.ci99
    return 1 / high, 1 / low


def _timed(cell: Cell) -> Cell:
    if cell.time is not None:
        return cell
    error = ConvbenchError(_why(cell), hint=_hint(cell))
    if cell.status in ("wrong", "failed"):
        error.exit_code = ExitCode.WRONG
    raise error


def _why(cell: Cell) -> str:
    reason = f": {cell.reason}" if cell.reason else ""
    state = "failed" if cell.status == "failed" else f"is {cell.status}"
    return f"{cell.implementation} {state} in {cell.layer} {cell.pass_}{reason}"


def _hint(cell: Cell) -> str:
    if cell.status == "wrong":
        return (
            f"convbench check {cell.implementation} shows the smallest layer that fails; "
            "--anyway profiles the code as it is"
        )
    return "profile another --layer or --pass"
