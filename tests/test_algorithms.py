"""Test the fast NumPy algorithms: their blocks, threads and phases, and the memory they predict."""

import contextlib
import math
import os
import threading
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import threadpoolctl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convbench.agreement.check.case import Case
from convbench.agreement.check.checker import check
from convbench.implementations.numpy import depthwise, im2col, mec, shift_gemm, winograd
from convbench.implementations.numpy.shared import (
    col2im,
    column_products,
    columns,
    images_innermost,
    kernel_parts,
    lowered,
    products,
    threads,
)
from convbench.implementations.numpy.shared.correlation import Correlation, block_size, even, phases
from convbench.implementations.numpy.shared.scratch import Scratch
from convbench.implementations.registry import REGISTRY
from convbench.machine import affinity
from convbench.problem import operands
from convbench.problem.layer import Layer, Pass
from convbench.suites.file import read_suite
from convbench.suites.suite import shipped_suites
from tests.layers import layers
from tests.systems import posix

FAST = ("im2col", "mec", "shift-gemm", "winograd", "winograd-2x2", "direct", "depthwise")
NETWORKS = ("resnet50", "vgg16", "alexnet", "mobilenet", "mnist", "lenet")

# Blocks as `prepare` makes them, and blocks so small that every kind of edge between them occurs.
SIZES = {
    "usual": {},
    "small": {
        "columns": 3000,
        "unit": 200,
        "block": 2000,
        "tiles": 2000,
        "stage": 20_000,
        "kernel": 2000,
        "channels": 2,
        "product": 500,
        "rows": 5,
        "row terms": 1,
    },
    "smallest": {
        "columns": 1,
        "unit": 1,
        "block": 1,
        "tiles": 1,
        "stage": 1,
        "kernel": 0,
        "channels": 1,
        "product": 30,
        "rows": 1,
        "row terms": 10,
    },
}


@pytest.fixture(autouse=True)
def _threads_for_the_smallest_layers(monkeypatch):
    monkeypatch.setattr(threads, "FLOPS_OF_A_THREAD", 1)


def set_sizes(patch, size):
    given = SIZES[size]
    if not given:
        return
    patch.setattr(columns, "MAX_BYTES", given["columns"])
    patch.setattr(im2col, "MAX_BYTES", given["columns"])
    patch.setattr(column_products, "MAX_BYTES", given["columns"])
    patch.setattr(column_products, "LEAST_ROW_TERMS", given["row terms"])
    patch.setattr(col2im, "MAX_BYTES", given["columns"])
    patch.setattr(mec, "MAX_BYTES", given["columns"])
    patch.setattr(lowered, "MAX_BYTES", given["columns"])
    patch.setattr(images_innermost, "LEAST_IMAGES", 1)
    patch.setattr(images_innermost, "BLOCK_BYTES", given["block"])
    patch.setattr(products, "AT_MOST", given["product"])
    patch.setattr(products, "LEAST_ROWS", given["rows"])
    patch.setattr(products, "LEAST_ROWS_OF_NARROW", given["rows"])
    patch.setattr(products, "SUMMED_BYTES", given["block"])
    patch.setattr(col2im, "MANY_CHANNELS", given["channels"])
    patch.setattr(col2im, "LARGE_KERNEL", given["kernel"])
    patch.setattr(kernel_parts, "UNIT_BYTES", given["unit"])
    patch.setattr(shift_gemm, "BLOCK_BYTES", given["block"])
    patch.setattr(depthwise, "BLOCK_BYTES", given["block"])
    patch.setattr(winograd, "TILES_BYTES", given["tiles"])
    patch.setattr(winograd, "STAGE_BYTES", given["stage"])
    patch.setattr(winograd, "OWN_STAGE_BYTES", given["stage"])
    patch.setattr(winograd, "SMALL_KERNEL_BYTES", given["kernel"])


@st.composite
def suited(draw):
    """Draw a layer of one of four kinds: 3x3 with strides of 1, 1x1, depthwise, or any."""
    layer = draw(layers())
    kind = draw(st.sampled_from(["any", "3x3", "1x1", "depthwise"]))
    if kind == "3x3":
        channels, filters = layer.channels // layer.groups, layer.filters // layer.groups
        return replace(
            layer,
            input_shape=(*(size + 2 for size in layer.input_size), channels),
            filters=filters,
            kernel_size=(3, 3),
            strides=(1, 1),
            dilation_rate=(1, 1),
            groups=1,
        )
    if kind == "1x1":
        padding = draw(st.sampled_from(["valid", layer.padding]))
        return replace(layer, kernel_size=(1, 1), padding=padding)
    if kind == "depthwise":
        filters = layer.channels * draw(st.integers(1, 2))
        return replace(layer, groups=layer.channels, filters=filters)
    return layer


