"""Test `convbench.conv2d`, its gradients and plans: on every layer, from threads, and refusals."""

import re
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import convbench
from convbench import api
from convbench.agreement.check import oracle
from convbench.agreement.check.bound import direct_factor
from convbench.errors import ConvbenchError, ImplementationError, OperandError
from convbench.implementations.contract import Ledger
from convbench.implementations.registry import BUILT_IN, REGISTRY, Registry
from convbench.problem import operands
from convbench.problem.layer import Layer, Pass
from convbench.runtimes.numpy import NumPy
from tests.cli import ROOT
from tests.layers import layers

LAYER = Layer("layer", (9, 8, 4), 6, (3, 2), padding="same", batch_size=3, use_bias=True)
GEOMETRY = ("strides", "padding", "dilation_rate", "groups")
X = np.ones((2, 6, 5, 4), np.float32)
KERNEL = np.ones((3, 3, 4, 8), np.float32)
ERROR = np.ones((2, 4, 3, 8), np.float32)


def settings_of(layer):
    return {name: getattr(layer, name) for name in GEOMETRY}


def shape_of(layer):
    return (layer.batch_size, *layer.input_shape)


def called(layer, pass_, drawn, **keywords):
    """Compute the pass by its function."""
    keywords = {**settings_of(layer), **keywords}
    if pass_ is Pass.FORWARD:
        return convbench.conv2d(drawn.input, drawn.kernel, drawn.bias, **keywords)
    if pass_ is Pass.INPUT_GRADIENT:
        return convbench.conv2d_input_gradient(
            drawn.output_gradient, drawn.kernel, shape_of(layer), **keywords
        )
    return convbench.conv2d_kernel_gradient(
        drawn.input, drawn.output_gradient, layer.kernel_size, **keywords
    )


def planned(layer, pass_, **keywords):
    """Make a plan of the pass."""
    return convbench.plan(
        shape_of(layer),
        layer.kernel_shape,
        pass_=pass_,
        use_bias=layer.use_bias and pass_ is Pass.FORWARD,
        dtype=layer.dtype,
        **{**settings_of(layer), **keywords},
    )


def arguments_of(drawn):
    """Return the arguments of a plan, in the order of the functions."""
    found = (drawn.input, drawn.output_gradient, drawn.kernel, drawn.bias)
    return [array for array in found if array is not None]


def assert_right(result, layer, pass_, drawn, plan):
    expected = oracle.expected(layer, pass_, drawn)
    bound = direct_factor(layer, pass_) * oracle.magnitude(layer, pass_, drawn)
    took = REGISTRY.get(plan.algorithm)
    if not took.exact(layer, pass_):
        stated = took.error_bound(layer, pass_, drawn)
        bound = bound if stated is None else np.maximum(bound, stated)
    assert result.dtype == layer.dtype
    assert result.shape == layer.result_shape(pass_)
    assert result.flags.c_contiguous
    assert result.flags.writeable
    assert (np.abs(result - expected) <= bound).all()


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(layer=layers(), pass_=st.sampled_from(list(Pass)))
def test_functions_and_plans_are_right_on_drawn_layers(layer, pass_):
    drawn = operands.floats(layer, pass_, 1)
    plan = planned(layer, pass_)
    for result in (called(layer, pass_, drawn), plan(*arguments_of(drawn))):
        assert_right(result, layer, pass_, drawn, plan)


@pytest.mark.parametrize("pass_", Pass)
@pytest.mark.parametrize("implementation", ["im2col", "loop"])
def test_the_implementation_can_be_named(pass_, implementation):
    if REGISTRY.get(implementation).runtime != NumPy():
        pytest.skip("the implementation has a runtime of its own")
    drawn = operands.exact_integers(LAYER, pass_, 1)
    plan = planned(LAYER, pass_, implementation=implementation)
    assert plan.algorithm == implementation
    expected = oracle.expected(LAYER, pass_, drawn)
    np.testing.assert_array_equal(plan(*arguments_of(drawn)), expected)
    result = called(LAYER, pass_, drawn, implementation=implementation)
    np.testing.assert_array_equal(result, expected)


# Operands and results


def otherwise(array, how):
    """Return the same values, laid out in memory as `how` says."""
    if how == "fortran":
        return np.asfortranarray(array)
    if how == "reversed":
        return array[::-1].copy()[::-1]
    if how == "every other":
        apart = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
        apart[..., ::2] = array
        return apart[..., ::2]
    if how == "unaligned":
        buffer = bytearray(array.nbytes + 1)
        moved = np.frombuffer(buffer, array.dtype, offset=1, count=array.size)
        moved = moved.reshape(array.shape)
        moved[...] = array
        return moved
    fixed = array.copy()
    fixed.flags.writeable = False
    return fixed


