"""Test files of rules alone: what they become, and what people are told about a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from convbench.errors import SuiteError
from convbench.implementations.registry import BUILT_IN
from convbench.problem.layer import Pass
from convbench.suites.file import MAX_BYTES, read_rules
from convbench.suites.suite import Rule

KNOWN = ", ".join(BUILT_IN)
TOP = "expected a mapping with the key gate, a list of rules"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(text: str) -> tuple[Rule, ...]:
    Path("rules.yaml").write_text(text)
    return read_rules("rules.yaml")


def error(text: str) -> SuiteError:
    with pytest.raises(SuiteError) as caught:
        read(text)
    return caught.value


def test_rules_may_name_known_implementations_and_any_layer() -> None:
    assert read(
        """\
gate:
  - {implementation: keras-xla, versus: loop, pass: forward, layer: "any*", at_least: 20}
  - {implementation: keras, versus: fastest-keras, of: geometric_mean, at_least: 0.5}
  - {implementation: im2col, at_most_bytes: 4194304}
"""
    ) == (
        Rule("keras-xla", "loop", Pass.FORWARD, "any*", at_least=20.0),
        Rule("keras", "fastest-keras", of="geometric_mean", at_least=0.5),
        Rule("im2col", at_most_bytes=4194304),
    )


def test_users_files_are_relative_to_the_folder_of_the_file_and_need_not_exist(
    folder: Path,
) -> None:
    (folder / "ci").mkdir()
    text = "gate: [{implementation: ../own.py:conv, versus: other.py:f, at_least: 2}]"
    (folder / "ci" / "rules.yaml").write_text(text)
    expected = Rule("own.py:conv", "ci/other.py:f", at_least=2.0)
    assert read_rules(Path("ci/rules.yaml")) == (expected,)


MESSAGES = {
    "layers: []\n": [
        "1:1: found no key gate, expected a list with at least one rule",
        "1:1: layers: found an unknown key, expected gate and nothing else; "
        "layer belongs in a rule of gate",
    ],
    "name: a\ngate: []\n": [
        "1:1: name: found an unknown key, expected gate and nothing else",
        "2:7: gate: found an empty list, expected a list with at least one rule",
    ],
    "rules: []": [
        "1:1: rules: found an unknown key, expected gate and nothing else; did you mean gate?",
    ],
    "gate:\n": [
        "1:6: gate: found nothing, expected a list with at least one rule; give it a value, or "
        "remove the key"
    ],
    "gate:\n- {implementation: im2co, versus: fastest_keras, at_least: 2}\n": [
        f'2:20: gate.0.implementation: found "im2co", expected one of {KNOWN}, or your own '
        "FILE.py:NAME; did you mean im2col?",
        f'2:35: gate.0.versus: found "fastest_keras", expected one of {KNOWN}, fastest-keras, or '
        "your own FILE.py:NAME; did you mean fastest-keras?",
    ],
    'gate:\n- {implementation: fastest-keras, versus: "own.py:", at_least: 2}\n': [
        f'2:20: gate.0.implementation: found "fastest-keras", expected one of {KNOWN}, or your '
        "own FILE.py:NAME",
        '2:43: gate.0.versus: found "own.py:", expected FILE.py:NAME or package.module:NAME; '
        "it has no name after the colon",
    ],
    "gate:\n- {implementation: a.py:f, versus: ./a.py:f, pass: all, at_least: 2}\n": [
        '2:36: gate.0.versus: found "./a.py:f", expected another implementation than the '
        "rule's own",
        '2:52: gate.0.pass: found the text "all", expected forward, input-gradient or '
        "kernel-gradient",
    ],
    "gate:\n- implementation: loop\n  at_most_bytes: 1\n- {implementation: loop, "
    "at_most_bytes: 1}\n": [
        "4:3: gate.1: found this rule again, expected it once; the first is on line 2"
    ],
    "[]": [f"1:1: found an empty list, {TOP}"],
    "": [f"1:1: found an empty file, {TOP}"],
    "gate: &a [*a]": ["1:7: found an alias inside its own value, expected a rules file"],
}


@pytest.mark.parametrize("text", MESSAGES)
def test_a_wrong_file_is_refused_with_every_problem_and_its_place(text: str) -> None:
    assert error(text).message.splitlines() == [f"rules.yaml:{line}" for line in MESSAGES[text]]


def test_a_file_that_is_too_deep_or_too_long_is_refused() -> None:
    deep = error("gate: " + "[" * 50)
    assert deep.message.endswith("found more than 16 levels of nesting, expected a rules file")
    assert deep.hint == "write the rules out"
    long = error("#" * (MAX_BYTES + 1))
    assert long.message == "rules.yaml: found more than 4 MB, expected a rules file"


def test_a_missing_file_is_not_looked_for_among_the_suites() -> None:
    Path("rules.yaml").touch()
    with pytest.raises(SuiteError) as caught:
        read_rules("rule.yaml")
    assert caught.value.message == 'there is no rules file "rule.yaml"'
    assert caught.value.hint == "did you mean rules.yaml?"
    with pytest.raises(SuiteError, match=r'^there is no rules file "mnist"$'):
        read_rules("mnist")
