"""Backward passes through the inverse: same gradients, little memory, everywhere autograd goes."""

import threading

import pytest
import torch
from gloo_ranks import TwoWay, train_and_save
from safetensors.torch import load_file
from tolerances import FORMULA, RECOMPUTED
from torch import nn

from fastinn.nn import AffineCoupling, Flow, InvertibleLinear, bert_inn
from fastinn.ops import use_backend
from fastinn.ops._backend import named_backend

D = 6


class Scaling(nn.Module):
    """An invertible layer that knows nothing of recomputing."""

    def __init__(self, d):
        super().__init__()
        self.log_scale = nn.Parameter(0.3 * torch.randn(d))

    def forward(self, x):
        return x * self.log_scale.exp(), self.log_scale.sum().expand(len(x))

    def inverse(self, y):
        return y * (-self.log_scale).exp(), -self.log_scale.sum().expand(len(y))


def couplings(d=D, n=5, **options):
    options = {"hidden": 2 * d, **options}
    return [layer for _ in range(n) for layer in (AffineCoupling(d, **options), rotation(d))]


def rotation(d=D):
    return InvertibleLinear(d, orthogonal=True)


def shared():
    coupling = AffineCoupling(D)
    return [coupling, rotation(), Scaling(D), coupling, rotation(), coupling]


def frozen():
    layers = [*couplings(n=2), InvertibleLinear(D), Scaling(D)]
    for parameter in (layers[0].weights[0], layers[2].biases[1], layers[4].weight):
        parameter.requires_grad_(False)
    return layers


FLOWS = {
    "couplings": couplings,
    "couplings by the reference": lambda: couplings(n=2, backend="reference"),
    "even and odd": lambda: [AffineCoupling(D, kept=kept) for kept in ("even", "odd")],
    "learned first": lambda: [InvertibleLinear(D), *couplings()],
    "learned in between": lambda: [*couplings(n=2), InvertibleLinear(D), *couplings(n=2)],
    "user layers": lambda: [Scaling(D), *couplings(n=2), Scaling(D)],
    "shared parameters": shared,
    "frozen parameters": frozen,
    "flow of flows": lambda: [Flow(*couplings(n=1), Scaling(D)), *couplings(n=1)],
}


