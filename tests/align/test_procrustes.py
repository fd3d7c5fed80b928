import numpy as np
import pytest
from tolerances import EXACT_BIJECTION, MOMENTS

from fastinn import Moments
from fastinn.align import Procrustes


def direct(x, y, scale):
    x_mean, y_mean = x.mean(0), y.mean(0)
    u, s, vt = np.linalg.svd((x - x_mean).T @ (y - y_mean))
    c = s.sum() / ((x - x_mean) ** 2).sum() if scale else 1.0
    return lambda rows: c * (rows - x_mean) @ u @ vt + y_mean


@pytest.mark.parametrize("scale", [True, False], ids=["scaled", "rotation"])
def test_equals_direct_computation(square_data, scale):
    x, y, new_x, new_y = square_data
    predicted = Procrustes(scale=scale).fit(x, y).transform(new_x)
    difference = predicted - direct(x, y, scale)(new_x)
    # Where y has no variance either sign is a best rotation, and rounding decides.
    u, s, _ = np.linalg.svd(np.cov(y.T))
    assert np.abs(difference @ u[:, s > 1e-12 * s[0]]).max() <= MOMENTS * new_y.std()


@pytest.mark.parametrize("reflect", [1, -1], ids=["rotation", "reflection"])
def test_recovers_a_similarity(reflect):
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    rotation[0] *= reflect * np.sign(np.linalg.det(rotation))
    x = rng.normal(size=(100, 6)) + 5
    y = 2.5 * x @ rotation - 1
    fitted = Procrustes().fit(x, y)
    assert fitted.scale_ == pytest.approx(2.5, rel=1e-12)
    assert 1 - fitted.score(x, y) <= EXACT_BIJECTION
    np.testing.assert_allclose(fitted.inverse_transform(y), x, atol=1e-10)


def test_round_trip(square_data):
    x, y, new_x, _ = square_data
    fitted = Procrustes().fit(x, y)
    np.testing.assert_allclose(
        fitted.inverse_transform(fitted.transform(new_x)), new_x, rtol=1e-9, atol=1e-9
    )


def test_fewer_rows_than_features():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 9)), rng.normal(size=(5, 9))
    weight = Procrustes(scale=False).fit(x, y).weight_
    np.testing.assert_allclose(weight.T @ weight, np.eye(9), atol=1e-12)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.eye(5), np.eye(5, 4), "'X' has 5 features, 'Y' has 4; use LinearMap or CCA"),
        (np.eye(5), np.ones((5, 5)), "'X' and 'Y' have no covariance"),
        (np.ones((5, 5)), np.eye(5), "'X' and 'Y' have no covariance"),
    ],
    ids=["widths", "constant target", "constant source"],
)
def test_bad_input(x, y, message):
    with pytest.raises(ValueError, match=message):
        Procrustes().fit(x, y)


def test_views_are_named():
    moments = Moments({("s", 1): 2, ("t", 3): 3})
    moments.update({("s", 1): np.eye(3, 2), ("t", 3): np.eye(3)})
    with pytest.raises(ValueError, match=r"\('s', 1\) has 2 features, \('t', 3\) has 3"):
        Procrustes().from_moments(moments, ("s", 1), ("t", 3))
