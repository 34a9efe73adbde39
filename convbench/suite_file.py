"""YAML -> Suite: the document's model, errors as file:line:column, and its JSON Schema.

The document model states types and ranges once, for the check and for the schema. What pydantic
finds wrong is put into our own words, beside the place in the file; checks that span keys (unique
names, a kernel that fits) follow, and all problems of a file are raised together.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Required

import yaml
from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    with_config,
)
from typing_extensions import TypedDict  # pydantic asks for this one before Python 3.12

from convbench.errors import LayerError, SuiteError
from convbench.implementations import REGISTRY, is_user_code
from convbench.layer import Dtype, Layer, Padding, Pass
from convbench.suite import DEFAULT_IMPLEMENTATIONS, Suite, shipped_suites

MAX_BYTES = 1_000_000  # thousands of layers; PyYAML reads this much in a few seconds
MAX_VALUES = 50_000  # every use of an alias counts, so that aliases of aliases cannot explode
MAX_DEPTH = 16  # the deepest value of a valid document, one pad, is at 6
MAX_INTEGER = 2**31 - 1  # TensorFlow takes strides and dilations as 32-bit integers

# The document


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


Size = Annotated[int, Field(ge=1, le=MAX_INTEGER)]
Pad = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
SizeOrPair = Size | Annotated[list[Size], Field(min_length=2, max_length=2)]
PadPair = Annotated[list[Pad], Field(min_length=2, max_length=2)]
PaddingName = Annotated[
    Literal["valid", "same"],
    BeforeValidator(_lower),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": ["valid", "same"]},
                {"pattern": "^([Vv][Aa][Ll][Ii][Dd]|[Ss][Aa][Mm][Ee])$", "type": "string"},
            ]
        }
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

_STRICT = ConfigDict(strict=True, extra="forbid")


@with_config(_STRICT)
class LayerKeys(TypedDict, total=False):
    """What layers have in common; a layer's own keys win."""

    input_shape: Annotated[
        list[Size],
        Field(
            min_length=2,
            max_length=3,
            description="[height, width, channels] of the input; [height, width] has one channel.",
        ),
    ]
    filters: Annotated[Size, Field(description="Number of filters: the channels of the output.")]
    kernel_size: Annotated[
        SizeOrPair, Field(description="[height, width] of the kernel, or one integer for both.")
    ]
    strides: Annotated[
        SizeOrPair,
        Field(description="[down, across] steps of the kernel, or one integer for both."),
    ]
    padding: Annotated[
        PaddingName | Pad | Annotated[list[PadPair], Field(min_length=2, max_length=2)],
        Field(
            description="valid (none), same (as Keras), the rows and columns of zeros on every "
            "side, or four pads [[top, bottom], [left, right]]."
        ),
    ]
    dilation_rate: Annotated[
        SizeOrPair,
        Field(description="Distance [down, across] of the kernel's taps, or one integer for both."),
    ]
    groups: Annotated[
        Size,
        Field(description="Groups of channels, each with its own filters; divides both numbers."),
    ]
    use_bias: Annotated[bool, Field(description="Whether the forward pass adds a bias.")]
    batch_size: Annotated[Size, Field(description="Number of images in a batch.")]
    dtype: Annotated[Dtype, Field(description="Type of every array.")]
    count: Annotated[
        Size,
        Field(description="How often the network has this layer: its weight in totals."),
    ]


@with_config(_STRICT)
class LayerEntry(LayerKeys, total=False):
    """One 2-D convolution, in the names of Keras Conv2D."""

    name: Annotated[
        LayerName,
        Field(description="Unique in the suite. Left out: layer1, layer2, ... by position."),
    ]


