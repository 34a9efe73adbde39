"""Test suite files: what they become, and what people are told about a wrong one."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convbench.errors import LayerError, SuiteError
from convbench.implementations.registry import BUILT_IN
from convbench.own_code.description import OwnCode
from convbench.problem.layer import Layer, Pass
from convbench.suites.file import MAX_BYTES, json_schema, read_rules, read_suite
from convbench.suites.suite import (
    DEFAULT_IMPLEMENTATIONS,
    FASTEST_KERAS,
    KERAS_WAYS,
    Rule,
    shipped_suites,
)
from tests.systems import posix

CONFIGS = Path(__file__).parents[1] / "configs"
SIZE = "an integer from 1 to 2147483647"
PAIR = "an integer of at least 1, or two as [height, width]"
LAYER_KEYS = (
    "input_shape, filters, kernel_size, strides, padding, dilation_rate, groups, use_bias, "
    "batch_size, dtype, count"
)
SUITE_KEYS = (
    "name, description, defaults, layers, implementations, passes, threads, effort, environment, "
    "gate, provenance"
)
RULE_KEYS = "implementation, versus, pass, layer, of, at_least, at_most_bytes, per_cent_of_peak"
ENTRY = "{input_shape: [8, 8, 3], filters: 4, kernel_size: 3}"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("convbench.own_code.description.STARTED_IN", tmp_path)
    return tmp_path


def read(text: str | bytes) -> Any:
    Path("suite.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_suite("suite.yaml")


def problems(text: str | bytes) -> list[str]:
    with pytest.raises(SuiteError) as caught:
        read(text)
    return caught.value.message.splitlines()


def layer_of(keys: str) -> Any:
    return read(f"layers: [{ENTRY[:-1]}, {keys}}}]").layers[0]


# What a file becomes


def test_own_code_can_say_how_it_is_called(folder: Path) -> None:
    (folder / "code.py").write_text("")
    suite = read(
        f"""layers: [{ENTRY}]
implementations:
- im2col
- {{code: code.py:Conv, name: mine, layout: NHW, kernel_layout: HWIO, output_layout: NHWC,
   passes: {{forward: "convolve(x, kernel, mode='forward')"}}}}
- code.py:other
"""
    )
    assert suite.implementations == ("im2col", "mine", "code.py:other")
    mine = OwnCode(
        "mine",
        "code.py:Conv",
        "NHW",
        "HWIO",
        "NHWC",
        {Pass.FORWARD: "convolve(x, kernel, mode='forward')"},
    )
    assert suite.own == (OwnCode("code.py:other", "code.py:other"), mine)
    assert suite.is_own("mine")
    assert not suite.is_own("im2col")


def test_a_suite_with_one_layer_has_the_documented_defaults() -> None:
    suite = read(f"layers: [{ENTRY}]")
    assert suite.name == "suite"
    assert suite.layers == (Layer("layer1", (8, 8, 3), 4, (3, 3)),)
    assert suite.implementations == DEFAULT_IMPLEMENTATIONS
    assert suite.passes == tuple(Pass)
    assert suite.threads == "all"
    assert suite.environment == {}
    assert (suite.description, suite.source) == ("", "suite.yaml")


def test_every_key_of_a_suite_is_read() -> None:
    suite = read(
        """\
name: mine
description: two layers
defaults: {filters: 4, batch_size: 5, strides: 2}
layers:
  - {input_shape: [8, 8, 3], kernel_size: 3}
  - {name: own, input_shape: [9, 7], kernel_size: [3, 2], strides: [1, 3], batch_size: 1, count: 6}
