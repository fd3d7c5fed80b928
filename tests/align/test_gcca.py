import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from tolerances import MOMENTS

from fastinn import Moments
from fastinn.align import CCA, GCCA, Factors, load_aligner


def planted(n=600, shared=3, widths=(5, 6, 7), noise=0.0, seed=0):
    """Views that hold the same few variables, mixed among others of their own."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n, shared))
    views = {}
    for i, d in enumerate(widths):
        own = rng.normal(size=(n, d - shared))
        whole = np.hstack([common + noise * rng.normal(size=common.shape), own])
        views[f"v{i}"] = whole @ rng.normal(size=(d, d)) + rng.normal(size=d)
    return views, common - common.mean(0)


def moments_of(views):
    widths = {view: x.shape[1] for view, x in views.items()}
    return Moments(widths, precision="exact").update(views)


def test_recovers_a_planted_space():
    views, common = planted()
    fitted = GCCA(3).fit(views)
    np.testing.assert_allclose(fitted.eigenvalues_, 3, atol=MOMENTS)
    for view, rows in views.items():
        found = fitted.transform(view, rows)
        residual = common - found @ np.linalg.lstsq(found, common, rcond=None)[0]
        assert np.abs(residual).max() <= MOMENTS
        np.testing.assert_allclose(found, fitted.transform("v0", views["v0"]), atol=MOMENTS)


def test_predictions_are_least_squares_of_the_consensus():
    """The eigenvalue is the sum over views of the share of the consensus that they predict."""
    views, _ = planted(noise=0.5)
    fitted = GCCA(4).fit(views)
    predicted = {view: fitted.transform(view, rows) for view, rows in views.items()}
    consensus = sum(predicted.values()) / fitted.eigenvalues_.numpy()
    np.testing.assert_allclose(consensus.T @ consensus / len(consensus), np.eye(4), atol=MOMENTS)
    for view, rows in views.items():
        centred = rows - rows.mean(0)
        best = centred @ np.linalg.lstsq(centred, consensus, rcond=None)[0]
        np.testing.assert_allclose(predicted[view], best, atol=1e-7)
    shares = sum(part.var(axis=0) for part in predicted.values())
    np.testing.assert_allclose(fitted.eigenvalues_, shares, atol=MOMENTS)


def test_two_views_are_cca():
    views, _ = planted(widths=(5, 6), noise=1.0)
    correlations = CCA().fit(*views.values()).correlations_
    found = GCCA(11).fit(views).eigenvalues_
    expected = torch.cat([1 + correlations, torch.ones(1), (1 - correlations).flip(0)])
    torch.testing.assert_close(found, expected, rtol=0, atol=MOMENTS)


def test_linear_maps_of_the_views_change_nothing():
    views, _ = planted(noise=0.7)
    rng = np.random.default_rng(1)
    moved = {view: rows @ rng.normal(size=(rows.shape[1],) * 2) + 5 for view, rows in views.items()}
    there, here = GCCA(2).fit(views), GCCA(2).fit(moved)
    torch.testing.assert_close(there.eigenvalues_, here.eigenvalues_, rtol=0, atol=MOMENTS)
    for view in views:
        a, b = there.transform(view, views[view]), here.transform(view, moved[view])
        np.testing.assert_allclose(np.abs(a), np.abs(b), atol=1e-6)


def test_null_directions_are_left_out():
    views, _ = planted(noise=0.3)
    widened = {view: np.hstack([rows, rows[:, :1] - rows[:, 1:2]]) for view, rows in views.items()}
    expected, found = GCCA().fit(views), GCCA().fit(widened)
    torch.testing.assert_close(found.eigenvalues_, expected.eigenvalues_, rtol=0, atol=MOMENTS)
    assert len(found.eigenvalues_) == 5


def test_agreement_is_that_of_held_out_rows():
    views, _ = planted(noise=0.6)
    train = {view: rows[:400] for view, rows in views.items()}
    test = {view: rows[400:] for view, rows in views.items()}
    fitted = GCCA(2).from_moments(Factors(moments_of(train)))
    predicted = [fitted.transform(view, rows) for view, rows in test.items()]
    pairs = [(0, 1), (0, 2), (1, 2)]
    expected = np.mean(
        [
            [np.corrcoef(predicted[i][:, k], predicted[j][:, k])[0, 1] for k in range(2)]
            for i, j in pairs
        ],
        axis=0,
    )
    agreement = fitted.agreement(moments_of(test))
    np.testing.assert_allclose(agreement, expected, atol=MOMENTS)
    assert fitted.score(moments_of(test)) == pytest.approx(expected.mean(), abs=MOMENTS)


def test_views_that_share_nothing_do_not_agree():
    rng = np.random.default_rng(0)
    views = {view: rng.normal(size=(4000, 5)) for view in "abc"}
    fitted = GCCA(3).fit({view: rows[:2000] for view, rows in views.items()})
    held_out = moments_of({view: rows[2000:] for view, rows in views.items()})
    assert fitted.agreement(held_out).abs().max() < 0.1


def test_a_ridge_allows_few_rows():
    rng = np.random.default_rng(0)
    fitted = GCCA(2, ridge=1.0).fit({view: rng.normal(size=(10, 20)) for view in "ab"})
    assert fitted.eigenvalues_[0] < 2


def test_a_choice_of_views_and_the_kind_of_the_rows():
    views, _ = planted()
    fitted = GCCA(2).from_moments(moments_of(views), ["v2", "v0"])
    assert list(fitted.maps_) == ["v2", "v0"]
    out = fitted.transform("v0", torch.tensor(views["v0"]).float())
    assert out.dtype == torch.float32
    assert out.shape == (600, 2)


def test_consensus_is_what_the_views_predict():
    views, _ = planted()
    fitted = GCCA(3).fit(views)
    found = fitted.consensus(views)
    np.testing.assert_allclose(found.T @ found / len(found), np.eye(3), atol=MOMENTS)
    np.testing.assert_allclose(found, fitted.transform("v1", views["v1"]), atol=MOMENTS)


@pytest.mark.parametrize("names", ["ab", [("seed", 0), ("seed", 3)]], ids=["names", "layers"])
def test_save_and_load(tmp_path, names):
    rows = dict(zip(names, planted(noise=0.4)[0].values(), strict=False))
    fitted = GCCA(3, ridge=0.1).fit(rows)
    fitted.save(tmp_path)
    loaded = load_aligner(tmp_path)
    assert (loaded.n_components, loaded.ridge) == (3, 0.1)
    assert list(loaded.maps_) == list(names)
    for view, x in rows.items():
        np.testing.assert_array_equal(loaded.transform(view, x), fitted.transform(view, x))
    np.testing.assert_array_equal(loaded.consensus(rows), fitted.consensus(rows))


VIEWS, _ = planted(n=40)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: GCCA().fit({"v0": VIEWS["v0"]}),
            ValueError,
            r"two views or more, views is \['v0'",
        ),
        (lambda: GCCA(19).fit(VIEWS), ValueError, "n_components is 19, expected 1 to "),
        (lambda: GCCA(0).fit(VIEWS), ValueError, "n_components is 0, expected 1 to "),
        (
            lambda: GCCA().fit({v: x[:5] for v, x in VIEWS.items()}),
            ValueError,
            "5 rows are too few",
        ),
        (lambda: GCCA().transform("v0", VIEWS["v0"]), NotFittedError, "GCCA"),
        (lambda: GCCA().fit(VIEWS).transform("v9", VIEWS["v0"]), ValueError, "unknown view 'v9'"),
        (lambda: GCCA().fit(VIEWS).transform("v0", VIEWS["v1"]), ValueError, "fitted on 5"),
        (lambda: GCCA().fit(VIEWS).consensus({"v0": VIEWS["v0"]}), ValueError, r"views \['v0'\], "),
        (
            lambda: GCCA().fit(VIEWS).consensus({**VIEWS, "v1": VIEWS["v1"][1:]}),
            ValueError,
            "view 'v0' has 40 rows and view 'v1' has 39",
        ),
    ],
    ids=[
        "one view",
        "many",
        "none",
        "few rows",
        "not fitted",
        "unknown",
        "width",
        "missing view",
        "unpaired",
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
