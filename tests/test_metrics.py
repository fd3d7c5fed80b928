import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score as sklearn_r2
from tolerances import CANONICAL_CORRELATION, MOMENTS

from fastinn import Moments, metrics
from fastinn.align import CCA, PWCCA, SVCCA, LinearMap, Procrustes

ALIGNERS = {
    "procrustes": Procrustes(),
    "linear": LinearMap(),
    "cca": CCA(),
    "svcca": SVCCA(),
    "pwcca": PWCCA(),
}


def paired(n=400, d=6, seed=0, offset=0.0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + offset
    y = np.tanh(x - offset) @ rng.normal(size=(d, d)) + 0.3 * rng.normal(size=(n, d)) + offset
    return x, y


def moments(x, y):
    return Moments({"s": x.shape[1], "t": y.shape[1]}).update({"s": x, "t": y})


def inverse_scores(aligner, x, y):
    back = aligner.inverse_transform(y)
    mse = ((back - x) ** 2).mean()
    return {
        "mse": mse,
        "relative_mse": mse / x.var(axis=0).mean(),
        "r2": aligner.score_inverse(x, y),
    }


@pytest.mark.parametrize("offset", [0.0, 1e6], ids=["centred", "offset"])
@pytest.mark.parametrize("name", ALIGNERS)
def test_held_out_scores_from_moments_equal_those_on_rows(name, offset):
    x, y = paired(offset=offset)
    aligner = ALIGNERS[name].fit(x[:300], y[:300])
    held_out = x[300:], y[300:]
    found = metrics.evaluate_moments(aligner, moments(*held_out), "s", "t")
    expected = metrics.evaluate(aligner, *held_out)
    assert found == pytest.approx({key: expected[key] for key in found}, rel=MOMENTS)


@pytest.mark.parametrize("name", ["procrustes", "cca", "pwcca"])
def test_held_out_scores_of_the_inverse(name):
    x, y = paired()
    aligner = ALIGNERS[name].fit(x[:300], y[:300])
    found = metrics.evaluate_moments(aligner, moments(x[300:], y[300:]), "s", "t", inverse=True)
    assert found == pytest.approx(inverse_scores(aligner, x[300:], y[300:]), rel=MOMENTS)


@pytest.mark.parametrize("name", ["cca", "svcca", "pwcca"])
def test_held_out_similarity_equals_that_on_rows(name):
    x, y = paired()
    aligner = ALIGNERS[name].fit(x[:300], y[:300])
    held_out = moments(x[300:], y[300:])
    a, b = x[300:] @ aligner.x_directions_.numpy(), y[300:] @ aligner.y_directions_.numpy()
    expected = [np.corrcoef(a[:, k], b[:, k])[0, 1] for k in range(a.shape[1])]
    found = metrics.correlations_moments(aligner, held_out, "s", "t")
    np.testing.assert_allclose(found, expected, rtol=0, atol=MOMENTS)
    weights = (
        aligner.weights_.numpy() if name == "pwcca" else np.full(len(expected), 1 / len(expected))
    )
    similarity = metrics.similarity_moments(aligner, held_out, "s", "t")
    assert similarity == pytest.approx(weights @ expected, abs=MOMENTS)


def test_held_out_similarity_has_no_small_sample_bias():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2000, 50)), rng.normal(size=(2000, 50))
    aligner = CCA().fit(x[:150], y[:150])
    assert aligner.similarity_ > 0.4
    assert abs(metrics.similarity_moments(aligner, moments(x[150:], y[150:]), "s", "t")) < 0.02


def test_scores_of_a_perfect_prediction():
    x, _ = paired()
    aligner = Procrustes().fit(x, 2 * x)
    scores = metrics.evaluate(aligner, x, 2 * x)
    assert scores["relative_mse"] < 1e-25
    assert scores["l2"] < 1e-12
    assert scores["round_trip"] < 1e-12
    perfect = {"r2": 1, "cosine": 1, "retrieval": 1, "inverse_r2": 1}
    assert {key: scores[key] for key in perfect} == pytest.approx(perfect)


def test_only_bijections_are_scored_backwards():
    x, y = paired()
    assert "inverse_r2" not in metrics.evaluate(LinearMap().fit(x, y), x, y)
    with pytest.raises(TypeError, match="LinearMap has no inverse"):
        metrics.evaluate_moments(LinearMap().fit(x, y), moments(x, y), "s", "t", inverse=True)


def test_l2_and_cosine():
    x, y = paired()
    aligner = LinearMap().fit(x, y)
    predicted = aligner.transform(x)
    scores = metrics.evaluate(aligner, x, y)
    norms = np.linalg.norm(predicted, axis=1) * np.linalg.norm(y, axis=1)
    assert scores["l2"] == pytest.approx(np.linalg.norm(predicted - y, axis=1).mean())
    assert scores["cosine"] == pytest.approx(((predicted * y).sum(1) / norms).mean())


