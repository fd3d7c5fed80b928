import numpy as np
import pytest
import torch
from tolerances import NUCLEAR_NORM, ORTHOGONAL, SINGULAR_VECTOR

from fastinn.ops import _polynomials, polar
from fastinn.ops.polar import _polar_express, reference

METHODS = ("svd", "polar-express")
PRECISIONS = ("exact", "high", "fast")
D = 48


def orthonormal(m, n, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(m, n, generator=generator, dtype=torch.float64)).Q


def spectrum(name):
    """Singular values that a covariance may have, and worse."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.rand(D, generator=generator, dtype=torch.float64) + 0.01
    clusters = torch.tensor([1.0, 0.5, 1e-4], dtype=torch.float64).repeat_interleave(D // 3)
    made = {
        "flat": torch.ones(D, dtype=torch.float64),
        "condition 1e4": torch.logspace(0, -4, D, dtype=torch.float64),
        "condition 1e8": torch.logspace(0, -8, D, dtype=torch.float64),
        "clustered": clusters * (1 + 1e-9 * spread),
        "one null": torch.cat([spread[1:], spread.new_zeros(1)]),
        "noise in the null": torch.cat([spread[2:], spread.new_tensor([1e-13, 1e-17])]),
        "half null": torch.cat([spread[D // 2 :], spread.new_zeros(D // 2)]),
        "rank one": torch.cat([spread[:1], spread.new_zeros(D - 1)]),
    }
    return made[name]


SPECTRA = (
    "flat",
    "condition 1e4",
    "condition 1e8",
    "clustered",
    "one null",
    "noise in the null",
    "half null",
    "rank one",
)
every_spectrum = pytest.mark.parametrize("name", SPECTRA)


def made(name, m=D, scale=1.0):
    """A matrix of these singular values, and its true factors."""
    u, v, values = orthonormal(m, D, 1), orthonormal(D, D, 2), spectrum(name) * scale
    return (u * values) @ v.T, u, values, v


def assert_orthonormal(q):
    eye = torch.eye(q.shape[-1], dtype=q.dtype).expand(*q.shape[:-2], -1, -1)
    torch.testing.assert_close(q.mT @ q, eye, rtol=0, atol=ORTHOGONAL)


@every_spectrum
@pytest.mark.parametrize("rows", [D, D + 13], ids=["square", "tall"])
@pytest.mark.parametrize("method", METHODS)
def test_factor_turns_each_vector_into_its_partner(method, rows, name):
    """Up to rounding over the singular value, which is how well the problem is posed."""
    matrix, u, values, v = made(name, rows)
    q, nuclear_norm = polar(matrix, method=method)
    assert_orthonormal(q)
    relative = values / values.max()
    missed = (q @ v - u).norm(dim=0)
    assert (missed * relative <= SINGULAR_VECTOR)[relative > 1e-12].all()
    torch.testing.assert_close(nuclear_norm, values.sum(), rtol=NUCLEAR_NORM["exact"], atol=0)


@every_spectrum
@pytest.mark.parametrize("precision", PRECISIONS)
def test_precision_costs_the_nuclear_norm_little_and_orthogonality_nothing(precision, name):
    matrix, _, values, _ = made(name)
    q, nuclear_norm = polar(matrix, method="polar-express", precision=precision)
    assert_orthonormal(q)
    torch.testing.assert_close(nuclear_norm, values.sum(), rtol=NUCLEAR_NORM[precision], atol=0)


def test_the_rest_of_a_singular_matrix_is_that_of_the_svd():
    """The null directions are mapped to each other and disturb nothing else."""
    matrix, u, values, v = made("half null")
    q = polar(matrix, method="polar-express").orthogonal
    kept = values > 0
    assert (v[:, ~kept].T @ q.T @ u[:, kept]).abs().max() <= ORTHOGONAL
    torch.testing.assert_close(q @ v[:, kept], u[:, kept], rtol=0, atol=ORTHOGONAL)


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_is_its_matrices_one_by_one(method):
    """Whatever stands beside it: singular, zero, huge and tiny neighbours."""
    matrices = [made("flat")[0], made("condition 1e4", scale=1e150)[0], torch.zeros(D, D).double()]
    matrices += [made("one null", scale=1e-150)[0], made("clustered")[0], -made("flat")[0]]
    batch = polar(torch.stack(matrices).reshape(2, 3, D, D), method=method)
    assert_orthonormal(batch.orthogonal)
    for i, matrix in enumerate(matrices):
        norm = torch.linalg.svdvals(matrix).sum()
        torch.testing.assert_close(batch.nuclear_norm.flatten()[i], norm, rtol=1e-12, atol=0)
        expected = polar(matrix, method=method).orthogonal
        found = batch.orthogonal.reshape(-1, D, D)[i]
        torch.testing.assert_close(
            (found * matrix).sum(), (expected * matrix).sum(), rtol=1e-12, atol=0
        )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (3, 5), (1, 7), (2, 4, 6), (0, 4, 4), (2, 3, 0)])
def test_shapes(method, shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = reference.polar(matrix)
    found = polar(matrix, method=method)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_strides_and_float32(method):
    wide = torch.randn(2, 8, 12, generator=torch.Generator().manual_seed(0))
    found = polar(wide.mT[:, ::2], method=method)
    expected = reference.polar(wide.mT[:, ::2].double())
    assert found.orthogonal.dtype == found.nuclear_norm.dtype == torch.float32
    torch.testing.assert_close(found.orthogonal.double(), expected.orthogonal, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "steps",
    [_polynomials.schedule(0.5), [(5.0, 0.0, 0.0)] * 9, [(10.0, 10.0, 10.0)] * 9],
    ids=["too few", "wrong", "diverging"],
)
def test_convergence_is_measured_not_assumed(monkeypatch, steps):
    """Where the steps do not converge, every matrix is decomposed instead."""
    monkeypatch.setattr(_polar_express, "schedule", lambda smallest: steps)
    matrix, u, _, v = made("condition 1e4")
    q = polar(matrix, method="polar-express").orthogonal
    torch.testing.assert_close(q, u @ v.T, rtol=0, atol=1e-9)


@pytest.mark.parametrize("smallest", [0.5, 1e-3, 1e-6, 1e-12])
def test_steps_carry_the_whole_interval_to_one(smallest):
    s = np.concatenate([np.geomspace(smallest, 1, 20_001), np.linspace(smallest, 1, 20_001)])
    for step in _polynomials.schedule(smallest):
        s = step(s)
        assert s.min() > 0
    np.testing.assert_allclose(s, 1, rtol=0, atol=1e-14)


def test_steps_are_minimax():
    """Four extrema of equal size: by Chebyshev's theorem no odd quintic does better."""
    s = np.linspace(0.1, 1, 200_001)
    error = _polynomials.schedule(0.1)[0](s) - 1
    turns = np.flatnonzero(np.diff(np.sign(np.diff(error)))) + 1
    extrema = error[[0, *turns, -1]]
    np.testing.assert_allclose(extrema * [-1, 1, -1, 1], np.abs(error).max(), rtol=1e-5)


NAN = torch.eye(3).expand(2, 2, 3, 3).clone()
NAN[1, 0, 0, 0] = torch.nan


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: polar(torch.ones(3)), ValueError, r"matrix has shape \(3,\), expected"),
        (lambda: polar(NAN), ValueError, r"matrix\[1, 0\] holds NaN or infinity"),
        (lambda: polar(torch.eye(2).half()), TypeError, "matrix is torch.float16, expected"),
        (lambda: polar(torch.eye(2).requires_grad_()), ValueError, r"pass matrix.detach\(\)"),
        (lambda: polar(torch.eye(2), method="qr"), ValueError, "method is 'qr', expected"),
        (lambda: polar(torch.eye(2), precision="low"), ValueError, "precision is 'low'"),
    ],
    ids=["shape", "nan", "dtype", "gradient", "method", "precision"],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
