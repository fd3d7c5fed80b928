"""Buffers of copies from a GPU, with stand-ins for what only a GPU has; and real copies on one."""

from contextlib import nullcontext

import pytest
import torch

from fastinn.embed import rows
from fastinn.embed.rows import PinnedCopies


class OnDevice(torch.Tensor):
    """A tensor that may be recorded on a stream, as those on a GPU."""

    def record_stream(self, stream):
        stream.recorded += 1


class Stream:
    recorded = 0

    def __init__(self, device=None):
        pass

    def wait_stream(self, other):
        self.waited_for = other


class Event:
    open = 0

    def record(self, stream):
        Event.open += 1

    def synchronize(self):
        Event.open -= 1


@pytest.fixture
def copies(monkeypatch):
    """Copies without a GPU, and the list of what they deliver."""
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(rows, "_pinned", lambda n, dtype: torch.empty(n, dtype=dtype))
    delivered = []
    return PinnedCopies(
        torch.device("cuda"), lambda layer, states, put: delivered.append((layer, states + 0, put))
    ), delivered


def test_copies_arrive_whole_and_in_order_with_two_under_way(copies):
    copying, delivered = copies
    generator = torch.Generator().manual_seed(0)
    sent = []
    for layer, n in enumerate([3, 5, 2, 7, 7, 1, 4]):
        dtype = torch.bfloat16 if layer == 4 else torch.float32
        states = torch.randn(n, 6, generator=generator).to(dtype).as_subclass(OnDevice)
        sent.append((layer, states.as_subclass(torch.Tensor).clone(), torch.arange(n)))
        copying.start(layer, states, sent[-1][2])
        states.zero_()  # its memory is used again
        assert Event.open <= 2
        assert len(delivered) == max(0, layer - 1)
    copying.finish()
    assert Event.open == 0
    assert copying._stream.recorded == len(sent)
    for (layer, states, put), (sent_layer, expected, where) in zip(delivered, sent, strict=True):
        assert layer == sent_layer
        assert torch.equal(states, expected)
        assert put is where


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_copies_from_a_gpu():
    delivered, device = [], torch.device("cuda")
    copying = PinnedCopies(device, lambda layer, states, put: delivered.append(states.clone()))
    sent = [torch.randn(1000 + i, 768, device=device) for i in range(20)]
    for layer, states in enumerate(sent):
        copying.start(layer, states * 1, torch.arange(len(states)))
    copying.finish()
    assert all(torch.equal(a, b.cpu()) for a, b in zip(delivered, sent, strict=True))
