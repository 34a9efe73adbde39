"""Test that nothing is decided by the words of a sentence.

Implementations are named here after words that convbench once looked for in its own sentences.
"""

import json
import re
from dataclasses import replace

import pytest

from convbench.cli.gate_terms import refuse_nothing_supported
from convbench.compare import diff
from convbench.errors import ConvbenchError, LayerError, NetworkError, SuiteError
from convbench.gate import Terms
from convbench.implementations.numpy.loop import Loop
from convbench.problem.layer import Layer, Pass
from convbench.problem.unsupported import Unsupported
from convbench.report import format_of, render
from convbench.report.views.agreement_notes import agreement_notes
from convbench.report.views.diff_notes import notes as diff_notes
from convbench.report.views.gate_tables import report as gate_report
from convbench.results.file import dumps, load
from convbench.results.model import (
    Agreement,
    Cell,
    Explanation,
    MistakeKind,
    Raised,
    RemarkKind,
)
from convbench.suites.file import messages, read_suite
from convbench.suites.suite import Rule
from convbench.training.file.document import WORDS
from convbench.training.network import Dense, Flatten, MaxPooling2D, Network
from tests.cli import ROOT
from tests.diff_fixture import TIMES, saved, with_cells
from tests.gate_fixture import judged
from tests.report_fixture import CONV1, KERNEL, MINE

NAMES = (
    "bytes_conv.py:conv",
    "half % of peak.py:conv",
    "what takes no time.py:conv",
    "... and 3 more lines.py:conv",
    "conv2 regressed.py:holds",
)


def named(name, rounds=8):
    """Make a run with own code of that name."""
    times = {
        (layer, pass_, name if of == MINE else of): ms for (layer, pass_, of), ms in TIMES.items()
    }
    return saved(times, rounds=rounds)


@pytest.mark.parametrize("name", NAMES)
def test_a_floor_has_the_unit_of_the_quantity_that_its_rule_limits(name):
    rules = (Rule(name, "loop", at_least=2.0), Rule(name, at_most_bytes=2**30))
    judgement, of = judged(named(name), Terms(rules=rules))
    told = render(gate_report(judgement, of.result), format_of("gate.txt"))
    speedups, memory = told.split("at most")
    assert re.search(r"\d x\b|\dx\b", speedups)
    assert "MiB" not in speedups
    assert "MiB" in memory
    points = json.loads(render(gate_report(judgement, of.result), "customSmallerIsBetter"))
    assert [point["unit"] for point in points].count("bytes") == len(points) / 2


@pytest.mark.parametrize("name", NAMES)
def test_a_floor_on_few_rounds_keeps_the_unit_of_its_rule(name):
    judgement, of = judged(named(name, rounds=3), Terms(rules=(Rule(name, "loop", at_least=2.0),)))
    points = json.loads(render(gate_report(judgement, of.result), "customSmallerIsBetter"))
    assert points
    assert {point["unit"] for point in points} == {"time of loop"}


def noted(*cells):
    of = with_cells(saved(), *cells)
    return [note.text for note in agreement_notes(of.result)]


@pytest.mark.parametrize("function", ["f takes no g", "bytes", "... and 2 more lines", "f"])
def test_the_note_on_what_code_lacks_comes_from_fields(function):
    lacking = [
        Unsupported(f"{function} takes no {keys}", tuple(keys.split(", ")), function)
        for keys in ("strides", "strides, groups")
    ]
    cells = [
        Cell(layer, Pass.FORWARD, MINE, "unsupported", one.why, unsupported=one)
        for layer, one in zip(("conv1", "conv2"), lacking, strict=True)
    ]
    (told,) = [text for text in noted(*cells) if text.startswith("Not checked")]
    assert told == (
        f"Not checked: 2 of 3 layers need strides or groups, which `{function}` does not accept."
    )


def test_printed_lines_that_look_like_a_count_stay_lines():
    cell = replace(named(MINE).result.cells[4], said=("... and 7 more lines",), said_left_out=2)
    of = with_cells(saved(), cell)
    (note,) = [n for n in agreement_notes(of.result) if "said while" in n.text]
    assert note.verbatim == ("... and 7 more lines", "... and 2 more lines")


def test_failures_of_different_places_are_told_apart():
    """The sentences of these failures differ in figures only."""
    cells = [
        Cell(
            layer,
            Pass.FORWARD,
            MINE,
            "failed",
            f"IndexError: index {line} is out of bounds (c.py:{line}, in f)",
            raised=Raised("IndexError", f"c.py:{place}"),
        )
        for layer, line, place in (("conv1", 7, 7), ("conv2", 8, 8))
    ]
    assert sum("crashes" in text for text in noted(*cells)) == 2
    same = [replace(cell, raised=Raised("IndexError", "c.py:7")) for cell in cells]
    assert sum("crashes" in text for text in noted(*same)) == 1


