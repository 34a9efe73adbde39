"""Define a network's document: its keys, types and ranges, for the check and for the schema."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, Required

from pydantic import ConfigDict, Discriminator, Field, Tag, TypeAdapter, with_config
from typing_extensions import TypedDict

from convbench.problem.layer import Dtype
from convbench.suites.file.document import (
    DRAFT,
    STRICT,
    TOP,
    Kind,
    Pad,
    PaddingName,
    PadPairs,
    Positive,
    Shape,
    Size,
    SizeOrPair,
    SuiteName,
    Words,
    about,
    add_defaults,
)
from convbench.suites.file.messages import EXPECTED
from convbench.suites.suite import shipped
from convbench.training.network import NAMES, SGD, Adam, Network

OPTIMIZERS: dict[str, type[SGD | Adam]] = {"sgd": SGD, "adam": Adam}
"""Optimisers by their names in a network's file."""

LAYERS = {name: kind for kind, name in NAMES.items()}
"""Kinds of layers by their names in a network's file."""

Beta = Annotated[float, Field(ge=0, lt=1)]
UseBias = Annotated[bool, about("Whether a bias is added.")]


@with_config(STRICT)
class Conv2DKeys(TypedDict, total=False):
    """A convolution, in the names of Keras Conv2D."""

    filters: Required[Annotated[Size, about("Number of filters: the channels of the output.")]]
    kernel_size: Required[
        Annotated[SizeOrPair, about("[height, width] of the kernel, or one integer for both.")]
    ]
    strides: Annotated[SizeOrPair, about("[down, across] steps, or one integer for both.")]
    padding: Annotated[
        PaddingName | Pad | PadPairs,
        about("valid, same, zeros on every side, or [[top, bottom], [left, right]]."),
    ]
    dilation_rate: Annotated[
        SizeOrPair, about("[down, across] distance of the taps, or one integer for both.")
    ]
    groups: Annotated[Size, about("Number of groups of channels, each with its own filters.")]
    use_bias: UseBias


@with_config(STRICT)
class MaxPooling2DKeys(TypedDict, total=False):
    """The largest value of each window."""

    pool_size: Annotated[SizeOrPair, about("[height, width] of a window, or one integer.")]
    strides: Annotated[SizeOrPair, about("Steps of the window. Left out: pool_size.")]
    padding: Annotated[PaddingName, about("valid or same.")]


@with_config(STRICT)
class DenseKeys(TypedDict, total=False):
    """A matrix product with the features of a flatten or another dense layer."""

    units: Required[Annotated[Size, about("Number of outputs.")]]
    use_bias: UseBias


@with_config(STRICT)
class NoKeys(TypedDict):
    """A layer without settings."""


@with_config(ConfigDict(**STRICT, json_schema_extra={"minProperties": 1, "maxProperties": 1}))
class LayerMapping(TypedDict, total=False):
    """One layer with its keys."""

    conv2d: Annotated[Conv2DKeys, about("A convolution.", title="conv2d")]
    relu: Annotated[NoKeys, about("max(x, 0).", title="relu")]
    max_pooling2d: Annotated[MaxPooling2DKeys, about("Maxima of windows.", title="pooling")]
    flatten: Annotated[NoKeys, about("Each image as one row of features.", title="flatten")]
    dense: Annotated[DenseKeys, about("A matrix product.", title="dense")]


@with_config(STRICT)
class SGDKeys(TypedDict, total=False):
    """Gradient descent, with or without momentum."""

    name: Required[Annotated[Literal["sgd"], about("Name of the optimiser.")]]
    learning_rate: Annotated[Positive, about("Length of a step.")]
    momentum: Annotated[float, Field(ge=0, le=1), about("Share of the last step that is kept.")]
    nesterov: Annotated[bool, about("Whether to use Nesterov's momentum.")]


@with_config(STRICT)
class AdamKeys(TypedDict, total=False):
    """The Adam optimiser (Kingma and Ba, 2015)."""

    name: Required[Annotated[Literal["adam"], about("Name of the optimiser.")]]
    learning_rate: Annotated[Positive, about("Length of a step.")]
    beta_1: Annotated[Beta, about("Decay of the mean of the gradients.")]
    beta_2: Annotated[Beta, about("Decay of the mean of the squared gradients.")]
    epsilon: Annotated[Positive, about("Small number that is added to the divisor.")]


def _kind_of_layer(entry: object) -> str:
    return "mapping" if isinstance(entry, dict) else "bare"


def _kind_of_optimizer(entry: object) -> str:
    if not isinstance(entry, dict):
        return "bare"
    if entry.get("name") in ("sgd", "adam"):
        return str(entry["name"])
    return "sgd" if entry.keys() & {"momentum", "nesterov"} else "adam"


