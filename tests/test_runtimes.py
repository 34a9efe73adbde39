"""Test that a runtime can be added from outside, and that no other module asks for its name."""

import ast
import os
from dataclasses import replace
from pathlib import Path

import pytest

import convbench
from convbench import runtimes
from convbench.implementations.registry import BUILT_IN, REGISTRY, Registry
from convbench.machine import description as machine
from convbench.measure.environment import Environment
from convbench.report import render
from convbench.report.views.run_tables import report
from convbench.results import file as result_file
from convbench.runtimes.numpy import NumPy
from convbench.runtimes.tensorflow import TensorFlow
from convbench.schedule import Options, Session, run
from convbench.suites.file import read_suite
from tests.cli import ROOT, TINY
from tests.elsewhere.flat_arrays import NAME, VARIABLE, FlatArrays
from tests.systems import linux

PACKAGE = Path(convbench.__file__).parent
FRAMEWORKS = {"tensorflow", "keras", "torch", "jax", "onnxruntime"}
KERAS_FILES = ("implementations/keras/", "importers/keras_model.py", "training/keras_model.py")
"""Files that are about Keras and therefore import it, inside functions."""


# A runtime from outside the package


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Run a runtime and an implementation that stand outside the package, and return the result."""
    place = "tests.elsewhere.flat_arrays"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(runtimes.RUNTIMES, "flat-arrays", f"{place}:FlatArrays")
        patch.setenv("PYTHONPATH", str(ROOT))
        suite = replace(read_suite(TINY), implementations=(NAME, "im2col"))
        environment = Environment(os.environ, {})
        session = Session(
            suite=suite,
            machine=machine.fingerprint(),
            software=machine.software(runtimes.versions()),
            environment=environment.recorded(1),
            threads=1,
            effort="smoke",
            seed=0,
            path=tmp_path_factory.mktemp("flat") / "flat.json",
            registry=Registry({**BUILT_IN, NAME: f"{place}:FlatLoop"}),
        )
        for _ in run(session, Options(environment=environment)):
            pass
        return result_file.load(session.save())


@linux
def test_cells_of_a_runtime_from_outside_are_checked_timed_and_metered(saved):
    cells = [cell for cell in saved.result.cells if cell.implementation == NAME]
    by_pass = {cell.pass_: cell for cell in cells if cell.layer == "a"}
    assert by_pass["kernel-gradient"].status == "unsupported"
    assert by_pass["kernel-gradient"].reason == "no gradients"
    forward = by_pass["forward"]
    assert (forward.status, forward.agreement.exact) == ("ok", True)
    assert forward.time.time_s > 0
    assert (forward.memory.method, forward.memory.exact) == ("memray", True)
    assert forward.memory.call_peak_bytes >= 4 * 2 * 7 * 7 * 4  # the bytes of the result


def test_the_version_and_variables_of_a_runtime_are_recorded(saved):
    assert saved.result.software.versions["flat-arrays"]
    assert saved.result.environment[VARIABLE] == "1"


def test_a_runtime_from_outside_is_reported(saved):
    told = render(report(saved.result), "markdown")
    assert NAME in told
    assert "im2col is" in told or "im2col takes" in told


def test_a_run_tells_that_a_runtime_is_not_installed(tmp_path, monkeypatch):
    """The cells of that runtime are unsupported, with the command that installs it. The other cells
    are run."""
    monkeypatch.setattr(FlatArrays, "module", "array_that_nobody_has")
    suite = replace(read_suite(TINY), implementations=(NAME, "im2col"))
    session = Session(
        suite=suite,
        machine=machine.fingerprint(),
        software=machine.software({}),
        environment={},
        threads=1,
        effort="smoke",
        seed=0,
        path=tmp_path / "flat.json",
        registry=Registry({**BUILT_IN, NAME: "tests.elsewhere.flat_arrays:FlatLoop"}),
    )
    for event in run(session, Options(environment=Environment(os.environ, {}))):
        if getattr(event, "phase", "") == "timing":
            break
    cell = session.cells["a", "forward", NAME]
    assert (cell.status, cell.unsupported.lacks) == ("unsupported", ("runtime",))
    assert cell.reason == "flat arrays is not installed: pip install flat-arrays"
    assert session.cells["a", "forward", "im2col"].status == "ok"


# The runtimes of convbench


def test_each_runtime_has_the_name_that_the_table_gives_it():
    assert [each.name for each in runtimes.runtimes()] == list(runtimes.RUNTIMES)


def test_only_equal_runtimes_share_a_process():
    assert REGISTRY.get("loop").runtime == REGISTRY.get("im2col").runtime == NumPy()
    assert NumPy().apart("one") not in (NumPy(), NumPy().apart("another"), TensorFlow("one"))
    assert REGISTRY.get("mine.py:f").runtime != REGISTRY.get("mine.py:g").runtime


@pytest.fixture(autouse=True)
def own_code(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("def f(x, kernel): ...\ndef g(x, kernel): ...\n")
    monkeypatch.setattr("convbench.own_code.description.STARTED_IN", tmp_path)


@pytest.mark.parametrize("runtime", runtimes.runtimes(), ids=lambda runtime: runtime.name)
def test_each_package_of_a_runtime_has_a_version(runtime):
    assert set(runtime.versions()) == set(runtime.packages)
    assert runtime.missing() is None


def test_a_suites_variables_win_over_the_callers_and_these_over_defaults():
    environment = Environment({"A": "caller", "B": "caller"}, {"B": "suite", "C": None})
    found = environment.of(NumPy(), 1, {"A": "default", "C": "default", "D": "default"})
    assert (found["A"], found["B"], found["D"]) == ("caller", "suite", "default")
    assert "C" not in found
    assert "A" not in environment.without(["A"]).of(NumPy(), 1)


def test_the_callers_variables_win_over_a_runtimes_defaults():
    level = "TF_CPP_MIN_LOG_LEVEL"
    for caller, changes, expected in (
        ({}, {}, "2"),
        ({level: "0"}, {}, "0"),
        ({level: "0"}, {level: "1"}, "1"),
    ):
        environment = Environment(caller, changes)
        own = REGISTRY.get("mine.py:f").runtime
        for found in (
            environment.of(TensorFlow(), 1),
            environment.of(own, 1),
            environment.recorded(1),
        ):
            assert found[level] == expected


def _modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if not name.startswith("runtimes/"):
            yield name, ast.parse(path.read_text())


def test_no_other_module_imports_a_framework():
    found = [
        (name, node.lineno)
        for name, tree in _modules()
        if not name.startswith(KERAS_FILES)
        for node in ast.walk(tree)
        if _imported(node) & FRAMEWORKS
    ]
    assert found == []


def _imported(node):
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module:
        return {node.module.partition(".")[0]}
    return set()


def test_no_other_module_compares_the_name_of_a_runtime():
    names = {each.name for each in runtimes.runtimes()} | {"own code"}
    found = [
        (name, node.lineno)
        for name, tree in _modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare | ast.Match) and _strings(node) & names
    ]
    assert found == []


def _strings(node):
    parts = [node.left, *node.comparators] if isinstance(node, ast.Compare) else [*ast.walk(node)]
    listed = [each for part in parts for each in getattr(part, "elts", [part])]
    return {part.value for part in listed if isinstance(part, ast.Constant)} - {None}
