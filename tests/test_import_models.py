"""Test importing Keras and ONNX models: which convolutions they hold, and what is refused."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convbench import importers
from convbench.importers.contract import ImportSourceError, Reading
from convbench.problem.layer import Layer

MODELS = '''
import keras
from keras import layers as L

print("building")


def everything():
    """Nested, shared, padded, separable, and what is no 2-D convolution."""
    inner = keras.Sequential([keras.Input((None, None, 8)), L.Conv2D(4, 3, name="inner")])
    shared = L.Conv2D(8, (3, 5), strides=(2, 1), padding="same", name="shared")
    x = image = keras.Input((20, 24, 8))
    x = L.ZeroPadding2D(((1, 2), (0, 3)))(x)
    x = L.ZeroPadding2D(1)(x)
    x = L.Conv2D(8, 3, groups=2, use_bias=False, name="padded")(x)
    x = shared(shared(x))
    x = L.ZeroPadding2D(1)(x)
    x = L.Conv2D(8, 3, padding="same", name="padded_twice")(x)
    x = L.ReLU()(L.ZeroPadding2D(2)(x))  # not straight into a convolution
    x = L.DepthwiseConv2D((3, 2), 2, "same", depth_multiplier=2, name="depthwise")(x)
    x = L.SeparableConv2D(8, 3, dilation_rate=2, depth_multiplier=3, name="separable")(x)
    x = L.Conv2DTranspose(8, 2, strides=2, name="up")(x)
    return keras.Model(image, inner(x), name="everything")


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.convs = [L.Conv2D(4, 3, name=f"conv{i}") for i in range(2)]

    def call(self, x):
        for conv in self.convs:
            x = conv(x)
        return x


def open_input():
    return Subclassed()


class Block(L.Layer):
    def __init__(self):
        super().__init__()
        self.one, self.two = L.Conv2D(4, 3, name="one"), L.DepthwiseConv2D(3, name="two")

    def call(self, x):
        return self.two(self.one(inputs=x))


def unbuilt():
    """What Keras builds by calling it once more."""
    again = L.Conv2D(3, 1, name="again")
    return keras.Sequential([L.Conv2D(3, 3, name="first"), again, again, Block()])


def over_time():
    x = keras.Input((2, 8, 8, 3))
    return keras.Model(x, L.TimeDistributed(L.Conv2D(4, 3, name="hidden"))(x))


def leaves():
    raise SystemExit(0)


def half():
    return keras.Sequential(
        [keras.Input((8, 8, 3), batch_size=5), L.Conv2D(2, 3, dtype="mixed_float16"),
         L.Conv2D(2, 3, dtype="float64")]
    )


def no_model():
    return 3


def broken():
    raise ValueError("this model is broken")
'''


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("convbench.own_code.description.STARTED_IN", tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("models.py").write_text(MODELS)
    return tmp_path


def read(name: str, **options: Any) -> Reading:
    return importers.read(importers.source(name, **options))[1]


def described(reading: Reading) -> dict[str, str]:
    return {found.layer.name: found.layer.geometry() for found in reading.found}


# Keras


def test_convolutions_are_found_in_every_way_that_keras_models_hold_them(
    capsys: pytest.CaptureFixture,
) -> None:
    reading = read("models.py:everything", batch_size=2)
    assert [found.layer.name for found in reading.found] == [
        *("padded", "shared", "shared", "padded_twice"),
        *("depthwise", "separable/depthwise", "separable/pointwise", "inner"),
    ]
    assert described(reading) == {
        "padded": "20x24x8 -> 23x27x8, kernel 3x3, batch 2, pads 2+3 1+4, groups 2",
        "shared": "12x27x8 -> 6x27x8, kernel 3x5, batch 2, strides 2x1, padding same, bias",
        "padded_twice": "6x27x8 -> 8x29x8, kernel 3x3, batch 2, pads 2+2 2+2, bias",
        "depthwise": "12x33x8 -> 6x17x16, kernel 3x2, batch 2, strides 2x2, padding same, "
        "depthwise, bias",
        "separable/depthwise": "6x17x16 -> 2x13x48, kernel 3x3, batch 2, dilation 2x2, depthwise",
        "separable/pointwise": "2x13x48 -> 2x13x8, kernel 1x1, batch 2, bias",
        "inner": "4x26x8 -> 2x24x4, kernel 3x3, batch 2, bias",
    }
    (left_out,) = reading.left_out
    assert str(left_out).startswith("up (Conv2DTranspose): found a transposed convolution")
    assert reading.tools[0].startswith("keras 3.")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "building" in captured.err


def test_a_saved_model_gives_the_same_layers_as_the_function_that_made_it() -> None:
    import keras

    made = read("models.py:everything", batch_size=2)
    sys.modules["convbench_user_models"].everything().save("everything.keras")
    saved = read("everything.keras", batch_size=2)
    assert [f.layer for f in saved.found] == [f.layer for f in made.found]
    assert keras.layers.Layer.__call__.__name__ == "__call__"  # our hook is gone again


def test_an_input_shape_that_a_model_leaves_open_must_be_given() -> None:
    with pytest.raises(ImportSourceError, match="open_input does not tell the shape") as error:
        read("models:open_input")
    assert error.value.hint == "give it: --input-shape 224,224,3"
    reading = read("models:open_input", input_shape=(9, 8, 3))
    assert described(reading) == {
        "conv0": "9x8x3 -> 7x6x4, kernel 3x3, batch 32, bias",
        "conv1": "7x6x4 -> 5x4x4, kernel 3x3, batch 32, bias",
    }


def test_a_model_that_is_not_built_yet_counts_each_call_once() -> None:
    reading = read("models.py:unbuilt", input_shape=(9, 8, 3))
    assert [f.layer.name for f in reading.found] == ["first", "again", "again", "one", "two"]


def test_a_convolution_that_no_call_shows_is_left_out() -> None:
    reading = read("models.py:over_time", input_shape=None)
    assert not reading.found
    (left_out,) = reading.left_out
    assert "hidden (Conv2D): it is not called as a layer" in str(left_out)


def test_a_dtype_that_is_read_as_another_is_noted() -> None:
    reading = read("models.py:half")
    assert [(f.layer.dtype, f.layer.batch_size) for f in reading.found] == [
        ("float32", 5),
        ("float64", 5),
    ]
    assert reading.notes == ("layers that compute in float16 are read as float32",)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (
            "models.py:no_model",
            "models.py:no_model returns a value of type int, expected a Keras model",
        ),
        ("models.py:leaves", "models.py:leaves: SystemExit: 0"),
        ("models.py:absent", "models.py has no function absent"),
        ("models.py:broken", "models.py:broken: ValueError: this model is broken (models.py:"),
        ("absent.py:f", "absent.py:f: "),
        ("keras:ResNet5", "keras.applications has no 'ResNet5'"),
        ("broken.keras", "broken.keras: this is not a Keras model, which is a zip archive"),
        ("empty.keras", "empty.keras: "),
    ],
)
def test_what_is_no_keras_model_is_refused(source: str, told: str) -> None:
    Path("broken.keras").write_bytes(b"\x80\x04K\x03.")
    with zipfile.ZipFile("empty.keras", "w") as archive:
        archive.writestr("nothing", "")
    with pytest.raises(ImportSourceError) as error:
        read(source)
    assert error.value.message.startswith(told)


def test_a_model_of_keras_applications_is_read() -> None:
    reading = read("keras:MobileNet", input_shape=(96, 96, 3), batch_size=1)
    assert len(reading.found) == 28
    layers = {found.layer.name: found.layer for found in reading.found}
    assert layers["conv1"].geometry() == (
        "96x96x3 -> 48x48x32, kernel 3x3, batch 1, strides 2x2, padding same"
    )
    assert layers["conv_dw_2"].pads == ((0, 1), (0, 1))  # the pads of its ZeroPadding2D
    assert sum(layer.is_depthwise for layer in layers.values()) == 13


# ONNX


def onnx_model(*nodes: Any, shape: tuple[Any, ...] = (2, 4, 9, 7), **weights: Any) -> None:
    from onnx import TensorProto, helper, numpy_helper, save

    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.zeros(s, np.float32), name) for name, s in weights.items()],
    )
    save(helper.make_model(graph), "model.onnx")


def conv(*inputs: str, name: str = "c", out: str = "y", **attributes: Any) -> Any:
    from onnx import helper

    return helper.make_node("Conv", ["x", *inputs], [out], name=name, **attributes)


def test_every_attribute_of_an_onnx_convolution_is_read() -> None:
    attributes = {
        "pads": [1, 0, 2, 3],
        "strides": [2, 1],
        "dilations": [1, 2],
        "group": 2,
        "kernel_shape": [3, 2],
    }
    onnx_model(conv("w", "b", **attributes), w=(6, 2, 3, 2), b=(6,))
    (found,) = read("model.onnx").found
    assert found.layer == Layer(
        *("c", (9, 7, 4), 6, (3, 2), (2, 1), ((1, 2), (0, 3)), (1, 2), 2, True), batch_size=2
    )
    assert found.place == "model.onnx, node 0 (c)"


@pytest.mark.parametrize(
    ("rule", "padding"),
    [
        ("SAME_UPPER", ((0, 1), (1, 1))),
        ("SAME_LOWER", ((1, 0), (1, 1))),
        ("VALID", ((0, 0), (0, 0))),
    ],
)
def test_the_rules_by_which_onnx_pads_are_followed(rule: str, padding: Any) -> None:
    onnx_model(conv("w", auto_pad=rule, strides=[2, 2]), shape=(1, 4, 8, 7), w=(6, 4, 3, 3))
    (found,) = read("model.onnx").found
    assert found.layer.pads == padding


@pytest.mark.parametrize(
    ("attributes", "weights", "reason"),
    [
        ({"strides": [2]}, (6, 4, 3, 3), "strides: found [2], expected 2 numbers"),
        ({"pads": [1, 1]}, (6, 4, 3, 3), "pads: found [1, 1], expected 4 numbers"),
        ({"kernel_shape": [5, 5]}, (6, 4, 3, 3), "its kernel_shape is [5, 5], but its kernel"),
        ({}, (6, 3, 3, 3), "its kernel takes 3 channels, but its input has 4"),
    ],
)
def test_onnx_nodes_that_contradict_themselves_are_refused(
    attributes: dict[str, Any], weights: tuple[int, ...], reason: str
) -> None:
    onnx_model(conv("w", **attributes), w=weights)
    try:
        reading = read("model.onnx")
    except ImportSourceError as error:  # ONNX's own inference may refuse it first
        assert "not an ONNX model that can be read" in error.message  # noqa: PT017
        return
    assert not reading.found
    assert reading.left_out[0].reason.startswith(reason)


def test_onnx_weights_that_are_inputs_keep_their_sizes() -> None:
    from onnx import TensorProto, helper, save

    graph = helper.make_graph(
        [conv("w", auto_pad="VALID", pads=[1, 1, 1, 1])],
        "graph",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in (("x", (2, 3, 9, 7)), ("w", (8, 3, 3, 3)))
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    save(helper.make_model(graph), "model.onnx")
    (found,) = read("model.onnx", batch_size=16).found
    assert (found.layer.filters, found.layer.batch_size) == (8, 16)
    assert found.layer.padding == "valid"


def test_sizes_that_an_onnx_model_leaves_open_must_be_given() -> None:
    from onnx import helper

    relu = helper.make_node("Relu", ["h"], ["r"])
    second = helper.make_node("Conv", ["r", "v"], ["y"])
    nodes = (conv("w", out="h"), relu, second)
    onnx_model(*nodes, shape=("batch", 4, "h", "w"), w=(6, 4, 3, 3), v=(2, 6, 1, 1))
    with pytest.raises(ImportSourceError, match=r"model\.onnx: its input x leaves sizes open"):
        read("model.onnx")
    reading = read("model.onnx", input_shape=(9, 8, 4), batch_size=3)
    assert described(reading) == {
        "c": "9x8x4 -> 7x6x6, kernel 3x3, batch 3",
        "Conv_2": "7x6x6 -> 7x6x2, kernel 1x1, batch 3",
    }


def test_onnx_nodes_that_are_no_layer_are_left_out() -> None:
    from onnx import helper

    up = helper.make_node("ConvTranspose", ["x", "t"], ["y"], name="up")
    onnx_model(
        conv("w", name="line", out="a"),
        up,
        conv("n", name="cut", pads=[0, -1, 0, 0], out="b"),
        w=(6, 4, 3),
        t=(4, 2, 2, 2),
        n=(6, 4, 3, 3),
    )
    reading = read("model.onnx")
    assert not reading.found
    assert [entry.reason for entry in reading.left_out] == [
        "found a 1-D convolution, expected 2-D",
        "found a transposed convolution, expected Conv",
        "padding: pads must not be negative, found ((0, 0), (-1, 0))",
    ]


def test_files_that_are_no_onnx_models_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for data in (b"", b"\x80\x04K\x03.", b"no model", bytes(100)):
        Path("model.onnx").write_bytes(data)
        with pytest.raises(ImportSourceError, match=r"^model\.onnx: this is not an ONNX model"):
            read("model.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportSourceError, match="needs the package onnx") as error:
        read("model.onnx")
    assert error.value.hint == "pip install 'convbench[onnx]'"
