"""Test what `auto` takes and why, that it keeps its choice, and that a run says so."""

import json
import threading
from dataclasses import replace

import numpy as np
import pytest

from convbench.agreement.check import oracle
from convbench.agreement.check.case import Case
from convbench.agreement.check.checker import check
from convbench.implementations.numpy import auto as module
from convbench.implementations.numpy.auto import Auto
from convbench.implementations.numpy.im2col import Im2col
from convbench.implementations.numpy.loop import Loop
from convbench.implementations.registry import Registry
from convbench.machine import tuning
from convbench.problem import operands
from convbench.problem.layer import Layer, Pass
from convbench.problem.unsupported import Unsupported
from convbench.report.views.run_notes import choice_notes
from convbench.results.model import CellLedger
from convbench.runtimes.numpy import NumPy
from tests.cli import TINY, convbench
from tests.report_fixture import small_run

FORWARD = Pass.FORWARD
LAYER = Layer("layer", (12, 12, 3), 4, (3, 3), padding="same", batch_size=2)
TRANSFORM, SLOW, FAST = "winograd", "direct", "im2col"


class Fast(Im2col):
    def cost_s(self, layer, pass_, threads):
        return 2e-3


class Slow(Loop):
    """A slow and exact candidate that its cost model takes for the quickest."""

    name = SLOW
    runtime = NumPy()

    def cost_s(self, layer, pass_, threads):
        return 1e-3


class Transform(Im2col):
    """A candidate that is not exact, and computes kernels of 3x3 only."""

    name = TRANSFORM

    def unsupported(self, layer, pass_):
        if layer.kernel_size == (3, 3):
            return None
        return Unsupported("it knows 3x3 only", ("kernel_size",))

    def exact(self, layer, pass_):
        return False

    def cost_s(self, layer, pass_, threads):
        return 100.0

    def error_bound(self, layer, pass_, operands):
        return np.full(layer.result_shape(pass_), 7.0)

    def workspace_bytes(self, layer, pass_, threads):
        return 10**9


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Path of an empty cache, in a process that has chosen nothing yet."""
    monkeypatch.setattr(module, "_CHOICES", {})
    path = tmp_path / "tuning.json"
    monkeypatch.setenv(tuning.CACHE_VARIABLE, str(path))
    return path


@pytest.fixture
def known(cache, monkeypatch):
    """Path of an empty cache where `auto` has only the three candidates above."""
    kinds = {FAST: "Fast", SLOW: "Slow", TRANSFORM: "Transform"}
    registry = {name: f"{__name__}:{kind}" for name, kind in kinds.items()}
    monkeypatch.setattr(module, "REGISTRY", Registry(registry))
    return cache


def forget():
    """Forget this process's choices, as if a new process had started."""
    module._CHOICES.clear()


def ledger(layer=LAYER, threads=1):
    return Auto().prepare(layer, FORWARD, threads).ledger


def test_candidates_predict_their_time_and_share_a_process():
    candidates = module._candidates()
    assert "im2col" in candidates
    for implementation in candidates.values():
        assert implementation.runtime == NumPy()
        for pass_ in Pass:
            if implementation.unsupported(LAYER, pass_) is None:
                assert 0 < implementation.cost_s(LAYER, pass_, 2) < 1


def test_a_candidate_that_predicts_no_time_is_left_out(known, monkeypatch):
    monkeypatch.setitem(module.REGISTRY.places, SLOW, "convbench.implementations.numpy.loop:Loop")
    assert ledger().outside[0] == "took im2col by the cost model, which leaves no other"


def test_a_trial_overrules_the_cost_model(known):
    found = ledger()
    assert found.took == FAST
    assert found.inside == Im2col().prepare(LAYER, FORWARD, 1).ledger.inside
    assert found.outside[0].startswith("took im2col by a trial (direct takes ")
    assert found.outside[0].endswith(" times as long)")


def test_what_is_predicted_to_be_slow_is_not_tried(known):
    assert tuning.trials_allowed()
    choice = module.choose(LAYER, FORWARD, 1)
    assert set(choice.times) == {FAST, SLOW}


def test_a_process_stays_with_its_choice(known):
    first = module.choose(LAYER, FORWARD, 1)
    known.unlink()
    assert module.choose(replace(LAYER, name="same", count=7), FORWARD, 1) is first
    assert not known.exists()


def test_other_processes_make_the_same_choice(known):
    first = module.choose(LAYER, FORWARD, 1)
    forget()
    again = module.choose(LAYER, FORWARD, 1)
    assert again.times == first.times
    assert again.phrase.startswith("took im2col by an earlier trial (direct takes")


def test_the_cache_decides_even_against_what_a_trial_would_give(known):
    key = tuning.convolution(LAYER, FORWARD, 1)
    tuning.remember(tuning.fingerprint(), key, {SLOW: 1.0, FAST: 2.0})
    assert ledger().took == SLOW


def test_a_trial_of_other_candidates_is_made_anew(known):
    key = tuning.convolution(LAYER, FORWARD, 1)
    tuning.remember(tuning.fingerprint(), key, {SLOW: 1.0, "gone": 2.0})
    assert ledger().took == FAST


