"""Test the diagnosis: its rates over all mutants and styles, and the parts of its search."""

import re
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convbench.agreement.check import oracle
from convbench.agreement.check.bound import transform_bound
from convbench.agreement.check.case import Case
from convbench.agreement.check.checker import check
from convbench.agreement.check.systematic import trend
from convbench.agreement.diagnosis.behaviour import unsafe_for_threads
from convbench.agreement.diagnosis.computation import Computation
from convbench.agreement.diagnosis.diagnosing import Diagnosing
from convbench.agreement.diagnosis.mistakes import mistakes
from convbench.agreement.diagnosis.patterns import pattern
from convbench.agreement.diagnosis.search import Search, diagnose, likeliest
from convbench.agreement.diagnosis.smallest import shrink
from convbench.implementations.numpy.im2col import Im2col
from convbench.implementations.registry import REGISTRY
from convbench.problem import operands
from convbench.problem.layer import Layer, Pass
from convbench.results.model import Explanation, MistakeKind
from tests.cli import ROOT, USERS
from tests.layers import layers
from tests.mutants.causes import CAUSES
from tests.mutants.evidence import agree, everyone, judge
from tests.mutants.holdout_causes import HOLDOUT
from tests.styles.names import NAMES

LAYER = Layer("plain", (9, 8, 3), 4, (3, 2), batch_size=2)
MUTANTS = ROOT / "tests" / "mutants"
OURS = {"input": "NHWC", "kernel": "HWIO", "output_gradient": "NHWC", "result": "NHWC"}


# The evidence


@pytest.fixture(scope="module")
def judged():
    return list(everyone(judge, CAUSES))


def test_some_mutants_are_found_wrong_and_named():
    """This test judges one mutant in forty, on one layer in three; the tests below judge all."""
    found = [judge(name, every=3) for name in list(CAUSES)[::40]]
    assert [mutant.name for mutant in found if not mutant.wrong] == []
    assert sum(mutant.is_named_rightly for mutant in found) >= 0.8 * len(found)


@pytest.mark.slow
def test_every_mutant_is_found_wrong(judged):
    assert len(judged) >= 60
    assert [mutant.name for mutant in judged if not mutant.wrong] == []


@pytest.mark.slow
def test_nine_of_ten_mutants_are_named_rightly(judged):
    misnamed = [(mutant.name, mutant.named) for mutant in judged if not mutant.is_named_rightly]
    assert len(misnamed) <= 0.1 * len(judged), misnamed


@pytest.mark.slow
def test_every_mutant_of_the_holdout_is_found_wrong():
    """Nothing was tuned to these mutants. results/diagnosis.txt says how many are named."""
    assert [m.name for m in everyone(judge, HOLDOUT) if not m.wrong] == []


def test_some_right_convolutions_are_not_called_wrong():
    found = [agree(name, drawn=6) for name in NAMES[::4]]
    assert [cell for style in found for cell in style.called_wrong] == []
    assert sum(style.cells for style in found) > 40


@pytest.mark.slow
@pytest.mark.parametrize("drawn", [0, 14], ids=["geometry.yaml", "a thousand drawn layers"])
def test_no_right_convolution_is_called_wrong(drawn):
    found = list(everyone(agree, NAMES, drawn))
    assert len(found) >= 25
    assert [cell for style in found for cell in style.called_wrong] == []
    assert sum(style.cells for style in found) > 500


# The parts


@settings(deadline=None)
@given(layers())
def test_a_computation_without_a_mistake_equals_the_oracle(layer):
    for pass_ in Pass:
        drawn = operands.exact_integers(layer, pass_, 1)
        np.testing.assert_array_equal(
            Computation.of(layer, pass_, drawn).result(), oracle.expected(layer, pass_, drawn)
        )


