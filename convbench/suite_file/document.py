"""The model of a suite document: types and ranges, said once for the check and for the schema."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, Literal, Required

from pydantic import (
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    WithJsonSchema,
    with_config,
)
from typing_extensions import TypedDict  # pydantic asks for this one before Python 3.12

from convbench.implementations import REGISTRY
from convbench.layer import Dtype, Layer, Pass
from convbench.own_code import ACTIVATION_AXES, KERNEL_AXES
from convbench.suite import DEFAULT_IMPLEMENTATIONS, FASTEST_KERAS, EffortName

MAX_INTEGER = 2**31 - 1  # TensorFlow takes strides and dilations as 32-bit integers
FIGURES = ("at_least", "at_most_bytes", "per_cent_of_peak")  # a rule has exactly one
TOP = "at the top level of the file"

_PADDING = "^([Vv][Aa][Ll][Ii][Dd]|[Ss][Aa][Mm][Ee])$"  # JSON Schema has no (?i)
_STRICT = ConfigDict(strict=True, extra="forbid")
_RULE = ConfigDict(
    **_STRICT,
    json_schema_extra={
        "oneOf": [{"required": [figure]} for figure in FIGURES],
        "dependentRequired": {"at_least": ["versus"], "versus": ["at_least"]},
        "if": {"properties": {"of": {"const": "geometric_mean"}}, "required": ["of"]},
        "then": {"required": ["at_least"]},
    },
)

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
PassName = Annotated[Pass, Field(strict=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Variable = Annotated[str, Field(pattern="^[A-Za-z_][A-Za-z0-9_]*$")]
VariableValue = Annotated[str, Field(pattern=r"^[^\x00]*$")] | int | None


def _one_of(*names: str) -> WithJsonSchema:
    """In the schema: one of these names, or the user's own code."""
    own = {"pattern": r":|\.py$", "type": "string"}
    return WithJsonSchema({"anyOf": [{"enum": list(names)}, own]})


ImplementationName = Annotated[str, _one_of(*REGISTRY)]
VersusName = Annotated[str, _one_of(*REGISTRY, FASTEST_KERAS)]


def _layout(axes: str) -> Any:
    return Field(pattern=f"^[{axes}]{{2,4}}$")


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


@with_config(_RULE)
class RuleEntry(TypedDict, total=False):
    """What `convbench gate` holds the cells of an implementation to: one figure."""

    implementation: Required[
        Annotated[
            ImplementationName,
            _about("Whose cells: one of the suite's implementations.", title="Implementation"),
        ]
    ]
    versus: Annotated[
        VersusName,
        _about(
            "What at_least is a speedup over: another of the suite's implementations, or "
            f"{FASTEST_KERAS}.",
            title="Versus",
        ),
    ]
    pass_: Annotated[
        PassName,
        Field(alias="pass"),
        _about("The pass that the rule is for. Left out: every pass."),
    ]
    layer: Annotated[
        LayerName, _about("The layers that the rule is for: a pattern such as conv*.", default="*")
    ]
    of: Annotated[
        Literal["each", "geometric_mean"],
        _about("Whether at_least holds for each cell or for their geometric mean.", default="each"),
    ]
    at_least: Annotated[Positive, _about("The least speedup over versus.")]
    at_most_bytes: Annotated[
        int, Field(ge=1), _about("The most bytes of memory at the peak, operands excluded.")
    ]
    per_cent_of_peak: Annotated[
        Positive, _about("The least rate, in per cent of the machine's measured peak.")
    ]


