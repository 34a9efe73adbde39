"""Profile one cell: check and time it as in a run, then take it apart by experiments."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from itertools import cycle
from math import exp

from convbench.errors import ConvbenchError, ExitCode
from convbench.machine.cautions import BLAS_PINS, OTHER_PINS
from convbench.measure.environment import Environment
from convbench.measure.messages import Answer, CellFailedError, Start
from convbench.measure.messages import Request as WorkerRequest
from convbench.measure.process import Worker, WorkerLostError, kill_all
from convbench.own_code.description import OwnCode
from convbench.problem.layer import Layer, Pass
from convbench.profile.advising import advice
from convbench.profile.bounds import bounds
from convbench.profile.document import (
    SCHEMA,
    Advice,
    Counter,
    Headline,
    Overhead,
    Point,
    Profile,
    Sweeps,
)
from convbench.profile.findings import Examination, Products
from convbench.profile.ladder import RUNGS
from convbench.profile.messages import Count, Examine, TimeCall, TimeProducts
from convbench.profile.waterfall import Given, over_rounds, waterfall
from convbench.results.model import Cell, Speedup
from convbench.results.rounds import Rounds, by_round, log_median
from convbench.results.stats import fit_line
from convbench.runtimes.contract import Runtime
from convbench.runtimes.numpy import NumPy
from convbench.schedule.events import Event, PhaseStarted, Progress
from convbench.schedule.options import Options
from convbench.schedule.running import run
from convbench.schedule.session import Session
from convbench.suites.suite import FASTEST_KERAS, KERAS_WAYS

ROUNDS = {"smoke": 1, "quick": 3, "standard": 5, "rigorous": 10}
"""A profile times few arms on one cell, and wants to be done within a minute."""

EXAMINED_S = 25.0
"""Seconds for which the experiments on the code may be repeated, once for each round."""

EXPERIMENTS = 14

PINS = (*BLAS_PINS, *OTHER_PINS)
"""Variables that keep a BLAS from its fastest kernels."""


WINOGRAD = OwnCode("winograd step", RUNGS[-1].own_code.code)


@dataclass(frozen=True)
class Request:
    """`implementation` against `versus` (FASTEST_KERAS, or another) in the session's one cell."""

    implementation: str
    versus: str
    anyway: bool = False


