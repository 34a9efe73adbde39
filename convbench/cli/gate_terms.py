"""Read what `convbench gate` was asked to hold a run to: rules, a baseline, another version."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from convbench.cli.measuring import selected, with_implementations
from convbench.cli.options import Layouts, Part
from convbench.errors import ConvbenchError
from convbench.suites.suite import FASTEST_KERAS, KERAS_WAYS

if TYPE_CHECKING:
    from convbench.gate import Terms
    from convbench.results.model import ResultFile
    from convbench.suites.suite import Rule, Suite


@dataclass(frozen=True)
class Selection:
    """The options that choose a part of a suite."""

    impl: list[str] | None
    layouts: Layouts
    part: Part


def to_run(
    stack: ExitStack,
    target: str,
    terms: Terms,
    rules: tuple[Rule, ...] | None,
    against: str | None,
    chosen: Selection,
) -> tuple[Suite, Terms, tuple[str, ...]]:
    """Return the selected suite, the terms of its run, and notes on rules that were left out.

    `stack` keeps the files of another version until it is closed.
    """
    from convbench.own_code.versions import other_version
    from convbench.suites.file import read_suite

    whole = read_suite(target)
    rules = whole.gate if rules is None else rules
    if against is not None:
        new = _one_of_yours(chosen.impl, whole)
        whole = with_implementations(whole, [*whole.implementations, new], chosen.layouts)
        code = next(own for own in whole.own if own.name == new)
        old = stack.enter_context(other_version(code, against))
        whole = replace(whole, own=(*whole.own, old))
        suite = selected(_versions_only(whole, new, old.name, rules), chosen.part)
        terms = replace(terms, versions=(new, old.name))
    else:
        suite = selected(with_implementations(whole, chosen.impl, chosen.layouts), chosen.part)
    known = tuple(dict.fromkeys([*whole.implementations, *suite.implementations]))
    terms, notes = with_rules(terms, rules, replace(whole, implementations=known), suite)
    return suite, terms, notes


def _one_of_yours(impl: list[str] | None, suite: Suite) -> str:
    if impl is None or len(impl) != 1 or not suite.is_own(impl[0]):
        raise ConvbenchError(
            "--against compares two versions of one file: name it with one --impl FILE.py:NAME",
            hint="convbench gate SUITE --impl my_conv.py:convolve --against main",
        )
    return impl[0]


def _versions_only(suite: Suite, new: str, old: str, rules: Sequence[Rule]) -> Suite:
    """Return the suite with the two versions, and the implementations that its floors name."""
    needed = {name for rule in rules for name in (rule.implementation, rule.versus)}
    if FASTEST_KERAS in needed:
        needed |= set(KERAS_WAYS)
    others = [name for name in suite.implementations if name in needed]
    return replace(suite, implementations=tuple(dict.fromkeys([new, old, *others])))


def refuse_nothing_supported(name: str, result: ResultFile) -> None:
    """Raise ConvbenchError if an implementation computes nothing of the suite."""
    cells = [cell for cell in result.cells if cell.implementation == name]
    if cells and all(cell.status == "unsupported" for cell in cells):
        why = f": {cells[0].reason}" if cells[0].reason else ""
        raise ConvbenchError(
            f"{name} computes nothing of {result.suite.name} as selected{why}",
            hint="name another suite, or other layers and passes",
        )


def with_rules(
    terms: Terms, rules: Sequence[Rule], whole: Suite | None, suite: Suite
) -> tuple[Terms, tuple[str, ...]]:
    """Return the terms with the rules that concern the selected suite, and notes on the others.

    Raises ConvbenchError for a rule that concerns nothing of the whole suite (unless that is None),
    and if there is nothing to judge.
    """
    from convbench.gate import in_common, why_not_of

    misses = [why for rule in rules if whole and (why := why_not_of(rule, whole)) is not None]
    if misses:
        raise ConvbenchError(
            "\n".join(f"a rule concerns nothing of {suite.name}: {why}" for why in misses),
            hint="a rule that nothing matches would pass whatever happens: correct or remove it",
        )
    kept = tuple(rule for rule in rules if why_not_of(rule, suite) is None)
    notes = []
    if left := len(rules) - len(kept):
        notes.append(f"{left} of {len(rules)} floors concern cells that were not selected")
    terms = replace(terms, rules=kept)
    if terms.baseline is not None:
        shared = in_common(terms.baseline, suite)
        if not shared:
            raise ConvbenchError(
                f"the baseline has no speedup of any cell that {suite.name} has as selected",
                hint="a speedup needs loop or a Keras way in both: see `convbench show`",
            )
        if left := len(in_common(terms.baseline, terms.baseline.result.suite)) - len(shared):
            notes.append(f"{left} speedups of the baseline are not in this run, and not judged")
    if not kept and terms.baseline is None and terms.versions is None:
        raise ConvbenchError(
            f"there is nothing to hold {suite.name} to" + (f": {notes[0]}" if notes else ""),
            hint="give it floors (key `gate` of the suite, or --rules FILE), a --baseline OLD.json "
            "or --against another version",
        )
    return terms, tuple(notes)