@pytest.mark.parametrize("pass_", Pass)
def test_every_mistake_can_be_made(pass_):
    """Each family has a mistake that changes the result of a layer that uses every parameter."""
    layer = Layer(
        "all",
        (12, 11, 6),
        8,
        (3, 2),
        strides=(2, 3),
        padding=((2, 1), (1, 0)),
        dilation_rate=(2, 1),
        groups=2,
        use_bias=True,
        batch_size=2,
    )
    letters = {**OURS, "result": "HWIO"} if pass_ is Pass.KERNEL_GRADIENT else OURS
    right = Computation.of(layer, pass_, operands.exact_integers(layer, pass_, 1))
    expected = right.result()
    effective = set()
    for mistake in mistakes(right, letters):
        result = mistake.change(right).result()
        assert result.shape == expected.shape, mistake
        if not np.allclose(result, expected):
            effective.add(mistake.cause)
    everywhere = {
        "padding-off-by-one",
        "strides-wrong",
        "dilation-wrong",
        "groups-mixed",
        "mean-instead-of-sum",
        "tap-missing",
        "accumulator-not-reset",
        "activation-applied",
        "wrong-layout",
    }
    assert everywhere <= effective
    if pass_ is Pass.FORWARD:
        assert {"bias-missing", "bias-repeated", "bias-on-the-wrong-axis"} <= effective
    if pass_ is Pass.INPUT_GRADIENT:
        assert "overlaps-overwritten" in effective


def test_every_cause_is_in_the_vocabulary():
    known = {cause for answers in CAUSES.values() for answer in answers for cause in answer}
    for pass_ in Pass:
        right = Computation.of(LAYER, pass_, operands.exact_integers(LAYER, pass_, 1))
        letters = {**OURS, "result": "HWIO"} if pass_ is Pass.KERNEL_GRADIENT else OURS
        assert {mistake.cause for mistake in mistakes(right, letters)} <= known


class _Spoilt(Im2col):
    def __init__(self, spoil):
        self._spoil = spoil

    def prepare(self, layer, pass_, threads):
        prepared = super().prepare(layer, pass_, threads)
        right = prepared.run
        prepared.run = lambda: self._spoil(np.array(right()))
        return prepared


def test_built_in_implementations_are_diagnosed_too():
    found = diagnose(Case(_Spoilt(lambda r: r[:, ::-1]), LAYER, Pass.FORWARD, 1, 0), Search())
    assert found.explanations[0].causes == ("result-flipped",)
    assert found.explanations[0].reproduces


def test_a_result_that_nothing_explains_is_reported_as_such():
    def odd(result):
        result[..., ::2] += result[..., ::2] ** 2 % 7
        return result

    found = diagnose(Case(_Spoilt(odd), LAYER, Pass.FORWARD, 1, 0), Search())
    (explanation,) = found.explanations
    assert explanation.causes == ()
    assert "no mistake that convbench knows explains it" in explanation.sentence
    assert "filters 0, 2" in explanation.sentence


def test_few_explanations_that_explain_all_layers_are_preferred():
    one, other, third = (Explanation.of([MistakeKind(c)], c, True) for c in "abc")
    assert likeliest([(one, other), (other, third), (third,)]) == [other, other, third]
    assert likeliest([()]) == [None]


def test_an_example_is_as_small_as_can_be():
    implementation = REGISTRY.get(f"{USERS}:flipped")
    (explanation, *_) = Diagnosing().explained(Case(implementation, LAYER, Pass.FORWARD, 1, 0))
    example = explanation.example
    assert np.prod(example.layer.kernel_size) == 2
    assert example.layer.batch_size == example.layer.filters == example.layer.channels == 1
    assert example.layer.output_size == (1, 1)
    assert example.found != example.expected
    assert set("".join(example.picture)) <= set("#.")


def test_shrinking_stops_where_nothing_smaller_fails():
    def wrong(layer):
        return layer.channels >= 2 and layer.kernel_size[0] >= 2

    large = replace(LAYER, input_shape=(20, 20, 16), kernel_size=(5, 5), filters=9, batch_size=7)
    small = shrink(large, wrong, time.monotonic() + 30)
    assert (small.channels, small.kernel_size, small.filters) == (2, (2, 1), 1)
    assert small.input_size == (2, 1)


