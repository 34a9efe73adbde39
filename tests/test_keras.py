"""Test the three Keras ways against an independent computation, on real TensorFlow.

The oracle multiplies in float64, one kernel position at a time. Operands are integers whose sums do
not round, so that results must be equal.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest

from convbench.errors import ImplementationError
from convbench.implementations.keras import layer as keras_layer
from convbench.implementations.keras.passes import COMPILATION, TRACING, PreparedKeras
from convbench.implementations.registry import REGISTRY
from convbench.problem.layer import Layer, Pass
from convbench.problem.operands import Array, Operands, exact_integers
from convbench.runtimes import tensorflow as runtime

WAYS = ("keras", "keras-graph", "keras-xla")
GRADIENTS = (Pass.INPUT_GRADIENT, Pass.KERNEL_GRADIENT)


def layer(name: str, **fields: Any) -> Layer:
    defaults: dict[str, Any] = {
        "input_shape": (8, 9, 4),
        "filters": 6,
        "kernel_size": (3, 3),
        "batch_size": 2,
    }
    return Layer(name=name, **(defaults | fields))


def depthwise(name: str, multiplier: int = 1, **fields: Any) -> Layer:
    return layer(name, groups=4, filters=4 * multiplier, **fields)


ASYMMETRIC = ((2, 0), (1, 3))
LAYERS = {
    one.name: one
    for one in (
        layer("plain"),
        layer("strides", strides=(2, 3)),
        layer("same", padding="same"),
        layer("same strides", padding="same", strides=(2, 2)),
        layer("pads", padding=ASYMMETRIC),
        layer("pads strides", padding=ASYMMETRIC, strides=(2, 2)),
        layer("pads of same", padding=((0, 1), (1, 1)), strides=(2, 2)),
        layer("dilation", dilation_rate=(2, 2)),
        layer("pads dilation", padding=ASYMMETRIC, dilation_rate=(2, 1)),
        layer("groups", groups=2),
        layer("pads groups", groups=2, padding=ASYMMETRIC, strides=(2, 2)),
        layer("groups dilation", groups=2, dilation_rate=(1, 2)),
        layer("float64 groups dilation", groups=2, dilation_rate=(1, 2), dtype="float64"),
        depthwise("depthwise"),
        depthwise("depthwise same strides", padding="same", strides=(2, 2)),
        depthwise("depthwise multiplier", 2),
        depthwise("depthwise unequal strides", strides=(1, 2)),
        depthwise("depthwise pads", 2, padding=ASYMMETRIC),
        depthwise("depthwise dilation", 2, dilation_rate=(2, 1)),
        depthwise("depthwise strides dilation", strides=(2, 1), dilation_rate=(2, 2)),
        depthwise("float64 depthwise", dtype="float64"),
        depthwise("float64 depthwise unequal strides", strides=(1, 2), dtype="float64"),
        depthwise("float64 depthwise dilation", dilation_rate=(2, 2), dtype="float64"),
        layer("bias", use_bias=True),
        layer("depthwise bias", groups=4, filters=8, use_bias=True),
        layer("float64", dtype="float64"),
        layer("float64 strides", strides=(2, 1), dtype="float64"),
        layer("float64 dilation", dilation_rate=(2, 2), dtype="float64"),
        layer("float64 groups", groups=2, dtype="float64"),
        layer("1x1", kernel_size=(1, 1), strides=(2, 2)),
        layer("rectangular", kernel_size=(1, 3), padding="same", input_shape=(5, 12, 4)),
    )
}


def expected(layer: Layer, pass_: Pass, operands: Operands) -> Array:
    """Compute the pass in float64, by a loop over groups and kernel positions."""
    batch, (out_h, out_w) = layer.batch_size, layer.output_size
    x, k, dy = (
        np.zeros(shape) if array is None else array.astype(np.float64)
        for array, shape in (
            (operands.input, (batch, *layer.input_shape)),
            (operands.kernel, layer.kernel_shape),
            (operands.output_gradient, (batch, *layer.output_shape)),
        )
    )
    x = np.pad(x, ((0, 0), *layer.pads, (0, 0)))
    y, dx, dk = np.zeros_like(dy), np.zeros_like(x), np.zeros_like(k)
    channels, filters = layer.channels // layer.groups, layer.filters // layer.groups
    (sh, sw), (dh, dw) = layer.strides, layer.dilation_rate
    for g, p, q in product(range(layer.groups), *map(range, layer.kernel_size)):
        ins, outs = np.s_[g * channels : (g + 1) * channels], np.s_[g * filters : (g + 1) * filters]
        rows = np.s_[p * dh : p * dh + (out_h - 1) * sh + 1 : sh]
        columns = np.s_[q * dw : q * dw + (out_w - 1) * sw + 1 : sw]
        met, tap = x[:, rows, columns, ins], k[p, q, :, outs]
        y[..., outs] += np.einsum("bhwc,cf->bhwf", met, tap, optimize=True)
        dx[:, rows, columns, ins] += np.einsum("bhwf,cf->bhwc", dy[..., outs], tap, optimize=True)
        dk[p, q, :, outs] = np.einsum("bhwc,bhwf->cf", met, dy[..., outs], optimize=True)
    if pass_ is Pass.FORWARD:
        return y if operands.bias is None else y + operands.bias
    (top, _), (left, _) = layer.pads
    height, width = layer.input_size
    return dx[:, top : top + height, left : left + width] if pass_ is Pass.INPUT_GRADIENT else dk


@pytest.fixture(scope="module")
def threads() -> int:
    """Number of threads: an earlier test's, if any, because TensorFlow keeps its first number."""
    return runtime._started or 1


