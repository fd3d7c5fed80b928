import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import FORMULA

from fastinn.ops import principal_whiten, whiten


def covariance(d, rank, seed=0, scale=None):
    """A covariance of the given rank, and its factor."""
    generator = torch.Generator().manual_seed(seed)
    factor = torch.randn(d, rank, generator=generator, dtype=torch.float64)
    factor = factor if scale is None else factor * scale[:, None]
    return factor @ factor.T, factor


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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: whiten(torch.ones(2, 3)), r"cov has shape \(2, 3\), expected a finite square"),
        (lambda: whiten(torch.full((2, 2), torch.nan)), "finite square"),
        (lambda: whiten(torch.eye(2), ridge=-1), "ridge is -1, expected 0 or more"),
        (lambda: principal_whiten(torch.eye(2), variance=99), "variance is 99, expected a share"),
    ],
    ids=["shape", "nan", "ridge", "variance"],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