@pytest.mark.parametrize("how", ["fortran", "reversed", "every other", "unaligned", "read-only"])
@pytest.mark.parametrize("pass_", Pass)
def test_arrays_may_lie_in_memory_as_they_like(pass_, how):
    drawn = operands.exact_integers(LAYER, pass_, 1)
    arrays = {k: v for k, v in vars(drawn).items() if v is not None}
    moved = {name: otherwise(array, how) for name, array in arrays.items()}
    result = called(LAYER, pass_, operands.Operands(**moved), implementation="im2col")
    np.testing.assert_array_equal(result, oracle.expected(LAYER, pass_, drawn))
    for name, array in arrays.items():
        np.testing.assert_array_equal(moved[name], array)


THIN = [
    Layer("one channel and filter", (9, 7, 1), 1, (3, 3), batch_size=3, padding="same"),
    Layer("without pads", (9, 7, 1), 1, (3, 3)),
    Layer("one row", (1, 9, 4), 4, (1, 3), batch_size=2, groups=4),
    Layer("one column", (9, 1, 4), 6, (3, 1), strides=(2, 1)),
    Layer("one position", (1, 1, 5), 3, (1, 1), batch_size=2),
    Layer("one number", (1, 1, 1), 1, (1, 1), use_bias=True),
]


