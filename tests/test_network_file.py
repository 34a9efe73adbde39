"""Test network files: what they become, and what people are told about a wrong one."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convbench.errors import NetworkError, SuiteError
from convbench.suites.file import read_suite
from convbench.suites.suite import shipped_suites
from convbench.training.file import network_schema, read_network
from convbench.training.file.document import shipped_networks
from convbench.training.network import (
    NAMES,
    SGD,
    Adam,
    Conv2D,
    Dense,
    Flatten,
    MaxPooling2D,
    Network,
    ReLU,
)

CONFIGS = Path(__file__).parents[1] / "configs"
SCHEMA = network_schema()
SIZE = "an integer from 1 to 2147483647"
CONV = "filters, kernel_size, strides, padding, dilation_rate, groups, use_bias"
NAMED = "conv2d, relu, max_pooling2d, flatten, dense"
TAIL = "- flatten\n- dense: {units: 10}\n"
HEAD = "input_shape: [8, 8]\nlayers:\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(text: str) -> Network:
    Path("net.yaml").write_text(text)
    return read_network("net.yaml")


def problems(text: str) -> list[str]:
    with pytest.raises(SuiteError) as caught:
        read(text)
    return [line.removeprefix("net.yaml:") for line in caught.value.message.splitlines()]


def validate(document: object) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(document)


def test_what_is_left_out_has_the_dataclasses_defaults() -> None:
    expected = Network("net", (8, 8, 1), (Flatten(), Dense(10)), source="net.yaml")
    assert read(HEAD + TAIL) == expected
    assert read(HEAD + "- max_pooling2d\n" + TAIL).layers[0] == MaxPooling2D()


def test_every_key_of_a_network_is_read() -> None:
    found = read(
        """\
name: mine
description: all keys
input_shape: [9, 9, 4]
batch_size: 5
epochs: 2
dtype: float64
optimizer: {name: sgd, learning_rate: 1, momentum: 0.9, nesterov: true}
layers:
- conv2d: {filters: 4, kernel_size: [3, 2], strides: [1, 2], padding: [[1, 2], [0, 1]],
           dilation_rate: [2, 1], groups: 2, use_bias: false}