implementations: [im2col, keras-xla]
passes: [kernel-gradient, forward]
threads: 3
environment: {TF_ENABLE_ONEDNN_OPTS: 0, MASK: 010, XLA_FLAGS: --a=b, OMP_NUM_THREADS: null}
"""
    )
    assert (suite.name, suite.description, suite.threads) == ("mine", "two layers", 3)
    assert suite.layers == (
        Layer("layer1", (8, 8, 3), 4, (3, 3), strides=(2, 2), batch_size=5),
        Layer("own", (9, 7, 1), 4, (3, 2), strides=(1, 3), batch_size=1, count=6),
    )
    assert suite.implementations == ("im2col", "keras-xla")
    assert suite.passes == (Pass.KERNEL_GRADIENT, Pass.FORWARD)
    assert suite.environment == {
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "MASK": "010",  # kept as written, although YAML reads it as eight
        "XLA_FLAGS": "--a=b",
        "OMP_NUM_THREADS": None,
    }


@pytest.mark.parametrize(
    ("written", "padding"),
    [
        ("SAME", "same"),
        ("Valid", "valid"),
        ("2", ((2, 2), (2, 2))),
        ("0", ((0, 0), (0, 0))),
        ("[[1, 2], [0, 3]]", ((1, 2), (0, 3))),
    ],
)
def test_padding_can_be_written_in_four_ways(written: str, padding: object) -> None:
    assert layer_of(f"padding: {written}").padding == padding


def test_users_files_are_found_from_the_folder_of_the_suite(folder: Path) -> None:
    (folder / "suites").mkdir()
    (folder / "code.py").touch()
    text = f"layers: [{ENTRY}]\nimplementations: [loop, ../code.py:conv]"
    (folder / "suites" / "a.yaml").write_text(text)
    assert read_suite("suites/a.yaml").implementations == ("loop", "code.py:conv")
    assert read_suite("suites/a.yaml").own == (OwnCode("code.py:conv", "code.py:conv"),)
    absolute = read_suite(folder / "suites" / "a.yaml").implementations[1]
    assert absolute == f"{folder / 'code.py'}:conv"


def test_anchors_and_a_byte_order_mark_are_read() -> None:
    text = f"\ufefflayers: [&a {ENTRY}, *a]".encode()
    assert [layer.name for layer in read(text).layers] == ["layer1", "layer2"]


def test_a_file_wins_over_a_shipped_name_and_a_folder_does_not(folder: Path) -> None:
    (folder / "mnist").mkdir()
    assert read_suite("mnist").layers[0].name == "conv1"
    (folder / "mnist").rmdir()
    (folder / "mnist").write_text(f"layers: [{ENTRY}]")
    assert read_suite("mnist").layers[0].name == "layer1"


# What people are told: each text is the whole message

WRONG_VALUES = {
    'filters: "8"': f'layers.0.filters: found the text "8", expected {SIZE}; remove the quotes',
    "filters: 8.5": f"layers.0.filters: found the number 8.5, expected {SIZE}",
    "filters: true": f"layers.0.filters: found the boolean true, expected {SIZE}",
    "filters: 0": f"layers.0.filters: found the number 0, expected {SIZE}",
    "filters: 2147483648": f"layers.0.filters: found the number 2147483648, expected {SIZE}",
    "filters:": f"layers.0.filters: found nothing, expected {SIZE}; "
    "give it a value, or remove the key",
    "count: [1]": f"layers.0.count: found the list [1], expected {SIZE}",
    "use_bias: 1": "layers.0.use_bias: found the number 1, expected true or false",
    "use_bias: 'true'": 'layers.0.use_bias: found the text "true", expected true or false; '
    "remove the quotes",
    "strides: 3x3": f'layers.0.strides: found the text "3x3", expected {PAIR}',
    "strides: [1, 0]": f"layers.0.strides: found the list [1, 0], expected {PAIR}",
    "strides: [1, 2, 3]": f"layers.0.strides: found the list [1, 2, 3], expected {PAIR}",
    "dilation_rate: {h: 1}": f"layers.0.dilation_rate: found the mapping {{h: 1}}, expected {PAIR}",
    "input_shape: [8]": "layers.0.input_shape: found the list [8], expected two or three "
    "integers of at least 1: [height, width, channels]",
    "padding: full": 'layers.0.padding: found the text "full", expected valid, same, an '
    "integer of at least 0, or [[top, bottom], [left, right]]",
    "padding: -1": "layers.0.padding: found the number -1, expected valid, same, an "
    "integer of at least 0, or [[top, bottom], [left, right]]",
    "padding: [1, 1]": "layers.0.padding: found the list [1, 1], expected valid, same, an "
    "integer of at least 0, or [[top, bottom], [left, right]]",
    "dtype: float16": 'layers.0.dtype: found the text "float16", expected float32 or float64',
    "name: 5": "layers.0.name: found the number 5, expected text without line breaks; "
    'write it in quotes: "5"',
    r'name: "a\nb"': r'layers.0.name: found the text "a\nb", expected text without line breaks',
    r'name: "\ud800"': r'layers.0.name: found the text "\ud800", expected whole characters',
    "count: 2001-13-45": f'layers.0.count: found the text "2001-13-45", expected {SIZE}',
    "count: !!int abc": "layers.0.count: found the number abc, which cannot be read as such",
    "count: !new abc": "layers.0.count: found the YAML tag !new, expected plain YAML",
    "count: !!python/name:os.system": "layers.0.count: found the YAML tag "
    "!!python/name:os.system, expected plain YAML",
    f"count: {'9' * 5000}": f"layers.0.count: found the number {'9' * 57}..., "
    "which cannot be read as such",
    f"count: 0x{'f' * 5000}": f"layers.0.count: found the number 0x{'f' * 55}..., "
    "expected an integer of at most 64 bits",
    "kernel_size: 9": "layers.0.kernel_size: a kernel of 9x9 with dilation_rate 1x1 does not "
    "fit the padded input of 8x8: the output would be empty",
    "groups: 3": "layers.0.groups: 3 must divide the 4 input channels and the 4 filters",
}


@pytest.mark.parametrize("entry", WRONG_VALUES)
def test_a_wrong_value_in_a_layer_is_reported_with_its_place(entry: str) -> None:
    others = {"input_shape": "[8, 8, 4]", "filters": "4", "kernel_size": "3"}
    others.pop(entry.partition(":")[0], None)
    rest = "".join(f"\n  {key}: {value}" for key, value in others.items())
    key, _, value = entry.partition(":")
    column = len(f"  {key}: ") + 1 if value else len(f"  {key}:") + 1
    found = problems(f"layers:\n-\n  {entry}{rest}\n")
    assert found == [f"suite.yaml:3:{column}: {WRONG_VALUES[entry]}"]


UNKNOWN_LAYER_KEYS = {
    "kernelsize": "did you mean kernel_size?",
    "KernelSize": "did you mean kernel_size?",
    "dilation_rat": "did you mean dilation_rate?",
    "stride": "did you mean strides?",
    "dilation": "did you mean dilation_rate?",
    "kernel": "did you mean kernel_size?",
    "pad": "did you mean padding?",
    "out_channels": "did you mean filters?",
    "batch": "did you mean batch_size?",
    "bias": "did you mean use_bias?",
    "in_channels": "channels are the third number of input_shape",
    "channels": "the input's channels are the third number of input_shape, "
    "the output's are filters",
    "threads": "threads belongs at the top level of the file",
    "zzz": "",
}


@pytest.mark.parametrize("key", UNKNOWN_LAYER_KEYS)
def test_an_unknown_key_in_a_layer_is_reported_with_the_key_that_was_meant(key: str) -> None:
    remedy = UNKNOWN_LAYER_KEYS[key]
    assert problems(f"layers:\n- {ENTRY}\n- {{{key}: 1, {ENTRY[1:]}") == [
        f"suite.yaml:3:4: layers.1.{key}: found an unknown key, expected one of name, "
        f"{LAYER_KEYS}{'; ' if remedy else ''}{remedy}"
    ]


MESSAGES: dict[str, tuple[str, list[str]]] = {
    "unknown keys of the suite": (
        f"implementation: [loop]\nstrides: 2\nlayers: [{ENTRY}]",
        [
            f"1:1: implementation: found an unknown key, expected one of {SUITE_KEYS}; "
            "did you mean implementations?",
            f"2:1: strides: found an unknown key, expected one of {SUITE_KEYS}; "
            "strides belongs in a layer or in defaults",
        ],
    ),
    "a name in defaults": (
        f"defaults: {{name: a}}\nlayers: [{ENTRY}]",
        [
            f"1:12: defaults.name: found an unknown key, expected one of {LAYER_KEYS}; "
            "each layer has a name of its own"
        ],
    ),
    "a misspelt key is not missing as well": (
        "layer:\n- {input_shape: [8, 8], filters: 1, kernel_size: 1}",
        [
            f"1:1: layer: found an unknown key, expected one of {SUITE_KEYS}; did you mean layers?",
        ],
    ),
    "no layers": (
        "name: a\n",
        ["1:1: found no key layers, expected a list with at least one layer"],
    ),
    "empty layers": (
        "layers: []",
        ["1:9: layers: found an empty list, expected a list with at least one layer"],
    ),
    "a layer that is no mapping": (
        f"layers:\n- {ENTRY}\n- conv",
        [
            '3:3: layers.1: found the text "conv", expected a mapping such as '
            "{input_shape: [28, 28, 1], filters: 8, kernel_size: 3}"
        ],
    ),
    "missing keys": (
        "defaults: {filters: 3}\nlayers:\n- input_shape: [8, 8]\n",
        [f"3:3: layers.0: found no key kernel_size, expected {PAIR}, here or in defaults"],
    ),
    "duplicate keys": (
        "name: a\nname: b\nlayers:\n- filters: 1\n  kernel_size: 3\n  filters: 2\n"
        "  input_shape: [8, 8]\n",
        [
            "2:1: name: found this key again, expected it once; the first is on line 1",
            "6:3: layers.0.filters: found this key again, expected it once; the first is on line 4",
        ],
    ),
    "merge keys": (
        f"layers:\n- <<: {{count: 2}}\n  name: a\n- {ENTRY}",
        [
            "2:3: layers.0: found no key filters, expected " + SIZE + ", here or in defaults",
            "2:3: layers.0: found no key input_shape, expected two or three integers of at least "
            "1: [height, width, channels], here or in defaults",
            f"2:3: layers.0: found no key kernel_size, expected {PAIR}, here or in defaults",
            "2:3: layers.0.<<: found a YAML merge key, expected keys written out; "
            "use defaults instead",
        ],
    ),
    "a key that is a list": (
        f"layers: [{ENTRY}]\n? [a, b]\n: 1\n",
        ["2:3: found the list [a, b] as a key, expected text"],
    ),
    "names that occur twice": (
        f"layers:\n- {{name: a, {ENTRY[1:]}\n- {ENTRY}\n- {{name: a, {ENTRY[1:]}\n"
        f"- {{name: layer2, {ENTRY[1:]}",
        [
            '4:10: layers.2.name: found "a", expected a unique name; layers.0 on line 2 has it too',
            '5:10: layers.3.name: found "layer2", expected a unique name; '
            "layers.1 on line 3 has it too",
        ],
    ),
    "a name by position that is taken": (
        f"layers:\n- {{name: layer2, {ENTRY[1:]}\n- {ENTRY}\n",
        [
            '3:3: layers.1.name: found "layer2", the name by position, expected a unique name; '
            "layers.0 on line 2 has it too"
        ],
    ),
    "a wrong default is told once": (
        f"defaults:\n  batch_size: 0\nlayers: [{ENTRY}, {ENTRY}]",
        [f"2:15: defaults.batch_size: found the number 0, expected {SIZE}"],
    ),
    "a default that fits no layer is told once": (
        "defaults: {groups: 2, kernel_size: 9}\nlayers:\n"
        "- {input_shape: [8, 8, 4], filters: 4}\n"
        "- {input_shape: [9, 9, 4], filters: 4}\n"
        "- {input_shape: [8, 7, 4], filters: 4}\n"
        "- {input_shape: [9, 9, 4], filters: 5}\n"
        "- {input_shape: [9, 9, 4], filters: 4, kernel_size: 10}\n",
        [
            "1:20: defaults.groups: 2 must divide the 4 input channels and the 5 filters "
            "(in layers.3 on line 6)",
            "1:36: defaults.kernel_size: a kernel of 9x9 with dilation_rate 1x1 does not fit the "
            "padded input of 8x8: the output would be empty (in layers.0 on line 3 and 1 more)",
            "7:53: layers.4.kernel_size: a kernel of 10x10 with dilation_rate 1x1 does not fit "
            "the padded input of 9x9: the output would be empty",
        ],
    ),
    "defaults that are no mapping": (
        "defaults: 3\nlayers: [{}]",
        [
            "1:11: defaults: found the number 3, expected a mapping of layer keys, such as "
            "{batch_size: 32}"
        ],
    ),
    "implementations": (
        f'layers: [{ENTRY}]\nimplementations: [loop, imcol, no.py:f, "x:", loop, 8]',
        [
            f'2:25: implementations.1: found "imcol", expected one of {", ".join(BUILT_IN)}, or '
            "your own FILE.py:NAME; did you mean im2col?",
            '2:32: implementations.2: found "no.py:f", expected an existing file; '
            "there is no no.py",
            '2:41: implementations.3: found "x:", expected FILE.py:NAME or package.module:NAME; '
            "it has no name after the colon",
            '2:47: implementations.4: found "loop" again, expected it once; the first is on line 2',
            "2:53: implementations.5: found the number 8, expected the name of an implementation, "
            'FILE.py:NAME or package.module:NAME; write it in quotes: "8"',
        ],
    ),
    "own code": (
        f"""layers: [{ENTRY}]