def test_each_number_of_threads_has_its_own_choice(known):
    key = tuning.convolution(LAYER, FORWARD, 2)
    tuning.remember(tuning.fingerprint(), key, {SLOW: 1.0, FAST: 2.0})
    assert [ledger(threads=n).took for n in (1, 2)] == [FAST, SLOW]


def test_without_trials_the_cost_model_decides(known, no_trials):
    found = ledger()
    assert found.took == SLOW
    assert found.outside[0] == "took direct by the cost model"
    assert not known.exists()


def test_without_trials_earlier_trials_do_not_count(known, no_trials):
    tuning.allow_trials(True)
    assert ledger().took == FAST
    tuning.allow_trials(False)
    assert ledger().took == SLOW


def test_a_candidate_alone_needs_no_trial(known, monkeypatch):
    monkeypatch.delitem(module.REGISTRY.places, SLOW)
    assert ledger().outside[0] == "took im2col by the cost model, which leaves no other"
    assert not known.exists()


def test_before_auto_has_chosen_it_promises_what_every_candidate_keeps(known):
    auto = Auto()
    drawn = operands.floats(LAYER, FORWARD, 0)
    assert not auto.exact(LAYER, FORWARD)
    assert (auto.error_bound(LAYER, FORWARD, drawn) == 7.0).all()
    assert auto.exact(replace(LAYER, kernel_size=(2, 2)), FORWARD)
    least = max(kind().workspace_bytes(LAYER, FORWARD, 1) for kind in (Fast, Slow))
    assert auto.workspace_bytes(LAYER, FORWARD, 1) == least  # of candidates that it would try


def test_once_auto_has_chosen_its_choice_answers_for_it(known):
    auto = Auto()
    chosen = auto.chosen(LAYER, FORWARD, 1)
    assert isinstance(chosen, Fast)
    assert chosen.exact(LAYER, FORWARD)
    assert auto.prepare(LAYER, FORWARD, 1).ledger.took == FAST
    assert Auto().workspace_bytes(LAYER, FORWARD, 1) == Fast().workspace_bytes(LAYER, FORWARD, 1)


def test_the_check_is_that_of_the_implementation_that_auto_chose(known):
    """The check is by exact integers if the choice is exact, although another candidate is not."""
    assert not Auto().exact(LAYER, FORWARD)
    assert check(Case(Auto(), LAYER, FORWARD, 1, 0)).exact is True


def test_what_no_candidate_computes_is_unsupported(known, monkeypatch):
    for name in (FAST, SLOW):
        monkeypatch.delitem(module.REGISTRY.places, name)
    auto = Auto()
    assert auto.unsupported(LAYER, FORWARD) is None
    reason = auto.unsupported(replace(LAYER, kernel_size=(2, 2)), FORWARD)
    assert reason.why == "winograd: it knows 3x3 only"
    assert reason.lacks == ("kernel_size",)


@pytest.mark.parametrize("pass_", Pass)
def test_auto_computes_with_what_it_took(known, pass_):
    prepared = Auto().prepare(LAYER, pass_, 1)
    drawn = operands.exact_integers(LAYER, pass_, 1)
    prepared.load(drawn)
    for buffer in prepared.buffers:
        buffer.fill(np.nan)
    result = prepared.to_numpy(prepared.run())
    np.testing.assert_array_equal(result, oracle.expected(LAYER, pass_, drawn))


def test_threads_that_prepare_at_once_make_one_trial(known, monkeypatch):
    trials = []
    trial = module._trial
    monkeypatch.setattr(module, "_trial", lambda *asked: trials.append(asked) or trial(*asked))
    threads = [threading.Thread(target=ledger) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(trials) == 1


# A run


def test_a_run_says_what_auto_took(tmp_path):
    output = tmp_path / "run.json"
    asked = ["--impl", "auto", "--effort", "smoke", "--pass", "forward", "-o", output]
    done = convbench("run", TINY, *asked, "--no-tune")
    assert done.returncode == 0, done.stderr
    document = json.loads(output.read_text())["convbench"]
    assert document["tune"] is False
    (cell, *_) = document["cells"]
    took = cell["ledger"]["took"]
    assert took in module.CANDIDATES
    assert cell["ledger"]["outside"][0] == f"took {took} by the cost model"
    assert f"auto took {took} for {cell['layer']} forward" in done.stdout
    assert ", no trials\n" in done.stdout


def test_no_tune_cannot_be_changed_when_resuming(tmp_path):
    done = convbench("run", "--resume", tmp_path / "some.json", "--no-tune")
    assert done.returncode == 2
    assert "--no-tune cannot be changed" in done.stderr


def notes_of(*took):
    cells = [
        replace(small_run().cells[0], layer=f"conv{i}", implementation="auto", ledger=of)
        for i, of in enumerate(CellLedger(took=name) for name in took)
    ]
    return [note.text for note in choice_notes(replace(small_run(), cells=tuple(cells)))]


def test_the_note_names_what_was_taken_for_each_cell():
    assert notes_of("fft", "im2col", "fft") == [
        "auto took fft for conv0 forward, conv2 forward; im2col for conv1 forward"
    ]


def test_the_note_of_many_layers_is_short():
    cells = ", ".join(f"conv{i} forward" for i in range(5))
    assert notes_of(*["fft"] * 30) == [f"auto took fft for {cells} and 25 more"]


def test_there_is_no_note_where_nothing_was_chosen():
    assert list(choice_notes(small_run())) == []
