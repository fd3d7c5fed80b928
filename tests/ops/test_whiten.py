import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import FORMULA, WHITENED

from fastinn.ops import principal_whiten, whiten


def covariance(d, rank, seed=0, scale=None):
    """A covariance of the given rank, and its factor."""
    generator = torch.Generator().manual_seed(seed)
    factor = torch.randn(d, rank, generator=generator, dtype=torch.float64)
    factor = factor if scale is None else factor * scale[:, None]
    return factor @ factor.T, factor


@pytest.mark.campaign("R12")
@given(d=st.integers(1, 12), data=st.data())
@settings(max_examples=40, deadline=None)
def test_whitens_and_leads_back(d, data):
    rank = data.draw(st.integers(1, d))
    cov, factor = covariance(d, rank)
    white = whiten(cov)
    assert white.rank == rank
    eye = torch.eye(rank, dtype=torch.float64)
    torch.testing.assert_close(white.whitener.T @ cov @ white.whitener, eye, rtol=0, atol=1e-5)
    torch.testing.assert_close(factor.T @ white.null, torch.zeros(rank, d - rank).double())
    whole = white.whitener @ white.colouring + white.null @ white.null_colouring
    torch.testing.assert_close(whole, torch.eye(d).double(), rtol=0, atol=1e-5)


def test_rank_does_not_depend_on_units():
    units = torch.logspace(-6, 6, 8, dtype=torch.float64)
    assert whiten(covariance(8, 7, scale=units)[0]).rank == 7


def test_constant_features_are_null_directions():
    cov, _ = covariance(4, 4)
    cov[1], cov[:, 1] = 0, 0
    white = whiten(cov)
    assert white.rank == 3
    torch.testing.assert_close(white.null[:, 0].abs(), torch.eye(4).double()[1])


@pytest.mark.parametrize("threshold", [1e-10, 1e-6, 1e-1])
def test_threshold_is_on_the_unit_diagonal(threshold):
    cov = torch.tensor([[1.0, 0.999], [0.999, 1.0]], dtype=torch.float64)
    assert whiten(cov, threshold=threshold).rank == (1 if threshold > 1e-3 else 2)


def test_ridge_is_in_units_of_the_variance():
    cov, _ = covariance(5, 5)
    white = whiten(cov, ridge=0.1)
    ridged = cov + 0.1 * cov.diagonal().diag()
    product = white.whitener.T @ ridged @ white.whitener
    torch.testing.assert_close(product, torch.eye(5).double(), rtol=0, atol=FORMULA)


def test_principal_directions_count_variance_not_deviation():
    """The share is of the eigenvalues: their roots would need two directions here."""
    cov = torch.diag(torch.tensor([100.0, 1.0, 0.01], dtype=torch.float64))
    assert principal_whiten(cov, variance=0.99).rank == 1
    assert principal_whiten(cov, variance=0.995).rank == 2
    assert principal_whiten(cov, variance=1.0).rank == 3


def test_principal_directions_leave_out_null_directions():
    assert principal_whiten(covariance(6, 4)[0], variance=1.0).rank == 4


METHODS = ("eigh", "cholesky", "cholesky-or-eigh", "newton-schulz")