def disturbed(module):
    """Move away from the identity start, to log-scales of about 1 as after training."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += torch.randn_like(parameter) * 0.5 / parameter.shape[-1] ** 0.5
    return module


def twins(layers, dtype=torch.float64, **options):
    """A flow that stores and one that recomputes, with the same parameters."""
    torch.manual_seed(0)
    stored = disturbed(Flow(*layers()).to(dtype))
    torch.manual_seed(0)
    recomputing = disturbed(Flow(*layers(), memory="recompute", **options).to(dtype))
    return stored, recomputing


def two_way(flow, x, y):
    """Loss of both directions and both log-determinants, which couple all parameters."""
    forward, log_det = flow(x)
    back, inverse_log_det = flow.inverse(y)
    return (
        (forward - y).square().sum()
        + (back - x).square().sum()
        + (log_det * torch.arange(len(x)).to(x)).sum()
        + inverse_log_det.square().sum()
    )


def gradients(flow, loss=two_way, n=7, d=D):
    generator = torch.Generator().manual_seed(1)
    dtype = next(flow.parameters()).dtype
    x, y = (torch.randn(n, d, generator=generator).to(dtype).requires_grad_() for _ in range(2))
    loss(flow, x, y).backward()
    return {
        "x": x.grad,
        "y": y.grad,
        **{name: parameter.grad for name, parameter in flow.named_parameters()},
    }


def assert_same(found, expected, tolerance):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        if gradient is None:
            assert found[name] is None
        else:
            scale = float(gradient.abs().max())
            torch.testing.assert_close(found[name], gradient, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("every", [1, 2, 99])
@pytest.mark.parametrize("layers", FLOWS.values(), ids=FLOWS.keys())
def test_gradients_are_those_of_plain_autograd(layers, every):
    stored, recomputing = twins(layers, checkpoint_every=every)
    assert_same(gradients(recomputing), gradients(stored), FORMULA)


LOSSES = {
    "rows only": lambda flow, x, y: flow(x)[0].square().sum(),
    "log_det only": lambda flow, x, y: flow(x)[1].square().sum(),
    "inverse log_det only": lambda flow, x, y: flow.inverse(y)[1].square().sum(),
    "there and back": lambda flow, x, y: flow.inverse(flow(x)[0] * 1.1)[0].square().sum(),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_parts_of_the_result_may_go_unused(loss):
    stored, recomputing = twins(FLOWS["learned in between"])
    found, expected = (gradients(flow, loss) for flow in (recomputing, stored))
    for name, gradient in expected.items():
        # Autograd leaves out what it finds unused; a walk back computes its zero.
        if gradient is None:
            assert found[name] is None or not found[name].any()
            found[name] = None
    assert_same(found, expected, FORMULA)


@pytest.mark.parametrize("function", ["forward", "inverse"])
def test_rows_are_bit_for_bit_those_of_a_flow_that_stores(function):
    x = torch.randn(5, D)
    flows = twins(FLOWS["learned first"], torch.float32)
    expected, found = (getattr(flow, function)(x) for flow in flows)
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1])


def test_no_rows_give_zero_gradients():
    _, recomputing = twins(couplings)
    found = gradients(recomputing, n=0)
    assert not any(gradient.any() for gradient in found.values())


@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_drift_is_bounded_by_the_checkpoints(precision):
    """Eight couplings in float32, all of whose inputs are recovered from the output of the last."""
    stored, recomputing = twins(
        lambda: couplings(16, n=8, hidden=64, precision=precision),
        torch.float32,
        checkpoint_every=8,
    )
    found, expected = (gradients(flow, n=200, d=16) for flow in (recomputing, stored))
    assert_same(found, expected, RECOMPUTED[precision])


def saved_bytes(flow, x):
    """Bytes that autograd keeps of a forward pass, parameters and buffers left out."""
    own = {t.untyped_storage().data_ptr() for t in (*flow.parameters(), *flow.buffers())}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = flow(x)
    assert result[0].requires_grad
    return sum(storage.nbytes() for storage in kept.values())


def test_keeps_a_third_of_what_autograd_keeps_and_not_more_with_width():
    def kept(memory, hidden):
        return saved_bytes(Flow(*couplings(32, n=8, hidden=hidden), memory=memory), x)

    x = torch.randn(100, 32)
    narrow, wide = kept("recompute", 32), kept("recompute", 512)
    assert narrow == wide == 3 * x.nbytes  # what comes in, half-way, and what goes out
    assert 3 * narrow < kept("store", 32)
    assert 30 * wide < kept("store", 512)


def test_without_gradients_nothing_is_kept():
    flow = Flow(*couplings(), memory="recompute")
    with torch.no_grad():
        y, log_det = flow(torch.randn(3, D))
    assert not y.requires_grad
    assert not log_det.requires_grad


@pytest.mark.parametrize("memory", ["store", "recompute"])
def test_autocast_changes_no_bit(memory):
    torch.manual_seed(0)
    flow = disturbed(Flow(InvertibleLinear(D), *couplings(n=2), Scaling(D), memory=memory))
    plain = gradients(flow)
    flow.zero_grad()

    def inside_autocast(flow, x, y):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return two_way(flow, x, y)

    assert_same(gradients(flow, inside_autocast), plain, 0)


def test_autocast_widens_rows_of_16_bits():
    flow = Flow(*couplings(n=1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, log_det = flow(torch.randn(3, D).bfloat16())
    assert (y.dtype, log_det.dtype) == (torch.float32, torch.float32)


def test_compiles_without_graph_breaks():
    _, flow = twins(lambda: [AffineCoupling(D, n_hidden=1), InvertibleLinear(D)])
    expected = gradients(flow)
    flow.zero_grad()
    compiled = torch.compile(two_way, fullgraph=True, backend="aot_eager")
    assert_same(gradients(flow, compiled), expected, FORMULA)


def test_compiles_with_graph_breaks_around_user_layers():
    _, flow = twins(lambda: [Scaling(D)])
    expected = gradients(flow, LOSSES["rows only"])
    flow.zero_grad()
    compiled = torch.compile(LOSSES["rows only"], backend="aot_eager")
    assert_same(gradients(flow, compiled), expected, FORMULA)


def test_hooks_on_parameters_run_once():
    flow, calls = Flow(Scaling(D), *couplings(n=1), memory="recompute"), []
    for parameter in flow.parameters():
        parameter.register_hook(calls.append)
    flow(torch.randn(3, D))[0].sum().backward()
    assert len(calls) == len(list(flow.parameters()))


def test_parameters_changed_before_the_backward_pass_are_an_error():
    flow = Flow(*couplings(n=1), memory="recompute")
    loss = flow(torch.randn(3, D))[0].sum()
    with torch.no_grad():
        flow.layers[0].weights[0].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_functional_parameters_are_those_of_the_forward_pass():
    layers = [Scaling(D), *couplings(n=1), Scaling(D)]
    flow = disturbed(Flow(*layers, memory="recompute").double())
    values = {k: (2 * p).detach().requires_grad_() for k, p in flow.named_parameters()}
    x = torch.randn(4, D, dtype=torch.float64)
    torch.func.functional_call(flow, values, (x,))[0].square().sum().backward()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.mul_(2)
    flow.memory = "store"
    flow(x)[0].square().sum().backward()
    expected = {k: p.grad for k, p in flow.named_parameters()}
    assert_same({k: v.grad for k, v in values.items()}, expected, FORMULA)


def test_ranks_agree_with_one_process(tmp_path):
    def flow():
        torch.manual_seed(0)
        return disturbed(bert_inn(D, memory="recompute").double())

    batches = torch.randn(2, 2, 8, D, dtype=torch.float64)  # of two ranks, x and y
    torch.multiprocessing.spawn(train_and_save, (tmp_path, flow(), batches), nprocs=2)
    single = TwoWay(flow())
    (sum(single(*batch) for batch in batches) / 2).backward()
    expected = {name: parameter.grad for name, parameter in single.named_parameters()}
    for rank in range(2):
        assert_same(load_file(tmp_path / f"{rank}.safetensors"), expected, FORMULA)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": "none"}, "memory is 'none', expected one of 'store', 'recompute'"),
        ({"checkpoint_every": 0}, "checkpoint_every is 0, expected at least 1"),
    ],
    ids=["memory", "checkpoint_every"],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Flow(**options)


def test_backward_keeps_the_named_backend_in_a_thread_of_its_own(monkeypatch):
    """That is where autograd runs it on a GPU."""
    flow = disturbed(Flow(*couplings(n=1), memory="recompute"))
    with use_backend("reference"):
        out, log_det = flow(torch.randn(5, D))
    named = []
    vjp = AffineCoupling.vjp

    def noted(*args, **options):
        named.append(named_backend())
        return vjp(*args, **options)

    monkeypatch.setattr(AffineCoupling, "vjp", noted)
    thread = threading.Thread(target=(out.sum() + log_det.sum()).backward)
    thread.start()
    thread.join()
    assert named == ["reference"]