def explained(layer, kind, sentence):
    explanation = Explanation.of([kind], sentence, True)
    agreement = Agreement(False, 9.0, 1.0, "wrong", "3 of 9", explanation=explanation)
    return Cell(layer, Pass.FORWARD, MINE, "wrong", sentence, agreement)


def test_wrong_cells_are_grouped_by_the_kind_of_their_mistake():
    """Their sentences do not count: `1e+02` and `7` differ even without their digits."""
    same, other = MistakeKind("activation-applied", "clipped"), MistakeKind("bias-missing")
    sentences = ("clipped to [-1e+02, 3.5]", "clipped to [0, 7]")
    cells = [
        explained(layer, same, words)
        for layer, words in zip(("conv1", "conv2"), sentences, strict=True)
    ]
    (told,) = [text for text in noted(*cells) if "is wrong" in text]
    assert told == f"{MINE} is wrong in forward: {sentences[0]}"
    cells[1] = explained("conv2", other, sentences[0])
    assert sum("is wrong" in text for text in noted(*cells)) == 2


def test_a_remark_of_one_kind_is_reported_once():
    right = Agreement(True, 0.5, 0.0, "agrees")
    remarks = [
        Cell(layer, Pass.FORWARD, MINE, "ok", agreement=right.remarked(kind, words))
        for layer, kind, words in (
            ("conv1", RemarkKind.LIKE_A_TRANSFORM, "off by 1.5e+02 times"),
            ("conv2", RemarkKind.LIKE_A_TRANSFORM, "off by 7 times"),
        )
    ]
    assert sum("off by" in text for text in noted(*remarks)) == 1
    other = right.remarked(RemarkKind.SHARED_WORKSPACE, "off by 7 times")
    told = noted(remarks[0], replace(remarks[1], agreement=other))
    assert sum("off by" in text for text in told) == 2


def test_a_file_without_kinds_is_grouped_by_its_sentences(tmp_path):
    """Earlier versions saved sentences without kinds."""
    kind, right = MistakeKind("tap-missing", "one"), Agreement(True, 3.0, 0.0, "agrees")
    remark = "its floats are off by up to 3 times the bound of direct sums, and within that of ..."
    cells = [
        explained("conv1", kind, "row 3 is left out"),
        explained("conv2", kind, "row 7 is left out"),
        Cell(
            "conv1",
            Pass.KERNEL_GRADIENT,
            MINE,
            "ok",
            agreement=right.remarked(RemarkKind.LIKE_A_TRANSFORM, remark),
        ),
    ]
    document = json.loads(dumps(with_cells(saved(), *cells)))
    for cell in document["convbench"]["cells"]:
        if agreement := cell["agreement"]:
            del agreement["remark_kinds"]
            if agreement["explanation"]:
                del agreement["explanation"]["kinds"]
    path = tmp_path / "old.json"
    path.write_text(json.dumps(document))
    result = load(path).result
    read = {(c.layer, c.pass_): c.agreement for c in result.cells if c.implementation == MINE}
    one, other = (read[layer, Pass.FORWARD].explanation for layer in ("conv1", "conv2"))
    assert one.kinds == other.kinds
    assert one.causes == tuple(kind.cause for kind in one.kinds) == ("tap-missing",)
    assert read["conv1", Pass.KERNEL_GRADIENT].remark_kinds == (RemarkKind.LIKE_A_TRANSFORM,)
    told = [note.text for note in agreement_notes(result) if "is wrong" in note.text]
    assert told == [f"{MINE} is wrong in forward: row 3 is left out"]


# Messages, names and tables


@pytest.mark.parametrize("name", ["loop#twin", "loop#plain", "fastest-keras", "best per layer"])
def test_names_that_convbench_gives_cannot_be_taken(name, tmp_path):
    """A twin's samples are stored under its arm's name with a suffix."""
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        "layers: [{input_shape: [8, 8], filters: 2, kernel_size: 3}]\n"
        f"implementations: [loop, {{name: '{name}', code: {MINE}}}]\n"
    )
    with pytest.raises(SuiteError, match=r"implementations\.1\.name: found .* expected another"):
        read_suite(str(suite))


def test_the_error_of_a_wrong_layer_has_its_key():
    with pytest.raises(LayerError) as caught:
        Layer("kernel_size: a kernel", (2, 2, 1), 1, (3, 3))
    assert caught.value.key == "kernel_size"
    assert caught.value.message == f"kernel_size: {caught.value.problem}"


def test_a_window_that_does_not_fit_is_called_a_window():
    with pytest.raises(NetworkError) as caught:
        Network("n", (5, 4, 1), (MaxPooling2D((9, 2)), Flatten(), Dense(2)))
    assert caught.value.keys == ("layers", 0, "max_pooling2d", "pool_size")
    assert caught.value.text == (
        "a window of 9x2 does not fit the input of 5x4: the output would be empty"
    )