def test_a_workspace_that_calls_share_is_remarked_on_but_not_wrong():
    implementation = REGISTRY.get(f"{ROOT}/tests/styles/memory.py:module_workspace")
    large = replace(LAYER, input_shape=(48, 48, 8), filters=8)
    assert check(Case(implementation, large, Pass.FORWARD, 1, 0)).verdict == "agrees"
    assert any(
        unsafe_for_threads(Case(implementation, large, Pass.FORWARD, 1, 0)) for _ in range(20)
    )
    alone = REGISTRY.get(f"{USERS}:right")
    assert not unsafe_for_threads(Case(alone, large, Pass.FORWARD, 1, 0))


# The bound of transforms


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("pass_", Pass)
def test_the_bound_of_transforms_is_small_and_nowhere_zero(pass_, dtype):
    layer = Layer("x", (24, 20, 3), 4, (3, 3), batch_size=2, dtype=dtype)
    drawn = operands.floats(layer, pass_, 0)
    bound = transform_bound(layer, pass_, drawn)
    assert bound.shape == layer.result_shape(pass_)
    right = oracle.expected(layer, pass_, drawn)
    if pass_ is not Pass.KERNEL_GRADIENT:  # for long sums, integers tell more
        coarser = np.float16 if dtype == "float32" else np.float32
        assert (np.abs(right.astype(coarser) - right) > bound).any()
    assert (bound > 0).all()
    assert bound.max() < 1e-2 * np.abs(right).max()


SLIGHTLY_OFF = """
import numpy as np


def _right(x, kernel):
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[2:], axis=(2, 3))
    return np.einsum("bchwij,fcij->bfhw", windows, kernel)


def shifted(x, kernel):
    return _right(x, kernel) + np.float32(3e-5)


def scaled(x, kernel):
    return _right(x, kernel) * np.float32(1.00003)


def half(x, kernel):
    return _right(x.astype(np.float16).astype(x.dtype), kernel)


def transform(x, kernel):
    shape = [n + k - 1 for n, k in zip(x.shape[2:], kernel.shape[2:])]
    f = np.fft.rfft2(x, shape)[:, None] * np.fft.rfft2(kernel[..., ::-1, ::-1], shape)[None]
    rows, columns = (k - 1 for k in kernel.shape[2:])
    full = np.fft.irfft2(f.sum(2), shape)
    return full[:, :, rows : rows + x.shape[2] - rows, columns : columns + x.shape[3] - columns]
"""


@pytest.fixture(scope="module")
def slightly_off(tmp_path_factory):
    file = tmp_path_factory.mktemp("code") / "slightly_off.py"
    file.write_text(SLIGHTLY_OFF)
    return lambda name: REGISTRY.get(f"{file}:{name}")


@pytest.mark.parametrize(
    ("name", "cause", "told"),
    [
        ("shifted", "constant-added", "is added to every element"),
        ("scaled", "wrong-scale", "every element is 1.00003 times what it should be"),
        ("half", "low-precision", "of float16 or TF32, are right where float32 has 24"),
    ],
)
def test_errors_that_no_transform_makes_are_wrong_within_the_bound_of_transforms(
    slightly_off, name, cause, told
):
    """The bound of transforms is wide, so that a trend or exact integers must tell such errors."""
    layer = Layer("wide", (20, 18, 16), 4, (3, 3), batch_size=2)
    implementation = slightly_off(name)
    assert check(Case(implementation, layer, Pass.FORWARD, 1, 0)).verdict == "wrong"
    (explanation, *_) = Diagnosing().explained(Case(implementation, layer, Pass.FORWARD, 1, 0))
    assert explanation.causes == (cause,)
    assert told in explanation.sentence