implementations:
- {{code: no.py:f, layout: NCCW, kernel_layout: 3, mode: 1}}
- {{code: im2col}}
- {{name: mine}}
- {{code: "os:path", name: loop, passes: {{forward: "f(x", backward: "f(x)"}}}}
- {{code: "os:path", name: a, layout: CHH, passes: {{forward: "f(x", kernel-gradient: "g(x)"}}}}
""",
        [
            "3:48: implementations.0.kernel_layout: found the number 3, expected the axes O, "
            "I, H and W in their order, such as HWIO",
            "3:51: implementations.0.mode: found an unknown key, expected one of code, name, "
            "layout, output_layout, kernel_layout, passes; did you mean code?",
            '4:10: implementations.1.code: found "im2col", expected FILE.py:NAME or '
            "package.module:NAME",
            "5:3: implementations.2: found no key code, expected text: FILE.py:NAME or "
            "package.module:NAME",
            '6:41: implementations.3.passes: found the mapping {forward: "f(x", backward: '
            '"f(x)"}, expected a mapping of passes to expressions, such as {forward: '
            "'convolve(x, kernel)'}",
            '7:38: implementations.4.layout: found "CHH", expected the letters N, C, H, W in '
            "any order; N and C may be left out for axes of size 1",
            '7:61: implementations.4.passes.forward: found "f(x", expected a Python '
            "expression: '(' was never closed",
        ],
    ),
    "passes": (
        f"layers: [{ENTRY}]\npasses:\n- forward\n- backward\n- forward\n",
        [
            '4:3: passes.1: found the text "backward", expected forward, input-gradient or '
            "kernel-gradient",
            '5:3: passes.2: found "forward" again, expected it once; the first is on line 3',
        ],
    ),
    "one pass without a list": (
        f"layers: [{ENTRY}]\npasses: forward",
        [
            '2:9: passes: found the text "forward", expected a list of passes: '
            "[forward, input-gradient, kernel-gradient]"
        ],
    ),
    "threads": (
        f"layers: [{ENTRY}]\nthreads: 0",
        ["2:10: threads: found the number 0, expected all, or an integer of at least 1"],
    ),
    "environment": (
        f"layers: [{ENTRY}]\nenvironment:\n  A B: 1\n  C: 0.5\n  D: yes\n  on: 1\n",
        [
            '3:3: environment.A B: found "A B", expected a variable name of letters, digits and '
            "_, with text, an integer or null as its value",
            "4:6: environment.C: found the number 0.5, expected text, an integer, or null to "
            'unset the variable; write it in quotes: "0.5"',
            "5:6: environment.D: found the boolean yes, expected text, an integer, or null to "
            'unset the variable; write it in quotes: "yes"',
        ],
    ),
    "a suite's name that is no file's name": (
        f"name: a/b\nlayers: [{ENTRY}]",
        [
            '1:7: name: found the text "a/b", expected text without / and line breaks, of at most '
            "100 characters"
        ],
    ),
    "terminal escapes": (
        f'layers: [{ENTRY}]\n"\\e[31m": 1',
        [f"2:1: \\x1b[31m: found an unknown key, expected one of {SUITE_KEYS}"],
    ),
    "several kinds at once, in the order of the file": (
        """\
decription: x
threads: none
defaults:
  stride: 2
layers:
  - {input_shape: [8, 8, 3], filters: "8", kernel_size: 3}
  - name: a
    filters: 9
    filters: 8
    use_bias: 1
