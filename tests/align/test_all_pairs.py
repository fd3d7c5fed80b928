from itertools import combinations

import numpy as np
import pytest
import torch
from tolerances import MOMENTS, R2_HIGH

from fastinn import Moments, metrics
from fastinn.align import CCA, PWCCA, Factors, LinearMap, Procrustes, all_pairs
from fastinn.align.all_pairs import _MATRICES_A_PAIR, _chunks
from fastinn.ops import polar

D = 6
SPLITS = {"train": 300, "validation": 40, "test": 100}


def layer_norm(rows):
    rows = rows - rows.mean(axis=1, keepdims=True)
    return rows / rows.std(axis=1, keepdims=True)


def make_views():
    """Four views of the same rows; two lie on a hyperplane, and one has a constant feature."""
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(sum(SPLITS.values()), D))
    mixed = [
        np.tanh(shared @ rng.normal(size=(D, D))) + 0.5 * rng.normal(size=shared.shape) + 3
        for _ in range(4)
    ]
    mixed[3][:, 2] = 7.0
    return {"a": layer_norm(mixed[0]), "b": mixed[1], "c": layer_norm(mixed[2]), "d": mixed[3]}


def make_moments(views):
    found, start = {}, 0
    for split, n in SPLITS.items():
        rows = {view: x[start : start + n] for view, x in views.items()}
        widths = {view: x.shape[1] for view, x in views.items()}
        found[split] = Moments(widths, precision="exact").update(rows)
        start += n
    return found


MOMENTS_OF = make_moments(make_views())
PAIRS = [*combinations("abcd", 2), ("c", "a")]
TRAIN, TEST, VALIDATION = (MOMENTS_OF[split] for split in ("train", "test", "validation"))


def one_by_one(method, pair):
    """R2 there and back of one pair, by its own aligners."""
    if method in ("Procrustes", "CCA"):
        fitted = {"Procrustes": Procrustes(), "CCA": CCA()}[method].from_moments(TRAIN, *pair)
        scores = [
            metrics.evaluate_moments(fitted, TEST, *pair, inverse=inverse)
            for inverse in (False, True)
        ]
    else:
        ridge = "validation" if method == "ridge" else 0.0
        scores = [
            metrics.evaluate_moments(
                LinearMap(ridge=ridge).from_moments(TRAIN, *way, validation=VALIDATION), TEST, *way
            )
            for way in (pair, pair[::-1])
        ]
    return [score["r2"] for score in scores]


@pytest.fixture(scope="module", params=[2**30, 1], ids=["together", "one at a time"])
def found(request):
    return all_pairs(
        TRAIN,
        PAIRS,
        test=TEST,
        validation=VALIDATION,
        rotations=True,
        spectra=True,
        memory=request.param,
    )


@pytest.mark.parametrize("method", ["Procrustes", "CCA", "least squares", "ridge"])
def test_scores_are_those_of_the_aligners_pair_by_pair(found, method):
    expected = [one_by_one(method, pair) for pair in PAIRS]
    np.testing.assert_allclose(found.r2(method), expected, rtol=0, atol=MOMENTS)


def test_similarities_are_those_pair_by_pair(found):
    for i, pair in enumerate(PAIRS):
        cca, pwcca = (kind().from_moments(TRAIN, *pair) for kind in (CCA, PWCCA))
        back = PWCCA().from_moments(TRAIN, *pair[::-1])
        values = {
            cca.similarity_: found.mean_correlation[i],
            float(cca.correlations_.square().mean()): found.mean_squared_correlation[i],
            metrics.linear_cka_moments(TEST, *pair): found.linear_cka[i],
            metrics.similarity_moments(cca, TEST, *pair): found.spectrum[i].held_out.mean(),
            metrics.similarity_moments(pwcca, TEST, *pair): found.spectrum[i].weights[0]
            @ found.spectrum[i].held_out,
            metrics.similarity_moments(back, TEST, *pair[::-1]): found.spectrum[i].weights[1]
            @ found.spectrum[i].held_out,
        }
        np.testing.assert_allclose(list(values.values()), list(values), rtol=0, atol=MOMENTS)
        np.testing.assert_allclose(
            found.spectrum[i].correlations, cca.correlations_, rtol=0, atol=MOMENTS
        )


