"""Test the memory meter on made-up implementations of known size, with real meters."""

import ctypes
import json
import math
import mmap
import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from convbench.implementations.contract import Implementation, Ledger
from convbench.implementations.registry import REGISTRY
from convbench.machine import pages
from convbench.measure import blas_buffers, memory
from convbench.measure.blas_buffers import BlasBuffers
from convbench.measure.environment import Environment
from convbench.measure.memory import TIMELINE_POINTS, meter, self_test
from convbench.measure.messages import Meter, Start
from convbench.measure.meters import rss_timeline
from convbench.measure.process import Worker
from convbench.problem import operands
from convbench.problem.layer import Layer, Pass
from convbench.runtimes.numpy import NumPy, array_of
from convbench.runtimes.tensorflow import TensorFlow
from tests.cli import ROOT
from tests.systems import linux
from tests.users.workspaces import HELD_BYTES, TEMPORARY_BYTES

pytestmark = linux
"""Figures are exact, and equal whatever meters them, where the pages of BLAS's buffers are seen."""

MIB = 2**20
NOISE = 16 * 1024
LAYER = Layer("small", (8, 8, 2), 4, (3, 3), batch_size=3)
OPERANDS = operands.floats(LAYER, Pass.FORWARD, seed=1)
RSS_S = 0.03


def block(mib):
    return np.ones(mib * MIB, np.uint8)  # np.ones writes to it, so that its pages exist


class Made(Implementation):
    """An implementation that allocates as many MiB as it is told. It is its own Prepared."""

    runtime = NumPy()
    buffers = ()
    ledger = Ledger()

    def __init__(self, held=0, lazy=0, temporary=0, result=0, own=0, operand=0):
        self.name = f"made-{held}-{lazy}-{temporary}-{result}-{own}-{operand}"
        self.sizes = held, lazy, temporary, result, own, operand
        self.layers = []

    def unsupported(self, layer, pass_):
        return None

    def exact(self, layer, pass_):
        return True

    def workspace_bytes(self, layer, pass_, threads):
        return 1000 * threads

    def prepare(self, layer, pass_, threads):
        self.layers.append(layer)
        prepared = type(self)(*self.sizes)
        held, _, _, _, own, _ = self.sizes
        prepared.workspace, prepared.own, prepared.lazy = block(held), block(own), None
        return prepared

    def load(self, operands):
        self.operand = block(self.sizes[5])

    def run(self):
        _, lazy, temporary, result, own, _ = self.sizes
        if self.lazy is None:
            self.lazy = block(lazy)
        scratch = block(temporary)
        answer = self.own if own else block(result)
        del scratch
        return answer

    def to_numpy(self, result):
        return result


def measure(implementation):
    return meter(implementation, LAYER, Pass.FORWARD, 2, OPERANDS, RSS_S)


@pytest.fixture(autouse=True)
def numpy_only(monkeypatch):
    """Hide TensorFlow, which another test may have imported; the meter looks into sys.modules."""
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)


@pytest.fixture
def no_memray(monkeypatch):
    monkeypatch.setitem(sys.modules, "memray", None)
    self_test.cache_clear()
    yield
    self_test.cache_clear()


