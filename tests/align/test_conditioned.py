"""Moments, canonical correlations and rotations against 50 digits, up to condition 1e12."""

import numpy as np
import pytest
from tolerances import CANONICAL_CORRELATION, CORRELATION, FORMULA

from fastinn import Moments
from fastinn.align import Procrustes
from fastinn.metrics import cca_correlations

mpmath = pytest.importorskip("mpmath", reason="torch brings it by way of sympy")
mp = mpmath.mp
mp.dps = 50
pytestmark = pytest.mark.campaign("R11")
N, D = 40, 4
CONDITIONS = pytest.mark.parametrize("condition", [1.0, 1e4, 1e8, 1e12], ids="{:.0e}".format)
SHIFTS = pytest.mark.parametrize("shift", [0.0, 1e3], ids=["centred", "shifted"])
FULL = pytest.mark.campaign("R11", full=True)
SEEDS = pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=FULL) for s in (1, 2))])


def pair(condition, shift, seed, *, turned):
    """Paired rows; the covariance of the first has this condition, in its axes or turned."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(N, D))
    x = (shared + 0.3 * rng.normal(size=(N, D))) * np.logspace(0, -np.log10(condition) / 2, D)
    rotation = np.linalg.qr(rng.normal(size=(D, D)))[0] if turned else np.eye(D)
    y = shared @ rng.normal(size=(D, D)) + 0.3 * rng.normal(size=(N, D))
    return x @ rotation + shift, y + shift


def centred(rows):
    exact = mp.matrix(rows.tolist())
    for j in range(exact.cols):
        mean = mp.fsum(exact[:, j]) / exact.rows
        for i in range(exact.rows):
            exact[i, j] -= mean
    return exact


def inverse_root(matrix):
    values, vectors = mp.eigsy(matrix)
    return vectors * mp.diag([1 / mp.sqrt(value) for value in values]) * vectors.T


def exact_correlations(x, y):
    a, b = centred(x), centred(y)
    cross = inverse_root(a.T * a) * (a.T * b) * inverse_root(b.T * b)
    return sorted((float(v) for v in mp.svd_r(cross, compute_uv=False)), reverse=True)


@SEEDS
@SHIFTS
@CONDITIONS
@pytest.mark.parametrize("turned", [False, True], ids=["in its axes", "turned"])
def test_moments(condition, shift, seed, turned):
    x, y = pair(condition, shift, seed, turned=turned)
    moments = Moments({"x": D, "y": D}, precision="exact").update({"x": x, "y": y})
    for a, b, one, other in (("x", "x", x, x), ("x", "y", x, y)):
        exact = centred(one).T * centred(other) / N
        size = np.outer(one.std(axis=0), other.std(axis=0))
        error = np.abs(np.asarray(moments.cov(a, b)) - np.array(exact.tolist(), dtype=float))
        assert (error / size).max() <= CORRELATION["exact"]


@SEEDS
@SHIFTS
@CONDITIONS
def test_canonical_correlations_know_no_units(condition, shift, seed):
    x, y = pair(condition, shift, seed, turned=False)
    found = np.asarray(cca_correlations(x, y))
    np.testing.assert_allclose(
        found, exact_correlations(x, y), rtol=0, atol=CANONICAL_CORRELATION["exact"]
    )


@SEEDS
@SHIFTS
@pytest.mark.parametrize("condition", [1.0, 1e4, 1e7], ids="{:.0e}".format)
def test_canonical_correlations_of_columns_that_nearly_agree(condition, shift, seed):
    """Directions below 1e-10 of the variance count as none, whatever digits there were."""
    x, y = pair(condition, shift, seed, turned=True)
    found = np.asarray(cca_correlations(x, y))
    np.testing.assert_allclose(
        found, exact_correlations(x, y), rtol=0, atol=CANONICAL_CORRELATION["exact"]
    )


@SEEDS
@SHIFTS
@CONDITIONS
def test_procrustes(condition, shift, seed):
    x, y = pair(condition, shift, seed, turned=True)
    a, b = centred(x), centred(y)
    u, values, vh = mp.svd_r(a.T * b)
    scale = mp.fsum(values) / mp.fsum(value**2 for value in a)
    exact = np.array((a * u * vh * scale).tolist(), dtype=float) + y.mean(axis=0)
    found = np.asarray(Procrustes().fit(x, y).transform(x))
    np.testing.assert_allclose(found, exact, rtol=0, atol=FORMULA * np.abs(y).max())