- relu
- max_pooling2d: {pool_size: 2, strides: 1, padding: SAME}
- flatten
- dense: {units: 3, use_bias: false}
"""
    )
    conv = Conv2D(4, (3, 2), (1, 2), ((1, 2), (0, 1)), (2, 1), 2, False)
    pool = MaxPooling2D((2, 2), (1, 1), "same")
    assert found == Network(
        "mine",
        (9, 9, 4),
        (conv, ReLU(), pool, Flatten(), Dense(3, False)),
        SGD(1.0, 0.9, True),
        *(5, 2, "float64", "all keys", "net.yaml"),
    )


LAYER = "expected a layer such as relu, or {conv2d: {filters: 8, kernel_size: 3}}"
MESSAGES = {
    "- conv: {filters: 1}\n": [
        f"3:3: layers.0.conv: found an unknown key, expected one of {NAMED}; did you mean conv2d?"
    ],
    "- maxpool\n": [
        f'3:3: layers.0: found the text "maxpool", {LAYER}; did you mean max_pooling2d?'
    ],
    "- max_pool\n": [
        f'3:3: layers.0: found the text "max_pool", {LAYER}; did you mean max_pooling2d?'
    ],
    "- dense\n": [
        f'3:3: layers.0: found the text "dense", {LAYER}; dense needs its keys, '
        "a mapping such as {units: 10}"
    ],
    "- 3\n": [f"3:3: layers.0: found the number 3, {LAYER}"],
    "- relu:\n": [
        "3:8: layers.0.relu: found nothing, expected no keys; write the name alone, without a colon"
    ],
    "- relu: {x: 1}\n": ["3:10: layers.0.relu.x: found an unknown key, expected none"],
    "- {}\n": [
        "3:3: layers.0: found an empty mapping, expected one layer: write each layer as an item of "
        "the list"
    ],
    "- {relu: {}, flatten: {}}\n": [
        "3:3: layers.0: found relu and flatten, expected one layer: write each layer as an item of "
        "the list"
    ],
    "- conv2d: {filters: 0, kernelsize: 3, bias: true}\n": [
        f"3:21: layers.0.conv2d.filters: found the number 0, expected {SIZE}",
        f"3:24: layers.0.conv2d.kernelsize: found an unknown key, expected one of {CONV}; "
        "did you mean kernel_size?",
        f"3:39: layers.0.conv2d.bias: found an unknown key, expected one of {CONV}; "
        "did you mean use_bias?",
    ],
    "- conv2d: {kernel_size: 3}\n": [
        f"3:11: layers.0.conv2d: found no key filters, expected {SIZE}"
    ],
    "- max_pooling2d: {padding: 1}\n": [
        "3:28: layers.0.max_pooling2d.padding: found the number 1, expected valid or same"
    ],
    "- conv2d: {filters: 1, kernel_size: 9}\n": [
        "3:37: layers.0.conv2d.kernel_size: a kernel of 9x9 with dilation_rate 1x1 does not fit "
        "the padded input of 8x8: the output would be empty"
    ],
    "- dense: {units: 3}\n": ["3:3: layers.0: found dense on an image, expected flatten before it"],
}


@pytest.mark.parametrize("layer", MESSAGES)
def test_a_wrong_layer_is_reported_with_its_place(layer: str) -> None:
    assert problems(HEAD + layer + TAIL) == MESSAGES[layer]


OPTIMIZERS = {
    "Adam": '1:12: optimizer: found the text "Adam", expected sgd, adam, or a mapping such as '
    "{name: sgd, momentum: 0.9}; did you mean adam?",
    "{name: rmsprop}": '1:19: optimizer.name: found the text "rmsprop", expected sgd or adam',
    "{learning_rate: 1}": "1:12: optimizer: found no key name, expected sgd or adam",
    "{name: sgd, lr: 1}": "1:24: optimizer.lr: found an unknown key, expected one of name, "
    "learning_rate, momentum, nesterov; did you mean learning_rate?",
    "{name: adam, momentum: 1}": "1:25: optimizer.momentum: found an unknown key, expected one of "
    "name, learning_rate, beta_1, beta_2, epsilon; momentum belongs in optimizer sgd",
    "{name: adam, beta_1: 1}": "1:33: optimizer.beta_1: found the number 1, expected a number of "
    "at least 0 and below 1",
    "{name: sgd, momentum: 1.5}": "1:34: optimizer.momentum: found the number 1.5, expected a "
    "number from 0 to 1",
    "{name: sgd, nesterov: 1}": "1:34: optimizer.nesterov: found the number 1, expected true or "
    "false",
    "{name: adam, epsilon: 0}": "1:34: optimizer.epsilon: found the number 0, expected a finite "
    "number above 0",
    "{name: adam, learning_rate: .inf}": "1:40: optimizer.learning_rate: found the number .inf, "
    "expected a finite number above 0",
    "{name: adam, learning_rate: 1e-3}": '1:40: optimizer.learning_rate: found the text "1e-3", '
    "expected a finite number above 0; write 0.001",
}


@pytest.mark.parametrize("written", OPTIMIZERS)
def test_a_wrong_optimizer_is_reported_with_its_place(written: str) -> None:
    text = f"optimizer: {written}\n{HEAD}{TAIL}"
    assert problems(text) == [OPTIMIZERS[written]]
    if ".inf" not in written:  # JSON has no infinity that a schema could refuse
        with pytest.raises(jsonschema.ValidationError):
            validate(yaml.safe_load(text))


def test_all_problems_are_reported_at_once() -> None:
    text = "epoch: 1\nbatch_size: 0\ninput_shape: [8]\nlayers: [relu, zzz]\n"
    assert [line.partition(": found")[0] for line in problems(text)] == [
        "1:1: epoch",
        "2:13: batch_size",
        "3:14: input_shape",
        "4:16: layers.1",
    ]
    assert problems("name: a\n") == [
        "1:1: found no key input_shape, expected two or three integers of at least 1: "
        "[height, width, channels]",
        "1:1: found no key layers, expected a list with at least one layer",
    ]
    assert problems(f"dtype: x\n{HEAD}- relu\n")[1].startswith("4:3: layers.0: the last layer is")


def test_a_network_is_refused_as_a_suite_and_a_suite_as_a_network() -> None:
    with pytest.raises(SuiteError, match=r"1:1: found a network, expected a suite$"):
        read_suite(CONFIGS / "mnist_cnn.yaml")
    for name, path in shipped_suites().items():
        with pytest.raises(SuiteError, match=r"1:1: found a suite, expected a network$") as caught:
            read_network(path)
        assert caught.value.hint == f"convbench run {path}", name


@pytest.mark.parametrize("name", shipped_networks())
def test_a_shipped_network_loads_and_validates(name: str) -> None:
    assert name not in shipped_suites()
    found = read_network(name)
    assert found.name == name
    assert found.description
    validate(yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()))


def test_every_shipped_file_is_a_suite_or_a_network() -> None:
    both = {**shipped_suites(), **shipped_networks()}
    assert both.keys() == {path.stem for path in CONFIGS.glob("*.yaml")}


def test_the_shipped_schema_is_the_current_one() -> None:
    shipped = json.loads((CONFIGS / "network.schema.json").read_text())
    assert shipped == SCHEMA, "run: convbench schema network -o configs/network.schema.json"
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("layer", [text for text in MESSAGES if "9}" not in text][:12])
def test_the_schema_refuses_what_read_network_refuses(layer: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validate(yaml.safe_load(HEAD + layer + TAIL))


# Any network

sizes = st.integers(1, 4)
pairs = st.tuples(sizes, sizes)
pads = st.tuples(st.integers(0, 2), st.integers(0, 2))
unit = st.floats(0, 1, exclude_max=True)
above_0 = st.floats(0, exclude_min=True, allow_infinity=False)
paddings = st.sampled_from(["valid", "same"])
convolutions = st.builds(
    Conv2D,
    sizes,
    pairs,
    pairs,
    st.one_of(paddings, st.tuples(pads, pads)),
    pairs,
    use_bias=st.booleans(),
)
poolings = st.builds(MaxPooling2D, pairs, st.none() | pairs, paddings)
optimizers = st.builds(SGD, above_0, unit, st.booleans()) | st.builds(
    Adam, above_0, unit, unit, above_0
)


def written(network: Network) -> dict[str, Any]:
    """Return the document of a network, without values that are the dataclasses' defaults."""

    def given(value: Any) -> dict[str, Any]:
        return {
            f.name: json.loads(json.dumps(getattr(value, f.name)))
            for f in fields(value)
            if f.default is MISSING or getattr(value, f.name) != f.default
        }

    document: dict[str, Any] = {
        "name": network.name,
        "input_shape": list(network.input_shape),
        "batch_size": network.batch_size,
        "epochs": network.epochs,
        "dtype": network.dtype,
    }
    document["optimizer"] = {
        "name": type(network.optimizer).__name__.lower(),
        **given(network.optimizer),
    }
    named = [(NAMES[type(kind)], given(kind)) for kind in network.layers]
    document["layers"] = [{name: keys} if keys else name for name, keys in named]
    return document


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    shape=st.tuples(st.integers(1, 20), st.integers(1, 20), sizes),
    images=st.lists(convolutions | poolings | st.just(ReLU()), max_size=4),
    dense=st.lists(st.builds(Dense, sizes, st.booleans()), min_size=1, max_size=2),
    optimizer=optimizers,
    rest=st.tuples(sizes, sizes, st.sampled_from(["float32", "float64"])),
)
def test_a_network_reads_back(
    shape: Any, images: list[Any], dense: list[Any], optimizer: Any, rest: Any
) -> None:
    try:
        layers = (*images, Flatten(), *dense)
        network = Network("n", shape, layers, optimizer, *rest, source="net.yaml")
    except NetworkError:
        return
    document = written(network)
    validate(document)
    assert read(yaml.safe_dump(document)) == network
