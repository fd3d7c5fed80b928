"""Couplings, linear layers and their compositions against the definition of a flow."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import linear

from fastinn.nn import AffineCoupling, Flow, InvertibleLinear

ROUND_TRIP = 1e-10  # float64; learned matrices of small random flows have condition below 1e4


def disturbed(module):
    """Leave the identity start, so that every term matters."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return module


def flow_of(d, **options):
    layers = (
        InvertibleLinear(d),
        AffineCoupling(d, 2 * d, **options),
        InvertibleLinear(d, orthogonal=True),
        AffineCoupling(d, n_hidden=1),
    )
    return disturbed(Flow(*layers).double())


LAYERS = {
    "coupling": lambda d: disturbed(AffineCoupling(d).double()),
    "unclamped coupling": lambda d: disturbed(AffineCoupling(d, clamp=None).double()),
    "coupling that keeps the last": lambda d: disturbed(AffineCoupling(d, kept="last").double()),
    "coupling that keeps the even": lambda d: disturbed(AffineCoupling(d, kept="even").double()),
    "coupling that keeps the odd": lambda d: disturbed(AffineCoupling(d, kept="odd").double()),
    "linear": lambda d: disturbed(InvertibleLinear(d).double()),
    "rotation": lambda d: InvertibleLinear(d, orthogonal=True).double(),
    "flow": flow_of,
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.campaign("R12")
@pytest.mark.parametrize("d", [2, 3, 8, 17])
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())
def test_inverse_undoes_forward(make, d):
    layer, x = make(d), torch.randn(11, d, dtype=torch.float64)
    y, log_det = layer(x)
    back, inverse_log_det = layer.inverse(y)
    torch.testing.assert_close(back, x, rtol=0, atol=ROUND_TRIP)
    torch.testing.assert_close(inverse_log_det, -log_det, rtol=0, atol=ROUND_TRIP)


@pytest.mark.campaign("R12")
@settings(max_examples=15, deadline=None)
@given(d=st.integers(2, 9), n=st.integers(0, 5), seed=st.integers(0, 99))
def test_flows_of_any_size_invert(d, n, seed):
    torch.manual_seed(seed)
    flow, x = flow_of(d), torch.randn(n, d, dtype=torch.float64)
    torch.testing.assert_close(flow.inverse(flow(x)[0])[0], x, rtol=0, atol=ROUND_TRIP)


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())
def test_log_det_is_that_of_the_jacobian(make):
    layer, x = make(5), torch.randn(3, 5, dtype=torch.float64)
    for row, log_det in zip(x, layer(x)[1], strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda r: layer(r[None])[0][0], row)
        torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, log_det)


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_every_parameter_gets_a_gradient(direction):
    flow = flow_of(6)
    rows, log_det = getattr(flow, direction)(torch.randn(9, 6, dtype=torch.float64))
    (rows.square().sum() + log_det.sum()).backward()
    assert all(p.grad is not None and p.grad.any() for p in flow.parameters())


def test_a_new_coupling_is_the_identity():
    x = torch.randn(4, 7)
    y, log_det = AffineCoupling(7)(x)
    assert torch.equal(y, x)
    assert not log_det.any()


@pytest.mark.parametrize("activation", ["relu", "selu", "gelu", "silu"])
def test_float32_flows_invert_with_every_activation(activation):
    flow, x = flow_of(8, activation=activation).float(), torch.randn(20, 8)
    torch.testing.assert_close(flow.inverse(flow(x)[0])[0], x, rtol=0, atol=1e-3)


def test_both_directions_round_alike_in_fast_precision():
    flow, x = flow_of(16, precision="fast").float(), torch.randn(20, 16)
    y, _ = flow(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(flow.inverse(y)[0], x, rtol=0, atol=1e-3)


@pytest.mark.parametrize("orthogonal", [True, False], ids=["rotation", "learned"])
def test_exact_linear_layers_lose_nothing_but_the_last_rounding(orthogonal):
    layer = InvertibleLinear(128, orthogonal=orthogonal, precision="exact")
    x, weight = torch.randn(64, 128), layer.weight.double()
    assert torch.equal(layer(x)[0], (x.double() @ weight.mT).float())
    assert torch.equal(layer.inverse(x)[0], torch.linalg.solve(weight, x.double().mT).mT.float())


@pytest.mark.parametrize("orthogonal", [True, False], ids=["rotation", "learned"])
@pytest.mark.parametrize("precision", ["high", "fast"])
def test_other_linear_layers_compute_in_the_dtype_of_the_rows(precision, orthogonal):
    layer = InvertibleLinear(128, orthogonal=orthogonal, precision=precision)
    x = torch.randn(64, 128)
    assert torch.equal(layer(x)[0], linear(x, layer.weight.float(), layer.bias))


def test_exact_linear_layers_bring_rows_back_closer():
    layers = [AffineCoupling(64, n_hidden=1) for _ in range(6)]
    rotations = [InvertibleLinear(64, orthogonal=True) for _ in layers]
    flow = disturbed(
        Flow(*(layer for pair in zip(layers, rotations, strict=True) for layer in pair))
    )
    x, lost = torch.randn(512, 64), {}
    for precision in ("exact", "high"):
        for rotation in rotations:
            rotation.precision = precision
        lost[precision] = (flow.inverse(flow(x)[0])[0] - x).norm()
    assert lost["exact"] < 0.7 * lost["high"]


def test_fast_precision_leaves_float64_rows_exact():
    torch.manual_seed(1)
    exact = flow_of(6, precision="exact")
    torch.manual_seed(1)
    fast = flow_of(6, precision="fast")
    x = torch.randn(4, 6, dtype=torch.float64)
    assert torch.equal(exact(x)[0], fast(x)[0])


def test_state_dict_restores_a_flow():
    flow, other, x = flow_of(6), flow_of(6), torch.randn(4, 6, dtype=torch.float64)
    other.load_state_dict(flow.state_dict())
    assert torch.equal(flow(x)[0], other(x)[0])


def test_flows_compile_without_graph_breaks():
    flow, x = flow_of(6).float(), torch.randn(4, 6)
    compiled = torch.compile(flow, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), flow(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AffineCoupling(1), "d is 1, expected at least 2"),
        (lambda: AffineCoupling(4, activation="sine"), "activation is 'sine', expected one of"),
        (lambda: AffineCoupling(4, precision="low"), "precision is 'low', expected one of"),
        (lambda: AffineCoupling(4, kept="all"), "kept is 'all', expected one of"),
        (lambda: AffineCoupling(4, memory="none"), "memory is 'none', expected one of"),
        (lambda: AffineCoupling(4, n_hidden=4), "n_hidden is 4, expected one of 1, 2, 3"),
        (lambda: InvertibleLinear(4, weight=torch.eye(3)), r"\(3, 3\), expected \(4, 4\)"),
        (lambda: InvertibleLinear(4, precision="low"), "precision is 'low', expected one of"),
    ],
    ids=["width", "activation", "precision", "kept", "memory", "depth", "weight", "rounding"],
)
def test_bad_options_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
