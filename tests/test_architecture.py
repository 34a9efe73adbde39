"""The shape of the package's functions: their length, their parameters, the types they return."""

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
    """A command's parameters are its options; those of conv2d and the like are Keras's."""
    counts = {
        (file, node.name): len([*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs])
        for file, node in _functions()
        if not _is_command(node) and not (file == "api.py" and node.name in LIKE_KERAS)
    }
    assert {name: count for name, count in counts.items() if count > MOST_PARAMETERS} == {}


def _public(file, tree):
    """The functions and methods that another module may call, with the classes they are of."""
    for node in tree.body:
        if isinstance(node, FUNCTIONS):
            yield node
        if isinstance(node, ast.ClassDef):
            yield from (each for each in node.body if _is_method(file, node, each))


def _is_method(file, owner, node):
    """`Traced` overrides methods of NumPy's array, whose types say Any."""
    is_numpys = (file, owner.name) == ("profile/tracing.py", "Traced") and hasattr(
        np.ndarray, getattr(node, "name", "")
    )
    return isinstance(node, FUNCTIONS) and not owner.name.startswith("_") and not is_numpys


def _is_any(annotation):
    """Whether a type is Any, or a union with it: a caller knows nothing of what it gets."""
    if isinstance(annotation, ast.BinOp):
        return _is_any(annotation.left) or _is_any(annotation.right)
    return isinstance(annotation, ast.Name) and annotation.id == "Any"


def test_nothing_public_returns_any():
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