@pytest.mark.parametrize("size", SIZES)
@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(layer=suited(), count=st.integers(1, 3))
def test_results_are_right_whatever_the_blocks_and_threads(size, layer, count):
    with pytest.MonkeyPatch.context() as patch:
        set_sizes(patch, size)
        patch.setattr(threads, "FLOPS_OF_A_THREAD", 1)
        for name in FAST:
            implementation = REGISTRY.get(name)
            for pass_ in Pass:
                if implementation.unsupported(layer, pass_) is None:
                    found = check(Case(implementation, layer, pass_, count, seed=1))
                    told = f"{name} {pass_} {layer.geometry()}: {found.diagnosis}"
                    assert found.verdict == "agrees", told


@pytest.mark.parametrize("many_channels", [1, 32])
@pytest.mark.parametrize("sparse", [0, math.inf])
@pytest.mark.parametrize("layer", read_suite("configs/geometry.yaml").layers, ids=lambda x: x.name)
def test_both_ways_to_an_input_gradient_are_right(monkeypatch, many_channels, sparse, layer):
    """One way gathers columns of the output gradient, the other adds up columns of the input."""
    monkeypatch.setattr(col2im, "SPARSE", sparse)
    monkeypatch.setattr(col2im, "MANY_CHANNELS", many_channels)
    if layer.kernel_size != (1, 1):
        assert col2im.sums_columns(layer) is (sparse == 0)
    assert check(Case(im2col.Im2col(), layer, Pass.INPUT_GRADIENT, 2, seed=1)).verdict == "agrees"


# Phases of an input gradient


@settings(deadline=None)
@given(layer=layers())
def test_phases_write_every_element_once(layer):
    written = np.zeros(layer.input_size, int)
    taps = np.zeros(layer.kernel_size, int)
    for phase in phases(layer):
        written[phase.target] += 1
        if phase.correlation is not None:
            taps[phase.taps] += 1
            assert written[phase.target].shape == phase.correlation.output_size
    assert (written == 1).all()
    assert (taps <= math.prod(layer.strides)).all()


def test_the_phases_of_a_plain_layer_are_one_flipped_correlation():
    (phase,) = phases(Layer("x", (9, 8, 3), 5, (3, 2), padding=((1, 1), (0, 1)), batch_size=2))
    correlation = phase.correlation
    assert correlation.kernel_size == (3, 2)
    assert correlation.origin == (-1, -1)  # 3 - 1 - 1 and 2 - 1 - 0 rows and columns of zeros
    assert (correlation.channels, correlation.filters) == (5, 3)
    kernel = np.arange(6).reshape(3, 2, 1, 1)
    assert phase.kernel(kernel, 1).ravel().tolist() == [5, 4, 3, 2, 1, 0]


# Blocks


@given(st.integers(1, 9), st.integers(1, 30), st.integers(1, 400), st.integers(1, 4))
def test_blocks_cover_the_output_once(batch, height, budget, parts):
    correlation = Correlation.of(Layer("x", (height, 4, 1), 1, (1, 1), batch_size=batch))
    size = block_size(correlation, 10, budget, parts)
    rows = np.zeros((batch, height), int)
    blocks = list(size.blocks(correlation))
    for block in blocks:
        rows[block.first : block.last, block.row : block.end] += 1
        taken = (block.last - block.first) * (block.end - block.row)
        assert taken * 10 <= max(budget, 10)
    assert (rows == 1).all()
    assert len(size.blocks(correlation)) == len(blocks)
    assert len(blocks) >= min(parts, batch * height) / 2  # whole images may leave one thread less


def test_a_length_is_split_into_even_parts_of_which_none_is_empty():
    assert even(7, 3) == [slice(0, 2), slice(2, 4), slice(4, 7)]
    assert even(2, 5) == [slice(0, 1), slice(1, 2)]


def test_scratch_memory_is_the_same_for_the_same_name():
    scratch = Scratch("float32")
    large = scratch.array("a", 4, 5)
    small = scratch.array("a", 3)
    assert np.shares_memory(large, small)
    assert not np.shares_memory(large, scratch.array("b", 3))
    assert [b.size for b in scratch.buffers] == [20, 3]


# Memory


def every_layer():
    for suite in NETWORKS:
        assert suite in shipped_suites()
        for layer in read_suite(f"configs/{suite}.yaml").layers:
            yield pytest.param(layer, id=f"{suite}-{layer.name}")


