"""Test that every implementation which declares stages is timed by them and left as it was."""

import gc
import sys
import threading
import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from convbench.implementations.contract import Implementation, Ledger, Stage
from convbench.implementations.numpy.shared.threaded import Threaded
from convbench.implementations.numpy.shared.threads import in_threads
from convbench.implementations.registry import BUILT_IN, REGISTRY
from convbench.problem.layer import Layer, Pass
from convbench.problem.operands import floats
from convbench.profile import experiments, stages
from convbench.runtimes.numpy import NumPy

LAYER = Layer("conv", (12, 11, 4), 6, (3, 3), batch_size=3)
LAYERS = (
    replace(LAYER, name="padded", padding="same", use_bias=True),
    replace(LAYER, name="strided", strides=(2, 2), filters=16, use_bias=True),
    replace(LAYER, name="few columns", input_shape=(11, 11, 1), filters=16, strides=(4, 4)),
    replace(LAYER, name="wide", filters=256, padding="same", use_bias=True),
    replace(LAYER, name="one channel", input_shape=(12, 11, 1), batch_size=16, use_bias=True),
    replace(LAYER, name="many filters", input_shape=(12, 11, 8), filters=16, use_bias=True),
    replace(LAYER, name="kernel rows", input_shape=(8, 8, 40), filters=48, use_bias=True),
    replace(LAYER, name="parts", input_shape=(5, 5, 128), filters=136),
    replace(LAYER, name="groups", groups=2, use_bias=True),
    replace(LAYER, name="depthwise", filters=8, groups=4, use_bias=True),
    replace(LAYER, name="pixels", kernel_size=(1, 1), use_bias=True),
    replace(LAYER, name="some pixels", kernel_size=(1, 1), strides=(2, 2), use_bias=True),
)
LONG = Layer("long", (28, 28, 16), 32, (3, 3), batch_size=32)
"""Layer that is large enough for two threads and has several blocks."""


def ready(implementation, layer, pass_, threads=1):
    prepared = implementation.prepare(layer, pass_, threads)
    prepared.load(floats(layer, pass_, 0))
    return prepared


def cells(name, threads=1):
    """Yield every cell of LAYERS that the implementation supports, ready to run."""
    implementation = REGISTRY.get(name)
    for layer in LAYERS:
        for pass_ in Pass:
            if implementation.unsupported(layer, pass_) is None:
                yield ready(implementation, layer, pass_, threads)


def prepares_threaded(name):
    implementation = REGISTRY.get(name)
    return implementation.runtime == NumPy() and any(
        isinstance(implementation.prepare(layer, Pass.FORWARD, 1), Threaded)
        for layer in LAYERS
        if implementation.unsupported(layer, Pass.FORWARD) is None
    )


STAGED = [name for name in BUILT_IN if prepares_threaded(name)]


class Renamed:
    """A prepared cell whose stages are named by their methods, so that each one is told apart."""

    def __init__(self, prepared):
        self._prepared = prepared
        self.run = prepared.run

    def stages(self):
        return [replace(each, name=named(each)) for each in self._prepared.stages()]


def named(stage):
    return f"{type(stage.owner).__qualname__}.{stage.method} ({stage.name})"


def test_a_cell_without_stages_is_not_timed():
    assert {"im2col", "mec", "shift-gemm", "winograd", "fft", "direct", "depthwise"} <= {*STAGED}
    prepared = ready(REGISTRY.get("loop"), LAYER, Pass.FORWARD)
    assert stages.declared_stages(prepared) == ()
    assert stages.timed_stages(prepared) == ()


@pytest.mark.parametrize("name", STAGED)
def test_every_declared_stage_is_called(name):
    declared, met, kinds = set(), set(), {}
    for prepared in cells(name):
        found = stages.declared_stages(prepared)
        assert found
        methods = [(id(each.owner), each.method) for each in found]
        assert len({*methods}) == len(methods)  # otherwise some time would count twice
        for each in found:
            assert kinds.setdefault(each.name, each.kind) == each.kind
        declared |= {named(each) for each in found}
        met |= {each.name for each in stages.timed_stages(Renamed(prepared), calls=1)}
    assert declared == met - {stages.OTHER}