@with_config(_STRICT)
class SuiteDocument(TypedDict, total=False):
    """Layers to measure, and with what."""

    name: Annotated[
        SuiteName,
        Field(description="Name of the suite and of its result files. Left out: the file's name."),
    ]
    description: Annotated[str, Field(description="What the suite is for.")]
    defaults: Annotated[
        LayerKeys,
        Field(title="Defaults", description="Keys of every layer that does not give its own."),
    ]
    layers: Required[
        Annotated[list[LayerEntry], Field(min_length=1, description="The convolutions to measure.")]
    ]
    implementations: Annotated[
        list[ImplementationName],
        Field(
            min_length=1,
            description="Registered names, or your own code as FILE.py:NAME, the file relative to "
            "this one.",
            json_schema_extra={"default": list(DEFAULT_IMPLEMENTATIONS), "uniqueItems": True},
        ),
    ]
    passes: Annotated[
        list[Annotated[Pass, Field(strict=False)]],
        Field(
            min_length=1,
            description="The computations to measure.",
            json_schema_extra={"default": [str(p) for p in Pass], "uniqueItems": True},
        ),
    ]
    threads: Annotated[
        Literal["all"] | Size,
        Field(
            description="Threads that every implementation gets.",
            json_schema_extra={"default": "all"},
        ),
    ]
    environment: Annotated[
        dict[Variable, VariableValue],
        Field(
            description="Environment variables to set for every measurement; null unsets one.",
            json_schema_extra={"additionalProperties": False},
        ),
    ]


