"""Test the shape of the package's functions: length, number of parameters, types returned."""

import ast

import numpy as np
import pytest

from tests.cli import ROOT

PACKAGE = ROOT / "convbench"
TREES = {
    str(path.relative_to(PACKAGE)): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")
}

MOST_LINES = 80
MOST_PARAMETERS = 8
"""Limits that issue 18 sets for a function."""

LIKE_KERAS = {"conv2d", "conv2d_input_gradient", "conv2d_kernel_gradient", "plan"}
"""Functions of api.py that have the parameters of Keras Conv2D."""

FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


def _functions():
    return [
        (file, node)
        for file, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, FUNCTIONS)
    ]


def test_no_function_is_too_long():
    lengths = {(file, node.name): node.end_lineno - node.lineno + 1 for file, node in _functions()}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def _is_command(node):
    return any(isinstance(each, ast.Name) and each.id == "guarded" for each in node.decorator_list)


def test_no_function_takes_too_many_parameters():
    """Commands may have more, since a parameter is an option there. So may conv2d and its like,
    which have the parameters of Keras."""
    counts = {
        (file, node.name): len([*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs])
        for file, node in _functions()
        if not _is_command(node) and not (file == "api.py" and node.name in LIKE_KERAS)
    }
    assert {name: count for name, count in counts.items() if count > MOST_PARAMETERS} == {}


def _public(file, tree):
    """Yield the functions and methods of a module that another module may call."""
    for node in tree.body:
        if isinstance(node, FUNCTIONS):
            yield node
        if isinstance(node, ast.ClassDef):
            yield from (each for each in node.body if _is_method(file, node, each))


def _is_method(file, owner, node):
    """Return whether a node of a class is a method that another module may call.

    `Traced` does not count where it overrides methods of NumPy's array, whose types say Any.
    """
    is_numpys = (file, owner.name) == ("profile/tracing.py", "Traced") and hasattr(
        np.ndarray, getattr(node, "name", "")
    )
    return isinstance(node, FUNCTIONS) and not owner.name.startswith("_") and not is_numpys


def _is_any(annotation):
    """Return whether a type is Any or a union with Any, which tells a caller nothing."""
    if isinstance(annotation, ast.BinOp):
        return _is_any(annotation.left) or _is_any(annotation.right)
    return isinstance(annotation, ast.Name) and annotation.id == "Any"


def test_no_public_function_returns_any():
    found = [
        (file, node.name)
        for file, tree in TREES.items()
        for node in _public(file, tree)
        if not node.name.startswith("_") and _is_any(node.returns)
    ]
    assert found == []


@pytest.mark.parametrize("source", ["def f() -> Any: ...", "def f() -> int | Any: ..."])
def test_any_is_found(source):
    (node,) = ast.parse(source).body
    assert _is_any(node.returns)
