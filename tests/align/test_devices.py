"""Rows on a GPU: networks are trained and applied where they lie."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from tolerances import DEVICES, EXACT_BIJECTION, MOMENTS
from torch._subclasses.fake_tensor import FakeTensorMode

from fastinn.align import CCA, INN, Hub, LinearMap, MLPMap, Procrustes, PublishedBertINN
from fastinn.align._trained import Between
from fastinn.study import sanity_check

QUICK = {"max_steps": 20, "progress": False}
NETWORKS = {
    "inn": INN(n_couplings=2, **QUICK),
    "linear start": INN(start="linear", n_couplings=2, **QUICK),
    "bert-inn": PublishedBertINN(**QUICK),
    "mlp": MLPMap(**QUICK),
}
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def rows(n=600, d=8):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, d)).astype(np.float32)
    return torch.from_numpy(x), torch.from_numpy(np.tanh(x @ rng.normal(size=(d, d)) / d**0.5))


def test_a_start_that_was_solved_on_a_gpu_reaches_a_network_that_is_not_there_yet():
    """Without a GPU, by tensors that know their device and hold no numbers."""
    with FakeTensorMode():
        network = Between(torch.nn.Identity(), 4, 4)
        weight = torch.empty(4, 4, dtype=torch.float64, device="cuda")
        assert network.standardised(weight).device == torch.device("cpu")


@on_gpu
@pytest.mark.parametrize("aligner", NETWORKS.values(), ids=NETWORKS)
def test_networks_train_on_cuda_and_follow_their_rows(aligner, tmp_path):
    x, y = rows()
    fitted = clone(aligner).fit(x.cuda(), y.cuda(), checkpoint=tmp_path)
    assert all(p.is_cuda for p in fitted.network_.parameters())
    on_cuda = fitted.transform(x.cuda())
    assert on_cuda.is_cuda
    on_cpu = fitted.transform(x)
    assert not on_cpu.is_cuda
    torch.testing.assert_close(on_cuda.cpu(), on_cpu, atol=DEVICES, rtol=DEVICES)


@on_gpu
def test_rows_that_lie_elsewhere_are_brought_to_those_of_the_source():
    x, y = rows()
    fitted = MLPMap(**QUICK).fit(x.cuda(), y, validation=(x[:100].numpy(), y[:100].cuda()))
    assert all(p.is_cuda for p in fitted.network_.parameters())


@on_gpu
@pytest.mark.parametrize("aligner", [CCA(), LinearMap(), Procrustes()], ids=str)
def test_closed_forms_of_cuda_rows_are_those_of_the_same_rows(aligner):
    x, y = rows()
    expected = aligner.fit(x, y).transform(x)
    found = aligner.fit(x.cuda(), y.cuda()).transform(x.cuda())
    torch.testing.assert_close(found.cpu(), expected, atol=MOMENTS, rtol=0)


@on_gpu
@pytest.mark.parametrize("pivot", [None, "b"])
def test_hubs_train_on_cuda(pivot):
    x, y = rows()
    seeds = {"a": x.cuda(), "b": y.cuda(), "c": (x + y).cuda()}
    hub = Hub(INN(n_couplings=2, **QUICK), pivot=pivot).fit(seeds)
    assert hub.transform(seeds["a"], "a", "c").is_cuda


@on_gpu
def test_a_sanity_check_of_cuda_rows():
    inn, published, mlp = (clone(NETWORKS[name]) for name in ("inn", "bert-inn", "mlp"))
    found = sanity_check(
        rows()[0].cuda(),
        documents=torch.arange(600) // 10,
        bijections=["rotation"],
        inn=inn,
        published=published,
        mlp=mlp,
        progress=False,
    )
    exact = {r.method for r in found if r.relative_mse < EXACT_BIJECTION}
    assert exact >= {"Procrustes", "CCA", "LinearMap"}