_DOCUMENT = TypeAdapter(SuiteDocument)
_LAYER_KEYS = tuple(LayerKeys.__annotations__)
_ENTRY_KEYS = ("name", *_LAYER_KEYS)
_SUITE_KEYS = tuple(SuiteDocument.__annotations__)
_LAYER_DEFAULTS = {f.name: f.default for f in fields(Layer) if f.default is not MISSING}
_REQUIRED = tuple(f.name for f in fields(Layer) if f.default is MISSING and f.name != "name")


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a suite document, for editors and for other programs."""
    schema = _DOCUMENT.json_schema()
    for model in ("LayerKeys", "LayerEntry"):
        for key, default in _LAYER_DEFAULTS.items():
            # A layer without pads of its own has `valid`; pairs are written as one integer.
            value = default[0] if isinstance(default, tuple) else default
            schema["$defs"][model]["properties"][key]["default"] = value
    in_each_layer = [
        {
            "if": {"properties": {"defaults": {"required": [key]}}, "required": ["defaults"]},
            "else": {"properties": {"layers": {"items": {"required": [key]}}}},
        }
        for key in _REQUIRED
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "convbench suite",
        "allOf": in_each_layer,
    }


# What messages say

_SIZE = f"an integer from 1 to {MAX_INTEGER}"
_SIZE_OR_PAIR = "an integer of at least 1, or two as [height, width]"
_VARIABLE = "a variable name of letters, digits and _, with text, an integer or null as its value"

_EXPECTED = {
    "": "a mapping of keys such as layers and implementations",
    "name": "text without / and line breaks, of at most 100 characters",
    "layer name": "text without line breaks",
    "description": "text",
    "defaults": "a mapping of layer keys, such as {batch_size: 32}",
    "layers": "a list with at least one layer",
    "layers[]": "a mapping such as {input_shape: [28, 28, 1], filters: 8, kernel_size: 3}",
    "implementations": f"a list of names, such as [{', '.join(DEFAULT_IMPLEMENTATIONS)}]",
    "implementations[]": "the name of an implementation, or FILE.py:NAME",
    "passes": f"a list of passes: [{', '.join(Pass)}]",
    "passes[]": "forward, input-gradient or kernel-gradient",
    "threads": "all, or an integer of at least 1",
    "environment": "a mapping of variables, such as {TF_ENABLE_ONEDNN_OPTS: 0}",
    "environment[]": "text, an integer, or null to unset the variable",
    "input_shape": "two or three integers of at least 1: [height, width, channels]",
    "filters": _SIZE,
    "kernel_size": _SIZE_OR_PAIR,
    "strides": _SIZE_OR_PAIR,
    "dilation_rate": _SIZE_OR_PAIR,
    "padding": "valid, same, an integer of at least 0, or [[top, bottom], [left, right]]",
    "groups": _SIZE,
    "use_bias": "true or false",
    "batch_size": _SIZE,
    "dtype": "float32 or float64",
    "count": _SIZE,
}
_TEXT_KEYS = ("name", "layer name", "description", "environment[]", "implementations[]", "passes[]")

# What other tools call our keys, flattened by `_flat`.
_OTHER_NAMES = {
    other: key
    for key, others in {
        "strides": "stride step steps subsample",
        "dilation_rate": "dilation dilations rate",
        "kernel_size": "kernel kernels kernelshape ksize filtersize window",
        "padding": "pad pads paddings bordermode",
        "filters": "filter numfilters nfilters units outchannels outputchannels",
        "input_shape": "inchannels inputchannels channels input shape inputsize imagesize "
        "height width",
        "groups": "group numgroups featuregroupcount",
        "use_bias": "bias withbias",
        "batch_size": "batch batches minibatch",
        "dtype": "type datatype precision",
        "count": "repeat repeats times number",
        "name": "title suite id layername",
        "layers": "layer convolutions convs shapes",
        "defaults": "default common",
        "implementations": "implementation impl impls backends",
        "passes": "pass modes directions",
        "threads": "thread numthreads jobs cores",
        "environment": "env variables",
        "description": "comment",
    }.items()
    for other in others.split()
}
_ADVICE = {
    "channels": "the input's channels are the third number of input_shape, "
    "the output's are filters",
    "inchannels": "channels are the third number of input_shape",
    "inputchannels": "channels are the third number of input_shape",
    "height": "it is the first number of input_shape",
    "width": "it is the second number of input_shape",
}
_SYNTAX_ADVICE = {
    "mapping values are not allowed": "check the indentation, or quote text that contains ': '",
    "expected <block end>": "check the indentation, and that lists and keys are not mixed",
    "could not find expected ':'": "a key needs a colon and a space after it",
    "expected ',' or": "check for a missing comma or bracket",
    "found undefined alias": "define it with & above its first use, or quote the text",
    "cannot start any token": "quote the text",
    "found unexpected end of stream": "close the quote",
}

# Finding and reading the file


def read_suite(target: str | Path) -> Suite:
    """The suite of a file, or of a shipped suite's name; a file wins.

    Raises SuiteError with every problem of the file, one a line, each with its line and column.
    """
    path, data = _find(target)
    document = _Document(str(path), _decode(str(path), data))
    _check_model(document)
    layers = _layers(document)
    implementations = _implementations(document, path.parent)
    _check_unique(document, "passes", document.items("passes"))
    if document.problems:
        raise SuiteError("\n".join(p.line_of(document.file) for p in sorted(document.problems)))
    value = document.value
    return Suite(
        name=value.get("name", path.stem),
        layers=tuple(layers),
        implementations=tuple(implementations) or DEFAULT_IMPLEMENTATIONS,
        passes=tuple(Pass(p) for p in value.get("passes", Pass)),
        threads=value.get("threads", "all"),
        environment=_environment(document),
        description=value.get("description", ""),
        source=str(path),
    )


def _find(target: str | Path) -> tuple[Path, bytes]:
    """The file that `target` names, and up to MAX_BYTES + 1 bytes of it."""
    shipped = shipped_suites()
    path = Path(target)
    if str(target) in shipped and not os.path.isfile(path):
        path = shipped[str(target)]
    try:
        if not str(target):
            raise FileNotFoundError
        with path.open("rb") as stream:
            return path, stream.read(MAX_BYTES + 1)
    except IsADirectoryError:
        raise SuiteError(
            f"{path}: found a folder, expected a YAML file", hint="name a file in it"
        ) from None
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the name
        raise _not_found(str(target), shipped) from None
    except OSError as error:
        raise SuiteError(
            f"{path}: cannot be read: {error.strerror}", hint="check the path and its permissions"
        ) from None


def _not_found(target: str, shipped: dict[str, Path]) -> SuiteError:
    names = ", ".join(shipped) or "none"
    path = Path(target.replace("\0", ""))
    try:
        beside = [str(p) for p in path.parent.iterdir() if p.suffix in (".yaml", ".yml")]
    except OSError:
        beside = []
    close = get_close_matches(target, [*shipped, *beside], n=3)
    close += [p for p in beside if Path(p).stem == path.name and p not in close]
    return SuiteError(
        f"there is no suite {_quoted(target)}: neither a file of that name nor one of the "
        f"shipped suites ({names})",
        hint=f"did you mean {' or '.join(close)}?" if close else "name a YAML file",
    )


def _decode(file: str, data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise SuiteError(
            f"{file}: found more than {MAX_BYTES // 1_000_000} MB, expected a suite file",
            hint="check that this is the file you mean, or split the suite",
        )
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SuiteError(f"{file}:1:1: found UTF-16 text, expected UTF-8; save the file as UTF-8")
    if b"\0" in data:
        line, column = _place_of_byte(data, data.index(b"\0"))
        raise SuiteError(f"{file}:{line}:{column}: found a binary file, expected YAML text")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = _place_of_byte(data, error.start)
        raise SuiteError(
            f"{file}:{line}:{column}: found the byte 0x{data[error.start]:02x}, which is not "
            "UTF-8, expected UTF-8 text; save the file as UTF-8"
        ) from None


def _place_of_byte(data: bytes, index: int) -> tuple[int, int]:
    before = data[:index].decode("utf-8-sig", "replace")
    return before.count("\n") + 1, len(before) - before.rfind("\n")


# The document with its places

Keys = tuple[str | int, ...]  # ("layers", 2, "kernel_size"): how to reach a value from the top

_SCALARS = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float")}
_TEXTS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "timestamp", "value")}
_MANY_VALUES = f"{MAX_VALUES} keys and values, aliases included"
_MERGE = "tag:yaml.org,2002:merge"


@dataclass(frozen=True, order=True)
class Problem:
    """One line of the message: where in the file (from 1), in the document, and what is wrong."""

    line: int
    column: int
    where: str
    text: str

    def line_of(self, file: str) -> str:
        where = f"{self.where}: " if self.where else ""
        return f"{file}:{self.line}:{self.column}: {where}{self.text}"


class _Loader(yaml.SafeLoader):
    """Stops with a place where PyYAML would run out of stack, or out of the reader's patience."""

    depth = 0
    values = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        self.values += 1
        if self.depth > MAX_DEPTH or self.values > MAX_VALUES:
            deep = f"{MAX_DEPTH} levels of nesting"
            raise yaml.MarkedYAMLError(
                problem=f"found more than {deep if self.depth > MAX_DEPTH else _MANY_VALUES}",
                problem_mark=self.peek_event().start_mark,  # type: ignore[no-untyped-call]
            )
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