@pytest.fixture(scope="module")
def prepared(threads: int) -> Callable[[str, str, Pass], PreparedKeras]:
    """Prepare each (way, layer, pass) only once, because tracing and compiling take long."""
    cache: dict[tuple[str, str, Pass], Any] = {}

    def prepare(way: str, name: str, pass_: Pass) -> PreparedKeras:
        if (way, name, pass_) not in cache:
            cache[way, name, pass_] = REGISTRY.get(way).prepare(LAYERS[name], pass_, threads)
        one: PreparedKeras = cache[way, name, pass_]
        return one

    return prepare


def _a_third_is_quick() -> list[Any]:
    """Return each way with each layer. Two thirds are slow, but each layer is quick in one way."""
    return [
        pytest.param(way, name, marks=() if (i + j) % 3 == 0 else pytest.mark.slow)
        for (i, way), (j, name) in product(enumerate(WAYS), enumerate(LAYERS))
    ]


@pytest.mark.parametrize("pass_", Pass)
@pytest.mark.parametrize(("way", "name"), _a_third_is_quick())
def test_results_equal_the_oracle_after_every_load(
    way: str, name: str, pass_: Pass, prepared: Any
) -> None:
    one = prepared(way, name, pass_)
    results = []
    for seed in (1, 2):
        operands = exact_integers(LAYERS[name], pass_, seed)
        one.load(operands)
        one.run()
        results.append(one.to_numpy(one.run()))
        assert results[-1].dtype == LAYERS[name].dtype
        np.testing.assert_array_equal(results[-1], expected(LAYERS[name], pass_, operands))
    assert (results[0] != results[1]).any()


@pytest.mark.parametrize("pass_", Pass)
@pytest.mark.parametrize("way", WAYS)
def test_results_are_exact_where_a_library_might_choose_winograd(
    way: str, pass_: Pass, threads: int
) -> None:
    wide = Layer("wide", (14, 14, 256), 256, (3, 3), padding="same", batch_size=2)
    implementation = REGISTRY.get(way)
    assert implementation.exact(wide, pass_)
    one, operands = implementation.prepare(wide, pass_, threads), exact_integers(wide, pass_, 3)
    one.load(operands)
    np.testing.assert_array_equal(one.to_numpy(one.run()), expected(wide, pass_, operands))


@pytest.mark.parametrize("pass_", Pass)
@pytest.mark.parametrize("way", WAYS)
def test_operands_are_copied(way: str, pass_: Pass, prepared: Any) -> None:
    one, operands = prepared(way, "plain", pass_), exact_integers(LAYERS["plain"], pass_, 1)
    one.load(operands)
    before = one.to_numpy(one.run()).copy()
    for array in (operands.input, operands.kernel, operands.output_gradient):
        if array is not None:
            array[...] = np.nan
    np.testing.assert_array_equal(one.to_numpy(one.run()), before)


