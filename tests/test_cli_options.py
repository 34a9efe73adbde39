"""Test that each option of the commands is declared once, and that groups reach the commands."""

from __future__ import annotations

import ast
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from convbench.cli import app
from convbench.cli.options import (
    Conditions,
    FormatName,
    Layouts,
    Part,
    ResultTarget,
    Shown,
    given,
    grouped,
    percentage,
)
from convbench.errors import ConvbenchError
from convbench.report import FORMATS

CLI = Path(__file__).parents[1] / "convbench" / "cli"

MEANS_SOMETHING_ELSE = {
    "--budget": {"check"},
    "--impl": {"train", "profile", "noise", "import"},
    "--pass": {"profile"},
    "--layer": {"profile"},
    "--output": {"profile", "show", "diff", "machine", "check", "noise", "merge", "import"}
    | {"export", "schema"},
    "--format": {"import"},
    "--versus": {"profile"},
    "--resume": {"train"},
    "--batch-size": {"import"},
}
"""Commands in which an option of that name means something else, such as `profile`'s one layer."""


def test_an_option_reads_alike_in_every_command() -> None:
    helps = defaultdict(set)
    for name, command in typer.main.get_command(app).commands.items():
        for parameter in command.params:
            option = parameter.opts[0]
            if option.startswith("--") and name not in MEANS_SOMETHING_ELSE.get(option, ()):
                helps[option].add(parameter.help)
    assert {"--threads", "--format", "--noise"} <= helps.keys()
    assert {option: found for option, found in helps.items() if len(found) > 1} == {}


def test_no_two_files_declare_the_same_option() -> None:
    """The help of an option stands in one file, however many commands have the option."""
    places = defaultdict(list)
    for file in CLI.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "help":
                places[ast.unparse(node.value)].append(file.name)
    assert {text: files for text, files in places.items() if len(files) > 1} == {}


@dataclass(frozen=True)
class Colours:
    """A group of options for the tests."""

    ink: Annotated[str, typer.Option(help="Colour of the text.")] = "black"
    paper: Annotated[str | None, typer.Option("--paper", "-p", help="Colour of paper.")] = None


def run(command: object, *arguments: str) -> str:
    application = typer.Typer()
    application.command()(command)
    done = CliRunner().invoke(application, arguments)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_group_holds_the_given_values_and_the_defaults() -> None:
    @grouped
    def command(*, name: str, colours: Colours, part: Part, loud: bool = False) -> None:
        print(name, colours, part, loud)

    shown = run(command, "me", "-p", "white", "--layer", "a", "--layer", "b", "--loud")
    expected = f"me {Colours(paper='white')} {Part(None, ['a', 'b'])} True"
    assert shown.strip() == expected
    told = run(command, "--help")
    assert "Colour of the text." in told
    assert "[default: black]" in told


def test_two_groups_with_one_name_are_refused() -> None:
    def command(*, colours: Colours, others: Colours) -> None:
        pass

    with pytest.raises(ValueError, match="duplicate parameter name: 'ink'"):
        grouped(command)


def test_groups_can_be_made_of_their_defaults() -> None:
    assert Conditions() == Conditions(None, None, no_tune=False, timeout=300.0)
    assert (Shown().format_.value, Shown().quiet) == ("table", False)


@pytest.mark.parametrize(("text", "value"), [("3%", 0.03), (" 2.5 % ", 0.025), ("0%", 0.0)])
def test_percentages_are_read(text: str, value: float) -> None:
    assert percentage(text, "--tolerance") == pytest.approx(value)


@pytest.mark.parametrize("text", ["3", "%", "-1%", "nan%", "1000%", "three%"])
def test_a_text_that_is_no_percentage_is_refused(text: str) -> None:
    with pytest.raises(ConvbenchError, match=f"--tolerance: found '{text}', expected a percent"):
        percentage(text, "--tolerance")


def test_options_that_were_given_are_named():
    assert given(Layouts(), Part(), Conditions(), ResultTarget()) == []
    layouts, conditions = Layouts(kernel_layout="HWIO"), Conditions(seed=0, no_tune=True, timeout=5)
    named = given(layouts, Part(pass_=["forward"]), conditions, except_for=("--timeout",))
    assert named == ["--kernel-layout", "--pass", "--seed", "--no-tune"]
    assert given(conditions) == ["--seed", "--no-tune", "--timeout"]
    assert given(Conditions(threads="2"), ResultTarget(force=True)) == ["--threads", "--force"]


def test_each_format_that_can_be_named_is_a_format_of_reports():
    assert {name.value for name in FormatName} <= FORMATS.keys()
