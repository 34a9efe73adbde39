"""Ask workers about one cell: on other layers and batches, with other threads and kernels."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace

from convbench.machine.cautions import BLAS_PINS
from convbench.measure.messages import Answer, UnansweredError
from convbench.measure.messages import Request as WorkerRequest
from convbench.measure.process import Worker
from convbench.own_code.description import OwnCode
from convbench.problem.layer import Layer, Pass
from convbench.profile.document import Advice, Counter, Point, Sweeps
from convbench.profile.findings import Examination, Products
from convbench.profile.ladder import RUNGS
from convbench.profile.messages import Count, Examine, TimeCall, TimeProducts
from convbench.results.stats import fit_line
from convbench.runtimes import runtimes
from convbench.runtimes.contract import Runtime
from convbench.runtimes.numpy import NumPy
from convbench.schedule.events import Event, Progress
from convbench.schedule.workers import Workers

EXAMINED_S = 25.0
"""Seconds within which the experiments on the code are repeated, at most once for each round."""

WINOGRAD = OwnCode("winograd step", RUNGS[-1].own_code.code)
"""The ladder's Winograd step, as code that a worker can time."""


@dataclass
class Asking:
    """The questions that a profile asks workers, about `mine` and the `other` implementation.

    An answer that cannot be had is None.
    """

    workers: Workers
    layer: Layer
    pass_: Pass
    mine: str
    other: str
    _crew: dict[tuple[Runtime, int], Worker] = field(default_factory=dict, init=False)

    def examinations(self, most: int) -> list[Examination]:
        """Examine `mine` up to `most` times, as long as another one would fit into EXAMINED_S.

        Each examination has a fresh process, since its changes to malloc are not wholly undone.
        """
        request = Examine(self.layer, self.pass_, self.mine)
        found: list[Examination] = []
        began = time.monotonic()
        while len(found) < most:
            found.append(self.workers.ask_once(self._runtime_of(self.mine), request))
            so_far = time.monotonic() - began
            if so_far + so_far / len(found) > EXAMINED_S:
                break
        return found

    def call_s(self, name: str, layer: Layer, threads: int | None = None) -> float:
        """Return the seconds of a call of an implementation on a layer."""
        return self._ask(name, TimeCall(layer, self.pass_, name), threads)

    def native(self, dtype: str) -> Products | None:
        """Time the products by native kernels; None if the environment pins none."""
        numpy = NumPy()
        variables = self.workers.environment.of(numpy, self.workers.threads)
        if not any(variables.get(name) for name in _pins()):
            return None
        request = TimeProducts(self.layer, self.pass_, tuple(sorted({"float32", dtype})))
        return self._without_pins.ask_once(numpy, request)

    def counters(self) -> tuple[tuple[Counter, ...], str]:
        """Count events of both implementations, and say in a sentence which were not counted."""
        mine, its = (
            self._ask(name, Count(self.layer, self.pass_, name)) for name in (self.mine, self.other)
        )
        events = dict.fromkeys((*mine.counts, *its.counts))
        found = [Counter(event, mine.counts.get(event), its.counts.get(event)) for event in events]
        missing = {**mine.missing, **its.missing}
        if not missing:
            return tuple(found), ""
        reasons = "; ".join(dict.fromkeys(missing.values()))
        return tuple(found), f"Events that were not counted: {', '.join(missing)} ({reasons})."

    def winograd_s(self) -> float | None:
        """Time the ladder's Winograd step in seconds, or return None if it cannot compute the cell.

        The step computes 3x3 kernels without strides, dilation or groups.
        """
        equal = _as_forward(self.layer, self.pass_)
        if equal is None or equal.kernel_size != (3, 3) or equal.groups > 1:
            return None
        if (*equal.strides, *equal.dilation_rate) != (1, 1, 1, 1):
            return None
        request = TimeCall(equal, Pass.FORWARD, WINOGRAD.name)
        workers = replace(self.workers, registry=self.workers.registry.knowing(WINOGRAD))
        try:
            return workers.ask_once(NumPy(), request)
        except UnansweredError:
            return None

    def sweeps(self, floor_s: float) -> Generator[Event, None, Sweeps]:
        """Time both against batch and threads.

        No batch is larger than the layer's own, since a call may be slow.
        """
        name, other = self.mine, self.other
        batch = []
        for images in _images(self.layer.batch_size):
            yield Progress("experiments", f"batch of {images}")
            smaller = replace(self.layer, batch_size=images)
            mine, its = self._maybe_s(name, smaller), self._maybe_s(other, smaller)
            if mine is not None:
                batch.append(Point(images, mine, its))
        line = fit_line([p.x for p in batch], [p.time_s for p in batch]) if batch else None
        threads = []
        for count in sorted({1, self.workers.threads}):
            yield Progress("experiments", f"threads: {count}")
            mine = self._maybe_s(name, self.layer, count)
            its = self._maybe_s(other, self.layer, count)
            if mine is not None:
                threads.append(Point(count, mine, its))
        yield Progress("experiments", f"{name}: one element")
        return Sweeps(
            batch=tuple(batch),
            threads=tuple(threads),
            floor_s=line[0] if line else None,
            slope_s=line[1] if line else None,
            one_element_s=self._maybe_s(name, one_element(self.layer)),
            versus_one_element_s=floor_s,
        )

    def tried(self, one: Advice, is_pinned: bool, winograd_s: float | None) -> Advice:
        """Return the advice, with a measured time if it can be tried without editing the code."""
        if one.cause == "BLAS kernels" and is_pinned:
            request = TimeCall(self.layer, self.pass_, self.mine)
            try:
                seconds = self._without_pins.ask_once(self._runtime_of(self.mine), request)
            except UnansweredError:
                return one
            return replace(one, measured_s=seconds, tried="without the variables")
        if one.cause == "algorithm":
            return replace(one, measured_s=winograd_s, tried=f"{one.read} on this layer")
        if one.cause == "dtype" and self.layer.dtype == "float64":
            single = replace(self.layer, dtype="float32")
            measured_s = self._maybe_s(self.mine, single)
            return replace(one, measured_s=measured_s, tried="the same layer in float32")
        return one

    def _maybe_s(self, name: str, layer: Layer, threads: int | None = None) -> float | None:
        try:
            return self.call_s(name, layer, threads)
        except UnansweredError:
            return None

    @property
    def _without_pins(self) -> Workers:
        return replace(self.workers, environment=self.workers.environment.without(_pins()))

    def _runtime_of(self, name: str) -> Runtime:
        return self.workers.registry.get(name).runtime

    def _ask(self, name: str, request: WorkerRequest[Answer], threads: int | None = None) -> Answer:
        runtime, threads = self._runtime_of(name), threads or self.workers.threads
        if (runtime, threads) not in self._crew:
            workers = replace(self.workers, threads=threads)
            self._crew |= workers.start_all({(runtime, threads): runtime})
        worker = self._crew[runtime, threads]
        with worker.token():
            return self.workers.ask(worker, request)