passes: [x]
""",
        [
            f"1:1: decription: found an unknown key, expected one of {SUITE_KEYS}; "
            "did you mean description?",
            '2:10: threads: found the text "none", expected all, or an integer of at least 1',
            f"4:3: defaults.stride: found an unknown key, expected one of {LAYER_KEYS}; "
            "did you mean strides?",
            f'6:39: layers.0.filters: found the text "8", expected {SIZE}; remove the quotes',
            "7:5: layers.1: found no key input_shape, expected two or three integers of at least "
            "1: [height, width, channels], here or in defaults",
            f"7:5: layers.1: found no key kernel_size, expected {PAIR}, here or in defaults",
            "9:5: layers.1.filters: found this key again, expected it once; the first is on line 8",
            "10:15: layers.1.use_bias: found the number 1, expected true or false",
            '11:10: passes.0: found the text "x", expected forward, input-gradient or '
            "kernel-gradient",
        ],
    ),
    "a gate that is no list": (
        f"layers: [{ENTRY}]\ngate: {{implementation: im2col}}",
        [
            "2:7: gate: found the mapping {implementation: im2col}, expected a list with at least "
            "one rule"
        ],
    ),
    "an empty gate": (
        f"layers: [{ENTRY}]\ngate: []",
        ["2:7: gate: found an empty list, expected a list with at least one rule"],
    ),
    "a provenance that import did not write": (
        f"layers: [{ENTRY}]\nprovenance: {{source: 3, format: csv, read: -1, tool: x}}",
        [
            "2:13: provenance: found no key merged, expected a number of convolutions",
            "2:22: provenance.source: found the number 3, expected what `convbench import` wrote: "
            "text, a number, or a list of texts",
            "2:44: provenance.read: found the number -1, expected what `convbench import` wrote: "
            "text, a number, or a list of texts",
            "2:48: provenance.tool: found an unknown key, expected one of source, format, read, "
            "merged, tools, notes, left_out; did you mean tools?",
        ],
    ),
    "a misspelt gate": (
        f"layers: [{ENTRY}]\nrules: []",
        [f"2:1: rules: found an unknown key, expected one of {SUITE_KEYS}; did you mean gate?"],
    ),
    "rules beside wrong lists": (
        f"""\
layers: [{{name: conv, {ENTRY[1:-1]}, groups: 0}}]
implementations: [loop, imcol]
passes: [backward]
gate:
  - {{implementation: im2col, pass: forward, layer: dense, at_most_bytes: 1}}
  - {{implementation: imcol, at_most_bytes: 1}}