def conditioned(d, condition, seed=0):
    """A correlation matrix of about this condition."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64)).Q
    spectrum = torch.logspace(0, -np.log10(condition), d, dtype=torch.float64)
    matrix = (vectors * spectrum) @ vectors.T
    scale = matrix.diagonal().rsqrt()
    matrix = matrix * scale * scale[:, None]
    return (matrix + matrix.T) / 2


def residual(white, cov):
    """Distance of the whitened covariance from the identity, in longer floats than float64."""
    w, c = (part.numpy().astype(np.longdouble) for part in (white.whitener, cov))
    return float(np.sqrt(((w.T @ c @ w - np.eye(len(c))) ** 2).mean(0).sum()))


@pytest.mark.parametrize("condition", [1e2, 1e5, 1e8])
@pytest.mark.parametrize("method", METHODS)
def test_residual_up_to_condition_1e8(method, condition):
    cov = conditioned(96, condition)
    assert residual(whiten(cov, method=method), cov) <= WHITENED


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_is_its_matrices_one_by_one(method):
    units = torch.logspace(-3, 3, 6, dtype=torch.float64)
    covs = torch.stack([covariance(6, 9, seed, units)[0] for seed in range(4)]).reshape(2, 2, 6, 6)
    batch = whiten(covs, method=method, ridge=0.01)
    for i in range(2):
        for j in range(2):
            alone = whiten(covs[i, j], method=method, ridge=0.01)
            for found, expected in zip(batch, alone, strict=True):
                torch.testing.assert_close(found[i, j], expected, rtol=FORMULA, atol=FORMULA)


@pytest.mark.parametrize("method", METHODS)
def test_colouring_undoes_every_method(method):
    cov, _ = covariance(7, 9)
    white = whiten(cov, method=method)
    eye = torch.eye(7, dtype=torch.float64)
    torch.testing.assert_close(white.whitener @ white.colouring, eye, rtol=0, atol=FORMULA)
    assert white.null.shape == (7, 0)


@pytest.mark.parametrize("method", ["cholesky", "newton-schulz"])
def test_a_ridge_makes_any_matrix_full_rank(method):
    cov, _ = covariance(6, 3)
    white = whiten(cov, method=method, ridge=0.1)
    product = white.whitener.T @ (cov + 0.1 * cov.diagonal().diag()) @ white.whitener
    torch.testing.assert_close(product, torch.eye(6).double(), rtol=0, atol=FORMULA)


def test_cholesky_gives_way_to_eigh():
    """Where the rank is deficient, a direction is below the threshold, or there is a ridge."""
    deficient, full = covariance(6, 4)[0], covariance(6, 9)[0]
    cases = [(deficient, {}), (full, {"threshold": 0.5}), (deficient, {"ridge": 0.1})]
    for cov, options in cases:
        found = whiten(cov, method="cholesky-or-eigh", **options)
        for part, expected in zip(found, whiten(cov, **options), strict=True):
            assert torch.equal(part, expected)
    assert whiten(full, method="cholesky-or-eigh").eigenvalues.shape == (0,)


@pytest.mark.parametrize("method", METHODS)
def test_strided_and_float32_covariances(method):
    wide = torch.stack([covariance(10, 12, seed)[0] for seed in range(2)]).float()
    strided = wide[:, ::2, ::2].mT
    found = whiten(strided, method=method)
    expected = whiten(strided.double().contiguous(), method=method)
    assert found.whitener.dtype == torch.float64
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=FORMULA)


def test_newton_schulz_is_symmetric_on_unit_variances():
    white = whiten(conditioned(8, 100), method="newton-schulz")
    torch.testing.assert_close(white.whitener, white.whitener.T)


@pytest.mark.parametrize("call", [whiten, lambda cov: principal_whiten(cov, variance=1.0)])
def test_ranks_of_a_batch_may_differ(call):
    """The missing directions are zeros, and every row still leads back to itself."""
    made = [covariance(6, rank) for rank in (6, 3, 5)]
    white = call(torch.stack([cov for cov, _ in made]))
    assert white.rank == 6
    assert white.null.shape == (3, 6, 3)
    eye = torch.eye(6).double().expand(3, 6, 6)
    whole = white.whitener @ white.colouring + white.null @ white.null_colouring
    torch.testing.assert_close(whole, eye, rtol=0, atol=1e-8)
    for i, (cov, factor) in enumerate(made):
        product = white.whitener[i].T @ cov @ white.whitener[i]
        kept = torch.arange(6) < factor.shape[1]
        torch.testing.assert_close(product, kept.double().diag(), rtol=0, atol=1e-8)
        torch.testing.assert_close(
            factor.T @ white.null[i], torch.zeros(factor.shape[1], 3).double()
        )


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("cholesky", r"cov\[1\] has rank 3 of 4, so it has no Cholesky .* use method='eigh'"),
        ("newton-schulz", r"cov\[1\] was not whitened .* residual of .* use method='eigh'"),
    ],
    ids=["cholesky", "newton-schulz"],
)
@pytest.mark.parametrize("rank", ["exact", "rounded"])
def test_full_rank_methods_refuse_null_directions(method, message, rank):
    cov, _ = covariance(4, 3)
    if rank == "exact":
        cov = torch.block_diag(covariance(3, 3)[0], torch.zeros(1, 1, dtype=torch.float64))
    with pytest.raises(ValueError, match=message):
        whiten(torch.stack([torch.eye(4).double(), cov]), method=method)


NAN = torch.eye(2).expand(3, 2, 2).clone()
NAN[2, 0, 1] = torch.nan
SKEWED = torch.eye(2).expand(3, 2, 2).clone()
SKEWED[1, 0, 1] = 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: whiten(torch.ones(2, 3)), r"cov has shape \(2, 3\), expected square"),
        (lambda: whiten(NAN), r"cov\[2\] holds NaN or infinity"),
        (lambda: whiten(SKEWED), r"cov\[1\] is not symmetric: an entry differs by 5.0e-01"),
        (lambda: whiten(torch.eye(2), method="lu"), "method is 'lu', expected one of 'eigh', "),
        (lambda: whiten(torch.eye(2), ridge=-1), "ridge is -1, expected 0 or more"),
        (lambda: principal_whiten(torch.eye(2), variance=99), "variance is 99, expected a share"),
    ],
    ids=["shape", "nan", "skewed", "method", "ridge", "variance"],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