def test_cycle_error_is_the_way_back_that_is_missed():
    x, y = paired()
    there, elsewhere = LinearMap().fit(x, y), Procrustes().fit(x, x + 3)
    assert metrics.cycle_error([elsewhere.transform, elsewhere.inverse_transform], x) < 1e-12
    back = LinearMap().fit(y, x)
    left = x - back.transform(there.transform(x))
    expected = np.sqrt((left**2).sum(1).mean() / x.var(axis=0).sum())
    assert metrics.cycle_error([there.transform, back.transform], x) == pytest.approx(expected)
    assert metrics.cycle_error([there.transform], x) > 0.5


def test_row_scores_search_as_many_rows_as_asked():
    x, y = paired()
    predicted = LinearMap().fit(x, y).transform(x)
    found = metrics.row_scores(y, predicted, n_candidates=9)
    assert found["retrieval"] == metrics.retrieval_accuracy(y, predicted, n_candidates=9)
    assert found.keys() == {"mse", "relative_mse", "r2", "l2", "cosine", "retrieval"}


def test_r2_is_that_of_scikit_learn():
    y, predicted = paired()
    expected = sklearn_r2(y, predicted, multioutput="variance_weighted")
    assert metrics.r2_score(y, predicted) == pytest.approx(expected, rel=1e-12)


def test_linear_cka():
    x, y = paired(offset=10.0)
    gram_x, gram_y = (np.dot(r - r.mean(0), (r - r.mean(0)).T) for r in (x, y))
    expected = (gram_x * gram_y).sum() / np.linalg.norm(gram_x) / np.linalg.norm(gram_y)
    assert metrics.linear_cka(x, y) == pytest.approx(expected, abs=MOMENTS)
    found = metrics.linear_cka_moments(moments(x, y), "s", "t")
    assert found == pytest.approx(expected, abs=MOMENTS)


@pytest.mark.parametrize("precision", ["exact", "high"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_correlations_equal_a_decomposition_of_the_rows(precision, dtype):
    """float64 QR of both sides and SVD, with means and scales that hidden states have."""
    x, y = (rows.astype(dtype) for rows in paired(n=5000, d=24, offset=30.0))
    x[:, 3] *= 100
    bases = [np.linalg.qr(rows - rows.mean(axis=0))[0] for rows in (np.float64(x), np.float64(y))]
    expected = np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)
    found = metrics.cca_correlations(x, y, precision=precision)
    np.testing.assert_allclose(found, expected, rtol=0, atol=CANONICAL_CORRELATION[precision])


def test_similarities_of_rows():
    x, y = paired()
    assert isinstance(metrics.cca_correlations(x, y), np.ndarray)
    assert isinstance(metrics.cca_correlations(torch.tensor(x), torch.tensor(y)), torch.Tensor)
    assert metrics.svcca(x, x) == pytest.approx(1)
    assert metrics.pwcca(x, x @ np.diag(np.arange(1, 7.0))) == pytest.approx(1)
    assert metrics.svcca(x, y, variance=0.5) == SVCCA(0.5).fit(x, y).similarity_


@pytest.mark.parametrize("n", [7, 1500, 3000])
def test_retrieval_equals_a_full_search(n):
    rng = np.random.default_rng(0)
    y = rng.normal(size=(n, 3)) + 1e4
    predicted = y + 0.05 * rng.normal(size=(n, 3))
    distances = ((predicted[:2000, None] - y[None, :2000]) ** 2).sum(-1)
    expected = (distances.argmin(1) == np.arange(min(n, 2000))).mean()
    assert metrics.retrieval_accuracy(y, predicted, n_candidates=2000) == expected


def test_retrieval_of_repeated_rows():
    y = np.repeat(np.eye(4), 3, axis=0)
    assert metrics.retrieval_accuracy(y, y) == 1


def test_retrieval_notices_a_wrong_pairing():
    y = np.random.default_rng(0).normal(size=(50, 8))
    assert metrics.retrieval_accuracy(y, np.roll(y, 1, axis=0)) == 0


X, Y = paired(20)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.r2_score(Y, Y[:, :2]), "y_pred has 2 features, y_true has 6"),
        (lambda: metrics.r2_score(Y, Y[1:]), "y_true has 20 rows and y_pred has 19"),
        (lambda: metrics.r2_score(Y[:1], Y[:1]), "the true rows are all equal"),
        (lambda: metrics.retrieval_accuracy(Y, Y, n_candidates=0), "n_candidates is 0"),
        (lambda: metrics.linear_cka(X, np.ones_like(X)), "'Y' does not vary"),
        (lambda: metrics.cca_correlations(X[:5], Y[:5]), "5 rows are too few"),
        (lambda: metrics.evaluate(LinearMap().fit(X, Y), X, Y[1:]), "20 rows and y has 19"),
        (
            lambda: metrics.cycle_error([], X[:1]),
            "the cycle error is undefined: the rows of x are all equal",
        ),
        (
            lambda: metrics.cycle_error([LinearMap().fit(X, Y[:, 1:]).transform], X),
            "what comes back has 5 features, x has 6",
        ),
        (
            lambda: metrics.evaluate_moments(LinearMap().fit(X, Y), moments(X, Y[:, 1:]), "s", "t"),
            "view 't' has 5 features, the aligner was fitted on 6",
        ),
    ],
    ids=[
        "width",
        "rows",
        "constant",
        "candidates",
        "cka",
        "few",
        "evaluate",
        "constant cycle",
        "open cycle",
        "moments",
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
