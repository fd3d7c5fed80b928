"""The elementwise part of a coupling: forward, inverse and their backward, against copying."""

from functools import partial

import pytest
import torch
from accuracy import check, ends, relative_error
from ceilings import copying
from comparison import Case
from tolerances import BENCH
from workloads import rows

from fastinn.ops import affine_coupling, affine_coupling_inverse, use_backend

OP = "affine_coupling"
D = 384
TOKENS = {"cpu": 65_536, "cuda": 2**20}
DIRECTIONS = {"forward": affine_coupling, "inverse": affine_coupling_inverse}
# Matrices read and written, each once: z, shift and log-scale give the rows. Backward, forward's
# gradient of the shift is that of the rows themselves.
MATRICES = {"forward": 4, "inverse": 4}
MATRICES_BACKWARD = {"forward": 5, "inverse": 6}


def eager(direction):
    def forward(z, shift, log_scale, clamp):
        log_scale = clamp * torch.tanh(log_scale / clamp)
        return z * log_scale.exp() + shift, log_scale.sum(dim=1)

    def inverse(z, shift, log_scale, clamp):
        log_scale = clamp * torch.tanh(log_scale / clamp)
        return (z - shift) / log_scale.exp(), -log_scale.sum(dim=1)

    return {"forward": forward, "inverse": inverse}[direction]


def peers_of(direction):
    torch.compiler.reset()
    plain = eager(direction)
    return {"torch eager": plain, "torch.compile": torch.compile(plain)}


def inputs(device):
    return [rows(TOKENS[device], D, device, seed) for seed in range(3)]


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_one_direction(comparison, device, backend, direction):
    op, tensors = partial(DIRECTIONS[direction], clamp=1.0), inputs(device)
    ours = partial(op, *tensors, backend=backend)
    expected = op(*(ends(t).double() for t in tensors), backend="reference")
    error = check(relative_error(map(ends, ours()), expected), BENCH["exact"], backend)
    work = MATRICES[direction] * tensors[0].nbytes
    comparison(
        Case(direction, TOKENS[device], copying(device), work, "exact", backend),
        ours,
        {name: partial(peer, *tensors, 1.0) for name, peer in peers_of(direction).items()},
        error,
    )


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_backward(comparison, device, backend, direction):
    leaves = [tensor.requires_grad_() for tensor in inputs(device)]
    n = TOKENS[device]
    grad_out = rows(n, D, device, seed=3), rows(n, 1, device, seed=4)[:, 0]

    def backward(op, *tensors):
        """Return the gradients as a call: the graph of one forward pass is gone through again."""
        outputs = op(*tensors, clamp=1.0)
        return lambda: torch.autograd.grad(outputs, tensors, grad_out, retain_graph=True)

    ours = backward(partial(DIRECTIONS[direction], backend=backend), *leaves)
    with use_backend("reference"):
        exact = [ends(leaf).detach().double().requires_grad_() for leaf in leaves]
        outputs = DIRECTIONS[direction](*exact, clamp=1.0)
        expected = torch.autograd.grad(outputs, exact, [ends(g).double() for g in grad_out])
    error = check(relative_error(map(ends, ours()), expected), BENCH["exact"], backend)
    work = MATRICES_BACKWARD[direction] * leaves[0].nbytes
    comparison(
        Case(f"{direction}'s backward", n, copying(device), work, "exact", backend),
        ours,
        {name: backward(peer, *leaves) for name, peer in peers_of(direction).items()},
        error,
    )