def _images(batch: int) -> Iterator[int]:
    """Yield 1, 2, 4 and so on, and last the layer's batch."""
    images = 1
    while images < batch:
        yield images
        images *= 2
    yield batch


def one_element(layer: Layer) -> Layer:
    """Return the smallest layer of a geometry: one window, one channel and filter a group."""
    height, width = layer.effective_kernel_size
    return replace(
        layer,
        batch_size=1,
        input_shape=(height, width, layer.groups),
        filters=layer.groups,
        padding="valid",
    )


def _as_forward(layer: Layer, pass_: Pass) -> Layer | None:
    """Return a layer without pads whose forward pass has the same sums, or None if none has."""
    if pass_ is Pass.KERNEL_GRADIENT:
        return None
    valid = replace(layer, padding="valid", use_bias=False, dtype="float32")
    if pass_ is Pass.FORWARD:
        return replace(valid, input_shape=(*layer.padded_size, layer.channels))
    (height, width), (kernel_h, kernel_w) = layer.output_size, layer.effective_kernel_size
    padded = height + 2 * (kernel_h - 1), width + 2 * (kernel_w - 1)
    return replace(valid, input_shape=(*padded, layer.filters), filters=layer.channels)


def _pins() -> tuple[str, ...]:
    """Return the variables that keep a BLAS or a runtime from its fastest kernels."""
    return (*BLAS_PINS, *(name for runtime in runtimes() for name in runtime.pins))
