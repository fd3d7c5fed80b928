import numpy as np
import pytest

from fastinn.study import significance
from fastinn.study.significance import bootstrap, percentile_interval, resampled_means


def test_the_interval_is_that_of_the_mean():
    """1.96 standard errors on each side, for many samples."""
    values = np.random.default_rng(0).normal(3, 2, size=4000)
    found = bootstrap(values, n=4000)
    margin = 1.96 * values.std() / np.sqrt(len(values))
    assert found.mean == pytest.approx(values.mean())
    assert found.mean - found.low == pytest.approx(margin, rel=0.1)
    assert found.high - found.mean == pytest.approx(margin, rel=0.1)


def test_it_covers_the_truth_as_often_as_it_says():
    draws = np.random.default_rng(1).exponential(size=(400, 80))
    intervals = [bootstrap(sample, n=400, confidence=0.9) for sample in draws]
    covered = np.mean([i.low <= 1 <= i.high for i in intervals])
    assert 0.82 < covered < 0.94


@pytest.mark.parametrize(("n_groups", "plain"), [(3, 0.75), (4, 0.80), (8, 0.88)])
def test_of_few_groups_it_covers_the_truth_nearly_as_often(n_groups, plain):
    """More often than the percentiles of the same resamples."""
    draws = np.random.default_rng(4).normal(size=(1000, n_groups))
    intervals = [bootstrap(sample, n=400) for sample in draws]
    assert 0.92 < np.mean([i.low <= 0 <= i.high for i in intervals]) < 0.98
    ends = [np.quantile(resampled_means(sample, n=400), [0.025, 0.975]) for sample in draws]
    assert np.mean([low <= 0 <= high for low, high in ends]) == pytest.approx(plain, abs=0.03)


def test_few_groups_stretch_the_percentiles_as_they_do_a_t_interval():
    """Student's t has 3.182 and 2.262 where a normal distribution has 1.960."""
    resampled = np.linspace(-1, 3, 4001)  # percentiles -0.9 and 2.9 about an estimate of 1
    for n_groups, t in ((4, 3.182), (10, 2.262)):
        found = percentile_interval(1.0, resampled, n_groups)
        margin = 1.9 * (n_groups / (n_groups - 1)) ** 0.5 * t / 1.960
        assert (found.low, found.high) == pytest.approx((1 - margin, 1 + margin), rel=1e-3)


def test_no_interval_reaches_beyond_what_the_statistic_can_be():
    found = percentile_interval(0.9, np.linspace(0.5, 1.0, 101), 4, most=1.0)
    assert (found.high, found.low < 0.4) == (1.0, True)


def test_an_end_on_the_wrong_side_stays():
    found = percentile_interval(-2.0, np.linspace(-1, 3, 4001), 4)
    assert found.low == pytest.approx(-0.9)
    assert found.high > 2.9


def test_groups_that_move_together_widen_it():
    """Ten equal samples a group tell as much as one."""
    values = np.random.default_rng(2).normal(size=300)
    alone = bootstrap(values)
    repeated = bootstrap(np.repeat(values, 10), np.repeat(np.arange(300), 10))
    naive = bootstrap(np.repeat(values, 10))
    assert repeated.high - repeated.low == pytest.approx(alone.high - alone.low, rel=1e-9)
    assert naive.high - naive.low < 0.5 * (alone.high - alone.low)


def test_groups_of_different_sizes_count_by_their_samples():
    values, groups = [1.0, 1.0, 1.0, 5.0], ["a", "a", "a", "b"]
    assert bootstrap(values, groups).mean == 2
    assert set(resampled_means(values, groups)) == {1.0, 2.0, 5.0}


def test_one_group_tells_nothing_about_the_next():
    for found in (bootstrap([3.0]), bootstrap([1.0, 5.0], ["a", "a"])):
        assert found.mean == 3
        assert np.isnan([found.low, found.high]).all()
        assert found.record() == {"mean": 3}


def test_columns_share_their_draws():
    values = np.random.default_rng(3).normal(size=(50, 1))
    means = resampled_means(np.hstack([values, 2 * values]))
    np.testing.assert_allclose(means[:, 1], 2 * means[:, 0])
    np.testing.assert_allclose(means[:, 0], resampled_means(values[:, 0]))


def test_memory_bounds_do_not_change_the_result(monkeypatch):
    values = np.arange(20.0)
    whole = resampled_means(values, n=50)
    monkeypatch.setattr(significance, "_COUNTS_AT_ONCE", 70)
    np.testing.assert_array_equal(resampled_means(values, n=50), whole)


def test_it_follows_the_seed():
    values = np.arange(20.0)
    assert bootstrap(values) == bootstrap(values)
    assert bootstrap(values) != bootstrap(values, random_state=1)


MISTAKES = {
    "nothing": (lambda: bootstrap([]), "no values to resample"),
    "groups": (lambda: bootstrap([1, 2], [1]), "1 groups for 2 values"),
    "confidence": (lambda: bootstrap([1, 2], confidence=95), r"confidence is 95, expected"),
    "interval": (lambda: percentile_interval(0, np.zeros(3), 9, 0), "confidence is 0"),
}


@pytest.mark.parametrize(("call", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
