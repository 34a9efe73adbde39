"""Test statistics against SciPy, and the behaviour of intervals and corrections."""

import math

import pytest
from scipy import stats as scipy_stats

from convbench.results import stats


@pytest.mark.parametrize("degrees", [1, 2, 4, 7, 15, 31, 400])
@pytest.mark.parametrize("t", [-40.0, -3.2, -0.1, 0.0, 0.4, 1.0, 2.7, 9.0, 60.0])
def test_t_cdf_equals_scipys(t, degrees):
    assert stats.t_cdf(t, degrees) == pytest.approx(scipy_stats.t.cdf(t, degrees), abs=1e-12)


@pytest.mark.parametrize("degrees", [1, 4, 7, 15, 400])
@pytest.mark.parametrize("p", [0.0005, 0.005, 0.3, 0.5, 0.9, 0.995, 0.9999])
def test_t_quantile_equals_scipys(p, degrees):
    assert stats.t_quantile(p, degrees) == pytest.approx(
        scipy_stats.t.ppf(p, degrees), rel=1e-9, abs=1e-9
    )


def test_an_interval_is_that_of_students_t():
    logs = [0.10, 0.12, 0.09, 0.11, 0.13, 0.10, 0.11, 0.12]
    low, high = stats.estimate(logs).interval(0.99)
    expected = scipy_stats.t.interval(
        0.99, len(logs) - 1, loc=sum(logs) / len(logs), scale=scipy_stats.sem(logs)
    )
    assert (math.log(low), math.log(high)) == pytest.approx(expected)


def test_fewer_than_five_rounds_claim_nothing():
    assert stats.estimate([0.5, 0.5, 0.5, 0.5]).interval() is None
    assert stats.estimate([0.5, 0.5, 0.5, 0.5]).p_beyond() == 1.0
    assert stats.estimate([0.5] * 5).interval() == pytest.approx((math.exp(0.5),) * 2)


def test_an_estimate_needs_a_round():
    with pytest.raises(ValueError, match="at least one round"):
        stats.estimate([])


def test_p_beyond_takes_the_margin_into_account():
    within = stats.estimate([0.005, 0.0051, 0.0049, 0.005, 0.005])
    beyond = stats.estimate([0.05, 0.051, 0.049, 0.05, 0.05])
    assert within.p_beyond() == 1.0
    assert beyond.p_beyond() < 1e-6
    assert stats.estimate([-0.05, -0.051, -0.049, -0.05, -0.05]).p_beyond() < 1e-6


def test_holm_rejects_step_by_step():
    # 0.012 is rejected only because 0.001 was rejected first; Bonferroni would keep it.
    assert _fallen([0.012, 0.3, 0.001, 0.02]) == [True, False, True, True]
    assert _fallen([0.02, 0.3, 0.04]) == [False, False, False]
    assert _fallen([]) == []


def _fallen(p_values, alpha=0.05):
    levels = stats.holm_levels(p_values, alpha)
    return [p <= level for p, level in zip(p_values, levels, strict=True)]


def test_a_geometric_mean_keeps_rounds_as_replicates():
    first, second = [0.0, 0.2, 0.1, 0.0, 0.2], [1.0, 1.2, 1.1, 1.0, 1.2]
    mean = stats.geometric_mean([first, second])
    assert mean.log == pytest.approx(0.6)
    assert mean.rounds == 5
    # The cells move together, so that two cells tell no more than one.
    assert mean.error == pytest.approx(stats.estimate(first).error)


def test_an_interval_of_the_long_run_is_never_narrower_than_that_of_the_run():
    """A well-known deviation adds degrees of freedom, which must not narrow the interval."""
    found = stats.Estimate(0.1, 0.01, 5, 4)
    for deviation, degrees in ((0.0, 9), (0.003, 99), (0.005, 2), (0.02, 9)):
        wider = stats.in_the_long_run(found, deviation, degrees)
        assert wider.log == found.log
        assert wider.interval()[0] <= found.interval()[0]
        assert wider.interval()[1] >= found.interval()[1]
    assert stats.in_the_long_run(found, 0.005, 2) == found
    known = stats.in_the_long_run(found, 0.02, 9)
    assert known.error == pytest.approx(math.hypot(0.01, 0.02))
    exactly = 0.0005**2 / (0.0001**2 / 4 + 0.0004**2 / 9)
    assert exactly * 0.9 < known.degrees <= exactly
    assert known.degrees == 12