# The operations that run


def compiled_convolutions(one: PreparedKeras) -> int:
    """Count convolutions in the compiled function, and the products that XLA makes of some."""
    hlo = one.function.experimental_get_compiler_ir(*one.arguments)(stage="optimized_hlo")  # type: ignore[attr-defined]
    return len(re.findall(r" (?:convolution|dot|custom-call)\(", hlo))


def graph_operations(prepare: Callable[[], object]) -> Counter[str]:
    """Count operations by type in what grappler leaves of the graphs that `prepare` traces."""
    from tensorflow.python.eager import context

    collector = context.context()
    collector.enable_graph_collection()
    try:
        prepare()
        metadata = collector.export_run_metadata()
    finally:
        collector.disable_graph_collection()
    graphs = [graphs.post_optimization_graph for graphs in metadata.function_graphs]
    return Counter(node.op for graph in graphs for node in graph.node)


GROUPED = [name for name, one in LAYERS.items() if keras_layer.is_grouped(one)]
DILATED = [
    name for name, one in LAYERS.items() if keras_layer.is_dilated(one) and name not in GROUPED
]


@pytest.mark.parametrize("pass_", GRADIENTS)
@pytest.mark.parametrize(
    ("way", "name"),
    [
        *product(("keras", "keras-graph"), ("groups", "float64 groups", "groups dilation")),
        *product(("keras-xla",), ("plain", "pads", "depthwise", *GROUPED, *DILATED)),
    ],
)
def test_a_compiled_gradient_is_one_convolution(
    way: str, name: str, pass_: Pass, prepared: Any
) -> None:
    one = prepared(way, name, pass_)
    one.load(exact_integers(LAYERS[name], pass_, 1))
    assert compiled_convolutions(one) == 1
    assert {TRACING, COMPILATION} <= {*one.ledger.outside}


@pytest.mark.parametrize("name", ["plain", "groups", "depthwise"])
def test_a_compiled_forward_pass_keeps_its_convolution(name: str, prepared: Any) -> None:
    one = prepared("keras-xla", name, Pass.FORWARD)
    one.load(exact_integers(LAYERS[name], Pass.FORWARD, 1))
    assert compiled_convolutions(one) == 1


@pytest.mark.parametrize("pass_", GRADIENTS)
@pytest.mark.parametrize("name", DILATED)
@pytest.mark.parametrize("way", ["keras", "keras-graph"])
def test_a_dilated_gradient_is_one_convolution(
    way: str, name: str, pass_: Pass, threads: int
) -> None:
    operations = graph_operations(lambda: REGISTRY.get(way).prepare(LAYERS[name], pass_, threads))
    convolutions = {operation: n for operation, n in operations.items() if "Conv" in operation}
    assert [*convolutions.values()] == [1]
    assert "Backprop" in next(iter(convolutions))
    assert operations["SpaceToBatchND"] == (1 if pass_ is Pass.INPUT_GRADIENT else 2)


# What an implementation says of itself


@pytest.mark.parametrize("way", WAYS)
def test_the_ledger_says_how_pads_are_made(way: str, prepared: Any) -> None:
    forward, to_input, to_kernel = (prepared(way, "pads", pass_).ledger for pass_ in Pass)
    assert forward.inside == ("ZeroPadding2D", "Conv2D, valid")
    assert to_input.inside == (
        "Conv2DBackpropInput of Conv2D, valid",
        "crop of the pads of ZeroPadding2D",
    )
    assert to_kernel.inside == ("Conv2DBackpropFilter of Conv2D, valid",)
    assert any(phrase.startswith("ZeroPadding2D") for phrase in to_kernel.outside)


def test_pads_that_equal_those_of_same_are_not_made_apart(prepared: Any) -> None:
    assert prepared("keras", "pads of same", Pass.FORWARD).ledger.inside == ("Conv2D, same",)


@pytest.mark.parametrize("way", WAYS)
def test_the_ledger_says_what_computes_depthwise_layers(way: str, prepared: Any) -> None:
    assert prepared(way, "depthwise", Pass.FORWARD).ledger.inside == ("DepthwiseConv2D, valid",)
    for refused in ("depthwise unequal strides", "float64 depthwise unequal strides"):
        fallback = prepared(way, refused, Pass.FORWARD).ledger
        assert any("Conv2D with groups=4" in phrase for phrase in fallback.inside)
    gradient = prepared(way, "depthwise", Pass.KERNEL_GRADIENT).ledger
    assert "DepthwiseConv2dNativeBackpropFilter" in gradient.inside[0]