def test_what_sets_two_machines_apart_is_named_by_fields():
    """The name of a CPU may have a colon."""
    before = saved()
    cpu = replace(before.result.machine, cpu="BLAS: none: Z80", logical_cpus=2)
    after = replace(before, result=replace(before.result, machine=cpu))
    found = diff([("old", before), ("new", after)])
    assert found.differences[0].not_alike == ("CPU", "logical CPUs")
    told = [note.text for note in diff_notes(found, ("old", "new"))]
    assert any("not the same CPU, logical CPUs: a change" in text for text in told)


def test_a_layer_called_as_a_pass_keeps_its_name_on_a_narrow_terminal():
    layer = replace(CONV1, name="gradient-of-mine")
    times = {("gradient-of-mine", KERNEL, "im2col"): 0.4, ("gradient-of-mine", KERNEL, "loop"): 90}
    of = saved(times, layers=(layer,))
    judgement, of = judged(of, Terms(rules=(Rule("im2col", "loop", at_least=2.0),)))
    (table,) = gate_report(judgement, of.result).tables
    (section,) = table.sections
    (cell,) = {row.values[0] for row in section.rows}
    assert (cell.raw, cell.short) == (
        "gradient-of-mine kernel-gradient",
        "gradient-of-mine kernel-grad",
    )


@pytest.mark.parametrize("reason", [None, "bytes: it takes no strides"])
def test_a_gate_of_code_that_computes_nothing_is_refused_by_status(reason):
    cells = [replace(cell, status="unsupported", reason=reason) for cell in saved().result.cells]
    with pytest.raises(ConvbenchError, match="im2col computes nothing of mnist"):
        refuse_nothing_supported("im2col", replace(saved().result, cells=tuple(cells)))
    cells[1] = replace(cells[1], status="ok")
    refuse_nothing_supported("im2col", replace(saved().result, cells=tuple(cells)))


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("pass_", Pass)
def test_the_loop_says_its_pads_where_it_has_some(pass_, padding):
    layer = Layer("pad", (8, 8, 2), 3, (3, 3), padding=padding)
    inside = Loop().prepare(layer, pass_, 1).ledger.inside
    assert sum("pad" in step for step in inside) == (padding == "same")
    assert len(inside) == (2 if padding == "same" else 1)


def test_advice_on_a_value_goes_by_its_key():
    """The sentences of `expected` agree with the tables that say the same as data."""
    for expected, alone, numbers in (
        (messages.EXPECTED, (), messages._NUMBER_KEYS),
        (WORDS.expected, WORDS.alone, WORDS.numbers),
    ):
        for key, words in expected.items():
            assert (key in alone) == ("write the name alone" in words)
            assert (key in numbers) == ("number" in words)


NOT_OURS = {
    "addons": "places of modules",
    "cli": "arguments and options, as they were typed",
    "importers": "files of other tools",
    "machine": "what the system and its tools write",
    "suites": "YAML as it was written, and places of modules",
    "own_code": "names of code as they were typed, paths, what git writes",
    "training": "files of weights and data, variables of Keras",
    "profile": "functions of NumPy, paths, places of modules",
    "measure": "what the system and a crashed Python write",
    "implementations": "places of modules",
    "runtimes": "what frameworks and variables say of themselves",
    "results": "its own file; sentences of earlier versions, in _with_kinds",
    "report": "how formatted numbers and words are laid out, paths, places of modules",
}
"""Rooms whose code may look into text, and which text that is."""


def test_only_these_rooms_look_into_text():
    """Such calls elsewhere are likely to decide by the words of convbench's own sentences."""
    package = ROOT / "convbench"
    looks = re.compile(
        r"\.(startswith|endswith|split|rsplit|r?partition|remove(prefix|suffix))\(|\bre\.[a-z]+\("
    )
    rooms = {
        path.relative_to(package).parts[0]
        for path in package.rglob("*.py")
        if looks.search(path.read_text())
    }
    assert rooms <= NOT_OURS.keys()


FIELDS = r"(reason|sentence|diagnosis|why|message|said|text|hint|problem)"


def test_no_sentence_is_taken_apart():
    """No field that holds a sentence is searched, split or compared with a sentence."""
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in (ROOT / "convbench").rglob("*.py")
        for line in path.read_text().splitlines()
        if re.search(rf"""["'] (not )?in \w+\.{FIELDS}\b|\.{FIELDS} [!=]= ["']""", line)
        or re.search(rf"\w\.{FIELDS}\.(startswith|endswith|r?split|r?partition|find)\(", line)
        or re.search(rf"\bre\.\w+\([^)]*\w\.{FIELDS}\b", line)
    ]
    assert found == []
