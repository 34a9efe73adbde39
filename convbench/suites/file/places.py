"""Keep the line and column of each value of a YAML file, and the problems found there."""

from __future__ import annotations

from typing import Any, TypeVar

import yaml

from convbench.errors import SuiteError
from convbench.suites.file.document import Keys, Kind
from convbench.suites.file.messages import expected, found, is_whole, shown, syntax
from convbench.suites.file.source import place_after

MAX_VALUES = 400_000
"""Most keys and values of a file. Each use of an alias counts, so aliases of aliases cannot
explode."""

MAX_DEPTH = 16
"""Most levels of nesting in a file. The deepest value of a valid suite, one pad, is at level 6."""

_YAML = "tag:yaml.org,2002:"
_SCALARS = {_YAML + kind for kind in ("null", "bool", "int", "float")}
_TEXTS = {_YAML + kind for kind in ("str", "timestamp", "value", "merge")}

Item = TypeVar("Item")


def _too_much(mark: yaml.Mark, text: str, kind: Kind) -> SuiteError:
    return SuiteError(
        f"{mark.name}:{mark.line + 1}:{mark.column + 1}: found {text}, expected a {kind.name}",
        hint=kind.words.shorter,
    )


class _Loader(yaml.SafeLoader):
    """A loader that raises SuiteError with a place before a file exhausts the stack or memory."""

    depth = 0
    values = 0

    def __init__(self, file: str, text: str, kind: Kind) -> None:
        super().__init__(text)
        self.name = file
        self.kind = kind

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        self.values += 1
        if self.depth > MAX_DEPTH or self.values > MAX_VALUES:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            deep = self.depth > MAX_DEPTH
            what = f"{MAX_DEPTH} levels of nesting" if deep else f"{MAX_VALUES} keys and values"
            raise _too_much(mark, f"more than {what}", self.kind)
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _compose(file: str, text: str, kind: Kind) -> yaml.Node:
    """Return the one document of a file as nodes. Raises SuiteError for what is not YAML."""
    try:
        root = _Loader(file, text, kind).get_single_node()
    except yaml.reader.ReaderError as error:
        place = place_after(text[: error.position])
        code = ord(text[error.position])
        what = f"the control character U+{code:04X}, expected text; remove it"
        if code == 0:
            what = "a binary file, expected YAML text"
        raise SuiteError(f"{file}:{place}: found {what}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{mark.line + 1}:{mark.column + 1}" if mark else "1:1"
        raise SuiteError(f"{file}:{place}: {syntax(error)}") from None
    if root is None:
        raise SuiteError(f"{file}:1:1: found an empty file, expected {expected(kind.name, kind)}")
    return root


class Document:
    """The mapping of a file, where each value stands, and the problems found so far.

    `places` has the node of the key (in a list: of the item) and the node of the value.
    `wrong` has the keys to each value with a problem, and the keys to everything around it.
    Raises SuiteError at once if the file is no mapping.
    """

    def __init__(self, file: str, text: str, kind: Kind) -> None:
        self.file = file
        self.kind = kind
        self.problems: set[tuple[int, int, str, str]] = set()
        self.places: dict[Keys, tuple[yaml.Node, yaml.Node]] = {}
        self.wrong: set[Keys] = set()
        root = _compose(file, text, kind)
        self.value: dict[str, Any] = self._value(root, root, ())
        if not isinstance(self.value, dict):
            if not self.problems:
                self.problem((), f"found {found(root)}, expected {expected(kind.name, kind)}")
            self.raise_problems()

    def problem(self, keys: Keys, text: str, at: yaml.Node | None = None) -> None:
        """Note a problem at the value, or at the node `at`. An absent key has the place of the
        mapping that lacks it."""
        parents = [keys[:length] for length in range(len(keys), -1, -1)]
        self.wrong.update(parents)
        node = at or next(self.places[p][1] for p in parents if p in self.places)
        mark, where = node.start_mark, ".".join(shown(str(key)) for key in keys)
        self.problems.add((mark.line + 1, mark.column + 1, where, text))

    def raise_problems(self) -> None:
        """Raise SuiteError if there are problems, in the order of the file."""
        lines = [
            f"{self.file}:{line}:{column}: {where}{': ' if where else ''}{text}"
            for line, column, where, text in sorted(self.problems)
        ]
        if lines:
            raise SuiteError("\n".join(lines))

    def line(self, keys: Keys) -> int:
        return int(self.places[keys][0].start_mark.line) + 1

    def items(self, key: str, kind: type[Item]) -> list[tuple[int, Item]]:
        """Return the items of that type in a list under a top key, with their positions."""
        items = self.value.get(key)
        if not isinstance(items, list):
            return []
        return [(i, item) for i, item in enumerate(items) if isinstance(item, kind)]

    def _value(self, key: yaml.Node, node: yaml.Node, keys: Keys) -> Any:
        """Return the value of a node. An alias is expanded at every use of it."""
        self.places[keys] = key, node
        if len(self.places) > MAX_VALUES:
            many = f"more than {MAX_VALUES} keys and values, aliases included"
            raise _too_much(node.start_mark, many, self.kind)
        if len(keys) >= MAX_DEPTH:
            raise _too_much(node.start_mark, "an alias inside its own value", self.kind)
        if isinstance(node, yaml.SequenceNode) and node.tag == _Loader.DEFAULT_SEQUENCE_TAG:
            return [self._value(item, item, (*keys, i)) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode) and node.tag == _Loader.DEFAULT_MAPPING_TAG:
            return self._mapping(node, keys)
        if isinstance(node, yaml.ScalarNode) and node.tag in _TEXTS | _SCALARS:
            return self._scalar(node, keys)
        tag = shown(node.tag.replace(_YAML, "!!"))
        self.problem(keys, f"found the YAML tag {tag}, expected plain YAML")
        return None

    def _mapping(self, node: yaml.MappingNode, keys: Keys) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for key, item in node.value:
            if not isinstance(key, yaml.ScalarNode) or not is_whole(key.value):
                self.problem(keys, f"found {found(key)} as a key, expected text", at=key)
            elif key.value in value:
                here = (*keys, key.value)
                text = "found this key again, expected it once; the first is on line"
                self.problem(here, f"{text} {self.line(here)}", at=key)
            else:
                value[key.value] = self._value(key, item, (*keys, key.value))
        return value

    def _scalar(self, node: yaml.ScalarNode, keys: Keys) -> object:
        if node.tag in _TEXTS and is_whole(node.value):
            return node.value
        wrong = ", expected whole characters"
        if node.tag in _SCALARS:
            try:
                value: object = yaml.constructor.SafeConstructor().construct_object(node)
            except (ValueError, LookupError):  # the tag does not fit, or there are too many digits
                wrong = ", which cannot be read as such"
            else:
                if not isinstance(value, int) or abs(value) <= 2**63:
                    return value
                wrong = ", expected an integer of at most 64 bits"
        self.problem(keys, f"found {found(node)}{wrong}")
        return None
