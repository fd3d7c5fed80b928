"""That the peers compute what they are compared with."""

import sys

import pytest
import torch
from peers import CCA, load
from peers.autocast import Autocast
from peers.cca import numpy_cholesky, numpy_pinv
from peers.couplings import eager, layers
from peers.published import PublishedBertINN
from tolerances import EXACT_BIJECTION, FORMULA
from torch import nn
from workloads import network, rows

from fastinn.nn import bert_inn
from fastinn.ops import coupling_mlp

D, HIDDEN = 10, 16


def test_eager_layer_is_the_op():
    net, x = network(D, HIDDEN, "cpu").double(), rows(5, D, "cpu").double()
    linears = [layer for layer in net if isinstance(layer, nn.Linear)]
    weights, biases = ([getattr(m, kind) for m in linears] for kind in ("weight", "bias"))
    expected = coupling_mlp(x, weights, biases, clamp=eager.CLAMP, backend="reference")
    torch.testing.assert_close(eager.build(net, D)(x), expected, rtol=0, atol=FORMULA)


def test_published_layer_is_bert_inn():
    flow, x = bert_inn(D).double(), rows(5, D, "cpu").double()
    published = PublishedBertINN(flow.to_published())
    for direction in ("forward", "inverse"):
        found, expected = (getattr(layer, direction)(x) for layer in (published, flow))
        torch.testing.assert_close(found, expected, rtol=0, atol=FORMULA)


@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_every_peer_that_is_there_is_a_bijection(precision):
    net, x = network(D, HIDDEN, "cpu"), rows(5, D, "cpu")
    found, absent = layers(net, D, precision, torch.bfloat16)
    found = {name: layer for name, layer in found.items() if "compile" not in name}
    assert "torch eager" in found
    assert not {"torch eager", "torch.compile"} & absent.keys()
    for layer in found.values():
        y, log_det = layer(x)
        back, inverse_log_det = layer.inverse(y)
        torch.testing.assert_close(back, x)
        torch.testing.assert_close(inverse_log_det, -log_det)


def test_autocast_rounds_products_and_not_the_rows():
    net, x = network(D, HIDDEN, "cpu"), rows(5, D, "cpu")
    plain = eager.build(net, D)
    y, _ = Autocast(plain, torch.bfloat16)(x)
    assert y.dtype == torch.float32
    assert not torch.equal(y, plain(x)[0])
    assert torch.equal(y[:, : D // 2], x[:, : D // 2])


@pytest.mark.parametrize("peer", [numpy_cholesky, numpy_pinv], ids=["cholesky", "pinv"])
def test_directions_give_uncorrelated_pairs(peer):
    x = rows(200, 4, "cpu").double().numpy()
    y = x @ rows(4, 4, "cpu", seed=1).double().numpy() + rows(200, 4, "cpu", seed=2).numpy()
    u, v = ((z - z.mean(axis=0)) @ a for z, a in zip((x, y), peer.directions(x, y), strict=True))
    u, v = (torch.from_numpy(w) / torch.from_numpy(w).norm(dim=0) for w in (u, v))
    torch.testing.assert_close(u.T @ u, torch.eye(4, dtype=torch.float64), rtol=0, atol=FORMULA)
    correlations = (u.T @ v).diagonal()
    torch.testing.assert_close(u.T @ v, correlations.diag(), rtol=0, atol=FORMULA)
    assert (correlations.diff() <= EXACT_BIJECTION).all()


def test_absent_peers_are_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "cca_zoo.linear", None)
    monkeypatch.delitem(sys.modules, "peers.cca.cca_zoo", raising=False)
    found, absent = load(CCA)
    assert "numpy pinv + SVD" in found
    assert absent["cca-zoo"].endswith("is not installed")


def test_a_broken_module_of_ours_is_not_absent():
    with pytest.raises(ModuleNotFoundError, match=r"peers\.cca\.nothing"):
        load({"typo": "cca.nothing"})
