import numpy as np
import pytest
from tolerances import EXACT_BIJECTION, MOMENTS

from fastinn import Moments
from fastinn.align import CCA, PWCCA, SVCCA, Factors


def basis(rows):
    """Orthonormal basis of the span of the standardised columns."""
    centred = rows - rows.mean(0)
    scale = centred.std(0)
    u, s, _ = np.linalg.svd(centred / np.where(scale > 1e-12, scale, np.inf), full_matrices=False)
    return u[:, s > 1e-6 * s[0]]


def direct_correlations(x, y):
    return np.linalg.svd(basis(x).T @ basis(y), compute_uv=False)


def principal(rows, variance):
    """Scores of the fewest principal directions that hold the share of the variance."""
    centred = rows - rows.mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    return u[:, : int(np.searchsorted(np.cumsum(s**2) / (s**2).sum(), variance)) + 1]


def relative_error(true, predicted):
    return ((predicted - true) ** 2).sum() / ((true - true.mean(0)) ** 2).sum()


def test_correlations_equal_direct_computation(data):
    x, y, *_ = data
    correlations = CCA().fit(x, y).correlations_.numpy()
    np.testing.assert_allclose(correlations, direct_correlations(x, y), rtol=0, atol=MOMENTS)
    assert (np.diff(correlations) <= 0).all()
    assert 0 <= correlations[-1] <= correlations[0] <= 1


def test_map_sends_each_variate_to_its_partner(data):
    x, y, new_x, _ = data
    fitted = CCA().fit(x, y)
    a, b = fitted.x_directions_.numpy(), fitted.y_directions_.numpy()
    variates = (new_x - x.mean(0)) @ a
    mapped = (fitted.transform(new_x) - y.mean(0)) @ b
    np.testing.assert_allclose(mapped, variates, atol=1e-7)


def test_regularised_correlations_equal_direct_computation(data):
    x, y, *_ = data
    factors = []
    for rows in (x, y):
        cov = np.cov(rows.T, bias=True)
        scale = np.sqrt(np.diag(cov))
        kept = scale > 1e-9
        correlation = (cov / scale / scale[:, None])[kept][:, kept] + 0.2 * np.eye(kept.sum())
        factors.append((np.linalg.inv(np.linalg.cholesky(correlation)), kept, scale[kept]))
    (lx, kx, sx), (ly, ky, sy) = factors
    cross = (x - x.mean(0))[:, kx].T @ (y - y.mean(0))[:, ky] / len(x) / sy / sx[:, None]
    expected = np.linalg.svd(lx @ cross @ ly.T, compute_uv=False)
    found = CCA(ridge=0.2).fit(x, y).correlations_.numpy()
    # Null directions carry no correlation, and CCA leaves them out.
    np.testing.assert_allclose(found, expected[: len(found)], rtol=0, atol=MOMENTS)


def test_recovers_an_exact_bijection(bijection):
    """Once 1.89 on such data: one side was transposed twice and never scaled back."""
    x, y, new_x, new_y = bijection
    fitted = CCA().fit(x, y)
    assert relative_error(new_y, fitted.transform(new_x)) <= EXACT_BIJECTION
    assert relative_error(new_x, fitted.inverse_transform(new_y)) <= EXACT_BIJECTION


def test_error_on_a_well_conditioned_bijection_is_rounding():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 8))
    y = 3 * x @ np.linalg.qr(rng.normal(size=(8, 8)))[0] + 4
    assert relative_error(y, CCA().fit(x, y).transform(x)) <= 1e-25


def test_is_a_bijection_wherever_ranks_agree(same_rank_data):
    x, y, *_ = same_rank_data
    fitted = CCA().fit(x, y)
    points = np.random.default_rng(9).normal(size=(50, x.shape[1])) * x.std(0) + x.mean(0)
    back = fitted.inverse_transform(fitted.transform(points))
    np.testing.assert_allclose(back / (x.std(0) + 1), points / (x.std(0) + 1), atol=1e-6)