""",
        [
            f"1:83: layers.0.groups: found the number 0, expected {SIZE}",
            f'2:25: implementations.1: found "imcol", expected one of {", ".join(BUILT_IN)}, or '
            "your own FILE.py:NAME; did you mean im2col?",
            '3:10: passes.0: found the text "backward", expected forward, input-gradient or '
            "kernel-gradient",
            f'6:22: gate.1.implementation: found "imcol", expected one of {", ".join(BUILT_IN)}, '
            "or your own FILE.py:NAME; did you mean im2col?",
        ],
    ),
    # Files that are no document at all
    "empty": (
        "",
        ["1:1: found an empty file, expected a mapping of keys such as layers and implementations"],
    ),
    "comments only": (
        "# a\n",
        ["1:1: found an empty file, expected a mapping of keys such as layers and implementations"],
    ),
    "a list": (
        "[1]",
        ["1:1: found the list [1], expected a mapping of keys such as layers and implementations"],
    ),
    "a word": (
        "hello",
        [
            '1:1: found the text "hello", expected a mapping of keys such as layers '
            "and implementations"
        ],
    ),
    "a tab": (
        "layers:\n\t- a",
        ["2:1: found a tab, expected spaces; YAML indents with spaces only"],
    ),
    "an open bracket": (
        "layers: [a",
        [
            "1:11: not valid YAML: expected ',' or ']', but got '<stream end>', while parsing a "
            "flow sequence that starts on line 1; check for a missing comma or bracket"
        ],
    ),
    "a colon too many": (
        "name: b: c",
        [
            "1:8: not valid YAML: mapping values are not allowed here; check the indentation, or "
            "quote text that contains ': '"
        ],
    ),
    "indentation": (
        "layers:\n  - a: 1\n   b: 2\n",
        [
            "3:4: not valid YAML: expected <block end>, but found '<block mapping start>', while "
            "parsing a block collection that starts on line 2; check the indentation, and that "
            "lists and keys are not mixed"
        ],
    ),
    "an undefined alias": (
        "layers: *a",
        [
            "1:9: not valid YAML: found undefined alias 'a'; define it with & above its first use, "
            "or quote the text"
        ],
    ),
    "a pattern without quotes": (
        "gate:\n- {layer: *}\n",
        [
            "2:12: not valid YAML: expected alphabetic or numeric character, but found '}', while "
            "scanning an alias that starts on line 2; quote text that starts with * or &"
        ],
    ),
    "two documents": (
        "a: 1\n---\nb: 1\n",
        ["2:1: found a second document, expected one; remove the ---"],
    ),
    "a control character": (
        "name: a\nlayers: \x07",
        ["2:9: found the control character U+0007, expected text; remove it"],
    ),
    "an alias to itself": (
        "layers: &a [*a]",
        ["1:9: found an alias inside its own value, expected a suite"],
    ),
    "deep nesting": (
        "layers: " + "[" * 5000,
        ["1:24: found more than 16 levels of nesting, expected a suite"],
    ),
    "aliases that explode": (
        "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
        + "".join(
            f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
            for before, name in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        ["1:32: found more than 400000 keys and values, aliases included, expected a suite"],
    ),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_a_wrong_file_is_refused_with_every_problem_and_its_place(case: str) -> None:
    text, expected = MESSAGES[case]
    started = time.perf_counter()
    assert problems(text) == [f"suite.yaml:{line}" for line in expected]
    assert time.perf_counter() - started < 5


BYTES = {
    b"layers: \xff": "suite.yaml:1:9: found the byte 0xff, which is not UTF-8, expected UTF-8 "
    "text; save the file as UTF-8",
    "a: ä\nä: \xe4".encode() + b"\xe4": "suite.yaml:2:5: found the byte 0xe4, which is not UTF-8, "
    "expected UTF-8 text; save the file as UTF-8",
    b"abc\n\0": "suite.yaml:2:1: found a binary file, expected YAML text",
    "layers: []".encode("utf-16"): "suite.yaml:1:1: found UTF-16 text, expected UTF-8; "
    "save the file as UTF-8",
    b"#" * (10 * MAX_BYTES): "suite.yaml: found more than 4 MB, expected a suite",
}


@pytest.mark.parametrize("data", BYTES, ids=["latin-1", "line 2", "binary", "utf-16", "large"])
def test_a_file_that_is_no_text_is_refused(data: bytes) -> None:
    assert problems(data) == [BYTES[data]]


def test_a_folder_is_refused() -> None:
    Path("suite").mkdir()
    with pytest.raises(SuiteError, match=r"^suite: found a folder, expected a YAML file$"):
        read_suite("suite")


@posix
@pytest.mark.skipif(getattr(os, "geteuid", int)() == 0, reason="root reads every file")
def test_an_unreadable_file_is_refused() -> None:
    Path("suite.yaml").touch(mode=0)
    with pytest.raises(SuiteError, match=r"^suite\.yaml: cannot be read: Permission denied$"):
        read_suite("suite.yaml")


def test_a_path_that_the_system_refuses_is_reported() -> None:
    with pytest.raises(SuiteError, match="cannot be read: File name too long"):
        read_suite("x" * 5000)


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("mnits", "did you mean mnist or noise?"),
        ("own.yam", "did you mean own.yaml?"),
        ("own", "did you mean own.yaml?"),
        ("own.yaml/a", "name a YAML file"),
        ("", "name a YAML file"),
        ("a\0b", "name a YAML file"),
    ],
)
def test_a_missing_suite_is_refused_with_similar_names(target: str, hint: str) -> None:
    Path("own.yaml").touch()
    with pytest.raises(SuiteError) as caught:
        read_suite(target)
    shown = target.replace("\0", "\\x00")
    assert caught.value.message == (
        f'there is no suite "{shown}": neither a file of that name nor one of the shipped suites '
        f"({', '.join(shipped_suites())})"
    )
    assert caught.value.hint == hint


# The gate

IN_SUITE = "expected one of the suite's implementations: "
SUITE = f"""\
layers:
  - {{name: conv1, {ENTRY[1:]}
  - {{name: conv2, {ENTRY[1:]}
implementations: [loop, im2col, keras, own.py:conv]
passes: [forward, kernel-gradient]
gate:
"""


def gate_of(*rules: str, suite: str = SUITE) -> str:
    Path("own.py").touch()
    return suite + "".join(f"- {{{rule}}}\n" for rule in rules)


def test_the_rules_of_a_gate_are_read() -> None:
    suite = read(
        gate_of(
            'implementation: im2col, versus: loop, pass: forward, layer: "conv*", at_least: 20',
            "implementation: im2col, versus: fastest-keras, of: geometric_mean, at_least: 0.5",
            "implementation: im2col, layer: conv1, at_most_bytes: 4194304",
            "implementation: im2col, pass: kernel-gradient, per_cent_of_peak: 110",
            "implementation: keras, versus: own.py:conv, of: each, at_least: 1_000",
        )
    )
    assert suite.gate == (
        Rule("im2col", "loop", Pass.FORWARD, "conv*", at_least=20.0),
        Rule("im2col", FASTEST_KERAS, of="geometric_mean", at_least=0.5),
        Rule("im2col", layer="conv1", at_most_bytes=4194304),
        Rule("im2col", pass_=Pass.KERNEL_GRADIENT, per_cent_of_peak=110.0),
        Rule("keras", "own.py:conv", at_least=1000.0),
    )
    assert isinstance(suite.gate[0].at_least, float)
    assert isinstance(suite.gate[3].per_cent_of_peak, float)


def test_a_suite_without_lists_may_have_rules_for_the_default_lists() -> None:
    rule = "implementation: im2col, versus: keras-graph, pass: input-gradient, at_least: 1"
    (found,) = read(gate_of(rule, suite=f"layers: [{ENTRY}]\ngate:\n")).gate
    assert found == Rule("im2col", "keras-graph", Pass.INPUT_GRADIENT, at_least=1.0)


def test_users_files_in_rules_are_those_of_the_implementations(folder: Path) -> None:
    (folder / "suites").mkdir()
    (folder / "code.py").touch()
    suite = folder / "suites" / "a.yaml"
    start = f"layers: [{ENTRY}]\nimplementations: [loop, ../code.py:conv]\n"
    suite.write_text(
        f"{start}gate: [{{implementation: ./../code.py:conv, versus: loop, at_least: 2}}]"
    )
    assert read_suite("suites/a.yaml").gate == (Rule("code.py:conv", "loop", at_least=2.0),)
    suite.write_text(f"{start}gate: [{{implementation: code.py:conv, at_most_bytes: 2}}]")
    with pytest.raises(SuiteError) as caught:
        read_suite("suites/a.yaml")
    assert caught.value.message == (  # names are shown as the file writes them
        'suites/a.yaml:3:25: gate.0.implementation: found "code.py:conv", '
        f"{IN_SUITE}loop, ../code.py:conv; did you mean ../code.py:conv?"
    )


WRONG_RULES = {
    # Figures: at_least, at_most_bytes and per_cent_of_peak
    "implementation: im2col": [
        "3: gate.0: found no figure, expected one of at_least, at_most_bytes, per_cent_of_peak"
    ],
    "implementation: im2col, at_least: 2, at_most_bytes: 3, per_cent_of_peak: 4": [
        "3: gate.0: found at_least and at_most_bytes and per_cent_of_peak, expected one of them; "
        "write a rule for each"
    ],
    "implementation: im2col, at_most_bytes: x, per_cent_of_peak: 4": [
        "3: gate.0: found at_most_bytes and per_cent_of_peak, expected one of them; "
        "write a rule for each",
        '43: gate.0.at_most_bytes: found the text "x", expected an integer of at least 1; '
        "4 MiB are 4194304",
    ],
    **{
        f"implementation: im2col, per_cent_of_peak: {written}": [
            f"46: gate.0.per_cent_of_peak: found {found}, expected a finite number above 0{remedy}"
        ]
        for written, found, remedy in (
            ("0", "the number 0", ""),
            ("-2.5", "the number -2.5", ""),
            (".nan", "the number .nan", ""),
            (".inf", "the number .inf", ""),
            ("1.0e+999", "the number 1.0e+999", ""),
            ("true", "the boolean true", ""),
            ('"10"', 'the text "10"', "; remove the quotes"),
            ('"0.5"', 'the text "0.5"', "; remove the quotes"),
            ("10 %", 'the text "10 %"', ""),
            ("[10]", "the list [10]", ""),
        )
    },
    "implementation: im2col, per_cent_of_peak:": [
        "45: gate.0.per_cent_of_peak: found nothing, expected a finite number above 0; "
        "give it a value, or remove the key"
    ],
    "implementation: im2col, versus: loop, at_least: yes": [
        "52: gate.0.at_least: found the boolean yes, expected a finite number above 0"
    ],
    **{
        f"implementation: im2col, at_most_bytes: {written}": [
            f"43: gate.0.at_most_bytes: found the {found}, expected an integer of at least 1; "
            "4 MiB are 4194304"
        ]
        for written, found in (
            ("0", "number 0"),
            ("1.0", "number 1.0"),
            ("true", "boolean true"),
            ("4 MiB", 'text "4 MiB"'),
        )
    },
    # The implementation whose figure a rule limits
    "at_most_bytes: 2": [
        "3: gate.0: found no key implementation, expected the name of an implementation, "
        "FILE.py:NAME or package.module:NAME"
    ],
    "implementation: 8, at_most_bytes: 2": [
        "20: gate.0.implementation: found the number 8, expected the name of an implementation, "
        "FILE.py:NAME or package.module:NAME"
    ],
    "implementation: Im2Col, at_most_bytes: 2": [
        f'20: gate.0.implementation: found "Im2Col", {IN_SUITE}loop, im2col, keras, own.py:conv; '
        "did you mean im2col?"
    ],
    "implementation: keras-xla, at_most_bytes: 2": [
        f'20: gate.0.implementation: found "keras-xla", {IN_SUITE}loop, im2col, keras, '
        "own.py:conv; add keras-xla to implementations"
    ],
    "implementation: fastest-keras, at_most_bytes: 2": [
        f'20: gate.0.implementation: found "fastest-keras", {IN_SUITE}loop, im2col, keras, '
        "own.py:conv"
    ],
    # What a speedup is over: versus
    "implementation: im2col, at_least: 2": [
        "3: gate.0: found no key versus, expected the name of an implementation, FILE.py:NAME, or "
        "fastest-keras; at_least is a speedup over it"
    ],
    "implementation: im2col, versus: loop, at_most_bytes: 2": [
        '36: gate.0.versus: found "loop", expected no versus beside at_most_bytes; remove the key'
    ],
    "implementation: im2col, versus: zzz, per_cent_of_peak: 2": [
        '36: gate.0.versus: found "zzz", expected no versus beside per_cent_of_peak; remove the key'
    ],
    "implementation: im2col, versus: im2col, at_least: 2": [
        '36: gate.0.versus: found "im2col", expected another implementation than the rule\'s own'
    ],
    "implementation: own.py:conv, versus: ./own.py:conv, at_least: 2": [
        '41: gate.0.versus: found "./own.py:conv", expected another implementation than the '
        "rule's own"
    ],
    "implementation: im2col, versus: fastest, at_least: 2": [
        f'36: gate.0.versus: found "fastest", {IN_SUITE}loop, keras, own.py:conv, fastest-keras; '
        "did you mean fastest-keras?"
    ],
    "implementation: im2col, versus: keras-xla, at_least: 2": [
        f'36: gate.0.versus: found "keras-xla", {IN_SUITE}loop, keras, own.py:conv, '
        "fastest-keras; add keras-xla to implementations"
    ],
    "implementation: keras, versus: fastest-keras, at_least: 2": [
        f'35: gate.0.versus: found "fastest-keras", {IN_SUITE}loop, im2col, own.py:conv; '
        "add one of keras-graph, keras-xla to implementations"
    ],
    "implementation: im2col, versus: [loop], at_least: 2": [
        "36: gate.0.versus: found the list [loop], expected the name of an implementation, "
        "FILE.py:NAME, or fastest-keras"
    ],
    # The pass and the layers of a rule
    "implementation: im2col, pass: input-gradient, at_most_bytes: 2": [
        '34: gate.0.pass: found "input-gradient", expected one of the suite\'s passes: forward, '
        "kernel-gradient; add it to passes"
    ],
    "implementation: im2col, pass: backward, at_most_bytes: 2": [
        '34: gate.0.pass: found the text "backward", expected forward, input-gradient or '
        "kernel-gradient"
    ],
    "implementation: im2col, layer: Conv*, at_most_bytes: 2": [
        '35: gate.0.layer: found "Conv*", expected a pattern of one of the layers: conv1, conv2; '
        "did you mean conv2?"
    ],
    "implementation: im2col, layer: 5, at_most_bytes: 2": [
        "35: gate.0.layer: found the number 5, expected a pattern of layer names, such as conv*; "
        'write it in quotes: "5"'
    ],
    'implementation: im2col, layer: "", at_most_bytes: 2': [
        '35: gate.0.layer: found the text "", expected a pattern of layer names, such as conv*'
    ],
    # Each speedup or their geometric mean: of
    "implementation: im2col, of: mean, at_most_bytes: 2": [
        '32: gate.0.of: found the text "mean", expected each or geometric_mean'
    ],
    "implementation: im2col, of: geometric_mean, per_cent_of_peak: 2": [
        '32: gate.0.of: found "geometric_mean", expected each beside per_cent_of_peak; only a '
        "speedup, at_least, has a mean"
    ],
    # Several problems, each reported once
    "implementation: im2col, vs: loop, atleast: 2": [
        f"28: gate.0.vs: found an unknown key, expected one of {RULE_KEYS}; did you mean versus?",
        f"38: gate.0.atleast: found an unknown key, expected one of {RULE_KEYS}; "
        "did you mean at_least?",
    ],
    "implementations: im2col, passes: forward, layers: conv1, memory: 2": [
        f"4: gate.0.implementations: found an unknown key, expected one of {RULE_KEYS}; "
        "did you mean implementation?",
        f"29: gate.0.passes: found an unknown key, expected one of {RULE_KEYS}; did you mean pass?",
        f"46: gate.0.layers: found an unknown key, expected one of {RULE_KEYS}; "
        "did you mean layer?",
        f"61: gate.0.memory: found an unknown key, expected one of {RULE_KEYS}; "
        "did you mean at_most_bytes?",
    ],
    "implementation: im2col, at_most_bytes: 2, threads: 1, strides: 2, zzz: 3": [
        f"46: gate.0.threads: found an unknown key, expected one of {RULE_KEYS}; "
        "threads belongs at the top level of the file",
        f"58: gate.0.strides: found an unknown key, expected one of {RULE_KEYS}; "
        "strides belongs in a layer or in defaults",
        f"70: gate.0.zzz: found an unknown key, expected one of {RULE_KEYS}",
    ],
    "<<: {implementation: im2col}, implementation: im2col, at_most_bytes: 2": [
        "4: gate.0.<<: found a YAML merge key, expected keys written out"
    ],
    "implementation: im2co, versus: lop, pass: x, layer: y, of: z, at_least: w": [
        f'20: gate.0.implementation: found "im2co", {IN_SUITE}loop, im2col, keras, own.py:conv; '
        "did you mean im2col?",
        f'35: gate.0.versus: found "lop", {IN_SUITE}loop, im2col, keras, own.py:conv, '
        "fastest-keras; did you mean loop?",
        '46: gate.0.pass: found the text "x", expected forward, input-gradient or kernel-gradient',
        '56: gate.0.layer: found "y", expected a pattern of one of the layers: conv1, conv2',
        '63: gate.0.of: found the text "z", expected each or geometric_mean',
        '76: gate.0.at_least: found the text "w", expected a finite number above 0',
    ],
}


@pytest.mark.parametrize("rule", WRONG_RULES)
def test_a_wrong_rule_is_reported_with_its_place(rule: str) -> None:
    assert problems(gate_of(rule)) == [f"suite.yaml:7:{text}" for text in WRONG_RULES[rule]]


def test_entries_that_are_no_rules_or_occur_twice_are_refused() -> None:
    rule = "implementation: im2col, versus: loop, at_least: 2"
    again = 'at_least: 2.0, versus: loop, implementation: im2col, layer: "*", of: each'
    text = gate_of(rule, rule.replace(": 2", ": 3"), again) + "- im2col\n-\n"
    such = "expected a mapping such as {implementation: im2col, versus: loop, at_least: 20}"
    assert problems(text) == [
        "suite.yaml:9:3: gate.2: found this rule again, expected it once; the first is on line 7",
        f'suite.yaml:10:3: gate.3: found the text "im2col", {such}',
        f"suite.yaml:11:2: gate.4: found nothing, {such}; give it a value, or remove the key",
    ]


def test_what_a_rule_compares_with_must_be_in_the_suite() -> None:
    start = f"layers: [{ENTRY}]\nimplementations: [im2col]\ngate:\n"
    none = f"{IN_SUITE}there is no other"
    rule = "implementation: im2col, at_least: 2, versus:"
    assert problems(gate_of(f"{rule} loop", f"{rule} fastest-keras", suite=start)) == [
        f'suite.yaml:4:49: gate.0.versus: found "loop", {none}; add loop to implementations',
        f'suite.yaml:5:49: gate.1.versus: found "fastest-keras", {none}; '
        "add one of keras, keras-graph, keras-xla to implementations",
    ]


def test_a_layer_name_that_is_a_pattern_must_be_escaped() -> None:
    start = f'layers: [{{name: "conv[1]", {ENTRY[1:]}]\ngate:\n'
    (line,) = problems(
        gate_of('implementation: im2col, layer: "conv[1]", at_most_bytes: 2', suite=start)
    )
    assert line == (
        'suite.yaml:3:35: gate.0.layer: found "conv[1]", expected a pattern of one of the layers: '
        "conv[1]; did you mean conv[[]1]?"
    )


def test_only_some_of_many_layers_are_listed() -> None:
    text = f"layers: [{', '.join([ENTRY] * 12)}]\ngate:\n"
    (line,) = problems(gate_of("implementation: im2col, layer: x, at_most_bytes: 2", suite=text))
    names = ", ".join(f"layer{i}" for i in range(1, 11))
    assert line.endswith(f'found "x", expected a pattern of one of the layers: {names} and 2 more')


# The schema

SCHEMA = json_schema()


def validate(document: object) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(document)


def test_the_shipped_schema_is_the_current_one() -> None:
    shipped = json.loads((CONFIGS / "suite.schema.json").read_text())
    assert shipped == SCHEMA, "run: convbench schema suite -o configs/suite.schema.json"


NAMED = ("LayerKeys", "LayerEntry", "RuleEntry", "OwnEntry", "ProvenanceEntry")


def test_the_schema_is_valid_and_explains_every_key() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    models = [SCHEMA, *(SCHEMA["$defs"][name] for name in NAMED)]
    for model in models:
        for key, value in model["properties"].items():
            assert "$ref" in value or value["title"], key
            assert value["description"], key


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "layers: []",
        "layers: [{filters: 4, kernel_size: 3}]",
        f"layers: [{ENTRY}]\nzzz: 1",
        f"layers: [{ENTRY}]\nimplementations: [imcol]",
        f"layers: [{ENTRY}]\npasses: [backward]",
        f"layers: [{ENTRY}]\nenvironment: {{A B: 1}}",
        f"defaults: {{padding: full}}\nlayers: [{ENTRY}]",
        'layers: [{input_shape: [8, 8], filters: "4", kernel_size: 3}]',
        f"layers: [{ENTRY}]\ngate: []",
        f"layers: [{ENTRY}]\ngate: [{{at_most_bytes: 1}}]",
        f"layers: [{ENTRY}]\ngate: [{{implementation: im2col}}]",
        f"layers: [{ENTRY}]\ngate: [{{implementation: im2col, zzz: 1, at_most_bytes: 1}}]",
        f"layers: [{ENTRY}]\ngate: [{{implementation: im2col, at_least: 1}}]",
        f"layers: [{ENTRY}]\ngate: [{{implementation: imcol, at_most_bytes: 1}}]",
        f"layers: [{ENTRY}]\ngate: [{{implementation: im2col, at_most_bytes: 0}}]",
        f"layers: [{ENTRY}]\ngate: [{{implementation: im2col, per_cent_of_peak: 0}}]",
        f"layers: [{ENTRY}]\ngate: [{{implementation: im2col, at_most_bytes: 1, pass: all}}]",
        f"layers: [{ENTRY}]\n"
        "gate: [{implementation: im2col, at_most_bytes: 1, per_cent_of_peak: 1}]",
        f"layers: [{ENTRY}]\ngate: [{{implementation: im2col, at_most_bytes: 1, versus: loop}}]",
        f"layers: [{ENTRY}]\n"
        "gate: [{implementation: im2col, at_most_bytes: 1, of: geometric_mean}]",
        f"layers: [{ENTRY}]\n"
        "gate: [{implementation: im2col, at_most_bytes: 1}, "
        "{implementation: im2col, at_most_bytes: 1}]",
    ],
)
def test_the_schema_refuses_what_read_suite_refuses(text: str) -> None:
    assert problems(text)
    with pytest.raises(jsonschema.ValidationError):
        validate(yaml.safe_load(text))


@pytest.mark.parametrize("name", shipped_suites())
def test_a_shipped_suite_loads_and_validates(name: str) -> None:
    suite = read_suite(name)
    assert suite.name == name
    assert suite.description
    text = (CONFIGS / f"{name}.yaml").read_text()
    assert text.startswith("# yaml-language-server: $schema=suite.schema.json\n")
    validate(yaml.safe_load(text))


def test_the_suite_geometry_has_what_its_layers_are_named_after() -> None:
    layers = {layer.name: layer for layer in read_suite("geometry").layers}
    assert max(layers["strides-2-dilation-2"].strides) > 1
    assert max(layers["strides-2-dilation-2"].dilation_rate) > 1
    assert layers["depthwise"].is_depthwise
    assert layers["depthwise-multiplier-2"].is_depthwise
    assert layers["depthwise-multiplier-2"].filters == 2 * layers["depthwise-multiplier-2"].channels
    assert layers["kernel-as-large-as-input"].output_size == (1, 1)
    assert layers["same-strides-2"].pads == ((0, 1), (0, 1))
    assert {layer.dtype for layer in layers.values()} == {"float32", "float64"}
    assert rows_left_over(layers["strides-2"]) == 0
    assert rows_left_over(layers["strides-2-rows-left-over"]) == 1


def rows_left_over(layer: Layer) -> int:
    used = (layer.output_size[0] - 1) * layer.strides[0] + layer.effective_kernel_size[0]
    return layer.padded_size[0] - used


# Any layer

sizes = st.integers(1, 9)
pairs = st.one_of(sizes, st.lists(sizes, min_size=2, max_size=2))
pads = st.integers(0, 4)
pad_pairs = st.lists(pads, min_size=2, max_size=2)
entries = st.fixed_dictionaries(
    {
        "input_shape": st.lists(st.integers(1, 40), min_size=2, max_size=3),
        "filters": sizes,
        "kernel_size": pairs,
    },
    optional={
        "name": st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20),
        "strides": pairs,
        "padding": st.one_of(
            st.sampled_from(["valid", "same", "SAME", "Valid"]),
            pads,
            st.lists(pad_pairs, min_size=2, max_size=2),
        ),
        "dilation_rate": pairs,
        "groups": st.integers(1, 4),
        "use_bias": st.booleans(),
        "batch_size": sizes,
        "dtype": st.sampled_from(["float32", "float64"]),
        "count": sizes,
    },
)


def described(entry: dict[str, Any]) -> Layer:
    """Make the layer that an entry describes, independently of the reader."""

    def pair(value: Any) -> tuple[int, int]:
        return tuple(value) if isinstance(value, list) else (value, value)

    values: dict[str, Any] = {"name": "layer1", **entry}
    values["input_shape"] = tuple((*entry["input_shape"], 1)[:3])
    for key in ("kernel_size", "strides", "dilation_rate"):
        if key in entry:
            values[key] = pair(entry[key])
    padding = entry.get("padding", "valid")
    if isinstance(padding, str):
        values["padding"] = padding.lower()
    elif isinstance(padding, int):
        values["padding"] = ((padding, padding), (padding, padding))
    else:
        values["padding"] = (pair(padding[0]), pair(padding[1]))
    return Layer(**values)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(entry=entries, shared=st.sets(st.sampled_from(sorted(Layer.__dataclass_fields__))))
def test_an_entry_becomes_the_layer_it_describes(entry: dict[str, Any], shared: set[str]) -> None:
    """Keys may be in the entry or in the defaults. An entry that can be no layer is refused."""
    defaults = {key: value for key, value in entry.items() if key in shared - {"name"}}
    own = {key: value for key, value in entry.items() if key not in defaults}
    document = {"defaults": defaults, "layers": [own]}
    text = yaml.safe_dump(document, allow_unicode=True)
    validate(document)
    try:
        layer = described(entry)
    except LayerError as error:
        key, _, words = error.message.partition(": ")
        (line,) = problems(text)
        where = f"defaults.{key}" if key in defaults else f"layers.0.{key}"
        assert f": {where}: {words}" in line
    else:
        assert read(text).layers == (layer,)


# Any gate

above_0 = st.floats(0, exclude_min=True, allow_infinity=False)
figures = st.one_of(
    st.fixed_dictionaries(
        {"at_least": st.one_of(st.integers(1, 10**6), above_0), "versus": st.none()},
        optional={"of": st.sampled_from(["each", "geometric_mean"])},
    ),
    st.fixed_dictionaries({"at_most_bytes": st.integers(1, 2**63)}),
    st.fixed_dictionaries({"per_cent_of_peak": st.one_of(st.integers(1, 200), above_0)}),
)
wheres = st.fixed_dictionaries(
    {},
    optional={
        "pass": st.sampled_from(list(map(str, Pass))),
        "layer": st.sampled_from(["*", "layer1", "layer?", "[kl]ayer1"]),
    },
)


@st.composite
def gates(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a suite's implementations, and rules about them."""
    names = draw(st.lists(st.sampled_from(list(BUILT_IN)), min_size=2, unique=True))
    rules = []
    for _ in range(draw(st.integers(1, 4))):
        own = draw(st.sampled_from(names))
        rule = {"implementation": own, **draw(figures), **draw(wheres)}
        if "versus" in rule:
            others = [name for name in names if name != own]
            keras = [FASTEST_KERAS] if {*others} & {*KERAS_WAYS} else []
            rule["versus"] = draw(st.sampled_from(others + keras))
        rules.append(rule)
    return {"implementations": names, "gate": rules}


def ruled(rule: dict[str, Any]) -> Rule:
    """Make the rule that an entry describes, independently of the reader."""
    values = {("pass_" if key == "pass" else key): value for key, value in rule.items()}
    return Rule(**values)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(lists=gates())
def test_a_gate_becomes_the_rules_it_describes(lists: dict[str, Any]) -> None:
    """A gate may be in a suite or in a file of its own. A rule that occurs twice is refused."""
    expected = tuple(map(ruled, lists["gate"]))
    document = {"layers": [yaml.safe_load(ENTRY)], **lists}
    text = yaml.safe_dump(document)
    Path("rules.yaml").write_text(yaml.safe_dump({"gate": lists["gate"]}))
    if len(set(expected)) < len(expected):
        assert all("found this rule again" in line for line in problems(text))
    else:
        validate(document)
        assert read(text).gate == expected
        assert read_rules("rules.yaml") == expected


values = st.one_of(
    st.sampled_from(["im2col", "keras", "own.py:f", FASTEST_KERAS, "forward", "*", "each", "a]["]),
    st.one_of(st.integers(), st.floats(), st.booleans(), st.none(), st.just([1]), st.text()),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rules=st.lists(st.dictionaries(st.sampled_from(RULE_KEYS.split(", ")), values), max_size=3))
def test_any_rules_are_a_gate_that_the_schema_allows_or_an_error(
    rules: list[dict[str, Any]],
) -> None:
    document = {"layers": [yaml.safe_load(ENTRY)], "gate": rules}
    message = ""
    try:
        gate = read(yaml.safe_dump(document)).gate
    except SuiteError as error:
        message = error.message
    else:
        assert len(gate) == len(rules)
        validate(document)
    assert all(line.startswith("suite.yaml:") for line in message.splitlines())
    assert message.replace("\n", "").isprintable()


scraps = st.lists(
    st.one_of(
        st.sampled_from(["layers", "defaults", "name", "padding", "environment", "passes", "ab"]),
        st.sampled_from(["gate", "implementation", "versus", "pass", "layer", "at_least"]),
        st.sampled_from(
            [": ", "- ", "\n", "\n  ", "[", "]", "{", "}", ", ", "? ", "&a ", "*a", "<<"]
        ),
        st.sampled_from(
            ["1", "-1", "0x_", "1e400", ".nan", "~", "yes", "2001-99-99", "!!set ", "!"]
        ),
        st.sampled_from(
            ['"\\ud800"', '"', "'", "|\n", "#", "%", "\t", "\r", "\x85", "\u2028", "---\n"]
        ),
        st.text(max_size=3),
    ),
    max_size=25,
).map("".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=st.one_of(scraps, scraps.map(lambda scrap: f"layers: [{ENTRY}]\n{scrap}")))
def test_any_text_is_a_suite_or_an_error_of_one_line_for_each_problem(text: str) -> None:
    data = text.encode(errors="surrogatepass")
    message = ""
    try:
        read(data)
    except SuiteError as error:
        message = error.message
    assert all(line.startswith("suite.yaml:") for line in message.splitlines())
    assert message.replace("\n", "").isprintable()


def test_the_effort_is_that_of_the_suite_or_standard(tmp_path: Path) -> None:
    layer = "layers: [{input_shape: [8, 8, 1], filters: 2, kernel_size: 3}]\n"
    suite = tmp_path / "suite.yaml"
    suite.write_text(layer)
    assert read_suite(suite).effort == "standard"
    suite.write_text(layer + "effort: quick\n")
    assert read_suite(suite).effort == "quick"
    suite.write_text(layer + "effort: quik\n")
    with pytest.raises(SuiteError, match="expected smoke, quick, standard or rigorous"):
        read_suite(suite)