@pytest.mark.parametrize("name", STAGED)
def test_stages_and_the_rest_make_up_the_call(name):
    for prepared in cells(name):
        prepared.run()
        times = []

        class Clocked(Renamed):
            def stages(self):
                return self._prepared.stages()

        clocked = Clocked(prepared)
        run = prepared.run

        def timed(run=run, times=times):
            start = stages.time.perf_counter()
            result = run()
            times.append(stages.time.perf_counter() - start)
            return result

        clocked.run = timed
        start = stages.time.perf_counter()
        found = stages.timed_stages(clocked, calls=1)
        whole_s = stages.time.perf_counter() - start
        assert all(each.seconds >= 0 and each.calls >= 1 for each in found)
        assert times[0] <= sum(each.seconds for each in found) * (1 + 1e-9) <= whole_s
        order = [each.name for each in stages.declared_stages(prepared)]
        shown = [each.name for each in found if each.name != stages.OTHER]
        assert shown == [each for each in dict.fromkeys(order) if each in shown]


def everything(owners):
    """Return the attributes of modules, classes and owners by name.

    An owner's attributes come with their types, since a call may replace its arrays and numbers.
    The other attributes come with their identities.
    """
    modules = [m for name, m in sys.modules.items() if name.startswith("convbench.implementations")]
    classes = {each for owner in owners for each in type(owner).__mro__[:-1]}
    held = [*((m.__name__, vars(m)) for m in modules), *((str(c), vars(c)) for c in classes)]
    found = {(where, name): id(value) for where, of in held for name, value in of.items()}
    for owner in owners:
        found |= {(id(owner), name): type(value) for name, value in vars(owner).items()}
    return found


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", STAGED)
def test_timing_stages_changes_no_result_and_leaves_nothing(name, threads):
    for prepared in cells(name, threads):
        expected = prepared.to_numpy(prepared.run()).copy()
        owners = {id(s.owner): s.owner for s in stages.declared_stages(prepared)}.values()
        before = everything(owners)
        results, run = [], prepared.run

        class Kept(Renamed):
            def stages(self):
                return self._prepared.stages()

        kept = Kept(prepared)
        kept.run = lambda run=run, results=results: results.append(run())
        stages.timed_stages(kept, calls=2)
        assert everything(owners) == before
        for result in (*results, prepared.run()):
            np.testing.assert_array_equal(prepared.to_numpy(result), expected)


@pytest.mark.parametrize("name", STAGED)
def test_a_prepared_cell_is_freed_without_the_garbage_collector(name):
    """The cell is part of no reference cycle, so its memory is freed with the last reference."""
    gc.collect()
    gc.disable()
    try:
        for prepared in cells(name):
            prepared.run()
            stages.timed_stages(prepared, calls=1)
            gone = weakref.ref(prepared)
            del prepared
            assert gone() is None
    finally:
        gc.enable()


def test_calls_of_all_threads_are_counted():
    prepared = ready(REGISTRY.get("im2col"), LONG, Pass.FORWARD, 2)
    blocks = len(prepared._products.blocks)
    assert blocks >= 2
    calls = {each.name: each.calls for each in stages.timed_stages(prepared)}
    assert calls["gather"] == calls["product"] == calls["pad"] == blocks


def test_auto_has_the_stages_of_the_implementation_that_it_chose():
    taken = ready(REGISTRY.get("auto"), LAYER, Pass.FORWARD)
    alone = ready(REGISTRY.get(taken.ledger.took), LAYER, Pass.FORWARD)
    names = [named(each) for each in stages.declared_stages(taken)]
    assert names == [named(each) for each in stages.declared_stages(alone)]
    assert {each.name for each in stages.timed_stages(taken)} - {stages.OTHER}