@with_config(STRICT)
class NetworkDocument(TypedDict, total=False):
    """A small network for `convbench train`."""

    name: Annotated[SuiteName, about("Name of the network. Left out: the file's name.")]
    description: Annotated[str, about("What the network is for.")]
    input_shape: Required[
        Annotated[Shape, about("[height, width, channels]; [height, width] has one channel.")]
    ]
    batch_size: Annotated[Size, about("Number of images in a batch.")]
    epochs: Annotated[Size, about("How often every image is seen.")]
    dtype: Annotated[Dtype, about("Type of every array.")]
    optimizer: Annotated[
        Annotated[Literal["sgd", "adam"], Tag("bare")]
        | Annotated[SGDKeys, Tag("sgd")]
        | Annotated[AdamKeys, Tag("adam")],
        Discriminator(_kind_of_optimizer),
        about("Name of the optimiser, or a mapping of name and settings.", default="adam"),
    ]
    layers: Required[
        Annotated[
            list[
                Annotated[
                    Annotated[Literal["relu", "flatten", "max_pooling2d"], Tag("bare")]
                    | Annotated[LayerMapping, Tag("mapping")],
                    Discriminator(_kind_of_layer),
                ]
            ],
            Field(min_length=1),
            about("The layers in their order; the last is dense."),
        ]
    ]


_LAYER_KEYS = {name: tuple(f.name for f in fields(kind)) for name, kind in LAYERS.items()}
_OPTIMIZER_KEYS = {
    name: ("name", *(f.name for f in fields(kind))) for name, kind in OPTIMIZERS.items()
}


def network_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a network file."""
    schema = NETWORK.model.json_schema()
    models = {"Conv2DKeys": "conv2d", "MaxPooling2DKeys": "max_pooling2d", "DenseKeys": "dense"}
    for model, name in models.items():
        add_defaults(schema["$defs"][model]["properties"], LAYERS[name])
    for model, kind in (("SGDKeys", SGD), ("AdamKeys", Adam)):
        add_defaults(schema["$defs"][model]["properties"], kind)
    properties = schema["properties"]
    optimizer = properties.pop("optimizer")
    add_defaults(properties, Network)
    properties["optimizer"] = optimizer
    return {"$schema": DRAFT, **schema, "title": "convbench network"}


def shipped_networks() -> dict[str, Path]:
    """Return the shipped networks by name, from the installed package or a checkout's configs/."""
    return shipped("network")


_ALONE = ("relu", "flatten")

WORDS = Words(
    "write the layers out",
    expected={
        "network": "a mapping of keys such as input_shape and layers",
        "network layers[]": "a layer such as relu, or {conv2d: {filters: 8, kernel_size: 3}}",
        "conv2d": "a mapping such as {filters: 8, kernel_size: 3}",
        "dense": "a mapping such as {units: 10}",
        "max_pooling2d": "a mapping such as {pool_size: 2}, or the name alone",
        **dict.fromkeys(_ALONE, "no keys; write the name alone, without a colon"),
        "max_pooling2d padding": "valid or same",
        "optimizer": "sgd, adam, or a mapping such as {name: sgd, momentum: 0.9}",
        "optimizer name": "sgd or adam",
        **dict.fromkeys(("learning_rate", "epsilon"), "a finite number above 0"),
        **dict.fromkeys(("beta_1", "beta_2"), "a number of at least 0 and below 1"),
        "momentum": "a number from 0 to 1",
        "nesterov": EXPECTED["use_bias"],
        **dict.fromkeys(("units", "epochs"), EXPECTED["filters"]),
        "pool_size": EXPECTED["kernel_size"],
    },
    numbers=("learning_rate", "epsilon", "beta_1", "beta_2", "momentum"),
    alone=_ALONE,
    other_names={
        "conv2d": "conv convolution convolution2d",
        "max_pooling2d": "maxpool maxpool2d pool pooling maxpooling",
        "dense": "linear fc fullyconnected",
        "units": "features outfeatures neurons filters",
        "pool_size": "kernelsize size window",
        "learning_rate": "lr rate stepsize alpha",
        "epsilon": "eps",
    },
)

NETWORK = Kind(
    "network",
    WORDS,
    TypeAdapter(NetworkDocument),
    {
        TOP: tuple(NetworkDocument.__annotations__),
        "in layers": tuple(LAYERS),
        **{f"in {name}": keys for name, keys in _LAYER_KEYS.items()},
        **{f"in optimizer {name}": keys for name, keys in _OPTIMIZER_KEYS.items()},
    },
    places={"layers": tuple(LAYERS), **_LAYER_KEYS, **_OPTIMIZER_KEYS},
    depths={"layers": 4, "input_shape": 1},
    tags={"layers": 2, "optimizer": 1},
    choices={
        "network layers[]": tuple(LAYERS),
        "optimizer": tuple(OPTIMIZERS),
        "optimizer name": tuple(OPTIMIZERS),
    },
    shipped=shipped_networks,
    command="convbench train",
    schema=network_schema,
)