CASES = {
    "workspace": (Made(held=3, temporary=5, result=1), 3, 6),
    "lazy workspace": (Made(lazy=4, temporary=2, result=1), 4, 3),
    "own buffer": (Made(held=2, own=1, temporary=2), 3, 2),
    "operands": (Made(operand=7, held=1, result=2), 1, 2),
    "nothing": (Made(), 0, 0),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("method", ["memray", "tracemalloc"])
def test_held_memory_and_the_peak_of_a_call_are_measured(case, method, request):
    if method == "tracemalloc":
        request.getfixturevalue("no_memray")
    implementation, held, call_peak = CASES[case]
    found = measure(implementation)
    assert (found.method, found.exact) == (method, True)
    assert found.held_bytes == pytest.approx(held * MIB, abs=NOISE)
    assert found.call_peak_bytes == pytest.approx(call_peak * MIB, abs=NOISE)
    assert found.peak_bytes == found.held_bytes + found.call_peak_bytes


def test_predictions_come_from_the_implementation_and_the_layer():
    found = measure(Made())
    assert found.predicted_bytes == 2000 + LAYER.result_bytes(Pass.FORWARD)
    assert found.naive_im2col_bytes == LAYER.columns_bytes


def test_a_workspace_replaced_while_loading_or_running_is_held_once():
    class Replacing(Made):
        def load(self, operands):
            self.workspace = None  # a Keras variable lets go of its first value in this way

        def run(self):
            self.lazy = None
            self.lazy = block(4)

    implementation = Replacing(held=3)
    implementation.name = "replacing"
    found = measure(implementation)
    assert found.held_bytes == pytest.approx(4 * MIB, abs=NOISE)
    assert found.call_peak_bytes == pytest.approx(0, abs=NOISE)


def test_a_cache_by_shape_is_held_and_an_import_is_not():
    cache = {}

    class Caching(Made):
        def prepare(self, layer, pass_, threads):
            cache.setdefault("library", block(6))
            cache.setdefault(layer.batch_size, block(2))
            return super().prepare(layer, pass_, threads)

    implementation = Caching(result=1)
    implementation.name = "caching"
    assert measure(implementation).held_bytes == pytest.approx(2 * MIB, abs=NOISE)
    small, layer = implementation.layers
    assert layer == LAYER
    assert small.batch_size != layer.batch_size


def test_an_implementation_that_fails_in_the_rehearsal_is_measured_nevertheless():
    class OneShape(Made):
        def prepare(self, layer, pass_, threads):
            if layer != LAYER:
                raise ValueError("I know one layer only")
            return super().prepare(layer, pass_, threads)

    implementation = OneShape(held=3)
    implementation.name = "one-shape"
    assert measure(implementation).held_bytes == pytest.approx(3 * MIB, abs=NOISE)


def test_a_failing_call_is_not_swallowed():
    class Failing(Made):
        def run(self):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        measure(Failing())
    assert measure(Made(held=1)).exact  # memray's Tracker is closed


def test_memory_of_c_libraries_is_seen_though_tracemalloc_does_not_see_it():
    class Lapack(Made):
        def run(self):
            return np.linalg.inv(np.eye(512))  # NumPy hands LAPACK two copies of 2 MiB from malloc

    implementation = Lapack()
    implementation.name = "lapack"
    found = measure(implementation)
    assert 8 * MIB <= found.call_peak_bytes <= 16 * MIB  # includes what BLAS packs
    assert found.exact


OWN = {
    "takes_memory_at_import": (3, 0, 0, 0),
    "keeps_a_table": (8, 0, 0, 0),
    "leaks": (5, 0, 2, 0),
    "leaves_cycles": (3, 0, 0, 2),
    "malloc_in_c": (3, 6, 0, 0),
    "aligned_alloc_in_c": (3, 6, 0, 0),
    "posix_memalign_in_c": (3, 6, 0, 0),
}


def _own(name, layer=LAYER):
    code = REGISTRY.get(f"{ROOT}/tests/users/taking_memory.py:{name}")
    return meter(code, layer, Pass.FORWARD, 1, operands.floats(layer, Pass.FORWARD, 0), RSS_S)


@pytest.mark.parametrize("name", OWN)
def test_what_own_code_takes_is_counted_once_and_where_it_belongs(name):
    if name.endswith("_in_c") and not shutil.which("cc"):
        pytest.skip("there is no C compiler")
    found = _own(name)
    seen = (found.held_bytes, found.call_peak_bytes, found.grows_bytes, found.garbage_bytes)
    assert seen == pytest.approx([mib * MIB for mib in OWN[name]], abs=2 * NOISE)
    assert (found.method, found.exact) == ("memray", True)


def test_a_workspace_for_layers_before_does_not_count():
    larger = replace(LAYER, batch_size=4 * LAYER.batch_size)
    sizes = [_own("grows_with_layers", layer).held_bytes for layer in (larger, LAYER)]
    images = math.prod(LAYER.input_shape) * LAYER.batch_size
    wanted = [3 * MIB + 64 * images * times for times in (4, 1)]
    assert sizes == pytest.approx(wanted, abs=NOISE)


@linux
@pytest.mark.parametrize("name", ["calls_malloc", "keeps_what_malloc_gave"])
def test_memory_that_no_meter_sees_makes_the_figure_doubtful(name):
    found = _own(name)
    assert not found.exact
    assert re.fullmatch(
        r"memray \(resident memory grows by [78]\.\d MiB more than memray sees\)", found.method
    )


def test_garbage_of_preparing_is_not_held():
    class Untidy(Made):
        def prepare(self, layer, pass_, threads):
            cycle = [block(3)]
            cycle.append(cycle)
            return super().prepare(layer, pass_, threads)

    implementation = Untidy(held=1)
    implementation.name = "untidy"
    assert measure(implementation).held_bytes == pytest.approx(MIB, abs=NOISE)


def test_mappings_do_not_count():
    class Mapping(Made):
        def prepare(self, layer, pass_, threads):
            prepared = super().prepare(layer, pass_, threads)
            prepared.mapping = mmap.mmap(-1, 32 * MIB)
            return prepared

        def run(self):
            with mmap.mmap(-1, 8 * MIB):
                return block(1)

    implementation = Mapping(held=3)
    implementation.name = "mapping"
    found = measure(implementation)
    assert found.held_bytes == pytest.approx(3 * MIB, abs=NOISE)
    assert found.call_peak_bytes == pytest.approx(MIB, abs=NOISE)
    assert found.exact


def test_a_threaded_gemm_agrees_with_tracemalloc():
    class Gemm(Made):
        def run(self):
            return np.ones((512, 512), np.float32) @ np.ones((512, 1024), np.float32)

    implementation = Gemm()
    implementation.name = "gemm"
    found = measure(implementation)
    assert found.method == "memray"
    assert found.call_peak_bytes >= 5 * MIB


# What BLAS packs


@pytest.fixture
def openblas():
    try:
        return blas_buffers._library(blas_buffers._openblas_paths()[0])
    except (IndexError, blas_buffers.BuffersUnseenError) as error:
        pytest.skip(f"NumPy's BLAS is no OpenBLAS that shows its buffers: {error}")


def touch(openblas, *sizes):
    """Take one buffer of BLAS for each size, all at once, and write that many bytes into each."""
    taken = [openblas._allocate(0) for _ in sizes]
    for address, size in zip(taken, sizes, strict=True):
        ctypes.memset(address, 1, size)
    for address in taken:
        openblas._free(address)


def test_touched_pages_of_blas_buffers_are_counted_to_the_page(openblas):
    buffers = BlasBuffers(threads=2)
    touch(openblas, 7 * MIB)
    buffers.forget()
    assert buffers.touched_bytes() == 0
    touch(openblas, 5 * MIB, 1)
    touch(openblas, 3 * MIB)
    assert buffers.touched_bytes() == 5 * MIB + mmap.PAGESIZE
    buffers.forget()
    assert buffers.touched_bytes() == 0


def test_a_product_is_right_on_emptied_buffers_and_the_same_pages_count_every_time(openblas):
    """The product runs on two threads; OpenBLAS's helper must come back after each emptying."""
    a = np.random.default_rng(0).integers(-9, 9, (1024, 1024)).astype(np.float64)
    expected, touched = a @ a, set()
    buffers = BlasBuffers(threads=2)
    with threadpool_limits(2, user_api="blas"):
        for _ in range(3):
            buffers.forget()
            np.testing.assert_array_equal(a @ a, expected)
            touched.add(buffers.touched_bytes())
    (size,) = touched
    assert MIB <= size <= 64 * MIB


class Packing(Made):
    """An implementation that multiplies into memory of its own, so that only BLAS allocates."""

    def prepare(self, layer, pass_, threads):
        prepared = super().prepare(layer, pass_, threads)
        prepared.matrices = [np.ones((512, 512)) for _ in range(3)]
        return prepared

    def run(self):
        a, b, out = self.matrices
        return np.matmul(a, b, out=out)


def packing():
    implementation = Packing()
    implementation.name = "packing"
    return implementation


@pytest.mark.parametrize("method", ["memray", "tracemalloc"])
def test_what_blas_packs_is_in_the_peak_of_a_call(method, openblas, request):
    if method == "tracemalloc":
        request.getfixturevalue("no_memray")
    buffers = BlasBuffers(threads=2)
    prepared = packing().prepare(LAYER, Pass.FORWARD, 2)
    with threadpool_limits(1, user_api="blas"):
        buffers.forget()
        prepared.run()
        packed = buffers.touched_bytes()
        found = measure(packing())
    assert packed > 2 * NOISE
    assert found.call_peak_bytes == pytest.approx(packed, abs=NOISE)
    assert found.held_bytes == pytest.approx(3 * 512 * 512 * 8, abs=NOISE)
    assert (found.method, found.exact) == (method, True)


def test_a_blas_that_hides_its_buffers_makes_the_figure_doubtful(openblas, monkeypatch):
    monkeypatch.setattr(blas_buffers, "_library", blas_buffers._OpenBlas)
    monkeypatch.setattr(ctypes, "CDLL", lambda path: object())
    found = measure(Made(held=1))
    assert not found.exact
    assert found.method.startswith("memray (without BLAS's buffers: libscipy_openblas")


def test_a_system_that_hides_its_pages_makes_the_figure_doubtful(openblas, monkeypatch):
    monkeypatch.setattr(pages, "resident_bytes", lambda address, size: size)
    found = measure(Made(held=1))
    assert not found.exact
    assert "does not tell which pages are in memory" in found.method
    assert found.call_peak_bytes == pytest.approx(0, abs=NOISE)


# The figures of implementations


def test_a_result_counts_once_whoever_keeps_it():
    """The caller lets go of a result before the next call; an implementation may then reuse it."""
    fresh, reused = measure(Made(result=4, temporary=1)), measure(Made(own=4, temporary=1))
    assert fresh.peak_bytes == pytest.approx(5 * MIB, abs=NOISE)
    assert reused.peak_bytes == pytest.approx(fresh.peak_bytes, abs=NOISE)


def test_a_result_that_im2col_reuses_counts_once():
    """`im2col` keeps its last result for the next call, where nobody else has it."""
    layer = Layer("1x1", (64, 64, 8), 64, (1, 1), batch_size=4)
    given = operands.floats(layer, Pass.FORWARD, seed=1)
    with threadpool_limits(1, user_api="blas"):
        found = meter(REGISTRY.get("im2col"), layer, Pass.FORWARD, 1, given, RSS_S)
    result = layer.result_bytes(Pass.FORWARD)
    assert result <= found.peak_bytes <= 1.5 * result
    assert found.held_bytes >= result


VARIABLES = TensorFlow().meter_variables()
WORKSPACES = ROOT / "tests" / "users" / "workspaces.py"
BOTH = Layer("both", (34, 34, 4), 256, (3, 3))
WITHIN = 0.05
"""Largest relative error. TensorFlow holds 0.1 MiB more, for the operation on these shapes."""


def in_a_worker(name):
    """Meter own code in a worker, as `convbench run` does."""
    code = f"{WORKSPACES}:{name}"
    runtime = REGISTRY.get(code).runtime
    environment = Environment(os.environ, {}).metering(runtime, 1, {})
    worker = Worker(Start(runtime, 1, 0, REGISTRY), environment)
    try:
        worker.wait_ready()
        return worker.ask(Meter(BOTH, Pass.FORWARD, code, RSS_S), 120)
    finally:
        worker.kill()


@pytest.mark.slow
def test_the_same_memory_gives_the_same_figures_in_numpy_and_in_tensorflow():
    numpy, tensorflow = in_a_worker("InNumpy"), in_a_worker("InTensorflow")
    call = TEMPORARY_BYTES + BOTH.result_bytes(Pass.FORWARD)
    for found in (numpy, tensorflow):
        assert (found.method, found.exact) == ("memray", True)
        assert found.held_bytes == pytest.approx(HELD_BYTES, rel=WITHIN)
        assert found.call_peak_bytes == pytest.approx(call, rel=WITHIN)
        assert found.peak_bytes == pytest.approx(HELD_BYTES + call, rel=WITHIN)


def test_records_are_removed_and_stderr_is_clean(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    measure(Made(held=1))
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_the_self_test_passes_for_numpy():
    assert self_test(NumPy()) is None


def test_the_self_test_says_which_meter_is_off(monkeypatch):
    monkeypatch.setattr(NumPy, "allocation", lambda self, nbytes: array_of(nbytes // 2))
    memory._test.cache_clear()
    self_test.cache_clear()
    try:
        fault = self_test(NumPy())
        found = measure(Made(held=1))
    finally:
        memory._test.cache_clear()
        self_test.cache_clear()
    assert "memray saw 524," in fault
    assert "tracemalloc saw 524," in fault
    assert not found.exact
    assert fault in found.method


def test_tensorflow_without_memray_is_sampled_and_not_exact(no_memray):
    implementation = Made(held=64, temporary=32)
    implementation.runtime = TensorFlow()
    found = measure(implementation)
    assert (found.method, found.exact) == ("rss", False)
    assert found.held_bytes >= 32 * MIB
    assert found.call_peak_bytes >= 0
    assert "memray" in self_test(TensorFlow())


def test_a_timeline_shows_the_calls_in_few_points():
    found = measure(Made(result=64))
    assert 1 <= len(found.rss_timeline) <= TIMELINE_POINTS
    seconds = [at for at, _ in found.rss_timeline]
    assert seconds == sorted(seconds)
    assert found.rss_peak_bytes == max(size for _, size in found.rss_timeline)
    assert found.rss_peak_bytes > 20 * MIB


def test_a_thinned_timeline_keeps_its_peak():
    timeline = tuple((i / 100, 7 if i == 31 else 1) for i in range(45))
    thinned = memory._thinned(timeline, 20)
    assert len(thinned) == 15
    assert (0.31, 7) in thinned


def test_a_timeline_makes_one_long_call_and_sees_its_middle():
    calls = []

    def run():
        calls.append(1)
        time.sleep(0.1)
        kept = block(64)
        time.sleep(0.2)
        return kept

    timeline = rss_timeline(run, 0.05)
    assert len(calls) == 1
    assert len(timeline) >= 15
    sizes = [size for _, size in timeline]
    assert max(sizes) - sizes[0] > 48 * MIB
    assert 0 <= timeline[0][0] < 0.1 < timeline[-1][0] < 0.6


# TensorFlow, in a process of its own

SCRIPT = textwrap.dedent(
    """
    import dataclasses, json, sys
    from convbench.runtimes.tensorflow import TensorFlow
    from convbench.problem import operands
    from convbench.implementations.contract import Implementation, Ledger
    from convbench.problem.layer import Layer, Pass
    from convbench.measure.memory import meter, self_test
    from convbench.measure.meters import memray_peaks
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)

    class Graph(Implementation):
        name, runtime, buffers, ledger = "graph", TensorFlow(), (), Ledger()
        unsupported = exact = lambda self, layer, pass_: None
        workspace_bytes = lambda self, layer, pass_, threads: 0

        def prepare(self, layer, pass_, threads):
            self = Graph()
            self.variable = tf.Variable(tf.zeros((2**18,)))  # 1 MiB, until load lets go of it
            def forward(x, k, g):
                return tf.nn.conv2d(x, k, 1, "VALID")
            def kernel_gradient(x, k, g):
                return tf.raw_ops.Conv2DBackpropFilter(
                    input=x, filter_sizes=layer.kernel_shape, out_backprop=g,
                    strides=[1, 1, 1, 1], padding="VALID")
            self.function = tf.function(forward if pass_ is Pass.FORWARD else kernel_gradient)
            return self

        def load(self, given):
            self.variable.assign(tf.ones((2**18,)))
            self.arrays = [None if a is None else tf.constant(a)
                           for a in (given.input, given.kernel, given.output_gradient)]

        def run(self):
            return self.function(*self.arrays)

    layer = Layer("conv", (26, 26, 8), 16, (3, 3), batch_size=32)
    found = {p: meter(Graph(), layer, p, 1, operands.floats(layer, p, 0), 0.05)
             for p in (Pass.FORWARD, Pass.KERNEL_GRADIENT)}
    matrix = tf.ones((1024, 1024))
    product = lambda: tf.linalg.matmul(matrix, matrix)
    product()
    json.dump({"test": self_test(TensorFlow()),
               "packed": memray_peaks([product])[0] - 4 * 2**20,
               **{p.value: dataclasses.asdict(m) for p, m in found.items()}}, sys.stdout)
    """
)
OUTPUT_BYTES = 32 * 24 * 24 * 16 * 4


def in_tensorflow(**environment):
    unset = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**unset, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_tensorflow_results_are_counted():
    found = in_tensorflow(**VARIABLES)
    assert found["test"] is None
    forward, gradient = found["forward"], found["kernel-gradient"]
    assert (forward["method"], forward["exact"]) == ("memray", True)
    assert OUTPUT_BYTES <= forward["call_peak_bytes"] < OUTPUT_BYTES + 128 * 1024
    assert forward["held_bytes"] < MIB  # no libraries, variables or operands count
    assert gradient["exact"]
    # Beside the result oneDNN takes next to nothing. Eigen, on CPUs without AVX-512, takes columns.
    assert 9 * 8 * 16 * 4 <= gradient["call_peak_bytes"] < 64 * MIB
    assert gradient["rss_peak_bytes"] > 100 * MIB
    # TensorFlow's packed blocks of a matrix product count, as OpenBLAS's do: 2.1 MiB measured.
    assert 256 * 1024 < found["packed"] < 64 * MIB


@pytest.mark.slow
def test_tensorflow_with_its_own_pool_is_not_exact():
    found = in_tensorflow()
    forward = found["forward"]
    assert not forward["exact"]
    assert forward["method"] == "memray (TF_ONEDNN_USE_SYSTEM_ALLOCATOR=1 is not set)"
    if forward["call_peak_bytes"] < OUTPUT_BYTES:  # the pool hid it, as the self-test must see
        assert "memray saw" in found["test"]