# An implementation from outside the package


def product(left, right):
    return left @ right


class Unrolled(Implementation):
    name = "unrolled"
    runtime = NumPy()

    def unsupported(self, layer, pass_):
        return None

    def exact(self, layer, pass_):
        return True

    def workspace_bytes(self, layer, pass_, threads):
        return layer.columns_bytes

    def prepare(self, layer, pass_, threads):
        return PreparedUnrolled(layer, threads)


class PreparedUnrolled:
    """A forward pass in threads, as the smallest class that declares stages."""

    _product = staticmethod(product)
    buffers = ()
    ledger = Ledger(("unroll", "product"), ("copy",))

    def __init__(self, layer, threads):
        self._layer, self._threads = layer, threads

    def stages(self):
        return (
            Stage("unroll", "copy", self, "_unrolled"),
            Stage("product", "product", self, "_product"),
        )

    def load(self, operands):
        self._x, self._kernel = operands.input.copy(), operands.kernel.copy()

    def run(self):
        layer = self._layer
        result = np.empty((layer.batch_size, *layer.output_shape), layer.dtype)
        kernel = self._kernel.reshape(-1, layer.filters)

        def work(thread):
            for image in range(thread, layer.batch_size, self._threads):
                result[image] = self._product(self._unrolled(self._x[image]), kernel)

        in_threads(work, self._threads)
        return result

    def _unrolled(self, image):
        windows = np.lib.stride_tricks.sliding_window_view(
            image, self._layer.kernel_size, axis=(0, 1)
        )
        columns = windows.transpose(0, 1, 3, 4, 2)
        return columns.reshape(*columns.shape[:2], -1)

    def to_numpy(self, result):
        return result


def test_an_implementation_from_outside_is_profiled_by_its_own_stages(monkeypatch):
    monkeypatch.setattr(experiments, "CLOCKED_S", 0.01)
    monkeypatch.setattr(experiments, "WAKE_S", 0.01)
    found = experiments.examine(Unrolled(), LAYER, Pass.FORWARD, 2, 0, __file__.__eq__)
    calls = {each.name: each.calls for each in found.stages}
    assert calls.pop(stages.OTHER, 1) == 1
    assert calls == {"unroll": LAYER.batch_size, "product": LAYER.batch_size}
    assert {work.name: work.kind for work in found.work} == {"unroll": "copy", "product": "product"}
    assert sum(work.flops for work in found.work) == LAYER.flops


class Nested:
    """A cell that takes exact times: 1 s in `run`, 2 s in the outer stage, 3 s in the inner one."""

    def __init__(self, tick, fails=False):
        self._tick, self._fails = tick, fails
        self._inner = lambda: tick(3)  # a stage may be an attribute of the instance
        self.threads = set()

    def stages(self):
        yield Stage("outer", "arithmetic", self, "_outer")
        yield Stage("inner", "copy", self, "_inner")

    def run(self):
        self._tick(1)
        in_threads(self._work, 1)

    def _work(self, _):
        self.threads.add(threading.get_ident())
        self._outer()

    def _outer(self):
        self._tick(2)
        self._inner()
        self._inner()
        if self._fails:
            raise ZeroDivisionError


def test_time_in_an_inner_stage_does_not_count_for_the_outer_one(monkeypatch):
    now = [0.0]

    def tick(seconds):
        now[0] += seconds

    monkeypatch.setattr(stages, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    nested = Nested(tick)
    found = [(each.name, each.seconds, each.calls) for each in stages.timed_stages(nested)]
    assert found == [("outer", 2.0, 1), ("inner", 6.0, 2), (stages.OTHER, 1.0, 1)]


def test_a_call_that_fails_leaves_the_owners_of_its_stages_as_they_were():
    nested = Nested(lambda seconds: None, fails=True)
    before = dict(vars(nested))
    with pytest.raises(ZeroDivisionError):
        stages.timed_stages(nested)
    assert vars(nested) == before
