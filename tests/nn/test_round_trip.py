"""The guard of bijections: how much the inverse loses, and which layer is to blame."""

import math
import warnings

import pytest
import torch

from fastinn.align import INN
from fastinn.nn import AffineCoupling, Flow, InvertibleLinear, round_trip
from fastinn.nn._round_trip import RoundTripGuard

D, CULPRIT = 8, 4


def flow_of(clamp):
    """Couplings of moderate gain, but for one that contracts by e^-clamp."""
    torch.manual_seed(0)
    layers = []
    for _ in range(4):
        layers += [AffineCoupling(D), InvertibleLinear(D, orthogonal=True)]
    layers[CULPRIT] = AffineCoupling(D, clamp=clamp)
    with torch.no_grad():
        for layer in layers[::2]:
            for bias in layer.biases:
                bias += 0.1 * torch.randn_like(bias)
        shift, log_scale = layers[CULPRIT].biases[-1].chunk(2)
        shift.fill_(1.0)
        log_scale.fill_(-100 * clamp)
    return Flow(*layers)


@pytest.fixture
def x():
    return torch.randn(64, D, generator=torch.Generator().manual_seed(0))


def test_measures_the_flow_and_every_layer(x):
    flow = flow_of(clamp=1.0)
    found = round_trip(flow, x)
    with torch.no_grad():
        error = (flow.inverse(flow(x)[0])[0] - x).abs().max() / x.square().mean().sqrt()
    assert found.error == pytest.approx(error.item())
    assert 0 < found.error < 1e-5
    assert [layer.place for layer in found.layers] == list(range(8))
    assert [layer.kind for layer in found.layers] == ["AffineCoupling", "InvertibleLinear"] * 4
    assert found.layers[0].error == found.error
    assert found.layers[0].log_scale < 0.5
    assert found.layers[CULPRIT].log_scale == pytest.approx(1.0)
    assert found.layers[1].log_scale is None


def test_names_the_layer_with_the_extreme_gain(x):
    found = round_trip(flow_of(clamp=12.0), x)
    assert found.error > 1e-3
    assert found.worst.place == CULPRIT
    assert found.worst.log_scale == pytest.approx(12.0)
    assert found.worst.growth > 1e3
    assert found.layers[CULPRIT + 1].error < 1e-5


def test_the_rounding_of_a_large_entry_is_no_growth(x):
    x[0, 0] = 1000.0
    rotation = InvertibleLinear(D, orthogonal=True, precision="high")
    assert round_trip(Flow(rotation), x).worst.growth < 10


@pytest.mark.parametrize("sign", [-1, 1], ids=["inverse", "forward"])
def test_names_the_layer_that_overflows(x, sign):
    flow = flow_of(clamp=200.0)
    with torch.no_grad():
        flow.layers[CULPRIT].biases[-1][D // 2 :].mul_(-sign)
    found = round_trip(flow, x)
    assert not math.isfinite(found.error)
    assert found.worst.place == CULPRIT


def test_rows_of_zeros_have_an_error_too():
    assert 0 <= round_trip(Flow(InvertibleLinear(D)), torch.zeros(3, D)).error < 1e-6


@pytest.mark.parametrize("rows", [torch.zeros(0, D), torch.full((2, D), torch.nan)])
def test_rows_that_measure_nothing_are_refused(rows):
    with pytest.raises(ValueError, match=r"x has shape|x holds NaN"):
        round_trip(Flow(InvertibleLinear(D)), rows)


def test_the_guard_warns_once_with_layer_size_and_remedy(x):
    guard = RoundTripGuard(flow_of(clamp=12.0), tolerance=1e-3)
    message = (
        r"is off by \d.\de.*, more than 1e-03: layer 4 \(AffineCoupling\) multiplies it by "
        r"\d.\de\+\d\d, largest \|log-scale\| 12; a lower lr, a smaller clamp"
    )
    with pytest.warns(RuntimeWarning, match=message):
        assert guard.check(x) > 1e-3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert guard.check(x) > 1e-3


def test_the_guard_says_nothing_of_a_good_flow(x):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert RoundTripGuard(flow_of(clamp=1.0), tolerance=1e-3).check(x) < 1e-5


def test_the_inn_records_and_guards_its_round_trip():
    x = torch.randn(400, D, generator=torch.Generator().manual_seed(1))
    options = {"progress": False, "max_steps": 20, "n_couplings": 2, "batch_size": 64}
    inn = INN(**options).fit(x, x.flip(1).tanh())
    assert all(0 < error < 1e-3 for error in inn.history_["round_trip"])
    with pytest.warns(RuntimeWarning, match="the round trip of the flow is off by") as caught:
        INN(**options, lr=30.0, clamp=30.0).fit(x, x.flip(1).tanh())
    assert len(caught) == 1
