"""Nothing is decided by the words of a sentence: names that look like our sentences change nothing.

Implementations are named after words that convbench once looked for in its own sentences.
"""

import json
import re
from dataclasses import replace

import pytest

from convbench.gate import Terms
from convbench.problem.layer import Pass
from convbench.problem.unsupported import Unsupported
from convbench.report import format_of, render
from convbench.report.views.agreement_notes import agreement_notes
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
from convbench.suites.suite import Rule
from tests.diff_fixture import TIMES, saved, with_cells
from tests.gate_fixture import judged
from tests.report_fixture import MINE

NAMES = (
    "bytes_conv.py:conv",
    "half % of peak.py:conv",
    "what takes no time.py:conv",
    "... and 3 lines more.py:conv",
    "conv2 regressed.py:holds",
)


def named(name, rounds=8):
    """A run with own code of that name."""
    times = {
        (layer, pass_, name if of == MINE else of): ms for (layer, pass_, of), ms in TIMES.items()
    }
    return saved(times, rounds=rounds)


@pytest.mark.parametrize("name", NAMES)
def test_a_floor_is_of_the_quantity_that_its_rule_limits(name):
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
def test_a_floor_on_few_rounds_is_no_memory(name):
    judgement, of = judged(named(name, rounds=3), Terms(rules=(Rule(name, "loop", at_least=2.0),)))
    points = json.loads(render(gate_report(judgement, of.result), "customSmallerIsBetter"))
    assert points
    assert {point["unit"] for point in points} == {"time of loop"}


def noted(*cells):
    of = with_cells(saved(), *cells)
    return [note.text for note in agreement_notes(of.result)]


@pytest.mark.parametrize("function", ["f takes no g", "bytes", "... and 2 lines more", "f"])
def test_what_code_lacks_comes_from_fields(function):
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


def test_lines_that_look_like_a_count_are_lines():
    cell = replace(named(MINE).result.cells[4], said=("... and 7 lines more",), said_left_out=2)
    of = with_cells(saved(), cell)
    (note,) = [n for n in agreement_notes(of.result) if "said while" in n.text]
    assert note.verbatim == ("... and 7 lines more", "... and 2 lines more")


def test_failures_of_different_places_are_told_apart():
    """Their sentences differ in figures only."""
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
    """Whatever their sentences say: `1e+02` and `7` are not the same words without digits."""
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


def test_a_remark_of_a_kind_is_told_once():
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
    """Earlier versions saved sentences alone."""
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
