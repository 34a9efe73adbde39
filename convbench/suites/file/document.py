"""Define types and ranges of a suite's document, once for both its check and its schema."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
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

from convbench.implementations.registry import BUILT_IN
from convbench.own_code.description import ACTIVATION_AXES, KERNEL_AXES
from convbench.problem.layer import Dtype, Layer, Pass
from convbench.suites.suite import (
    DEFAULT_IMPLEMENTATIONS,
    FASTEST_KERAS,
    EffortName,
    shipped_suites,
)

Keys = tuple[str | int, ...]  # ("layers", 2, "kernel_size"): how to reach a value from the top

MAX_INTEGER = 2**31 - 1
"""Largest size in a file. TensorFlow takes strides and dilations as 32-bit integers."""

FIGURES = ("at_least", "at_most_bytes", "per_cent_of_peak")
"""Keys for the limit of a rule, which has exactly one of them."""

DRAFT = "https://json-schema.org/draft/2020-12/schema"
"""Version of JSON Schema in which schemas are written."""

TOP = "at the top level of the file"
"""Name of the outermost place of a file in messages."""

_PADDING = "^([Vv][Aa][Ll][Ii][Dd]|[Ss][Aa][Mm][Ee])$"  # JSON Schema has no (?i)
STRICT = ConfigDict(strict=True, extra="forbid")
_RULE = ConfigDict(
    **STRICT,
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
    """Describe, in the schema, one of these names or the user's own code."""
    own = {"pattern": r":|\.py$", "type": "string"}
    return WithJsonSchema({"anyOf": [{"enum": list(names)}, own]})


ImplementationName = Annotated[str, _one_of(*BUILT_IN)]
VersusName = Annotated[str, _one_of(*BUILT_IN, FASTEST_KERAS)]


def _layout(axes: str) -> Any:
    return Field(pattern=f"^[{axes}]{{2,4}}$")


def about(description: str, **more: Any) -> object:
    return Field(description=description, json_schema_extra=more)


@with_config(STRICT)
class LayerKeys(TypedDict, total=False):
    """Keys that layers have in common. A layer's own keys win."""

    input_shape: Annotated[
        Shape,
        about("[height, width, channels] of the input; [height, width] has one channel."),
    ]
    filters: Annotated[Size, about("Number of filters: the channels of the output.")]
    kernel_size: Annotated[
        SizeOrPair, about("[height, width] of the kernel, or one integer for both.")
    ]
    strides: Annotated[
        SizeOrPair, about("[down, across] steps of the kernel, or one integer for both.")
    ]
    padding: Annotated[
        PaddingName | Pad | PadPairs,
        about(
            "valid (none), same (as in Keras), the number of rows and columns of zeros on every "
            "side, or four pads [[top, bottom], [left, right]]."
        ),
    ]
    dilation_rate: Annotated[
        SizeOrPair,
        about("Distance [down, across] between the kernel's taps, or one integer for both."),
    ]
    groups: Annotated[
        Size,
        about(
            "Number of groups of channels, each with its own filters. It divides channels and "
            "filters."
        ),
    ]
    use_bias: Annotated[bool, about("Whether the forward pass adds a bias.")]
    batch_size: Annotated[Size, about("Number of images in a batch.")]
    dtype: Annotated[Dtype, about("Type of every array.")]
    count: Annotated[Size, about("How often the network has this layer: its weight in totals.")]


@with_config(STRICT)
class LayerEntry(LayerKeys, total=False):
    """One 2-D convolution, with keys that are named as in Keras Conv2D."""

    name: Annotated[
        LayerName,
        about("Name that is unique in the suite. Left out: layer1, layer2, ... by position."),
    ]