@pytest.mark.parametrize("layer", list(every_layer()))
def test_im2col_holds_at_most_two_mebibytes_for_each_thread_whatever_the_batch(layer):
    """The batch changes nothing. More is taken only if a single row of an image is larger."""
    for pass_ in Pass:
        for batch, count in ((8, 2), (512, 2), (8, 1)):
            held = im2col.Im2col().workspace_bytes(replace(layer, batch_size=batch), pass_, count)
            assert held <= count * 2 * 1024**2, (pass_, batch)


LAYERS = [
    Layer("images", (12, 10, 3), 5, (3, 2), padding="same", batch_size=7),
    Layer("rows", (31, 12, 6), 4, (3, 3), strides=(2, 1), padding=((2, 0), (1, 3)), groups=2),
    Layer("3x3", (17, 19, 16), 24, (3, 3), padding="same", batch_size=3),
    Layer("1x1", (17, 19, 16), 24, (1, 1), batch_size=3, strides=(2, 2)),
    Layer("depthwise", (17, 19, 16), 32, (3, 3), padding="same", strides=(1, 2), groups=16),
    Layer("kernel rows", (9, 10, 40), 24, (3, 3), dilation_rate=(2, 1), batch_size=7),
    Layer("phases of rows", (15, 21, 40), 48, (4, 6), strides=(1, 2), padding="same", batch_size=3),
    Layer("large kernel", (14, 14, 96), 128, (3, 3), padding="same", batch_size=2),
]


NUMPY_BYTES = 8192 * 8
"""Most bytes of a buffer in which NumPy sums or adds in place: np.getbufsize() elements of 8 bytes.

Each thread may have one.
"""


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
@pytest.mark.parametrize("name", FAST)
def test_the_memory_predicted_is_the_memory_allocated(name, layer):
    """Workspaces and a call's other memory count, as tracemalloc sees them."""
    implementation = REGISTRY.get(name)
    for pass_ in Pass:
        if implementation.unsupported(layer, pass_) is not None:
            continue
        predicted = implementation.workspace_bytes(layer, pass_, 2) + layer.result_bytes(pass_)
        least, most = 0.95 * predicted, 1.05 * predicted + 2 * NUMPY_BYTES
        warm = implementation.prepare(layer, pass_, 2)
        warm.load(operands.floats(layer, pass_, 0))
        warm.run()
        tracemalloc.start()
        try:
            prepared = implementation.prepare(layer, pass_, 2)
            held = tracemalloc.get_traced_memory()[0]
            prepared.load(operands.floats(layer, pass_, 0))
            between = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            prepared.run()
            peak = held + tracemalloc.get_traced_memory()[1] - between
        finally:
            tracemalloc.stop()
        assert least <= peak <= most, (pass_, predicted)


# Threads


def test_work_is_done_by_the_threads_asked_for_and_blas_has_one_in_each():
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        seen = {}
        barrier = threading.Barrier(3)

        def of_blas():  # NumPy's alone: other tests may have loaded other libraries
            return {pool["num_threads"] for pool in threads.blas().info()}

        def work(index):
            barrier.wait(10)
            seen[index] = threading.get_ident(), of_blas()

        threads.in_threads(work, 3)
        assert sorted(seen) == [0, 1, 2]
        assert len({ident for ident, _ in seen.values()}) == 3
        assert all(limits == {1} for _, limits in seen.values())
        assert of_blas() == {2}


@pytest.mark.parametrize("fails", [0, 1])
def test_what_a_thread_raises_is_raised_once_all_have_ended(fails):
    ended = []

    def work(index):
        if index == fails:
            raise ValueError(f"in {index}")
        ended.append(index)

    with pytest.raises(ValueError, match=f"in {fails}"):
        threads.in_threads(work, 2)
    assert ended == [1 - fails]
    threads.in_threads(ended.append, 2)  # the next call is not disturbed
    assert sorted(ended) == sorted([1 - fails, 0, 1])


