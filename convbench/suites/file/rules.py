"""Check that the keys of a gate's rules go together, and that their suite has what they name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path
from typing import Any

from convbench.implementations.registry import BUILT_IN
from convbench.problem.layer import Layer, Pass
from convbench.suites.file.checks import expected_name, seen_from_here
from convbench.suites.file.document import FIGURES, RULE_KEYS
from convbench.suites.file.messages import EXPECTED, did_you_mean, listed, quoted
from convbench.suites.file.places import Document
from convbench.suites.suite import DEFAULT_IMPLEMENTATIONS, FASTEST_KERAS, KERAS_WAYS, Rule

Keys = dict[str, Any]  # keys of one rule whose values have the right type
Problems = Iterator[tuple[str, str]]  # key (empty for the rule as a whole) and text of a problem

_DEFAULT = {name: name for name in DEFAULT_IMPLEMENTATIONS}
_REGISTERED = {name: name for name in BUILT_IN}


@dataclass(frozen=True)
class Lists:
    """What a suite's rules can name. None stands for a list that is wrong or not known.

    All three are None in a rules file. `implementations` maps each name, relative to where
    convbench runs, to how the file writes it.
    """

    implementations: dict[str, str] | None = None
    passes: tuple[str, ...] | None = None
    layers: tuple[str, ...] | None = None


def lists_of(document: Document, layers: list[Layer], implementations: dict[str, str]) -> Lists:
    """Return the lists of a suite. A list in which a problem was found is None."""
    wrong = {key for key in document.value if (key,) in document.wrong}
    passes = tuple(name for _, name in document.items("passes", str)) or tuple(Pass)
    names = tuple(layer.name for layer in layers)
    return Lists(
        implementations=None if "implementations" in wrong else implementations or _DEFAULT,
        passes=None if "passes" in wrong else passes,
        layers=None if not names or wrong & {"layers", "defaults"} else names,
    )


def rules(document: Document, folder: Path, lists: Lists) -> tuple[Rule, ...]:
    """Return the rules without problems, and note the problems of the others."""
    first: dict[Rule, int] = {}
    for i, entry in document.items("gate", dict):
        wrong = {key for key in (*entry, *RULE_KEYS) if ("gate", i, key) in document.wrong}
        right = {key: value for key, value in entry.items() if key not in wrong}
        for key, text in (
            *_figure_problems(right, tried={*entry, *wrong}),
            *_list_problems(right, folder, lists),
        ):
            where = ("gate", i, key) if key else ("gate", i)
            if not key or where not in document.wrong:  # only the first problem of a value is told
                document.problem(where, text)
        if ("gate", i) in document.wrong:
            continue
        rule = _rule(entry, folder)
        if first.setdefault(rule, i) != i:
            line = document.line(("gate", first[rule]))
            text = f"found this rule again, expected it once; the first is on line {line}"
            document.problem(("gate", i), text)
    return tuple(first)


def _rule(entry: Keys, folder: Path) -> Rule:
    """Make a rule of checked keys."""
    values = {key: value for key, value in entry.items() if key != "pass"}
    for key in entry.keys() & {"implementation", "versus"}:
        values[key] = seen_from_here(entry[key], folder)
    for key in entry.keys() & {"at_least", "per_cent_of_peak"}:
        values[key] = float(entry[key])
    return Rule(**values, pass_=Pass(entry["pass"]) if "pass" in entry else None)


def _figure_problems(right: Keys, tried: set[str]) -> Problems:
    """Yield problems of the figure, of which a rule has one, and of the keys that go with it.

    `tried` are the rule's keys, right or wrong; for a misspelt key, it has the key that was meant.
    """
    figures = [figure for figure in FIGURES if figure in tried]
    if not figures:
        yield "", f"found no figure, expected one of {', '.join(FIGURES)}"
    elif len(figures) > 1:
        yield "", f"found {' and '.join(figures)}, expected one of them; write a rule for each"
    elif figures != ["at_least"]:
        (figure,) = figures
        if "versus" in right:
            found = quoted(right["versus"])
            yield "versus", f"found {found}, expected no versus beside {figure}; remove the key"
        if right.get("of") == "geometric_mean":
            text = f"expected each beside {figure}; only a speedup, at_least, has a mean"
            yield "of", f'found "geometric_mean", {text}'
    elif "versus" not in tried:
        text = f"expected {EXPECTED['versus']}; at_least is a speedup over it"
        yield "", f"found no key versus, {text}"


def _list_problems(right: Keys, folder: Path, lists: Lists) -> Problems:
    """Yield problems of names that a rule has, but that its suite does not have or nobody knows."""
    expected = {}
    if "implementation" in right:
        name = right["implementation"]
        expected["implementation"] = _expected_name(
            name, folder, lists.implementations, _REGISTERED
        )
    if "versus" in right:
        expected["versus"] = _expected_versus(right, folder, lists.implementations)
    if "pass" in right and lists.passes is not None and right["pass"] not in lists.passes:
        expected["pass"] = f"one of the suite's passes: {listed(lists.passes)}; add it to passes"
    if "layer" in right and lists.layers is not None:
        expected["layer"] = _expected_pattern(right["layer"], lists.layers)
    for key, text in expected.items():
        if text:
            yield key, f"found {quoted(right[key])}, expected {text}"


def _expected_name(
    name: str, folder: Path, choices: dict[str, str] | None, known: dict[str, str]
) -> str:
    """Say what should stand in place of a wrong name, or nothing if the name is right.

    `choices` are those of the suite, as in Lists. `known` maps each known name to what a suite must
    have for it.
    """
    if choices is None:
        return expected_name(name, known)
    if seen_from_here(name, folder) in choices:
        return ""
    remedy = did_you_mean(name, choices.values())
    if name in known:
        remedy = f"; add {known[name]} to implementations"
    return f"one of the suite's implementations: {listed(choices.values())}{remedy}"


def _expected_versus(right: Keys, folder: Path, choices: dict[str, str] | None) -> str:
    own = seen_from_here(right.get("implementation", ""), folder)
    if seen_from_here(right["versus"], folder) == own:
        return "another implementation than the rule's own"
    ways = [way for way in KERAS_WAYS if way != own]
    if choices is not None:
        choices = {name: written for name, written in choices.items() if name != own}
        if choices.keys() & set(ways):
            choices[FASTEST_KERAS] = FASTEST_KERAS
    known = {**_REGISTERED, FASTEST_KERAS: f"one of {', '.join(ways)}"}
    return _expected_name(right["versus"], folder, choices, known)


def _expected_pattern(pattern: str, layers: tuple[str, ...]) -> str:
    if any(fnmatchcase(name, pattern) for name in layers):
        return ""
    remedy = did_you_mean(pattern, [escape(name) for name in layers])
    return f"a pattern of one of the layers: {listed(layers)}{remedy}"
