"""A flow of couplings and rotations: its training step, memory included, and its CUDA graphs."""

from functools import partial

import pytest
import torch
from accuracy import check, ends, relative_error
from ceilings import of_precision
from comparison import Case
from peers.autocast import Autocast
from peers.couplings import eager
from peers.couplings.compiled import compiled
from tolerances import BENCH
from torch import nn
from workloads import multiply_adds, network, rows, two_way_gradients

from fastinn.nn import AffineCoupling, Flow, GraphedFlow, InvertibleLinear
from fastinn.ops import use_backend

OP = "coupling_mlp"
D, HIDDEN = 768, 768
COUPLINGS = {"cpu": 8, "cuda": 6}
TOKENS = {"cpu": 2048, "cuda": 2**17}
# Where launching kernels takes about as long as running them.
GRAPHED_TOKENS = 2048


class PlainFlow(nn.Module):
    """Rotations and eager couplings in turn."""

    def __init__(self, networks, rotations):
        super().__init__()
        self.couplings = nn.ModuleList(eager.build(network, D) for network in networks)
        self.rotations = rotations

    def forward(self, x):
        total = x.new_zeros(len(x))
        for rotation, coupling in zip(self.rotations, self.couplings, strict=True):
            x, log_det = coupling(x @ rotation.mT)
            total = total + log_det
        return x, total

    def inverse(self, y):
        total = y.new_zeros(len(y))
        for rotation, coupling in zip(self.rotations[::-1], self.couplings[::-1], strict=True):
            y, log_det = coupling.inverse(y)
            y, total = y @ rotation, total + log_det
        return y, total


def parts(device):
    torch.manual_seed(0)
    n = COUPLINGS[device]
    rotations = [torch.linalg.qr(torch.randn(D, D, dtype=torch.float64)).Q for _ in range(n)]
    return [network(D, HIDDEN, device) for _ in range(n)], [q.to(device) for q in rotations]


def flow_of(networks, rotations, precision, memory, backend):
    """Return our flow with the same parameters."""
    layers = []
    for each, rotation in zip(networks, rotations, strict=True):
        options = {"precision": precision, "memory": memory, "backend": backend}
        coupling = AffineCoupling(D, HIDDEN, clamp=eager.CLAMP, **options).to(rotation.device)
        linears = [layer for layer in each if isinstance(layer, nn.Linear)]
        with torch.no_grad():
            for kind, own in (("weight", coupling.weights), ("bias", coupling.biases)):
                for mine, linear in zip(own, linears, strict=True):
                    mine.copy_(getattr(linear, kind))
        layers += [InvertibleLinear(D, weight=rotation, orthogonal=True), coupling]
    return Flow(*layers, memory=memory)


def step(flow, x, y):
    return two_way_gradients(flow, flow.inverse, flow.parameters(), x, y)


def exact_step(x, y, device):
    """Return the gradients in float64, in the order of our parameters."""
    networks, rotations = parts(device)
    flow = flow_of([n.double() for n in networks], rotations, "exact", "store", "reference")
    return step(flow.double(), x.double(), y.double())


@pytest.mark.parametrize("memory", ["store", "recompute"])
def test_training_step(comparison, device, backend, precision, memory):
    networks, rotations = parts(device)
    flow = flow_of(networks, rotations, precision, memory, backend)
    x, y = (rows(TOKENS[device], D, device, seed) for seed in (0, 1))
    some = ends(x), ends(y)
    error = relative_error(step(flow, *some), exact_step(*some, device))
    check(error, BENCH[precision], f"{backend} gradients")

    float_rotations = [q.float() for q in rotations]
    plain = PlainFlow(networks, float_rotations)
    peers = {"torch eager": plain}
    if precision == "fast":
        peers["torch eager, 16 bits"] = Autocast(plain, torch.bfloat16)
    if memory == "store":
        peers["torch.compile"] = compiled(PlainFlow(networks, float_rotations))
    ceiling, passes = of_precision(device, precision)
    macs = len(networks) * (multiply_adds(D, HIDDEN) * 6 + D * D * 4)
    case = Case(
        f"{len(networks)} couplings, training step, {memory}",
        len(x),
        ceiling,
        2.0 * passes * len(x) * macs,
        precision,
        backend,
    )
    with use_backend(backend):
        comparison(
            case,
            partial(step, flow, x, y),
            {name: partial(step, peer, x, y) for name, peer in peers.items()},
            error,
        )


@torch.no_grad()
def test_graphed_inference(comparison, device, backend, precision):
    if device != "cuda":
        pytest.skip("CUDA graphs are on GPUs only")
    flow = flow_of(*parts(device), precision, "store", backend)
    graphed, x = GraphedFlow(flow), rows(GRAPHED_TOKENS, D, device)
    exact = flow_of(*parts(device), "exact", "store", "reference").double()
    error = relative_error(graphed(x), exact(x.double()))
    check(error, BENCH[precision], f"{backend} graphed")

    ceiling, passes = of_precision(device, precision)
    macs = COUPLINGS[device] * (multiply_adds(D, HIDDEN) + D * D)
    case = Case(
        f"{COUPLINGS[device]} couplings, graphed inference",
        len(x),
        ceiling,
        2.0 * passes * len(x) * macs,
        precision,
        backend,
    )
    comparison(case, partial(graphed, x), {"without graphs": partial(flow, x)}, error)