@with_config(_STRICT)
class OwnEntry(TypedDict, total=False):
    """Your own code, and how it is called."""

    code: Required[
        Annotated[
            str,
            _about(
                "FILE.py, FILE.py:NAME (the file relative to this one) or package.module:NAME: "
                "a function f(x, kernel), or a class or module with forward, input_gradient and "
                "kernel_gradient."
            ),
        ]
    ]
    name: Annotated[LayerName, _about("What reports call it. Left out: its code.")]
    layout: Annotated[
        str, _layout(ACTIVATION_AXES), _about("Axes of the input.", default=ACTIVATION_AXES)
    ]
    output_layout: Annotated[
        str,
        _layout(ACTIVATION_AXES),
        _about("Axes of the output and its gradient. Left out: the layout, if it has four axes."),
    ]
    kernel_layout: Annotated[
        str,
        _layout(KERNEL_AXES),
        _about("Axes of the kernel: filters O, channels of a group I, H, W.", default=KERNEL_AXES),
    ]
    passes: Annotated[
        dict[PassName, str],
        Field(min_length=1),
        _about(
            "How each pass is called, as a Python expression of x, kernel, output_gradient, "
            "strides, padding and so on."
        ),
    ]


def _kind_of_entry(entry: object) -> str:
    return "own" if isinstance(entry, dict) else "name"


Entry = Annotated[
    Annotated[ImplementationName, Tag("name")] | Annotated[OwnEntry, Tag("own")],
    Discriminator(_kind_of_entry),
]


@with_config(_STRICT)
class ProvenanceEntry(TypedDict, total=False):
    """Where the layers come from; written by `convbench import`."""

    source: Required[Annotated[str, _about("What was imported.")]]
    format: Required[Annotated[str, _about("Its format.")]]
    read: Required[Annotated[int, Field(ge=0), _about("Convolutions that were found in it.")]]
    merged: Required[
        Annotated[int, Field(ge=0), _about("Of these, how many equal an earlier one.")]
    ]
    tools: Annotated[list[str], _about("The versions that read it.")]
    notes: Annotated[list[str], _about("What was changed, and what was not followed.")]
    left_out: Annotated[list[str], _about("Entries that are no layers, each with the reason.")]


Gate = Annotated[
    list[RuleEntry],
    Field(min_length=1),
    _about("The rules that `convbench gate` holds a run to.", uniqueItems=True),
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
        list[Entry],
        Field(min_length=1),
        _about(
            "Registered names, or your own code as FILE.py:NAME, the file relative to this one, "
            "or as a mapping that says how it is called.",
            default=list(DEFAULT_IMPLEMENTATIONS),
            uniqueItems=True,
        ),
    ]
    passes: Annotated[
        list[PassName],
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
    gate: Gate
    provenance: Annotated[
        ProvenanceEntry,
        _about("What `convbench import` read the layers from.", title="Provenance"),
    ]


@with_config(_STRICT)
class RulesDocument(TypedDict):
    """Rules in a file of their own, for runs of any suite."""

    gate: Gate


LAYER_KEYS = tuple(LayerKeys.__annotations__)
ENTRY_KEYS = ("name", *LAYER_KEYS)
OWN_KEYS = tuple(OwnEntry.__annotations__)
RULE_KEYS = tuple(key.rstrip("_") for key in RuleEntry.__annotations__)
PROVENANCE_KEYS = tuple(ProvenanceEntry.__annotations__)
SUITE_KEYS = tuple(SuiteDocument.__annotations__)
REQUIRED_KEYS = tuple(f.name for f in fields(Layer) if f.default is MISSING and f.name != "name")


@dataclass(frozen=True)
class Kind:
    """A kind of file: what it is called, its model, and the keys of each place in it."""

    name: str
    model: TypeAdapter[Any]
    homes: dict[str, tuple[str, ...]]


SUITE = Kind(
    "suite",
    TypeAdapter(SuiteDocument),
    {
        TOP: SUITE_KEYS,
        "in a layer or in defaults": ENTRY_KEYS,
        "in a rule of gate": RULE_KEYS,
        "in an entry of implementations": OWN_KEYS,
        "in provenance": PROVENANCE_KEYS,
    },
)
RULES = Kind(
    "rules file",
    TypeAdapter(RulesDocument),
    {TOP: tuple(RulesDocument.__annotations__), "in a rule of gate": RULE_KEYS},
)


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a suite document, for editors and for other programs."""
    schema = SUITE.model.json_schema()
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