@dataclass
class _Document:
    """The values of a file, where each of them stands, and the problems found so far.

    Raises SuiteError at once where there is no document to go on with.
    """

    file: str
    text: str
    value: Any = None
    problems: set[Problem] = field(default_factory=set)
    places: dict[Keys, tuple[yaml.Node, yaml.Node]] = field(default_factory=dict)
    """Node of the key, or of the item itself in a list, and node of the value."""
    wrong: set[Keys] = field(default_factory=set)
    touched: set[Keys] = field(default_factory=set)
    """What is wrong, and all that it lies in."""
    doubtful: defaultdict[Keys, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Keys of a layer or of the defaults whose value is not known, for want of a right one."""

    def __post_init__(self) -> None:
        root = _compose(self.file, self.text)
        if root is None:
            raise SuiteError(f"{self.file}:1:1: found an empty file, expected {_EXPECTED['']}")
        self.value = self._expand(root, root, ())

    def problem(self, keys: Keys, text: str, at: yaml.Node | None = None) -> None:
        """Notes a problem, at the value unless told; an absent key has its parent's place."""
        self.wrong.add(keys)
        self.touched.update(keys[:length] for length in range(len(keys) + 1))
        scope = keys[:1] if keys[:1] == ("defaults",) else keys[:2]
        if len(keys) > len(scope) and keys[len(scope)] in _ENTRY_KEYS:
            self.doubtful[scope].add(str(keys[len(scope)]))
        placed = keys
        while placed not in self.places:
            placed = placed[:-1]
        mark = (at or self.places[placed][1]).start_mark
        where = ".".join(_shown(str(key)) for key in keys)
        self.problems.add(Problem(mark.line + 1, mark.column + 1, where, text))

    def key(self, keys: Keys) -> yaml.Node:
        return self.places[keys][0]

    def line(self, keys: Keys) -> int:
        return int(self.places[keys][1].start_mark.line) + 1

    def is_wrong(self, keys: Keys) -> bool:
        """Whether a problem was noted at a value or inside it."""
        return keys in self.touched

    def items(self, key: str) -> list[tuple[int, Any]]:
        """The right ones among the items of a list at the top, with their positions."""
        found = self.value.get(key) if isinstance(self.value, dict) else None
        if not isinstance(found, list) or (key,) in self.wrong:
            return []
        return [(i, item) for i, item in enumerate(found) if (key, i) not in self.wrong]

    def _expand(self, key: yaml.Node, node: yaml.Node, keys: Keys) -> Any:
        """The value of a node. What an alias stands for is expanded at every use of it."""
        self.places[keys] = key, node
        if len(self.places) > MAX_VALUES:
            self._give_up(node, f"found more than {_MANY_VALUES}")
        if len(keys) >= MAX_DEPTH:
            self._give_up(node, "found an alias inside what it stands for")
        if isinstance(node, yaml.SequenceNode) and node.tag == _Loader.DEFAULT_SEQUENCE_TAG:
            return [self._expand(item, item, (*keys, i)) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode) and node.tag == _Loader.DEFAULT_MAPPING_TAG:
            return self._expand_mapping(node, keys)
        if isinstance(node, yaml.ScalarNode):
            return self._expand_scalar(node, keys)
        self.problem(keys, f"found the YAML tag {_tag(node)}, expected plain YAML")
        return None

    def _expand_mapping(self, node: yaml.MappingNode, keys: Keys) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for key, item in node.value:
            if not isinstance(key, yaml.ScalarNode) or not _is_whole(key.value):
                self.problem(keys, f"found {_found(key)} as a key, expected text", at=key)
                continue
            here = (*keys, key.value)
            if key.tag == _MERGE:
                text = "found a YAML merge key, expected keys written out; use defaults instead"
                self.problem(here, text, at=key)
            elif key.value in value:
                line = self.places[here][0].start_mark.line + 1
                text = f"found this key again, expected it once; the first is on line {line}"
                self.problem(here, text, at=key)
            else:
                value[key.value] = self._expand(key, item, here)
        return value

    def _expand_scalar(self, node: yaml.ScalarNode, keys: Keys) -> object:
        if node.tag in _TEXTS and _is_whole(node.value):
            return node.value
        if node.tag in _TEXTS:
            self.problem(keys, f"found {_found(node)}, expected whole characters")
            return None
        if node.tag not in _SCALARS:
            self.problem(keys, f"found the YAML tag {_tag(node)}, expected plain YAML")
            return None
        try:
            value: object = yaml.constructor.SafeConstructor().construct_object(node)
        except (ValueError, LookupError):  # a tag that does not fit; more digits than Python reads
            value = None
        if value is None and node.tag != "tag:yaml.org,2002:null":
            self.problem(keys, f"found {_found(node)}, which cannot be read as such")
        if isinstance(value, int) and abs(value) > 2**63:
            self.problem(keys, f"found {_found(node)}, expected an integer of at most 64 bits")
            return None
        return value

    def _give_up(self, node: yaml.Node, text: str) -> None:
        mark = node.start_mark
        raise SuiteError(
            f"{self.file}:{mark.line + 1}:{mark.column + 1}: {text}, expected a suite",
            hint="write the layers out, and what they share under defaults",
        )


def _compose(file: str, text: str) -> yaml.Node | None:
    """The one document of a file as nodes. Raises SuiteError for what is not YAML."""
    try:
        return yaml.compose(text, Loader=_Loader)
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise SuiteError(
            f"{file}:{line}:{column}: found the control character U+{ord(text[error.position]):04X}"
            ", expected text; remove it"
        ) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        assert mark is not None
        place = f"{file}:{mark.line + 1}:{mark.column + 1}"
        raise SuiteError(f"{place}: {_syntax(error)}") from None


def _syntax(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "not YAML"
    if "'\\t'" in problem:
        return "found a tab, expected spaces; YAML indents with spaces only"
    if problem == "but found another document":
        return "found a second document, expected one; remove the ---"
    if problem.startswith("found more than"):
        return f"{problem}, expected a suite"
    context = f", {error.context}" if error.context else ""
    if context and error.context_mark:
        context += f" that starts on line {error.context_mark.line + 1}"
    advice = next((a for words, a in _SYNTAX_ADVICE.items() if words in problem), "")
    return f"not valid YAML: {problem}{context}" + (f"; {advice}" if advice else "")


# Words for what was found


def _found(node: yaml.Node) -> str:
    """What stands at a node, as it was written."""
    if isinstance(node, yaml.SequenceNode):
        return f"the list {_shown(_flow(node))}" if node.value else "an empty list"
    if isinstance(node, yaml.MappingNode):
        return f"the mapping {_shown(_flow(node))}" if node.value else "an empty mapping"
    kind = node.tag.rpartition(":")[2]
    if kind == "null":
        return "nothing"
    if kind in ("int", "float"):
        return f"the number {_shown(node.value)}"
    if kind == "bool":
        return f"the boolean {_shown(node.value)}"
    return f"the text {_quoted(node.value)}"


def _tag(node: yaml.Node) -> str:
    return _shown(node.tag.replace("tag:yaml.org,2002:", "!!"))


def _flow(node: yaml.Node, depth: int = 0) -> str:
    """A node on one line; what lies deep or far behind is left out, for aliases may repeat it."""
    if depth > 3:
        return "..."
    if isinstance(node, yaml.SequenceNode):
        items = [_flow(item, depth + 1) for item in node.value[:5]]
        return f"[{', '.join(items)}{', ...' if len(node.value) > 5 else ''}]"
    if isinstance(node, yaml.MappingNode):
        pairs = [f"{_flow(k, depth + 1)}: {_flow(v, depth + 1)}" for k, v in node.value[:5]]
        return f"{{{', '.join(pairs)}{', ...' if len(node.value) > 5 else ''}}}"
    quoted = isinstance(node, yaml.ScalarNode) and node.style in ("'", '"')
    return f'"{node.value}"' if quoted else str(node.value)


def _shown(text: str) -> str:
    """Text for a terminal: short, on one line, and without control characters."""
    short = text if len(text) <= 60 else text[:57] + "..."
    return short if short.isprintable() else ascii(short)[1:-1]


def _quoted(text: str) -> str:
    return f'"{_shown(text)}"'


def _is_whole(text: str) -> bool:
    """Whether text can be printed and stored: YAML's escapes can write half a character."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


# Checks


def _check_model(document: _Document) -> None:
    """Notes what the document model finds: types, ranges, unknown and missing keys."""
    try:
        _DOCUMENT.validate_python(document.value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        # Unknown keys come first: one of them may be meant for the key that is missing.
        for details in sorted(found, key=lambda details: details["type"] == "missing"):
            _note(document, details["type"], details["loc"])


_FIELD_DEPTH = {"layers": 3, "defaults": 2, "implementations": 2, "passes": 2, "environment": 2}
"""How many keys lead to the field that a problem inside it is reported at."""


def _note(document: _Document, kind: str, location: Keys) -> None:
    keys = location[: _FIELD_DEPTH.get(str(location[0]), 1) if location else 0]
    if kind == "extra_forbidden":
        _note_unknown_key(document, keys)
    elif kind == "missing":
        if not document.doubtful[()] & {str(keys[-1])}:
            text = f"found no key {keys[-1]}, expected {_EXPECTED[str(keys[-1])]}"
            document.problem((), text)
    elif location[-1:] == ("[key]",):
        text = f"found {_quoted(str(keys[-1]))}, expected {_VARIABLE}"
        document.problem(keys, text, at=document.key(keys))
    elif not document.is_wrong(keys):
        node = document.places[keys][1]
        field_ = _field(keys)
        text = f"found {_found(node)}, expected {_EXPECTED[field_]}"
        document.problem(keys, text + _remedy(node, field_))


def _field(keys: Keys) -> str:
    """The name under which `_EXPECTED` has a field; `passes[]` is an item of passes."""
    if len(keys) == 2 and keys[0] != "defaults":
        return f"{keys[0]}[]"
    if len(keys) == 3 and keys[2] == "name":
        return "layer name"
    return str(keys[-1]) if keys else ""


def _remedy(node: yaml.Node, field_: str) -> str:
    """What to do about a value of the wrong type, where that can be told."""
    if not isinstance(node, yaml.ScalarNode):
        return ""
    kind = node.tag.rpartition(":")[2]
    unquoted = node.value.strip().lower()
    if kind == "str" and node.style and (unquoted.isdigit() or unquoted in ("true", "false")):
        return "; remove the quotes" if field_ not in _TEXT_KEYS else ""
    if kind in ("int", "float", "bool") and field_ in _TEXT_KEYS:
        return f'; write it in quotes: "{_shown(node.value)}"'
    if kind == "null" and field_ not in _TEXT_KEYS:
        return "; give it a value, or remove the key"
    return ""


def _note_unknown_key(document: _Document, keys: Keys) -> None:
    key = _flat(str(keys[-1]))
    here, elsewhere, home = _SUITE_KEYS, _ENTRY_KEYS, "in a layer or in defaults"
    if len(keys) > 1:
        here = _ENTRY_KEYS if keys[0] == "layers" else _LAYER_KEYS
        elsewhere, home = _SUITE_KEYS, "at the top level of the file"
    meant = _meant(key, here)
    if meant is not None:
        document.doubtful[keys[:-1]].add(meant)
        remedy = f"; {_ADVICE[key]}" if key in _ADVICE else f"; did you mean {meant}?"
    elif keys[0] == "defaults" and key == "name":
        remedy = "; each layer has a name of its own"
    elif (foreign := _meant(key, elsewhere)) is not None:
        remedy = f"; {foreign} belongs {home}"
    else:
        remedy = ""
    text = f"found an unknown key, expected one of {', '.join(here)}{remedy}"
    document.problem(keys, text, at=document.key(keys))


def _meant(key: str, known: tuple[str, ...]) -> str | None:
    """The key that somebody meant who wrote `key` (flattened), if that can be guessed."""
    flattened = {_flat(name): name for name in known}
    if key in flattened:
        return flattened[key]
    if _OTHER_NAMES.get(key) in known:
        return _OTHER_NAMES[key]
    close = get_close_matches(key, flattened, n=1, cutoff=0.75)
    return flattened[close[0]] if close else None


def _flat(key: str) -> str:
    return "".join(c for c in key.lower() if c.isalnum())


def _check_unique(document: _Document, key: str, items: Iterable[tuple[int, Any]]) -> None:
    first: dict[str, int] = {}
    for i, item in items:
        if item in first:
            other = (key, first[item])
            text = f"found {_quoted(item)} again, expected it once"
            document.problem((key, i), f"{text}; the first is on line {document.line(other)}")
        first.setdefault(item, i)


def _implementations(document: _Document, folder: Path) -> list[str]:
    """The names, those of the user's files seen from where convbench runs."""
    names = []
    for i, name in document.items("implementations"):
        if is_user_code(name):
            found = _user_code(document, i, name, folder)
        else:
            found = name
            if name not in REGISTRY:
                close = get_close_matches(name.lower(), REGISTRY, n=1)
                document.problem(
                    ("implementations", i),
                    f"found {_quoted(name)}, expected one of {', '.join(REGISTRY)}, "
                    "or your own FILE.py:NAME" + (f"; did you mean {close[0]}?" if close else ""),
                )
        names.append((i, found))
    _check_unique(document, "implementations", names)
    return [name for _, name in names]


def _user_code(document: _Document, i: int, name: str, folder: Path) -> str:
    file, _, function = name.rpartition(":")
    if not file or not function.isidentifier():
        text = f"found {_quoted(name)}, expected FILE.py:NAME, NAME being a function of that file"
        document.problem(("implementations", i), text)
        return name
    path = os.path.normpath(folder / file)
    if not os.path.isfile(path):
        text = f"found {_quoted(name)}, expected an existing file; there is no {_shown(path)}"
        document.problem(("implementations", i), text)
    return f"{path}:{function}"


def _environment(document: _Document) -> dict[str, str | None]:
    """Values as they were written: 010 stays 010."""
    variables = document.value.get("environment", {})
    return {
        name: None if value is None else str(document.places["environment", name][1].value)
        for name, value in variables.items()
    }


# Layers


def _layers(document: _Document) -> list[Layer]:
    if ("defaults",) in document.wrong:
        return []
    defaults = document.value.get("defaults", {}) if isinstance(document.value, dict) else {}
    layers: list[Layer] = []
    unfit: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
    for i, name, entry in _named_entries(document):
        keys: Keys = ("layers", i)
        doubtful = document.doubtful[keys] | (document.doubtful["defaults",] - entry.keys())
        given = {**defaults, **entry}
        absent = [key for key in _REQUIRED if key not in given and key not in doubtful]
        for key in absent:
            text = f"found no key {key}, expected {_EXPECTED[key]}, here or in defaults"
            document.problem(keys, text)
        if absent or doubtful - {"name", "count"}:
            continue
        try:
            known = {key: value for key, value in given.items() if key not in doubtful}
            layers.append(_layer(name, known))
        except LayerError as error:
            key, _, text = error.message.partition(": ")
            if key in entry or key not in defaults:
                document.problem((*keys, key), text)
            else:
                unfit[key].append((i, text))
    for key, cases in unfit.items():
        i, text = cases[0]
        more = f" and {len(cases) - 1} more" if len(cases) > 1 else ""
        which = f"in layers.{i} on line {document.line(('layers', i))}{more}"
        document.problem(("defaults", key), f"{text} ({which})")
    return layers


def _named_entries(document: _Document) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Position, name and keys of each layer; notes names that occur twice."""
    taken: dict[str, int] = {}
    for i, entry in document.items("layers"):
        written = "name" in entry
        name = entry["name"] if written else f"layer{i + 1}"
        if ("layers", i, "name") not in document.wrong:
            if name in taken:
                found = f"found {_quoted(name)}" + ("" if written else ", the name by position")
                other = f"layers.{taken[name]} on line {document.line(('layers', taken[name]))}"
                text = f"{found}, expected a unique name; {other} has it too"
                document.problem(("layers", i, "name"), text)
            taken.setdefault(name, i)
        yield i, name, entry


def _layer(name: str, given: dict[str, Any]) -> Layer:
    """The layer of a checked entry. Raises LayerError when its numbers do not go together."""
    height, width, *channels = given["input_shape"]
    values = {key: given.get(key, default) for key, default in _LAYER_DEFAULTS.items()}
    for key in ("strides", "dilation_rate"):
        values[key] = _pair(values[key])
    return Layer(
        name=name,
        input_shape=(height, width, channels[0] if channels else 1),
        filters=given["filters"],
        kernel_size=_pair(given["kernel_size"]),
        **{**values, "padding": _padding(values["padding"])},
    )


def _pair(value: int | list[int] | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _padding(value: str | int | list[list[int]]) -> Padding:
    if isinstance(value, str):
        return "same" if value.lower() == "same" else "valid"
    if isinstance(value, int):
        return (value, value), (value, value)
    return _pair(value[0]), _pair(value[1])
