"""Rows that are odd or bad: a right answer, or an error that names what is wrong; never NaN."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from store_cases import refusal
from tolerances import FORMULA, MOMENTS

from fastinn import Moments
from fastinn.align import CCA, INN, PWCCA, SVCCA, LinearMap, MLPMap, Procrustes
from fastinn.metrics import linear_cka, r2_score

pytestmark = pytest.mark.campaign("R10")
N, D = 60, 4
rng = np.random.default_rng(0)
X = rng.normal(size=(N, D))
Y = X @ rng.normal(size=(D, D)) + 0.1 * rng.normal(size=(N, D)) + 1
TRAINING = {"max_steps": 2, "batch_size": 16, "hidden": 8, "progress": False}

ALIGNERS = {
    "procrustes": Procrustes(),
    "linear": LinearMap(),
    "cca": CCA(),
    "svcca": SVCCA(),
    "pwcca": PWCCA(),
    "inn": INN(n_couplings=2, **TRAINING),
    "mlp": MLPMap(**TRAINING),
}


def with_value(value, row=7, column=2):
    changed = X.copy()
    changed[row, column] = value
    return changed


def with_columns(**columns):
    changed = X.copy()
    for column, values in columns.items():
        changed[:, int(column[1:])] = values
    return changed


class Columns:
    """A table that is indexed by column, as a DataFrame is."""

    def __len__(self):
        return N

    def __getitem__(self, column):
        return {0: X[:, 0].tolist()}[column]


REFUSED = {
    "nan": (with_value(np.nan), "X holds NaN or infinity in 1 of 60 rows, first in row 7"),
    "infinity": (with_value(np.inf), "X holds NaN or infinity in 1 of 60 rows, first in row 7"),
    "minus infinity": (with_value(-np.inf), "first in row 7"),
    "nan in the last row": (with_value(np.nan, row=N - 1), "first in row 59"),
    "overflown in half": (torch.tensor(with_value(1e6)).half(), "first in row 7"),
    "no rows": (X[:0], "nothing in it"),
    "no columns": (X[:, :0], "nothing in it"),
    "fewer rows": (X[:-1], "X has 59 rows and Y has 60"),
    "more rows": (np.vstack([X, X[:1]]), "X has 61 rows and Y has 60"),
    "one row flat": (X[0], "expected (n_samples, n_features)"),
    "three dimensions": (X[None], "expected (n_samples, n_features)"),
    "a number": (np.array(3.0), "expected (n_samples, n_features)"),
    "complex": (X + 1j, "X holds complex numbers"),
    "words": (np.full((N, D), "word"), "X is no matrix of numbers"),
    "objects": (np.full((N, D), None), "X is no matrix of numbers"),
    "columns by name": (Columns(), "pass a tensor or an array (of a DataFrame x.to_numpy())"),
    "unequal lists": ([[1.0, 2.0], [1.0]] * 30, "X is no matrix of numbers"),
}


@pytest.mark.parametrize("aligner", ALIGNERS.values(), ids=ALIGNERS)
@pytest.mark.parametrize(("x", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_rows_are_named_when_fitting(aligner, x, message):
    with pytest.raises((ValueError, TypeError)) as caught:
        clone(aligner).fit(x, Y)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def fitted():
    return {name: clone(aligner).fit(X, Y) for name, aligner in ALIGNERS.items()}


UNPAIRED = {name: case for name, case in REFUSED.items() if not name.endswith("rows")}


@pytest.mark.parametrize("name", ALIGNERS)
@pytest.mark.parametrize(("x", "message"), UNPAIRED.values(), ids=UNPAIRED)
def test_bad_rows_are_named_when_mapping(fitted, name, x, message):
    with pytest.raises((ValueError, TypeError)) as caught:
        fitted[name].transform(x)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


READ_ALIKE = {
    "every second column": np.repeat(X, 2, axis=1)[:, ::2],
    "every second row": np.repeat(X, 2, axis=0)[::2],
    "in columns": np.asfortranarray(X),
    "backwards": X[::-1][::-1],
    "a transposed tensor": torch.tensor(X.T.copy()).T,
    "read-only": np.frombuffer(X.tobytes()).reshape(X.shape),
    "of the other byte order": X.astype(">f8"),
}


@pytest.mark.parametrize("name", ALIGNERS)
@pytest.mark.parametrize("x", READ_ALIKE.values(), ids=READ_ALIKE)
def test_the_layout_of_rows_changes_nothing(fitted, name, x):
    found = np.asarray(clone(ALIGNERS[name]).fit(x, Y).transform(x))
    np.testing.assert_allclose(found, np.asarray(fitted[name].transform(X)), rtol=0, atol=FORMULA)


ODD = {
    "fewer rows than columns": X[:3],
    "two rows": X[:2],
    "one row": X[:1],
    "a constant column": with_columns(c1=5.0),
    "a column of zeros": with_columns(c1=0.0),
    "only constant columns": np.ones_like(X),
    "a column twice": with_columns(c1=X[:, 0]),
    "rank two": X[:, :2] @ rng.normal(size=(2, D)),
    "an offset of 1e6": X + 1e6,
    "tiny": X * 1e-30,
    "huge": X * 1e30,
    "a huge column": with_columns(c1=1e12 * X[:, 1]),
    "an outlier": with_value(1e9),
    "integers": np.round(X * 10).astype(np.int64),
    "booleans": X > 0,
    "half precision": X.astype(np.float16),
    "subnormal": X * 1e-310,
    "one row many times": np.repeat(X[:1], N, axis=0),
}


def is_clear(message):
    return len(message) > 20 and "\n" not in message


@pytest.mark.parametrize("aligner", ALIGNERS.values(), ids=ALIGNERS)
@pytest.mark.parametrize("x", ODD.values(), ids=ODD)
@pytest.mark.parametrize("backwards", [False, True], ids=["from", "into"])
def test_odd_rows_give_finite_rows_or_a_named_error(aligner, x, backwards):
    source, target = (Y[: len(x)], x) if backwards else (x, Y[: len(x)])
    mapped = []
    message = refusal(lambda: mapped.append(clone(aligner).fit(source, target).transform(source)))
    if message is None:
        assert np.isfinite(np.asarray(mapped[0])).all()
    else:
        assert is_clear(message)


@pytest.mark.parametrize("shift", [0.0, 1e3, 1e6])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("name", ["procrustes", "linear", "cca", "pwcca"])
def test_offset_and_scale_cost_no_accuracy(fitted, name, shift, scale):
    moved = scale * X + shift
    score = clone(ALIGNERS[name]).fit(moved, Y).score(moved, Y)
    assert score == pytest.approx(fitted[name].score(X, Y), abs=1e-6)


@pytest.mark.parametrize("x", ODD.values(), ids=ODD)
def test_moments_of_odd_rows_are_those_of_numpy(x):
    moments = Moments({"a": D}, precision="exact").update({"a": x})
    wide = np.asarray(x, dtype=np.float64)
    np.testing.assert_allclose(moments.mean("a"), wide.mean(axis=0), rtol=1e-9)
    expected = np.cov(wide.T, bias=True)
    deviation, mean = np.sqrt(np.diag(expected)), np.abs(wide.mean(axis=0))
    # NumPy loses what a mean costs, which for one row many times is all there is.
    size = np.outer(deviation + mean * 1e-10, deviation + mean * 1e-10)
    assert (np.abs(np.asarray(moments.cov("a")) - expected) <= MOMENTS * size + 1e-300).all()


@pytest.mark.parametrize("measure", [linear_cka, r2_score], ids=["cka", "r2"])
@pytest.mark.parametrize("x", [case[0] for case in REFUSED.values()], ids=REFUSED)
def test_measures_refuse_bad_rows_in_one_line(measure, x):
    with pytest.raises((ValueError, TypeError)) as caught:
        measure(x, Y)
    assert "\n" not in str(caught.value)
