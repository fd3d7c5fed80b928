import numpy as np
import pytest
from tolerances import EXACT_BIJECTION, MOMENTS

from fastinn import Moments
from fastinn.align import LinearMap


def direct(x, y, ridge=0.0):
    """Least squares on standardised columns, with the ridge as extra rows."""
    mean, scale = x.mean(0), x.std(0)
    scale[scale < 1e-12] = 1.0
    design = np.vstack([(x - mean) / scale, (ridge * len(x)) ** 0.5 * np.eye(x.shape[1])])
    target = np.vstack([y - y.mean(0), np.zeros((x.shape[1], y.shape[1]))])
    weight = np.linalg.lstsq(design, target, rcond=1e-7)[0]
    return lambda rows: (rows - mean) / scale @ weight + y.mean(0)


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_equals_direct_computation(data, ridge):
    x, y, new_x, new_y = data
    predicted = LinearMap(ridge=ridge).fit(x, y).transform(new_x)
    assert np.abs(predicted - direct(x, y, ridge)(new_x)).max() <= MOMENTS * new_y.std()


def test_recovers_an_exact_bijection(bijection):
    x, y, new_x, new_y = bijection
    fitted = LinearMap().fit(x, y)
    error = ((fitted.transform(new_x) - new_y) ** 2).sum()
    assert error / ((new_y - new_y.mean(0)) ** 2).sum() <= EXACT_BIJECTION


def test_fewer_rows_than_features_gives_least_norm():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(10, 25)), rng.normal(size=(10, 4))
    fitted = LinearMap().fit(x, y)
    np.testing.assert_allclose(fitted.transform(x), y, atol=1e-9)
    np.testing.assert_allclose(fitted.weight_, _slope(direct(x, y), 25), atol=1e-9)


def _slope(predict, d):
    return predict(np.eye(d)) - predict(np.zeros((d, d)))


def test_constant_source_predicts_the_mean():
    y = np.random.default_rng(0).normal(size=(9, 3))
    predicted = LinearMap().fit(np.full((9, 2), 0.1), y).transform(np.ones((1, 2)))
    np.testing.assert_allclose(predicted[0], y.mean(0))


@pytest.mark.parametrize("ridge", [(1e-3, 1.0, 1e3), "validation"], ids=["listed", "default"])
def test_ridge_is_chosen_on_validation_rows(ridge):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 30))
    y = x @ rng.normal(size=(30, 30)) / 30 + rng.normal(size=(120, 30))
    chosen = LinearMap(ridge=ridge).fit(x[:40], y[:40], validation=(x[40:], y[40:]))
    assert chosen.ridge_ >= 1
    assert chosen.score(x[40:], y[40:]) > LinearMap().fit(x[:40], y[:40]).score(x[40:], y[40:])


def test_ridge_is_chosen_on_validation_moments(data):
    x, y, new_x, new_y = data
    widths = {"s": x.shape[1], "t": y.shape[1]}
    train = Moments(widths).update({"s": x, "t": y})
    held_out = Moments(widths).update({"s": new_x, "t": new_y})
    ridges = (0.0, 1e-3, 0.1, 10.0)
    chosen = LinearMap(ridge=ridges).from_moments(train, "s", "t", validation=held_out)
    scores = [LinearMap(ridge=ridge).fit(x, y).score(new_x, new_y) for ridge in ridges]
    assert chosen.ridge_ == ridges[int(np.argmax(scores))]


def test_ridges_may_be_an_array(data):
    x, y, new_x, new_y = data
    chosen = [
        LinearMap(ridge=kind(np.logspace(-3, 1, 5))).fit(x, y, validation=(new_x, new_y)).ridge_
        for kind in (tuple, np.asarray)
    ]
    assert chosen[0] == chosen[1]


@pytest.mark.parametrize(
    ("ridge", "message"),
    [
        (-1.0, "ridge is -1.0, expected 0 or more"),
        ((), r"ridge is \(\), expected 0 or more, or several"),
        (np.nan, "ridge is nan, expected 0 or more"),
        ("cv", "ridge is 'cv', expected one of 'validation'"),
        ((0.0, 1.0), "pass validation= to choose on"),
        ("validation", "pass validation= to choose on"),
    ],
    ids=str,
)
def test_bad_ridge(ridge, message):
    with pytest.raises(ValueError, match=message):
        LinearMap(ridge=ridge).fit(np.eye(4), np.eye(4))
