"""Add-ons: one can be added from outside, by one line, and no command but its own knows it."""

import json
import subprocess
import sys

import jsonschema
import pytest

from convbench import addons
from tests.cli import ROOT, TINY

TALLY = "numbers: [1, 2, 39]\n"
JOINED = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from convbench.addons import ADD_ONS, AddOn
there = "tests.elsewhere.counting"
ADD_ONS["count"] = AddOn(
    there + ":count", {{"tally": there + "_file:TALLY"}}, "counting", there + ":show"
)
from convbench.cli import main
try:
    main()
finally:
    print(*{{"numpy", "tensorflow", "pydantic"}} & {{*sys.modules}}, file=sys.stderr)
"""
"""A program that joins an add-on from elsewhere to convbench, and is the command line. What it
writes at the end of stderr are the heavy modules that it loaded."""


@pytest.fixture
def convbench(tmp_path):
    """The command line with the add-on, in a folder with one of its files."""
    (tmp_path / "tally.yaml").write_text(TALLY)

    def run(*arguments, code=0):
        done = subprocess.run(
            [sys.executable, "-c", JOINED, *map(str, arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done

    return run


def test_its_command_is_listed_and_costs_nothing(convbench):
    done = convbench("--help")
    assert "  count " in done.stdout
    assert "Add up the numbers of a tally." in done.stdout
    assert done.stderr == "\n", "modules that --help need not load"


def test_its_command_runs_and_its_result_is_shown(convbench):
    printed = convbench("count", "tally.yaml", "out.json").stdout
    assert "42" in printed
    assert convbench("show", "out.json").stdout == printed
    assert json.loads(convbench("show", "out.json", "--format", "json").stdout) == {"total": 42}
    refused = convbench("show", "out.json", "--layer", "a", code=2)
    assert "out.json is the result of a counting, which has no layers" in refused.stderr
    refused = convbench("run", "--resume", "out.json", code=2)
    assert "is the result of a counting, which `run` cannot go on with" in refused.stderr
    assert "convbench count --help" in refused.stderr


def test_its_files_have_a_schema_and_are_checked(convbench, tmp_path):
    schema = json.loads(convbench("schema", "tally").stdout)
    assert schema["title"] == "a tally"
    jsonschema.validate({"numbers": [1]}, schema)
    refused = convbench("schema", "score", code=2)
    assert "'suite', 'network', 'tally', 'result'" in refused.stderr
    (tmp_path / "tally.yaml").write_text("numbers: [one]\n")
    refused = convbench("count", "tally.yaml", "out.json", code=2)
    assert "expected a list of integers" in refused.stderr
    assert "found a suite, expected a tally" in convbench("count", TINY, "o", code=2).stderr


@pytest.mark.parametrize("name", addons.ADD_ONS)
def test_the_places_of_those_of_convbench_are_there(name):
    add_on = addons.ADD_ONS[name]
    assert addons.found(add_on.command).__name__ == name
    for kind, place in add_on.kinds.items():
        assert addons.found(place).name == kind
        assert addons.found(place).command == f"convbench {name}"
    assert bool(add_on.result) == bool(add_on.show)
    assert not add_on.show or callable(addons.found(add_on.show))
