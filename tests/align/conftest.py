"""Paired rows as a Transformer gives them, and as it should not."""

import numpy as np
import pytest


def _mixed(n, d, seed):
    """Target rows that depend on the source rows, with noise."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) @ rng.normal(size=(d, d))
    return x, x @ rng.normal(size=(d, d)) / d**0.5 + rng.normal(size=(n, d)), rng


def _centred(rows):
    """Rows on the hyperplane on which LayerNorm leaves them."""
    rows = rows - rows.mean(axis=1, keepdims=True)
    return rows / rows.std(axis=1, keepdims=True)


def full(n, d, seed):
    return _mixed(n, d, seed)[:2]


def null_x(n, d, seed):
    x, y, _ = _mixed(n, d, seed)
    return _centred(x), y


def null_y(n, d, seed):
    x, y, _ = _mixed(n, d, seed)
    return x, _centred(y)


def null_both(n, d, seed):
    x, y, _ = _mixed(n, d, seed)
    return _centred(x), _centred(y)


def outliers(n, d, seed):
    x, y, _ = _mixed(n, d, seed)
    x[:, 1] = 1e4 * x[:, 1] + 1000
    y[:, 2] = 1e4 * y[:, 2] + 1000
    return x, y


def offset(n, d, seed):
    x, y, _ = _mixed(n, d, seed)
    return x + 1e6, y - 1e6


def constant(n, d, seed):
    x, y, _ = _mixed(n, d, seed)
    x[:, 0], y[:, 3] = 0.1, -7.3
    return x, y


def wide(n, d, seed):
    x, y, rng = _mixed(n, d, seed)
    return x, np.hstack([y, rng.normal(size=(n, 3))])


SAME_RANK = (full, null_both, outliers, offset, constant)
SQUARE = (*SAME_RANK, null_x, null_y)


def _split(make):
    x, y = make(600, 8, 0)
    return x[:400], y[:400], x[400:], y[400:]


@pytest.fixture(params=(*SQUARE, wide), ids=lambda make: make.__name__)
def data(request):
    """Rows to fit on and other rows of the same kind, ``(x, y, held_out_x, held_out_y)``."""
    return _split(request.param)


@pytest.fixture(params=SQUARE, ids=lambda make: make.__name__)
def square_data(request):
    """The data whose two sides have the same width."""
    return _split(request.param)


@pytest.fixture(params=SAME_RANK, ids=lambda make: make.__name__)
def same_rank_data(request):
    """The data whose two sides have the same width and rank."""
    return _split(request.param)


@pytest.fixture(params=["square", "null direction", "ill-conditioned"])
def bijection(request):
    """An exact affine bijection between spaces: rows to fit on and other rows."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(500, 16)) + 2
    if request.param == "null direction":
        x = _centred(x)
    matrix = np.linalg.qr(rng.normal(size=(16, 16)))[0]
    if request.param == "ill-conditioned":
        matrix = matrix * np.logspace(-3, 3, 16)
    y = x @ matrix + rng.normal(size=16)
    return x[:300], y[:300], x[300:], y[300:]
