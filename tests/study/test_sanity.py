"""The sanity check on a small problem: who recovers what."""

import pytest
import torch

from fastinn.align import INN, MLPMap
from fastinn.study import sanity_check


@pytest.fixture(scope="module")
def found():
    torch.manual_seed(0)
    entries = sanity_check(
        torch.randn(3000, 8) * 5 + 3,
        documents=torch.arange(3000) // 10,
        strength=1.7,
        inn=INN(max_steps=150, batch_size=128, n_couplings=6, progress=False),
        mlp=MLPMap(max_steps=50, batch_size=128, progress=False),
        progress=False,
    )
    return {(e.bijection, e.method, e.direction): e for e in entries}


DIRECTIONS = pytest.mark.parametrize("direction", ["x->y", "y->x"])


def test_every_method_meets_every_bijection_both_ways(found):
    assert len(found) == 3 * 5 * 2
    assert all(e.relative_mse == 1 - e.r2 for e in found.values())


@DIRECTIONS
@pytest.mark.parametrize("method", ["Procrustes", "CCA", "LinearMap"])
def test_linear_maps_miss_the_hidden_inn(found, method, direction):
    assert found["bert-inn", method, direction].relative_mse > 0.05


@DIRECTIONS
def test_the_inn_leaves_half_of_what_linear_maps_leave(found, direction):
    linear = found["bert-inn", "LinearMap", direction].relative_mse
    assert found["bert-inn", "INN", direction].relative_mse < linear / 2


@DIRECTIONS
@pytest.mark.parametrize("bijection", ["rotation", "identity"])
@pytest.mark.parametrize("method", ["Procrustes", "CCA", "LinearMap", "INN", "MLPMap"])
def test_every_method_recovers_linear_bijections(found, bijection, method, direction):
    assert found[bijection, method, direction].relative_mse < 1e-6


def test_an_unknown_bijection_is_named():
    with pytest.raises(ValueError, match="bijection is 'cube', expected one of"):
        sanity_check(torch.randn(10, 2), bijections=["cube"])