@with_config(_RULE)
class RuleEntry(TypedDict, total=False):
    """One limit for the cells of an implementation, which `convbench gate` checks."""

    implementation: Required[
        Annotated[
            ImplementationName,
            about("The implementation to check: one of the suite's.", title="Implementation"),
        ]
    ]
    versus: Annotated[
        VersusName,
        about(
            "The implementation that at_least is a speedup over: another of the suite's, or "
            f"{FASTEST_KERAS}.",
            title="Versus",
        ),
    ]
    pass_: Annotated[
        PassName,
        Field(alias="pass"),
        about("The pass that the rule is for. Left out: every pass."),
    ]
    layer: Annotated[
        LayerName, about("The layers that the rule is for: a pattern such as conv*.", default="*")
    ]
    of: Annotated[
        Literal["each", "geometric_mean"],
        about("Whether at_least holds for each cell or for their geometric mean.", default="each"),
    ]
    at_least: Annotated[Positive, about("The smallest allowed speedup over versus.")]
    at_most_bytes: Annotated[
        int, Field(ge=1), about("The largest allowed peak of memory, in bytes, without operands.")
    ]
    per_cent_of_peak: Annotated[
        Positive, about("The smallest allowed rate, in per cent of the machine's measured peak.")
    ]


@with_config(STRICT)
class OwnEntry(TypedDict, total=False):
    """Your own code, and how it is called."""

    code: Required[
        Annotated[
            str,
            about(
                "FILE.py, FILE.py:NAME (the file is relative to this one) or package.module:NAME: "
                "a function f(x, kernel), or a class or module with any of forward, "
                "input_gradient and kernel_gradient."
            ),
        ]
    ]
    name: Annotated[LayerName, about("Name in reports. Left out: the code as it is spelled.")]
    layout: Annotated[
        str, _layout(ACTIVATION_AXES), about("Axes of the input.", default=ACTIVATION_AXES)
    ]
    output_layout: Annotated[
        str,
        _layout(ACTIVATION_AXES),
        about("Axes of the output and its gradient. Left out: the layout, if it has four axes."),
    ]
    kernel_layout: Annotated[
        str,
        _layout(KERNEL_AXES),
        about("Axes of the kernel: filters O, channels of a group I, H, W.", default=KERNEL_AXES),
    ]
    passes: Annotated[
        dict[PassName, str],
        Field(min_length=1),
        about(
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


@with_config(STRICT)
class ProvenanceEntry(TypedDict, total=False):
    """Where the layers come from, as written by `convbench import`."""

    source: Required[Annotated[str, about("What was imported.")]]
    format: Required[Annotated[str, about("Format of the source.")]]
    read: Required[Annotated[int, Field(ge=0), about("Number of convolutions in the source.")]]
    merged: Required[Annotated[int, Field(ge=0), about("How many of these equal an earlier one.")]]
    tools: Annotated[list[str], about("Versions of the tools that read the source.")]
    notes: Annotated[list[str], about("What was changed, and what was not followed.")]
    left_out: Annotated[list[str], about("Entries that are no layers, each with the reason.")]


Gate = Annotated[
    list[RuleEntry],
    Field(min_length=1),
    about("The rules that `convbench gate` holds a run to.", uniqueItems=True),
]


@with_config(STRICT)
class SuiteDocument(TypedDict, total=False):
    """Layers to measure, and the implementations to measure them with."""

    name: Annotated[
        SuiteName, about("Name of the suite and of its result files. Left out: the file's name.")
    ]
    description: Annotated[str, about("What the suite is for.")]
    defaults: Annotated[
        LayerKeys, about("Keys of every layer that does not give its own.", title="Defaults")
    ]
    layers: Required[
        Annotated[list[LayerEntry], Field(min_length=1), about("The convolutions to measure.")]
    ]
    implementations: Annotated[
        list[Entry],
        Field(min_length=1),
        about(
            "Registered names or your own code: FILE.py:NAME, where the file is relative to this "
            "one, or a mapping that says how the code is called.",
            default=list(DEFAULT_IMPLEMENTATIONS),
            uniqueItems=True,
        ),
    ]
    passes: Annotated[
        list[PassName],
        Field(min_length=1),
        about("The computations to measure.", default=list(map(str, Pass)), uniqueItems=True),
    ]
    threads: Annotated[
        Literal["all"] | Size, about("Threads that every implementation gets.", default="all")
    ]
    effort: Annotated[
        EffortName,
        about("How much is measured, unless --effort says otherwise.", default="standard"),
    ]
    environment: Annotated[
        dict[Variable, VariableValue],
        about(
            "Environment variables to set for every measurement; null unsets one.",
            additionalProperties=False,
        ),
    ]
    gate: Gate
    provenance: Annotated[
        ProvenanceEntry,
        about("What `convbench import` read the layers from.", title="Provenance"),
    ]


@with_config(STRICT)
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
class Words:
    """Words of messages about one kind of file, beside those that messages.py has for all kinds.

    `shorter` tells how to write a file with fewer aliases. `expected` maps a field, or the kind's
    name for the whole file, to what is expected there. `numbers` are the fields that take any
    number, `alone` the names that have no keys. `other_names` maps a key to what other tools call
    it: names in lower case, without underscores, separated by spaces.
    """

    shorter: str
    expected: dict[str, str] = field(default_factory=dict)
    numbers: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    other_names: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Kind:
    """A kind of file: its name and words in messages, its model, and the keys of each place in it.

    `homes` maps each place, as messages call it, to its keys. `places` maps the innermost key or
    tag of a place, as in the model, to its keys. `depths` tells for a top key how many keys lead to
    a value, if not 2: a problem inside a value is told at the value, at layers.0.strides and not at
    layers.0.strides.1. `tags` tells where the model puts the tag of a union. `choices` maps a field
    to the names that it can have. `shipped` returns files by name, `command` reads such a file, and
    `schema` returns the JSON Schema of such files.
    """

    name: str
    words: Words
    model: TypeAdapter[Any]
    homes: dict[str, tuple[str, ...]]
    places: dict[str, tuple[str, ...]]
    depths: dict[str, int]
    tags: dict[str, int] = field(default_factory=dict)
    choices: dict[str, tuple[str, ...]] = field(default_factory=dict)
    shipped: Callable[[], dict[str, Path]] = dict
    command: str = ""
    schema: Callable[[], dict[str, Any]] = dict

    def keys_of(self, location: Keys) -> Keys:
        """Return the keys that lead to the value at which a problem of the model is told."""
        top = str(location[0])
        if tag := self.tags.get(top):
            location = (*location[:tag], *location[tag + 1 :])
        return location[: self.depths.get(top, 2)]

    def keys_at(self, location: Keys) -> tuple[str, ...]:
        """Return the keys that are known in the innermost place of a location."""
        known = [self.places[str(key)] for key in location[:-1] if key in self.places]
        return known[-1] if known else self.homes[TOP]


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a suite, for editors and other programs."""
    schema = SUITE.model.json_schema()
    for model in ("LayerKeys", "LayerEntry"):
        add_defaults(schema["$defs"][model]["properties"], Layer)
    in_each_layer = [
        {
            "if": {"properties": {"defaults": {"required": [key]}}, "required": ["defaults"]},
            "else": {"properties": {"layers": {"items": {"required": [key]}}}},
        }
        for key in REQUIRED_KEYS
    ]
    return {"$schema": DRAFT, **schema, "title": "convbench suite", "allOf": in_each_layer}


def add_defaults(properties: dict[str, Any], described: type[Any]) -> None:
    """Add to a schema the defaults of the dataclass that it describes."""
    for f in fields(described):
        if f.name in properties and f.default not in (MISSING, None, ""):
            # Defaults that are pairs have equal numbers, and are written as one integer.
            value = f.default[0] if isinstance(f.default, tuple) else f.default
            properties[f.name]["default"] = value


SUITE = Kind(
    "suite",
    Words("write the layers out, and what they share under defaults"),
    TypeAdapter(SuiteDocument),
    {
        TOP: SUITE_KEYS,
        "in a layer or in defaults": ENTRY_KEYS,
        "in a rule of gate": RULE_KEYS,
        "in an entry of implementations": OWN_KEYS,
        "in provenance": PROVENANCE_KEYS,
    },
    places={
        "layers": ENTRY_KEYS,
        "defaults": LAYER_KEYS,
        "gate": RULE_KEYS,
        "implementations": OWN_KEYS,
        "provenance": PROVENANCE_KEYS,
    },
    depths={"layers": 3, "gate": 3, "threads": 1, "effort": 1, "implementations": 3},
    tags={"implementations": 2},
    shipped=shipped_suites,
    command="convbench run",
    schema=json_schema,
)
RULES = Kind(
    "rules file",
    Words("write the rules out"),
    TypeAdapter(RulesDocument),
    {TOP: tuple(RulesDocument.__annotations__), "in a rule of gate": RULE_KEYS},
    places={"gate": RULE_KEYS},
    depths={"gate": 3},
)