@posix
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_starts_threads_of_its_own():
    threads.in_threads(lambda _: None, 2)
    child = os.fork()
    if child == 0:
        seen = []
        threads.in_threads(seen.append, 2)
        os._exit(0 if sorted(seen) == [0, 1] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="the CPUs of threads are known on Linux only, and two of them are needed",
)
@pytest.mark.parametrize("fails", [False, True])
def test_threads_of_a_call_may_not_share_the_cpu_of_the_caller(fails):
    """After the call the caller may use the same CPUs as before."""
    before, seen = os.sched_getaffinity(0), {}
    barrier = threading.Barrier(2)

    def work(index):
        barrier.wait(10)
        seen[index] = os.sched_getaffinity(0)
        if fails:
            raise ValueError

    for _ in range(3):  # the first call starts the threads
        with pytest.raises(ValueError) if fails else contextlib.nullcontext():
            threads.in_threads(work, 2)
        assert len(seen[0]) == 1
        assert seen[1] == before - seen[0]
        assert os.sched_getaffinity(0) == before


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="the CPUs of threads can be set on Linux only"
)
@pytest.mark.parametrize("given", ["one CPU", "no such call", "forbidden"])
def test_threads_work_where_their_cpus_cannot_be_set(given, monkeypatch):
    before, seen = os.sched_getaffinity(0), []
    threads._pool.cache_clear()  # so that the threads of the pool start here

    def forbidden(*_):
        raise PermissionError

    if given == "one CPU":
        os.sched_setaffinity(0, {min(before)})
    elif given == "no such call":
        monkeypatch.setattr(affinity, "_sched_getcpu", lambda: None)
    else:
        monkeypatch.setattr(os, "sched_setaffinity", forbidden)
    try:
        threads.in_threads(seen.append, 2)
    finally:
        monkeypatch.undo()
        os.sched_setaffinity(0, before)
    assert sorted(seen) == [0, 1]


def test_little_work_stays_in_one_thread(monkeypatch):
    monkeypatch.undo()
    assert threads.worthwhile(4, 1000) == 1
    assert threads.worthwhile(4, 2 * threads.FLOPS_OF_A_THREAD) == 2
    assert threads.worthwhile(4, 10**12) == 4


# Winograd's bound


@pytest.mark.parametrize("name", ["winograd", "winograd-2x2"])
@pytest.mark.parametrize("pass_", Pass)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_bound_of_winograd_holds_and_is_not_loose(name, pass_, dtype):
    layer = Layer("x", (14, 13, 24), 20, (3, 3), padding="same", batch_size=3, dtype=dtype)
    implementation = REGISTRY.get(name)
    drawn = operands.floats(layer, pass_, 4)
    double = replace(layer, dtype="float64")
    exact = REGISTRY.get("im2col").prepare(double, pass_, 1)
    exact.load(operands.Operands(*(a if a is None else a.astype(float) for a in fields(drawn))))
    right = np.array(exact.to_numpy(exact.run()))
    prepared = implementation.prepare(layer, pass_, 2)
    prepared.load(drawn)
    error = np.abs(prepared.to_numpy(prepared.run()) - right)
    bound = implementation.error_bound(layer, pass_, drawn)
    assert bound.shape == right.shape
    ratio = float((error / bound).max())
    assert 5e-5 < ratio < 0.2  # the bound holds, and it is not loose


def fields(drawn):
    return drawn.input, drawn.kernel, drawn.bias, drawn.output_gradient


@pytest.mark.parametrize("name", ["winograd", "winograd-2x2"])
@pytest.mark.parametrize("pass_", Pass)
def test_half_precision_inside_winograd_is_wrong(monkeypatch, name, pass_):
    layer = Layer("x", (14, 13, 24), 20, (3, 3), padding="same", batch_size=3)
    usual = winograd.Tiles.gather

    def rounded(self, *given):
        tiles = usual(self, *given)
        if tiles.dtype == np.float32:
            tiles[...] = tiles.astype(np.float16)
        return tiles

    monkeypatch.setattr(winograd.Tiles, "gather", rounded)
    assert check(Case(REGISTRY.get(name), layer, pass_, 1, seed=1)).verdict == "wrong"


# Results


@pytest.mark.parametrize("name", FAST)
def test_a_result_is_reused_only_when_nobody_has_it(name):
    layer = {"direct": LAYERS[3], "depthwise": LAYERS[4]}.get(name, LAYERS[2])
    drawn = [operands.floats(layer, Pass.FORWARD, seed) for seed in (0, 1)]
    prepared = REGISTRY.get(name).prepare(layer, Pass.FORWARD, 2)
    prepared.load(drawn[0])
    first = prepared.run()
    kept = first.copy()
    view = first[0, 0]
    address = first.ctypes.data
    assert not any(np.shares_memory(first, buffer) for buffer in prepared.buffers)
    del first
    prepared.load(drawn[1])
    second = prepared.run()
    np.testing.assert_array_equal(view, kept[0, 0])  # a view keeps the result, too
    assert second.ctypes.data != address
    address = second.ctypes.data
    del second
    assert any(buffer.ctypes.data == address for buffer in prepared.buffers)
    assert prepared.run().ctypes.data == address
