"""Make the experiments on one cell, in a worker: trace it, shrink it, replay its pieces.

The calls of NumPy are traced at full size, and on the smallest layer on which the code makes the
very same calls. The time on the small layer is the price of making the calls; the time that a call
takes beyond it at full size is spent on elements. Calls that spend much are made again under other
conditions: into existing memory, on contiguous arrays, in float32, with one thread. After the first
timing the process keeps its memory, and the time that this saves is the price of fresh pages.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from convbench.implementations.contract import Implementation, Lending, Prepared, StageKind
from convbench.machine.pages import memory_kept
from convbench.machine.usage import page_faults
from convbench.problem import operands
from convbench.problem.layer import Layer, Pass
from convbench.profile import replaying
from convbench.profile.findings import Examination, StageTime, Work
from convbench.profile.lines import timed_lines
from convbench.profile.products import products
from convbench.profile.stages import declared_stages, timed_stages
from convbench.profile.tracing import TooManyCallsError, Trace, address, give_traced, trace

TRACES = 3
"""Number of traces. The time of a call is the least of them."""

LONGEST_S = 1.0
"""Longest call, in seconds, that is traced. A layer on which a call takes longer is cut."""

CLOCKED_S = 0.1
"""Seconds that the samples of one timing take together."""

MANY_CALLS_S = 0.1
"""Seconds below which a call cannot make MAX_CALLS calls of NumPy."""

CUT = "Examined on {}, since a call on the whole layer takes too long."

MOST_COLUMNS = 64 * 1024**2
"""Largest number of bytes of columns that are gathered for a timing, unless one image has more."""

WORTH = 0.005
"""Smallest part of the whole time for which calls that are alike are replayed."""

SAMPLES = 7
"""Number of samples of one timing. Their median counts."""

FEWER = 4
"""How many times fewer calls a smaller layer may make and still tell what the calls cost."""


def examine(
    implementation: Implementation,
    layer: Layer,
    pass_: Pass,
    threads: int,
    seed: int,
    is_theirs: Callable[[str], bool],
) -> Examination:
    """Take the implementation apart. Its result is assumed to be right, so check it first."""
    bench = _Bench(implementation, pass_, threads, seed, is_theirs)
    cut, prepared = bench.cut(layer)
    call_s = seconds_of(prepared.run)
    has_new_pages = _has_new_pages(prepared.run)
    with memory_kept() as is_kept:
        kept_s = seconds_of(prepared.run) if is_kept and has_new_pages else call_s
        stages = timed_stages(prepared)
        kinds = {stage.name: stage.kind for stage in declared_stages(prepared)}
        full, traced_s = bench.traced(prepared)
        small_layer, small = bench.smallest(cut, full)
        small_s = bench.call_s(small_layer) * len(full.calls) / max(len(small.calls), 1)
        small_s = min(small_s, kept_s)
        work = _staged(stages, kinds, cut, kept_s - small_s)
        work = work or tuple(_work(full, small, threads))
        used = _dtype(work, cut)
        found_lines, lines_s = timed_lines(bench.loaded(cut).run, full, is_theirs)
    return Examination(
        layer=cut,
        call_s=call_s,
        traced_s=traced_s,
        small_layer=small_layer,
        small_s=small_s,
        calls=len(full.calls),
        work=work,
        products=products(cut, pass_, threads, sorted({"float32", used})),
        dtype=used,
        lines=found_lines,
        lines_s=lines_s,
        stages=stages,
        gather_s=_gather_s(cut, pass_, _is_channels_first(prepared)),
        allocated=sum(full.operations[call.operation].fresh for call in full.calls),
        fresh_pages_s=max(call_s - kept_s, 0.0),
        is_memory_kept=is_kept,
        own_threads=full.threads,
        note="" if cut == layer else CUT.format(cut.geometry()),
    )


class _Bench:
    """A bench on which one implementation is prepared, called and traced, on any layer."""

    def __init__(
        self,
        implementation: Implementation,
        pass_: Pass,
        threads: int,
        seed: int,
        is_theirs: Callable[[str], bool],
    ) -> None:
        self._implementation = implementation
        self._pass, self._threads, self._seed = pass_, threads, seed
        self._is_theirs = is_theirs

    def loaded(self, layer: Layer) -> Prepared:
        prepared = self._implementation.prepare(layer, self._pass, self._threads)
        prepared.load(operands.floats(layer, self._pass, self._seed))
        return prepared

    def call_s(self, layer: Layer) -> float:
        """Return the seconds of a call on a layer: the median of some samples."""
        return seconds_of(self.loaded(layer).run)

    def traced(self, prepared: Prepared) -> tuple[Trace, float]:
        """Return a trace with the least time of each call, and the least seconds of a traced run.

        From then on the prepared object holds Traced arrays.
        """
        prepared.run()
        give_traced(prepared)
        found, took = [], []
        for _ in range(TRACES):
            start = time.perf_counter()
            found.append(trace(prepared.run, self._is_theirs, keep=False).calls)
            took.append(time.perf_counter() - start)
        kept = trace(prepared.run, self._is_theirs)
        alike = [calls for calls in found if len(calls) == len(kept.calls)]
        if alike:
            least = (min(call.seconds for call in calls) for calls in zip(*alike, strict=True))
            pairs = zip(kept.calls, least, strict=True)
            kept.calls = [call._replace(seconds=seconds) for call, seconds in pairs]
        return kept, min(took)

    def cut(self, layer: Layer) -> tuple[Layer, Prepared]:
        """Return the layer, or a part of it whose call fits LONGEST_S, and its prepared object.

        A part has fewer images, filters or rows. All experiments use this object, and so the same
        memory: the place and size of an array's pages can make up a fifth of a call's time.
        """
        cut = layer
        while True:
            prepared = self.loaded(cut)
            start = time.perf_counter()
            prepared.run()
            took = time.perf_counter() - start
            smaller = _halved(cut)
            is_short = took <= LONGEST_S and not (took > MANY_CALLS_S and self._is_too_many(cut))
            if smaller is None or is_short:
                return cut, prepared
            cut = smaller

    def _is_too_many(self, layer: Layer) -> bool:
        prepared = self.loaded(layer)
        give_traced(prepared)
        try:
            trace(prepared.run, self._is_theirs, keep=False)
        except TooManyCallsError:
            return True
        return False

    def smallest(self, layer: Layer, full: Trace) -> tuple[Layer, Trace]:
        """Return the smallest layer on which the same lines make the same calls, and its trace.

        From there the search goes on to layers with up to FEWER times fewer calls, since code that
        works in blocks of a certain size needs fewer blocks for smaller rows.
        """
        small, found = layer, full
        for fewer in (1, FEWER):
            for candidate in _smaller(layer):
                tried = candidate(small)
                if tried == small or tried is None:
                    continue
                if self._implementation.unsupported(tried, self._pass) is not None:
                    continue
                try:
                    its_trace, _ = self.traced(self.loaded(tried))
                except Exception:  # noqa: BLE001 - code may fail on so small a layer
                    continue
                if _are_alike(its_trace, full, fewer):
                    small, found = tried, its_trace
        return small, found


def seconds_of(run: Callable[[], object], seconds: float | None = None) -> float:
    """Return the seconds of a call: the median of some samples, taken as a visit of a run does.

    The samples take `seconds` together, CLOCKED_S by default. A call that is longer is sampled
    twice. First, calls for WAKE_S wake up threads that sleep. The garbage collector is off.
    """
    seconds = CLOCKED_S if seconds is None else seconds
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        made, start = 0, time.perf_counter()
        while made < 1 or time.perf_counter() - start < min(WAKE_S, seconds):
            run()
            made += 1
        call_s = (time.perf_counter() - start) / made
        loops = max(1, math.ceil(seconds / SAMPLES / max(call_s, 1e-7)))
        found = []
        for _ in range(SAMPLES if call_s < seconds else 2):
            start = time.perf_counter()
            for _ in range(loops):
                run()
            found.append((time.perf_counter() - start) / loops)
    finally:
        if was_enabled:
            gc.enable()
    return statistics.median(found)


WAKE_S = 0.1
"""Seconds of calls that wake an arm up: TensorFlow's threads need 0.05 s in the median, and 0.12 s
in nine of ten cells (docs/measuring.md)."""


def _has_new_pages(run: Callable[[], object], calls: int = 5) -> bool:
    """Tell whether a call touches new pages; True if the system does not count them."""
    before = page_faults()
    for _ in range(calls):
        run()
    after = page_faults()
    return before is None or after is None or after - before >= calls


def _is_channels_first(prepared: Prepared) -> bool:
    """Tell whether the implementation takes its input with channels first."""
    if not isinstance(prepared, Lending):
        return False
    axes = prepared.letters["input"]
    return "H" in axes and axes.find("C") < axes.index("H")


def _are_alike(small: Trace, full: Trace, fewer: int) -> bool:
    if fewer == 1:
        return small.names == full.names
    calls = len(small.calls)
    return set(small.names) == set(full.names) and calls <= len(full.calls) <= fewer * calls


def _halved(layer: Layer) -> Layer | None:
    if layer.batch_size > 1:
        return replace(layer, batch_size=layer.batch_size // 2)
    if layer.filters > layer.groups:
        per_group = layer.filters // layer.groups
        return replace(layer, filters=per_group // 2 * layer.groups)
    height, width, channels = layer.input_shape
    least_h, least_w = layer.effective_kernel_size
    if height // 2 >= least_h:
        return replace(layer, input_shape=(height // 2, width, channels))
    if width // 2 >= least_w:
        return replace(layer, input_shape=(height, width // 2, channels))
    return None


def _smaller(layer: Layer) -> Iterator[Callable[[Layer], Layer | None]]:
    """Yield ways to make a layer smaller, first in dimensions that most code does not loop over."""
    groups = layer.groups

    def image(of: Layer) -> Layer:
        height, width = layer.effective_kernel_size
        return replace(of, input_shape=(height, width, of.channels))

    def height(of: Layer) -> Layer:
        return replace(of, input_shape=(layer.effective_kernel_size[0], *of.input_shape[1:]))

    yield image
    yield height
    yield lambda of: replace(of, batch_size=1)
    yield lambda of: replace(of, filters=groups)
    yield lambda of: replace(of, input_shape=(*of.input_size, groups))
    yield lambda of: replace(of, kernel_size=(1, 1)) if of.kernel_size != (1, 1) else None


def _staged(
    stages: tuple[StageTime, ...], kinds: Mapping[str, StageKind], layer: Layer, seconds: float
) -> tuple[Work, ...]:
    """Return the work of the stages, which share the `seconds` that a call spends on elements."""
    total = sum(stage.seconds for stage in stages)
    products_s = sum(stage.seconds for stage in stages if kinds.get(stage.name) == "product")
    found = []
    for stage in stages:
        kind = kinds.get(stage.name)
        if kind is not None:
            spent = stage.seconds / total * seconds
            is_product = kind == "product"
            flops = round(layer.flops * stage.seconds / products_s) if is_product else 0
            layout = spent if kind == "copy" else 0.0
            work = Work(
                stage.name, kind, ("", 0), layer.dtype, stage.calls, 0, flops, spent, layout=layout
            )
            found.append(work)
    return tuple(found)


def _work(full: Trace, small: Trace, threads: int) -> Iterator[Work]:
    """Yield the work of each operation, the one that takes longest first."""
    spent = np.zeros(len(full.operations))
    calls = np.zeros(len(full.operations), int)
    prices: dict[Any, list[float]] = {}
    for name, price in zip(small.names, small.calls, strict=True):
        prices.setdefault(name, []).append(price.seconds)
    for name, call in zip(full.names, full.calls, strict=True):
        spent[call.operation] += max(call.seconds - statistics.fmean(prices[name]), 0.0)
        calls[call.operation] += 1
    total = sum(call.seconds for call in full.calls)
    finals = _final_writes(full)
    for index in np.argsort(-spent):
        operation = full.operations[index]
        work = Work(
            operation.name,
            operation.kind,
            operation.line,
            operation.dtype,
            int(calls[index]),
            int(calls[index]) * (operation.read + operation.written),
            int(calls[index]) * operation.flops,
            float(spent[index]),
        )
        if spent[index] > WORTH * total:
            once = operation.written if index == finals else 0
            is_fed = operation.kind == "product" and _is_fed_by_strides(full, int(index))
            example = full.examples[int(index)]
            work = replaying.parted(work, operation, example, once, threads, is_fed)
        yield work


def _final_writes(full: Trace) -> int | None:
    """Return the index of the operation that wrote the result last, if it is known."""
    if not isinstance(full.result, np.ndarray):
        return None
    return full.last_written.get(address(full.result))


def _is_fed_by_strides(full: Trace, index: int) -> bool:
    """Tell whether a strided copy was the last to write an operand of an operation."""
    writers = (
        full.last_written.get(address(array))
        for array in full.examples[index].arguments
        if isinstance(array, np.ndarray)
    )
    return any(
        full.operations[writer].kind == "copy" and full.examples[writer].is_strided
        for writer in writers
        if writer is not None
    )


def _dtype(work: tuple[Work, ...], layer: Layer) -> str:
    """Return the dtype in which most of the arithmetic is done."""
    spent: dict[str, float] = {}
    for one in work:
        # A comparison does not count as arithmetic, however long it took.
        is_counted = one.dtype not in ("", "bool")
        if one.kind in ("arithmetic", "product") and is_counted:
            spent[one.dtype] = spent.get(one.dtype, 0.0) + one.seconds
    return max(spent, key=spent.__getitem__) if spent else layer.dtype


def _gather_s(layer: Layer, pass_: Pass, is_channels_first: bool) -> float:
    """Return the seconds to copy the columns of the whole batch, timed on as many images as fit."""
    if pass_ is Pass.INPUT_GRADIENT or layer.kernel_size == (1, 1):
        return 0.0
    images = max(
        1, min(layer.batch_size, MOST_COLUMNS // (layer.columns_bytes // layer.batch_size))
    )
    x = np.ones((images, *layer.padded_size, layer.channels), layer.dtype)
    if is_channels_first:
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    windows = np.lib.stride_tricks.sliding_window_view(x, layer.effective_kernel_size, axis=(1, 2))
    (stride_h, stride_w), (dilation_h, dilation_w) = layer.strides, layer.dilation_rate
    met = windows[:, ::stride_h, ::stride_w, :, ::dilation_h, ::dilation_w]
    view = met if is_channels_first else met.transpose(0, 1, 2, 4, 5, 3)
    columns = np.empty(view.shape, layer.dtype)
    return replaying.least_s(lambda: np.copyto(columns, view)) * layer.batch_size / images
