"""BERT-INN as it was published against the same function without its wasted halves."""

from functools import partial

import pytest
import torch
from accuracy import check, ends, relative_error
from ceilings import of_precision
from comparison import Case
from peers.autocast import Autocast
from peers.couplings.compiled import compiled
from peers.published import PublishedBertINN
from tolerances import BENCH
from workloads import rows

from fastinn.nn import bert_inn
from fastinn.ops import use_backend

OP = "coupling_mlp"
D = 768
TOKENS = {"cpu": 1024, "cuda": 2**18}
# A token, both passes and both networks, without the masked inputs and the unused outputs.
MULTIPLY_ADDS = 2 * 2 * (D // 2 * 4 * D + (4 * D) ** 2 + 4 * D * D // 2)
HALF = {"cpu": torch.bfloat16, "cuda": torch.float16}


def peers_of(weights, device, precision):
    found = {
        "published": PublishedBertINN(weights).to(device),
        "published, torch.compile": compiled(PublishedBertINN(weights).to(device)),
    }
    if precision == "fast":
        found["published, 16 bits"] = Autocast(found["published"], HALF[device])
    return found


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_one_direction(comparison, device, backend, precision, direction):
    torch.manual_seed(0)
    flow = bert_inn(D, precision=precision).to(device)
    x, weights = rows(TOKENS[device], D, device), flow.to_published()
    peers = peers_of(weights, device, precision)
    ours = partial(getattr(flow, direction), x)
    exact = PublishedBertINN({key: value.double() for key, value in weights.items()})
    with torch.no_grad(), use_backend(backend):
        expected = getattr(exact.to(device).double(), direction)(ends(x).double())
        error = check(relative_error(map(ends, ours()), expected), BENCH[precision], direction)
        ceiling, passes = of_precision(device, precision)
        work = 2.0 * passes * len(x) * MULTIPLY_ADDS
        name = f"BERT-INN, {direction}"
        comparison(
            Case(name, len(x), ceiling, work, precision, backend),
            ours,
            {name: partial(getattr(peer, direction), x) for name, peer in peers.items()},
            error,
        )