def test_n_components_keeps_the_leading_pairs():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(90, 6)), rng.normal(size=(90, 7))
    fitted = CCA(2).fit(x, y)
    np.testing.assert_allclose(fitted.correlations_, CCA().fit(x, y).correlations_[:2])
    assert np.linalg.matrix_rank(fitted.weight_) == 2


@pytest.mark.parametrize("variance", [0.5, 0.9, 0.99])
def test_svcca_keeps_a_share_of_the_variance(variance):
    """Not of the singular values, which would keep too many directions."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 20)) * np.logspace(1, -1, 20)
    y = x @ rng.normal(size=(20, 20)) + rng.normal(size=(500, 20))
    expected = np.linalg.svd(principal(x, variance).T @ principal(y, variance), compute_uv=False)
    found = SVCCA(variance).fit(x, y).correlations_
    np.testing.assert_allclose(found, expected, rtol=0, atol=MOMENTS)


def test_pwcca_weights(data):
    x, y, *_ = data
    fitted = PWCCA().fit(x, y)
    variates = (x - x.mean(0)) @ fitted.x_directions_.numpy()
    share = np.abs(variates.T @ (x - x.mean(0))).sum(axis=1)
    np.testing.assert_allclose(fitted.weights_, share / share.sum(), atol=MOMENTS)
    expected = (share / share.sum()) @ direct_correlations(x, y)
    assert fitted.similarity_ == pytest.approx(expected, abs=MOMENTS)


def test_similarity_is_the_mean_correlation():
    rng = np.random.default_rng(0)
    fitted = CCA().fit(rng.normal(size=(50, 4)), rng.normal(size=(50, 3)))
    assert fitted.similarity_ == pytest.approx(float(fitted.correlations_.mean()))


def test_independent_rows_correlate_in_small_samples():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20_000, 64)), rng.normal(size=(20_000, 64))
    few, many = CCA().fit(x[:200], y[:200]), CCA().fit(x, y)
    assert few.similarity_ > 0.4
    assert many.similarity_ < 0.06


@pytest.mark.parametrize("make", [CCA, SVCCA, PWCCA], ids=lambda c: c.__name__)
def test_factors_give_the_same_in_both_directions(make):
    rng = np.random.default_rng(0)
    moments = Moments({"s": 5, "t": 4})
    x = rng.normal(size=(80, 5))
    moments.update({"s": x, "t": x[:, :4] ** 3 + rng.normal(size=(80, 4))})
    factors = Factors(moments)
    for pair in (("s", "t"), ("t", "s")):
        shared = make().from_moments(factors, *pair)
        alone = make().from_moments(moments, *pair)
        np.testing.assert_allclose(shared.weight_, alone.weight_, atol=1e-10)


@pytest.mark.parametrize("make", [CCA, PWCCA], ids=lambda c: c.__name__)
def test_too_few_rows_are_refused(make):
    rows = np.random.default_rng(0).normal(size=(10, 20))
    with pytest.raises(ValueError, match=r"10 rows are too few for the 9 dimensions of 'X'"):
        make().fit(rows, rows)


def test_a_ridge_allows_fewer_rows_than_features():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(10, 20)), rng.normal(size=(10, 20))
    correlations = CCA(ridge=1.0).fit(x, y).correlations_
    assert correlations[0] < 1
    assert len(correlations) == 9


@pytest.mark.parametrize(
    ("aligner", "x", "message"),
    [
        (CCA(), np.ones((30, 4)), "'X' does not vary"),
        (CCA(5), np.random.default_rng(0).normal(size=(30, 4)), "n_components is 5, expected 1"),
        (CCA(0), np.random.default_rng(0).normal(size=(30, 4)), "n_components is 0, expected 1"),
        (CCA(ridge=-1), np.eye(30, 4), "ridge is -1, expected 0 or more"),
        (SVCCA(99), np.eye(30, 4), r"variance is 99, expected a share in \(0, 1\]"),
    ],
    ids=["constant", "many", "none", "ridge", "variance"],
)
def test_bad_input(aligner, x, message):
    y = np.random.default_rng(1).normal(size=(30, 4))
    with pytest.raises(ValueError, match=message):
        aligner.fit(x, y)
