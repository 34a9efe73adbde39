"""The model of a suite document: types and ranges, said once for the check and for the schema."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Annotated, Any, Literal, Required

from pydantic import ConfigDict, Field, TypeAdapter, WithJsonSchema, with_config
from typing_extensions import TypedDict  # pydantic asks for this one before Python 3.12

from convbench.implementations import REGISTRY
from convbench.layer import Dtype, Layer, Pass
from convbench.suite import DEFAULT_IMPLEMENTATIONS, EffortName

MAX_INTEGER = 2**31 - 1  # TensorFlow takes strides and dilations as 32-bit integers

_PADDING = "^([Vv][Aa][Ll][Ii][Dd]|[Ss][Aa][Mm][Ee])$"  # JSON Schema has no (?i)
_STRICT = ConfigDict(strict=True, extra="forbid")

Size = Annotated[int, Field(ge=1, le=MAX_INTEGER)]
Pad = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
SizeOrPair = Size | Annotated[list[Size], Field(min_length=2, max_length=2)]
PadPair = Annotated[list[Pad], Field(min_length=2, max_length=2)]
PadPairs = Annotated[list[PadPair], Field(min_length=2, max_length=2)]
Shape = Annotated[list[Size], Field(min_length=2, max_length=3)]
PaddingName = Annotated[
    str,
    Field(pattern=_PADDING),
    WithJsonSchema(
        {"anyOf": [{"enum": ["valid", "same"]}, {"pattern": _PADDING, "type": "string"}]}
    ),
]
LayerName = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$")]
SuiteName = Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f\x7f]+$", max_length=100)]
ImplementationName = Annotated[
    str,
    WithJsonSchema({"anyOf": [{"enum": list(REGISTRY)}, {"pattern": ":", "type": "string"}]}),
]
Variable = Annotated[str, Field(pattern="^[A-Za-z_][A-Za-z0-9_]*$")]
VariableValue = Annotated[str, Field(pattern=r"^[^\x00]*$")] | int | None


def _about(description: str, **more: Any) -> Any:
    return Field(description=description, json_schema_extra=more)


@with_config(_STRICT)
class LayerKeys(TypedDict, total=False):
    """What layers have in common; a layer's own keys win."""

    input_shape: Annotated[
        Shape,
        _about("[height, width, channels] of the input; [height, width] has one channel."),
    ]
    filters: Annotated[Size, _about("Number of filters: the channels of the output.")]
    kernel_size: Annotated[
        SizeOrPair, _about("[height, width] of the kernel, or one integer for both.")
    ]
    strides: Annotated[
        SizeOrPair, _about("[down, across] steps of the kernel, or one integer for both.")
    ]
    padding: Annotated[
        PaddingName | Pad | PadPairs,
        _about(
            "valid (none), same (as Keras), the rows and columns of zeros on every side, "
            "or four pads [[top, bottom], [left, right]]."
        ),
    ]
    dilation_rate: Annotated[
        SizeOrPair, _about("Distance [down, across] of the kernel's taps, or one integer for both.")
    ]
    groups: Annotated[
        Size, _about("Groups of channels, each with its own filters; divides both numbers.")
    ]
    use_bias: Annotated[bool, _about("Whether the forward pass adds a bias.")]
    batch_size: Annotated[Size, _about("Number of images in a batch.")]
    dtype: Annotated[Dtype, _about("Type of every array.")]
    count: Annotated[Size, _about("How often the network has this layer: its weight in totals.")]


@with_config(_STRICT)
class LayerEntry(LayerKeys, total=False):
    """One 2-D convolution, in the names of Keras Conv2D."""

    name: Annotated[
        LayerName, _about("Unique in the suite. Left out: layer1, layer2, ... by position.")
    ]


@with_config(_STRICT)
class SuiteDocument(TypedDict, total=False):
    """Layers to measure, and with what."""

    name: Annotated[
        SuiteName, _about("Name of the suite and of its result files. Left out: the file's name.")
    ]
    description: Annotated[str, _about("What the suite is for.")]
    defaults: Annotated[
        LayerKeys, _about("Keys of every layer that does not give its own.", title="Defaults")
    ]
    layers: Required[
        Annotated[list[LayerEntry], Field(min_length=1), _about("The convolutions to measure.")]
    ]
    implementations: Annotated[
        list[ImplementationName],
        Field(min_length=1),
        _about(
            "Registered names, or your own code as FILE.py:NAME, the file relative to this one.",
            default=list(DEFAULT_IMPLEMENTATIONS),
            uniqueItems=True,
        ),
    ]
    passes: Annotated[
        list[Annotated[Pass, Field(strict=False)]],
        Field(min_length=1),
        _about("The computations to measure.", default=list(map(str, Pass)), uniqueItems=True),
    ]
    threads: Annotated[
        Literal["all"] | Size, _about("Threads that every implementation gets.", default="all")
    ]
    effort: Annotated[
        EffortName, _about("How much is measured, unless --effort says.", default="standard")
    ]
    environment: Annotated[
        dict[Variable, VariableValue],
        _about(
            "Environment variables to set for every measurement; null unsets one.",
            additionalProperties=False,
        ),
    ]


MODEL = TypeAdapter(SuiteDocument)
LAYER_KEYS = tuple(LayerKeys.__annotations__)
ENTRY_KEYS = ("name", *LAYER_KEYS)
SUITE_KEYS = tuple(SuiteDocument.__annotations__)
REQUIRED_KEYS = tuple(f.name for f in fields(Layer) if f.default is MISSING and f.name != "name")


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a suite document, for editors and for other programs."""
    schema = MODEL.json_schema()
    defaults = {f.name: f.default for f in fields(Layer) if f.default is not MISSING}
    for model in ("LayerKeys", "LayerEntry"):
        for key, default in defaults.items():
            # A layer without pads of its own has `valid`; pairs are written as one integer.
            value = default[0] if isinstance(default, tuple) else default
            schema["$defs"][model]["properties"][key]["default"] = value
    in_each_layer = [
        {
            "if": {"properties": {"defaults": {"required": [key]}}, "required": ["defaults"]},
            "else": {"properties": {"layers": {"items": {"required": [key]}}}},
        }
        for key in REQUIRED_KEYS
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "convbench suite",
        "allOf": in_each_layer,
    }