@pytest.mark.parametrize(
    ("factor", "told"),
    [(2.5, "2.5"), (1.00003, "1.00003"), (1 + 3e-9, "(1 + 3e-09)"), (1 - 2e-8, "(1 - 2e-08)")],
)
def test_a_factor_is_told_with_digits_that_differ_from_1(factor, told):
    layer = Layer("a", (10, 10, 1), 1, (1, 1), dtype="float64")
    computation = Computation.of(layer, Pass.FORWARD, operands.floats(layer, Pass.FORWARD, 0))
    right = computation.result()
    found = pattern([(factor * right, computation)], layer, Pass.FORWARD)
    assert found.sentence == f"every element is {told} times what it should be"


def test_a_transform_is_right_though_not_exact(slightly_off):
    layer = Layer("wide", (20, 18, 16), 4, (3, 3), batch_size=2)
    found = check(Case(slightly_off("transform"), layer, Pass.FORWARD, 1, 0))
    assert found.verdict == "agrees"
    assert found.exact is False


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1e-4]), st.sampled_from([0.0, 1e-4]))
def test_a_trend_is_seen_where_there_is_one(seed, offset, slope):
    random = np.random.default_rng(seed)
    right = random.uniform(-1, 1, 400)
    seen = right * (1 + slope) + offset + random.uniform(-1e-6, 1e-6, 400)
    found = trend(seen, right)
    if not offset and not slope:
        assert found is None
    else:
        assert found.offset == pytest.approx(offset, abs=1e-6)
        assert found.slope == pytest.approx(slope, abs=1e-6)


def test_a_trend_of_few_elements_is_an_accident():
    assert trend(np.full(20, 1.1), np.ones(20)) is None
    assert trend(np.full(40, np.nan), np.ones(40)) is None
    assert trend(np.ones(40), np.ones(40)) is None


@pytest.mark.parametrize("seed", range(8))
def test_a_transform_with_few_elements_that_are_not_zero_has_no_trend(seed):
    """A double-precision FFT leaves 1e-17 where nothing reaches, and two elements make a line."""
    implementation = REGISTRY.get(f"{ROOT}/tests/styles/fourier.py:InDoublePrecision")
    layer = Layer("few", (5, 2, 3), 9, (4, 1), (3, 3), "same", (3, 3), groups=3, batch_size=1)
    found = check(Case(implementation, layer, Pass.INPUT_GRADIENT, 1, seed))
    assert found.verdict == "agrees", found.diagnosis


@pytest.mark.parametrize("pass_", Pass)
def test_a_kind_is_a_mistake_without_its_figures(pass_):
    """Two mistakes have the same kind exactly where their sentences differ in figures only.

    The layers are small, and differ in size. Clipping and rounding have their kinds elsewhere.
    """
    by_kind, by_words = {}, {}
    for change in (
        {},
        {"groups": 2, "input_shape": (7, 6, 4), "filters": 8},
        {"padding": "same", "strides": (3, 2), "kernel_size": (4, 5), "batch_size": 5},
        {"padding": "same", "dilation_rate": (2, 1), "input_shape": (12, 9, 3)},
    ):
        layer = replace(LAYER, **change)
        letters = {"input": "NCHW", "kernel": "OIHW", "output_gradient": "NCHW", "result": "NCHW"}
        if pass_ is Pass.KERNEL_GRADIENT:
            letters["result"] = "OIHW"
        right = Computation.of(layer, pass_, operands.exact_integers(layer, pass_, 0))
        for mistake in mistakes(right, letters):
            assert not re.search(r"\d", mistake.variant)
            words = re.sub(r"\d+", "#", mistake.sentence)
            by_kind.setdefault(mistake.kind, set()).add(words)
            by_words.setdefault((mistake.cause, words), set()).add(mistake.kind)
    assert len(by_kind) > 100
    assert [found for found in by_kind.values() if len(found) > 1] == []
    assert [found for found in by_words.values() if len(found) > 1] == []