@pytest.mark.parametrize("way", WAYS)
def test_the_ledger_says_what_is_compiled_for_groups(way: str, prepared: Any) -> None:
    assert "compiled gradient" in prepared(way, "groups", Pass.INPUT_GRADIENT).ledger.inside[0]
    forward = prepared(way, "groups", Pass.FORWARD).ledger.inside
    assert any("every eager call" in phrase for phrase in forward) == (way == "keras")


def test_the_ledger_has_tracing_and_compilation_outside_the_clock(prepared: Any) -> None:
    outside = {way: prepared(way, "plain", Pass.FORWARD).ledger.outside[:-1] for way in WAYS}
    assert outside == {
        "keras": (),
        "keras-graph": (TRACING,),
        "keras-xla": (TRACING, COMPILATION),
    }


@pytest.mark.parametrize("way", WAYS)
def test_only_strides_together_with_dilation_are_unsupported(way: str) -> None:
    both = layer("both", strides=(2, 2), dilation_rate=(2, 2))
    for pass_ in Pass:
        reason = REGISTRY.get(way).unsupported(both, pass_)
        assert reason is not None
        assert reason.lacks == ("strides", "dilation_rate")
        assert all(REGISTRY.get(way).unsupported(one, pass_) is None for one in LAYERS.values())


def test_the_workspace_counts_the_padded_copy() -> None:
    keras = REGISTRY.get("keras")
    assert keras.workspace_bytes(LAYERS["same"], Pass.FORWARD, 1) == 0
    padded = 2 * (8 + 2) * (9 + 4) * 4 * 4
    assert keras.workspace_bytes(LAYERS["pads"], Pass.FORWARD, 1) == padded
    dilated = LAYERS["pads dilation"]
    assert keras.workspace_bytes(dilated, Pass.FORWARD, 1) == 2 * padded + dilated.result_bytes(
        Pass.FORWARD
    )


# The process


def in_a_new_process(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"KERAS_BACKEND": "jax"},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_start_refuses_another_number_of_threads(threads: int) -> None:
    runtime.start(threads)
    runtime.start(threads)
    with pytest.raises(ImplementationError, match=f"with {threads} threads"):
        runtime.start(threads + 1)


def test_start_sets_the_threads_and_hides_gpus_in_a_new_process() -> None:
    printed = in_a_new_process(
        "from convbench.runtimes.tensorflow import start; start(2)\n"
        "import tensorflow as tf\n"
        "print(tf.config.threading.get_intra_op_parallelism_threads(),"
        " tf.config.threading.get_inter_op_parallelism_threads(),"
        " len(tf.config.get_visible_devices('GPU')))\n"
        "import sys, importlib.util as util\n"
        "print('sklearn' in sys.modules, 'scipy.linalg' in sys.modules,"
        " util.find_spec('sklearn') is None)"
    )
    threads, loaded = printed.splitlines()
    assert threads == "2 2 0"
    assert loaded == "False False False", "Keras needs no scikit-learn, own code may import it"


@pytest.mark.slow
def test_start_refuses_a_tensorflow_that_is_in_use_already() -> None:
    printed = in_a_new_process(
        "import os; os.environ['KERAS_BACKEND'] = 'tensorflow'\n"
        "import tensorflow as tf; tf.config.threading.set_intra_op_parallelism_threads(1)\n"
        "tf.constant(1.0) + 1\n"
        "from convbench.runtimes.tensorflow import start\n"
        "from convbench.errors import ImplementationError\n"
        "try: start(2)\n"
        "except ImplementationError as error: print(error.message)"
    )
    assert "already in use" in printed


def test_the_modules_import_nothing_of_tensorflow() -> None:
    printed = in_a_new_process(
        "from convbench.implementations.registry import REGISTRY\n"
        f"for way in {WAYS}: REGISTRY.get(way)\n"
        "import sys; print(sorted({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    assert printed == "[]\n"