def profile(
    session: Session, request: Request, options: Options
) -> Generator[Event, None, Profile]:
    """The profile. Raises ConvbenchError where there is nothing to profile: what is wrong, or
    crashed, or cannot compute the layer."""
    rounds = ROUNDS[session.effort]
    options = replace(options, rounds=rounds, time_wrong=request.anyway, metering=False)
    yield from run(session, options)
    headline = _headline(session, request)
    (layer,), (pass_,) = session.suite.layers, session.suite.passes
    try:
        apart = _Apart(session, options, layer, pass_, headline)
        yield PhaseStarted("experiments", EXPERIMENTS)
        yield Progress("experiments", f"{request.implementation}: tracing and replaying")
        each = apart.examinations(rounds)
        found = sorted(each, key=lambda one: one.call_s)[len(each) // 2]
        yield Progress("experiments", f"{headline.chosen}: one element")
        floor_s = apart.call_s(headline.chosen, _one_element(layer))
        yield Progress("experiments", "products without the environment's pins")
        native = apart.native(found.dtype)
        sweeps = yield from apart.sweeps(floor_s)
        steps, unexplained = over_rounds(
            [
                waterfall(Given(*times, floor_s, layer, one, native))
                for times, one in zip(_by_round(session, headline), cycle(each), strict=False)
            ]
        )
        if len(each) < rounds:  # no interval from experiments that stand for several rounds
            steps = tuple(replace(step, ci99=None) for step in steps)
        yield Progress("experiments", "counters")
        counters, uncounted = apart.counters()
        yield Progress("experiments", "Winograd's algorithm, if it can be had")
        winograd_s = apart.winograd_s()
        given = Given(headline.time_s, headline.versus_s, floor_s, layer, found, native, winograd_s)
        counsel = advice(given, steps, found.lines)
        tried = []
        for one in counsel:
            yield Progress("experiments", f"trying: {one.cause}")
            tried.append(apart.tried(one, native is not None, winograd_s))
    except (CellFailedError, WorkerLostError) as error:
        raise ConvbenchError(
            f"{request.implementation} was checked and timed, but cannot be taken apart: {error}",
            hint="its arrays are a subclass of ndarray meanwhile; convbench run times it as it is",
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
    """What limits the experiments: a layer that was cut, memory, events that were not counted."""
    if found.note:
        yield found.note
    if not found.is_memory_kept:
        yield "fresh pages are within the causes that touch them: malloc has no mallopt here"
    if uncounted:
        yield uncounted


def _headline(session: Session, request: Request) -> Headline:
    """Raises ConvbenchError with exit code 5 for a cell without a time."""
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
                "no Keras way could be timed: " + "; ".join(_why(cells[n]) for n in KERAS_WAYS)
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
    """The two times of each round, in seconds."""
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
    return f"{cell.implementation} is {cell.status} in {cell.layer} {cell.pass_}{reason}"


def _hint(cell: Cell) -> str:
    if cell.status == "wrong":
        return (
            f"convbench check {cell.implementation} shows the smallest layer that fails; "
            "--anyway profiles it as it is"
        )
    return "profile another --layer or --pass"


def _one_element(layer: Layer) -> Layer:
    """The smallest layer of that geometry: one window, one channel and filter of each group."""
    height, width = layer.effective_kernel_size
    return replace(
        layer,
        batch_size=1,
        input_shape=(height, width, layer.groups),
        filters=layer.groups,
        padding="valid",
    )


def _as_forward(layer: Layer, pass_: Pass) -> Layer | None:
    """A layer without pads whose forward pass has the same sums; None for kernel gradients."""
    if pass_ is Pass.KERNEL_GRADIENT:
        return None
    valid = replace(layer, padding="valid", use_bias=False, dtype="float32")
    if pass_ is Pass.FORWARD:
        return replace(valid, input_shape=(*layer.padded_size, layer.channels))
    (height, width), (kernel_h, kernel_w) = layer.output_size, layer.effective_kernel_size
    padded = height + 2 * (kernel_h - 1), width + 2 * (kernel_w - 1)
    return replace(valid, input_shape=(*padded, layer.filters), filters=layer.channels)


class _Apart:
    """Asks fresh workers; what cannot be had is None, and the profile says so."""

    def __init__(
        self, session: Session, options: Options, layer: Layer, pass_: Pass, headline: Headline
    ) -> None:
        self._session, self._options = session, options
        self._layer, self._pass, self._headline = layer, pass_, headline
        self._workers: dict[tuple[Runtime, int], Worker] = {}

    def examinations(self, most: int) -> list[Examination]:
        """Each in a fresh process, since what one does to its memory is not undone."""
        name = self._headline.implementation
        runtime = self._session.registry.get(name).runtime
        request = Examine(self._layer, self._pass, name)
        found: list[Examination] = []
        began = time.monotonic()
        while len(found) < most:
            found.append(self._fresh(runtime, request))
            so_far = time.monotonic() - began
            if so_far + so_far / len(found) > EXAMINED_S:
                break
        return found

    def _fresh(
        self,
        runtime: Runtime,
        request: WorkerRequest[Answer],
        environment: Environment | None = None,
    ) -> Answer:
        """Asked of a process of its own. Raises CellFailedError and WorkerLostError."""
        worker = self._started(runtime, self._session.threads, environment)
        try:
            worker.wait_ready()
            return worker.ask(request, self._options.timeout_s)
        finally:
            worker.kill()

    def call_s(self, name: str, layer: Layer, threads: int | None = None) -> float:
        return self._ask(name, TimeCall(layer, self._pass, name), threads)

    def native(self, dtype: str) -> Products | None:
        """The products by native kernels; None where nothing in the environment pins them."""
        numpy, environment = NumPy(), self._options.environment
        variables = environment.of(numpy, self._session.threads)
        if not any(variables.get(name) for name in PINS):
            return None
        request = TimeProducts(self._layer, self._pass, tuple(sorted({"float32", dtype})))
        return self._fresh(numpy, request, environment.without(PINS))

    def counters(self) -> tuple[tuple[Counter, ...], str]:
        """Of both, and what is to be said of events that could not be counted."""
        mine, its = (
            self._ask(name, Count(self._layer, self._pass, name))
            for name in (self._headline.implementation, self._headline.chosen)
        )
        events = dict.fromkeys((*mine.counts, *its.counts))
        found = [Counter(event, mine.counts.get(event), its.counts.get(event)) for event in events]
        missing = {**mine.missing, **its.missing}
        if not missing:
            return tuple(found), ""
        reasons = "; ".join(dict.fromkeys(missing.values()))
        return tuple(found), f"not counted: {', '.join(missing)} ({reasons})"

    def winograd_s(self) -> float | None:
        """Of the ladder's step, which computes 3x3 kernels that meet every position."""
        equal = _as_forward(self._layer, self._pass)
        if equal is None or equal.kernel_size != (3, 3) or equal.groups > 1:
            return None
        if (*equal.strides, *equal.dilation_rate) != (1, 1, 1, 1):
            return None
        request = TimeCall(equal, Pass.FORWARD, WINOGRAD.name)
        try:
            seconds: float = self._fresh(NumPy(), request)
        except (CellFailedError, WorkerLostError):
            return None
        return seconds

    def sweeps(self, floor_s: float) -> Generator[Event, None, Sweeps]:
        """Time against batch and threads; a slow call is not made on more than the layer has."""
        name, other = self._headline.implementation, self._headline.chosen
        batch = []
        for images in _images(self._layer.batch_size):
            yield Progress("experiments", f"{images} images in a batch")
            smaller = replace(self._layer, batch_size=images)
            mine, its = self._maybe_s(name, smaller), self._maybe_s(other, smaller)
            if mine is not None:
                batch.append(Point(images, mine, its))
        line = fit_line([p.x for p in batch], [p.time_s for p in batch]) if batch else None
        threads = []
        for count in sorted({1, self._session.threads}):
            yield Progress("experiments", f"{count} threads")
            mine = self._maybe_s(name, self._layer, count)
            its = self._maybe_s(other, self._layer, count)
            if mine is not None:
                threads.append(Point(count, mine, its))
        yield Progress("experiments", f"{name}: one element")
        return Sweeps(
            batch=tuple(batch),
            threads=tuple(threads),
            floor_s=line[0] if line else None,
            slope_s=line[1] if line else None,
            one_element_s=self._maybe_s(name, _one_element(self._layer)),
            versus_one_element_s=floor_s,
        )

    def tried(self, one: Advice, is_pinned: bool, winograd_s: float | None) -> Advice:
        """The advice with the time that was measured, where it can be followed from outside."""
        name = self._headline.implementation
        if one.cause == "BLAS kernels" and is_pinned:
            freed = self._options.environment.without(PINS)
            runtime = self._session.registry.get(name).runtime
            try:
                request = TimeCall(self._layer, self._pass, name)
                seconds = self._fresh(runtime, request, freed)
            except (CellFailedError, WorkerLostError):
                return one
            return replace(one, measured_s=seconds, tried="without those variables")
        if one.cause == "algorithm":
            return replace(one, measured_s=winograd_s, tried=f"{one.read} on this layer")
        if one.cause == "dtype" and self._layer.dtype == "float64":
            single = replace(self._layer, dtype="float32")
            measured_s = self._maybe_s(name, single)
            return replace(one, measured_s=measured_s, tried="the same layer in float32")
        return one

    def _maybe_s(self, name: str, layer: Layer, threads: int | None = None) -> float | None:
        try:
            return self.call_s(name, layer, threads)
        except (CellFailedError, WorkerLostError):
            return None

    def _started(
        self, runtime: Runtime, threads: int, environment: Environment | None = None
    ) -> Worker:
        session = self._session
        registry = session.registry.knowing(WINOGRAD)
        start = Start(runtime, threads, session.seed, registry, tune=session.tune)
        return Worker(start, (environment or self._options.environment).of(runtime, threads))

    def _ask(self, name: str, request: WorkerRequest[Answer], threads: int | None = None) -> Answer:
        threads = threads or self._session.threads
        runtime = self._session.registry.get(name).runtime
        worker = self._workers.get((runtime, threads))
        if worker is None:
            worker = self._started(runtime, threads)
            self._workers[runtime, threads] = worker
            worker.wait_ready()
            worker.stop()
        with worker.token():
            return worker.ask(request, self._options.timeout_s)


def _images(batch: int) -> Iterator[int]:
    """1, 2, 4 and so on up to the layer's batch."""
    images = 1
    while images < batch:
        yield images
        images *= 2
    yield batch