@pytest.mark.usefixtures("no_trials")
@pytest.mark.parametrize("layer", THIN, ids=lambda layer: layer.name)
@pytest.mark.parametrize("pass_", Pass)
@pytest.mark.parametrize(
    "name", [name for name in BUILT_IN if REGISTRY.get(name).runtime == NumPy()]
)
def test_strides_of_axes_of_one_element_do_not_matter(name, pass_, layer):
    if REGISTRY.get(name).unsupported(layer, pass_):
        pytest.skip("the implementation does not support this layer")

    def loose(array):
        steps = zip(array.shape, array.strides, strict=True)
        strides = [stride if length > 1 else 2**20 + 4 for length, stride in steps]
        return np.lib.stride_tricks.as_strided(array, strides=strides)

    drawn = operands.exact_integers(layer, pass_, 1)
    arrays = {k: loose(v) for k, v in vars(drawn).items() if v is not None}
    assert all(array.flags.c_contiguous for array in arrays.values())  # so NumPy calls them
    result = called(layer, pass_, operands.Operands(**arrays), implementation=name)
    np.testing.assert_allclose(result, oracle.expected(layer, pass_, drawn), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("pass_", Pass)
def test_a_result_is_the_callers_own(pass_):
    plan = planned(LAYER, pass_)
    one, other = (operands.exact_integers(LAYER, pass_, seed) for seed in (1, 2))
    first = plan(*arguments_of(one))
    kept = first.copy()
    second = plan(*arguments_of(other))
    np.testing.assert_array_equal(first, kept)
    assert not np.may_share_memory(first, second)
    second[...] = 0
    np.testing.assert_array_equal(plan(*arguments_of(one)), kept)


class Reusing:
    """An implementation that returns its own buffer, as the contract allows."""

    name = "loop"
    runtime = NumPy()

    def unsupported(self, layer, pass_):
        return None

    def prepare(self, layer, pass_, threads):
        self.ledger = Ledger(("nothing",))
        self.buffers = (np.zeros(layer.result_shape(pass_), layer.dtype),)
        return self

    def load(self, operands):
        self.buffers[0][...] += 1

    def run(self):
        return self.buffers[0]

    def to_numpy(self, result):
        return result


def test_a_result_that_an_implementation_reuses_is_copied(monkeypatch):
    known = dict.fromkeys(("auto", "loop"), f"{__name__}:Reusing")
    monkeypatch.setattr(api, "REGISTRY", Registry(known))
    plan = convbench.plan(X.shape, KERNEL.shape)
    first, second = plan(X, KERNEL), plan(X, KERNEL)
    assert first.max() == 1
    assert second.max() == 2


def test_operands_are_read_when_a_plan_is_called():
    x = X.copy()
    plan = convbench.plan(x.shape, KERNEL.shape)
    before = plan(x, KERNEL)
    x *= 2
    np.testing.assert_allclose(plan(x, KERNEL), 2 * before, rtol=1e-5)


def test_lists_are_taken_as_arrays_of_doubles():
    assert convbench.conv2d([[[[2.0]]]], [[[[3.0]]]]).tolist() == [[[[6.0]]]]


def test_settings_may_be_lists_and_numpy_integers():
    x, kernel = operands.floats(LAYER, Pass.FORWARD, 1).input, np.ones((3, 2, 4, 6), np.float32)
    one = convbench.conv2d(x, kernel, strides=[2, np.int64(1)], padding=[[1, 1], [0, 1]])
    other = convbench.conv2d(x, kernel, strides=(2, 1), padding=((1, 1), (0, 1)))
    np.testing.assert_array_equal(one, other)


# Threads


@pytest.mark.parametrize("implementation", ["auto", "im2col"])
@pytest.mark.parametrize("pass_", Pass)
def test_one_plan_is_right_from_several_threads_at_once(pass_, implementation):
    layer = replace(LAYER, input_shape=(24, 24, 4), batch_size=4)
    plan = planned(layer, pass_, implementation=implementation)
    draws = [operands.exact_integers(layer, pass_, seed) for seed in range(4)]
    alone = [plan(*arguments_of(drawn)) for drawn in draws]
    start, wrong = threading.Barrier(len(draws)), []

    def work(drawn, expected):
        start.wait()
        for _ in range(30):
            if not np.array_equal(plan(*arguments_of(drawn)), expected):
                wrong.append(drawn)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [
            threading.Thread(target=work, args=pair) for pair in zip(draws, alone, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []


def test_the_functions_are_right_from_several_threads_at_once():
    """The threads share the plans that are kept, and the first of them make a plan at once."""
    layer = replace(LAYER, input_shape=(11, 13, 4))
    drawn = operands.exact_integers(layer, Pass.FORWARD, 1)
    expected = oracle.expected(layer, Pass.FORWARD, drawn)
    results = []

    def work():
        for _ in range(10):
            results.append(called(layer, Pass.FORWARD, drawn, implementation="im2col"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 40
    for result in results:
        np.testing.assert_array_equal(result, expected)


def test_blas_has_its_threads_back_after_a_call():
    """Two plans are called at once. The second ends last, and must not restore the first's 1."""
    before = api._blas_threads()
    seen = []

    def slow():
        seen.append(api._blas_threads())
        time.sleep(0.1)
        return np.zeros((2, 4, 3, 8), np.float32)

    threads = []
    for _ in range(2):
        plan = convbench.plan(X.shape, KERNEL.shape, threads=1)
        plan._prepared.run = slow
        threads.append(threading.Thread(target=plan, args=(X, KERNEL)))
    for thread in threads:
        thread.start()
        time.sleep(0.03)
    for thread in threads:
        thread.join()
    assert seen == [1, 1]
    assert api._blas_threads() == before


# Plans


def test_a_plan_says_what_it_is():
    plan = convbench.plan(X.shape, KERNEL.shape, implementation="im2col")
    assert plan.algorithm == "im2col"
    assert repr(plan) == (
        "<convbench plan: forward 6x5x4 -> 4x3x8, kernel 3x3, batch 2, by im2col>"
    )
    taken = convbench.plan(X.shape, KERNEL.shape)
    assert taken.algorithm in BUILT_IN
    assert taken.algorithm != "auto"
    assert taken.ledger.outside[0].startswith(f"took {taken.algorithm} ")


def test_the_functions_plan_each_convolution_once():
    api._kept_plan.cache_clear()
    for _ in range(3):
        convbench.conv2d(X, KERNEL)
    convbench.conv2d(X, KERNEL, padding="same")
    assert (api._kept_plan.cache_info().hits, api._kept_plan.cache_info().misses) == (2, 2)


# Refusals


def refusal(function, *arguments, **keywords):
    with pytest.raises(OperandError) as caught:
        function(*arguments, **keywords)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, ConvbenchError)
    return caught.value.message


@pytest.mark.parametrize(
    ("says", "arguments", "keywords"),
    [
        ("x: its shape is (6, 5, 4), expected 4 axes (batch, h", (X[0], KERNEL), {}),
        ("kernel: its shape is (3, 4, 8), expected 4 axes (kernel", (X, KERNEL[0]), {}),
        ("bias: its shape is (1, 8), expected 1 axes", (X, KERNEL, np.ones((1, 8), "f")), {}),
        ("bias: its shape is (7,), expected (8,)", (X, KERNEL, np.ones(7, "f")), {}),
        ("x: its dtype is int64, expected float32 or float64", (X.astype(int), KERNEL), {}),
        ("x: its dtype is >f4, expected float32 or float64", (X.astype(">f4"), KERNEL), {}),
        ("kernel: its dtype is complex64, expected", (X, KERNEL.astype("F")), {}),
        ("x is float32 and kernel is float64, expected one dtype", (X, KERNEL.astype(float)), {}),
        ("x is float32 and bias is float64, expected one", (X, KERNEL, np.ones(8)), {}),
        ("kernel: it is for 4 channels in each of 2 groups, but the", (X, KERNEL), {"groups": 2}),
        ("groups: found 0, expected an integer of at least 1", (X, KERNEL), {"groups": 0}),
        ("strides: found 0, expected one integer or two, each at", (X, KERNEL), {"strides": 0}),
        ("strides: found (1, 2, 3), expected one", (X, KERNEL), {"strides": (1, 2, 3)}),
        ("dilation_rate: found 1.5, expected one", (X, KERNEL), {"dilation_rate": 1.5}),
        ("padding: found 'full', expected 'valid', 'same'", (X, KERNEL), {"padding": "full"}),
        ("padding: found 1, expected 'valid'", (X, KERNEL), {"padding": 1}),
        ("padding: found ((0, -1), (0, 0)),", (X, KERNEL), {"padding": ((0, -1), (0, 0))}),
        ("threads: found 0, expected None or an integer of at", (X, KERNEL), {"threads": 0}),
        ("kernel_size: a kernel of 3x3 with dilation_rate 4x4", (X, KERNEL), {"dilation_rate": 4}),
        ("the shape of x: found (0, 6, 5, 4), expected (batch,", (X[:0], KERNEL), {}),
        ("implementation: keras does not run on", (X, KERNEL), {"implementation": "keras"}),
    ],
)
def test_arguments_that_make_no_convolution_are_refused(says, arguments, keywords):
    assert refusal(convbench.conv2d, *arguments, **keywords).startswith(says)


def test_gradients_refuse_what_does_not_fit():
    gradient = convbench.conv2d_input_gradient
    assert refusal(gradient, ERROR, KERNEL, (2, 6, 6, 4)).startswith(
        "output_gradient: its shape is (2, 4, 3, 8), expected (2, 4, 4, 8)"
    )
    assert refusal(gradient, ERROR, KERNEL, (6, 5, 4)).startswith("the shape of x: found (6, 5, 4)")
    gradient = convbench.conv2d_kernel_gradient
    assert refusal(gradient, X, ERROR, (4, 3)).startswith("output_gradient: its shape is")
    assert refusal(gradient, X, ERROR, "33").startswith("kernel_size: found '33', expected")
    assert refusal(gradient, X, ERROR, 3, groups=3).startswith("groups: 3 must divide the 4")


def test_plans_refuse_what_does_not_fit():
    plan = convbench.plan(X.shape, KERNEL.shape)
    assert refusal(plan, X[:1], KERNEL).startswith("x: its shape is (1, 6, 5, 4), expected (2, 6")
    doubles = X.astype(float), KERNEL.astype(float)
    assert refusal(plan, *doubles) == "x: its dtype is float64, but the plan is for float32"
    assert refusal(plan, X, KERNEL, np.ones(8, "f")).startswith("bias: one was given, but the")
    biased = convbench.plan(X.shape, KERNEL.shape, use_bias=True)
    assert refusal(biased, X, KERNEL).startswith("bias: none was given, but the plan is for")
    assert refusal(convbench.plan, X.shape, KERNEL.shape, pass_="back").startswith("pass_: found")
    assert refusal(convbench.plan, X.shape, KERNEL.shape, dtype="int8").startswith("dtype: found")


def test_what_an_implementation_does_not_support_is_refused(monkeypatch):
    monkeypatch.setattr(Reusing, "unsupported", lambda *asked: "not today")
    monkeypatch.setattr(api, "REGISTRY", Registry({"loop": f"{__name__}:Reusing"}))
    says = refusal(convbench.plan, X.shape, KERNEL.shape, implementation="loop")
    assert says.startswith("loop cannot compute this (6x5x4 -> 4x3x8,")
    assert says.endswith("not today")


def test_an_unknown_implementation_is_refused():
    with pytest.raises(ImplementationError, match="there is no implementation 'imcol'"):
        convbench.conv2d(X, KERNEL, implementation="imcol")


# The package


def test_the_package_loads_numpy_only_when_it_must():
    script = (
        "import sys, convbench\n"
        "assert 'conv2d' in dir(convbench) and 'numpy' not in sys.modules\n"
        "convbench.conv2d\n"
        "assert 'numpy' in sys.modules and 'tensorflow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_an_unknown_attribute_of_the_package_is_an_error():
    with pytest.raises(AttributeError, match="module 'convbench' has no attribute 'conv3d'"):
        convbench.conv3d  # noqa: B018


# The pages


def python_blocks(page):
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.M | re.S)


@pytest.mark.parametrize("page", ["docs/using-the-convolutions.md"])
def test_the_examples_of_the_page_run(page):
    blocks = python_blocks(page)
    assert blocks
    names = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)


def test_the_page_has_every_public_name():
    text = (ROOT / "docs/using-the-convolutions.md").read_text()
    for name in convbench.__all__:
        assert name in ("__version__", "Plan") or f"`{name}" in text
