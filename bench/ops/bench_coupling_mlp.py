"""The whole coupling layer: forward, inverse and training step, beside other flow libraries."""

from functools import partial

import pytest
import torch
from accuracy import check, ends, relative_error
from ceilings import of_precision
from comparison import Case
from peers.couplings import layers
from peers.couplings.eager import CLAMP
from tolerances import BENCH
from torch import nn
from workloads import multiply_adds, network, rows, two_way_gradients

from fastinn.ops import coupling_mlp, coupling_mlp_inverse

OP = "coupling_mlp"
D = 768
DIRECTIONS = {"forward": coupling_mlp, "inverse": coupling_mlp_inverse}

# By width of the hidden layers. Training takes fewer: the peers keep all activations.
TOKENS = {
    "cpu": {256: 4096, 768: 4096, 3072: 1024},
    "cuda": {128: 2**20, 384: 2**20, 768: 2**20},
}
TRAINED_SHARE = {"cpu": 2, "cuda": 4}

# Gradients underflow in float16; bfloat16 has the range of float32.
HALF = {"cpu": torch.bfloat16, "cuda": torch.float16}


def ours(op, weights_of, **options):
    """Return ``op`` with the parameters of a network filled in."""
    linears = [layer for layer in weights_of if isinstance(layer, nn.Linear)]
    weights, biases = ([getattr(m, kind) for m in linears] for kind in ("weight", "bias"))
    return lambda x: op(x, weights, biases, clamp=CLAMP, **options)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_one_direction(comparison, device, backend, precision, direction, hidden):
    tokens = TOKENS[device][hidden]
    x, net = rows(tokens, D, device), network(D, hidden, device)
    op = DIRECTIONS[direction]
    layer = ours(op, net, precision=precision, backend=backend)
    peers, absent = layers(net, D, precision, HALF[device])
    calls = {name: peer if op is coupling_mlp else peer.inverse for name, peer in peers.items()}
    ceiling, passes = of_precision(device, precision)
    work = 2.0 * passes * tokens * multiply_adds(D, hidden)
    case = Case(f"{direction}, h = {hidden}", tokens, ceiling, work, precision, backend, absent)
    with torch.no_grad():
        exact = ours(op, network(D, hidden, device).double(), backend="reference")
        error = relative_error(map(ends, layer(x)), exact(ends(x).double()))
        check(error, BENCH[precision], f"{backend} {direction}")
        comparison(
            case, partial(layer, x), {name: partial(call, x) for name, call in calls.items()}, error
        )


@pytest.mark.parametrize("memory", ["store", "recompute"])
def test_training_step(comparison, device, backend, precision, memory, hidden):
    tokens = TOKENS[device][hidden] // TRAINED_SHARE[device]
    x, y = (rows(tokens, D, device, seed) for seed in (0, 1))
    net = network(D, hidden, device)
    options = {"precision": precision, "memory": memory, "backend": backend}
    forward, inverse = (ours(op, net, **options) for op in DIRECTIONS.values())
    parameters = list(net.parameters())

    exact_net = network(D, hidden, device).double()
    exact = [ours(op, exact_net, backend="reference") for op in DIRECTIONS.values()]
    some = [ends(x), ends(y)]
    found = two_way_gradients(forward, inverse, parameters, *some)
    expected = two_way_gradients(*exact, exact_net.parameters(), *(t.double() for t in some))
    error = check(relative_error(found, expected), BENCH[precision], f"{backend} gradients")

    peers, absent = layers(net, D, precision, torch.bfloat16)
    if memory == "recompute":  # the other libraries are beside "store"
        peers, absent = {n: peer for n, peer in peers.items() if n.startswith("torch")}, {}
    ceiling, passes = of_precision(device, precision)
    # Two directions, each with two products backward for one forward.
    work = 2.0 * passes * 6 * tokens * multiply_adds(D, hidden)
    name = f"training step, {memory}, h = {hidden}"
    comparison(
        Case(name, tokens, ceiling, work, precision, backend, absent),
        partial(two_way_gradients, forward, inverse, parameters, x, y),
        {
            name: partial(two_way_gradients, peer, peer.inverse, parameters, x, y)
            for name, peer in peers.items()
        },
        error,
    )