def test_rotations_and_ridges_are_those_pair_by_pair(found):
    for i, pair in enumerate(PAIRS):
        aligner = Procrustes().from_moments(TRAIN, *pair)
        overlap = (found.rotation[i].T @ found.rotation[i] - torch.eye(D)).abs().max()
        assert overlap <= MOMENTS
        # Null directions may be sent to each other with either sign; the map of the rows is one.
        cov = torch.as_tensor(TRAIN.cov(pair[0]))
        np.testing.assert_allclose(
            cov @ found.rotation[i] * aligner.scale_, cov @ aligner.weight_, rtol=0, atol=MOMENTS
        )
        for way, chosen in zip((pair, pair[::-1]), found.ridge[i], strict=True):
            fitted = LinearMap(ridge="validation").from_moments(TRAIN, *way, validation=VALIDATION)
            assert fitted.ridge_ == chosen


@pytest.mark.parametrize("precision", ["exact", "high"])
def test_no_decomposition_is_needed(monkeypatch, found, precision):
    """With the iteration of ops.polar, as on a GPU; ranks included."""

    def by_products(matrix, precision):
        return polar(matrix, method="polar-express", precision=precision)

    monkeypatch.setitem(all_pairs.__globals__, "polar", by_products)
    without = all_pairs(TRAIN, PAIRS, test=TEST, precision=precision)
    assert without.spectrum == []
    assert set(without.error) == {"Procrustes", "CCA", "least squares"}
    np.testing.assert_allclose(
        without.mean_correlation, found.mean_correlation, rtol=0, atol=MOMENTS
    )
    atol = MOMENTS if precision == "exact" else R2_HIGH
    for method in without.error:
        np.testing.assert_allclose(without.r2(method), found.r2(method), rtol=0, atol=atol)


def test_pairs_worked_on_together_fit_into_memory():
    """Only pairs of the same ranks stand together, and every pair once."""
    room = 2 * 8 * _MATRICES_A_PAIR * D**2
    chunks = list(_chunks(Factors(TRAIN), PAIRS, room))
    assert max(map(len, chunks)) == 2
    assert sorted(place for chunk in chunks for place in chunk) == list(range(len(PAIRS)))
    ranks = [{tuple(v in "acd" for v in PAIRS[place]) for place in chunk} for chunk in chunks]
    assert all(len(kinds) == 1 for kinds in ranks)


def test_scores_on_the_training_rows_by_default():
    found = all_pairs(TRAIN, [("a", "b")])
    assert found.ridge is None
    assert found.rotation is None
    expected = metrics.evaluate_moments(LinearMap().from_moments(TRAIN, "b", "a"), TRAIN, "b", "a")
    assert float(found.r2("least squares")[0, 1]) == pytest.approx(expected["r2"], abs=MOMENTS)


def _silent(views, rows):
    return Moments(dict.fromkeys(views, 2)).update(dict(zip(views, rows, strict=True)))


EVEN = np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: all_pairs(TRAIN, []), "there are no pairs"),
        (lambda: all_pairs(TRAIN, [("a", "z")]), "unknown view 'z'"),
        (
            lambda: all_pairs(
                Moments({"u": 1, "v": 2}).update({"u": EVEN[:, :1], "v": EVEN}), [("u", "v")]
            ),
            "'u' has 1 features, 'v' has 2",
        ),
        (
            lambda: all_pairs(
                _silent("uv", [EVEN, EVEN]), [("u", "v")], test=_silent("uv", [EVEN, 0 * EVEN])
            ),
            "'v' does not vary on the rows to score on",
        ),
        (
            lambda: all_pairs(
                _silent("uv", [np.tile(EVEN, (4, 1)), EVEN.repeat(4, 0)]), [("u", "v")]
            ),
            "'u' and 'v' have no covariance",
        ),
        (
            lambda: all_pairs(_silent("uv", [EVEN[:2], EVEN[:2]]), [("u", "v")]),
            "2 rows are too few",
        ),
    ],
    ids=["none", "unknown", "widths", "constant", "no covariance", "rows"],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
