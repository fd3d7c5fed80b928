"""BERT-INN against the published formulas, full width and masked, in float64."""

import pytest
import torch
from tolerances import FORMULA
from torch.nn.functional import linear, selu

from fastinn.nn import bert_inn


def published_weights(d, dtype=torch.float64):
    generator = torch.Generator().manual_seed(d)
    widths = (d, 4 * d, 4 * d, d)
    weights = {}
    for name in ("log_scale", "shift"):
        for i in range(3):
            scale = widths[i] ** -0.5
            shape = (widths[i + 1], widths[i])
            weights[f"{name}.{i}.weight"] = scale * torch.randn(shape, generator=generator)
            weights[f"{name}.{i}.bias"] = 0.1 * torch.randn(shape[:1], generator=generator)
    return {key: value.to(dtype) for key, value in weights.items()}


def network(weights, name, u):
    for i in range(3):
        u = linear(u, weights[f"{name}.{i}.weight"], weights[f"{name}.{i}.bias"])
        u = selu(u) if i < 2 else u
    return u


def published_forward(weights, x):
    mask = (torch.arange(x.shape[1]) % 2 == 0).to(x.dtype)
    log_det = torch.zeros(len(x), dtype=x.dtype)
    for kept in (mask, 1 - mask):
        log_scale = torch.tanh(network(weights, "log_scale", kept * x))
        moved = x * (log_scale.exp() + 1e-8) + network(weights, "shift", kept * x)
        x = kept * x + (1 - kept) * moved
        log_det = log_det + ((1 - kept) * log_scale).sum(dim=1)
    return x, log_det


def published_inverse(weights, y):
    mask = (torch.arange(y.shape[1]) % 2 == 0).to(y.dtype)
    log_det = torch.zeros(len(y), dtype=y.dtype)
    for kept in (1 - mask, mask):
        log_scale = torch.tanh(network(weights, "log_scale", kept * y))
        moved = (y - network(weights, "shift", kept * y)) / (log_scale.exp() + 1e-8)
        y = kept * y + (1 - kept) * moved
        log_det = log_det - ((1 - kept) * log_scale).sum(dim=1)
    return y, log_det


@pytest.mark.parametrize("d", [2, 3, 8, 13, 768])
def test_equals_the_published_formulas(d):
    weights, x = published_weights(d), torch.randn(4, d, dtype=torch.float64)
    flow = bert_inn(d, published=weights)
    y, log_det = published_forward(weights, x)
    torch.testing.assert_close(flow(x), (y, log_det), rtol=FORMULA, atol=FORMULA)
    torch.testing.assert_close(flow.inverse(y), (x, -log_det), rtol=FORMULA, atol=FORMULA)


@pytest.mark.parametrize("d", [2, 3, 8, 13])
def test_published_weights_come_back_bit_for_bit(d):
    weights = published_weights(d)
    returned = bert_inn(d, published=weights).to_published()
    assert returned.keys() == weights.keys()
    assert all(torch.equal(returned[key], weights[key]) for key in weights)


@pytest.mark.parametrize("memory", ["store", "recompute"])
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_gradients_are_those_of_the_published_formulas(direction, memory):
    d = 7
    weights = {key: value.requires_grad_() for key, value in published_weights(d).items()}
    values = {key: value.detach() for key, value in weights.items()}
    flow, x = bert_inn(d, published=values, memory=memory), torch.randn(5, d, dtype=torch.float64)
    result = (flow if direction == "forward" else flow.inverse)(x)
    (result[0].square().sum() + result[1].square().sum()).backward()
    transform = published_forward if direction == "forward" else published_inverse
    expected = transform(weights, x)
    (expected[0].square().sum() + expected[1].square().sum()).backward()
    with torch.no_grad():
        # The published layout of the gradients: the networks serve both couplings.
        for parameter in flow.parameters():
            parameter.copy_(parameter.grad)
    for key, gradient in flow.to_published().items():
        torch.testing.assert_close(gradient, weights[key].grad, rtol=FORMULA, atol=FORMULA)


def test_starts_with_the_initialisation_of_torch():
    weights = bert_inn(64).to_published()
    for name in ("log_scale", "shift"):
        for i, width in enumerate((64, 256, 256)):
            bound = weights[f"{name}.{i}.weight"].abs().max()
            assert 0.9 * width**-0.5 < bound <= width**-0.5


@pytest.mark.parametrize("precision", ["exact", "high", "fast"])
def test_every_precision_inverts_in_float32(precision):
    flow, x = bert_inn(32, precision=precision), torch.randn(20, 32)
    y, _ = flow(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(flow.inverse(y)[0], x, rtol=0, atol=1e-4)


def test_compiles_without_graph_breaks():
    flow, x = bert_inn(6), torch.randn(4, 6)
    compiled = torch.compile(flow, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), flow(x))


def test_a_missing_key_is_named():
    weights = published_weights(4)
    weights["scale.0.bias"] = weights.pop("shift.0.bias")
    with pytest.raises(ValueError, match=r"lacks \['shift.0.bias'\] and has .*'scale.0.bias'"):
        bert_inn(4, published=weights)


def test_weights_of_another_width_are_named():
    with pytest.raises(ValueError, match=r"has shape \(16, 4\), d = 6 needs \(24, 6\)"):
        bert_inn(6, published=published_weights(4))


def test_one_feature_is_too_few():
    with pytest.raises(ValueError, match="d is 1, expected at least 2"):
        bert_inn(1)
