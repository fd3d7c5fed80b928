"""Packed windows see themselves only: the same states as padded ones, at every layer."""

import pytest
import torch
from small_models import LENGTH, make_family
from tolerances import HIDDEN_STATES, HIDDEN_STATES_16_BITS
from transformers import BertConfig

from fastinn import Encoder
from fastinn.embed import encoder as encoder_module
from fastinn.embed.packing import _FAMILIES, can_pack, packed
from fastinn.embed.tokens import Window


@pytest.fixture(scope="module", params=sorted(_FAMILIES))
def folder(request, tmp_path_factory):
    return make_family(tmp_path_factory.mktemp("packed") / request.param, request.param)


@pytest.fixture
def pair(folder, monkeypatch):
    """The same model twice: padded, and packed as it would be on a GPU."""
    plain = Encoder(folder, layers="all", device="cpu")
    monkeypatch.setattr(encoder_module, "can_pack", lambda *_: True)
    return plain, Encoder(folder, layers="all", device="cpu")


def random_windows(generator, vocabulary):
    lengths = torch.randint(3, LENGTH + 1, (int(torch.randint(1, 9, (), generator=generator)),))
    windows = []
    for i, length in enumerate(lengths.tolist()):
        ids = torch.randint(5, vocabulary, (length,), generator=generator)
        content = torch.ones(length, dtype=torch.bool)
        content[[0, -1]] = False
        windows.append(Window(ids, content, document=i, start=0))
    return windows


@pytest.mark.campaign("R14")
def test_packed_equals_padded_on_200_random_batches(pair, trials):
    plain, together = pair
    generator = torch.Generator().manual_seed(0)
    for _ in trials(range(200)):
        windows = random_windows(generator, 150)
        expected, found = plain.encode_windows(windows), together.encode_windows(windows)
        for layer, rows in found.rows.items():
            torch.testing.assert_close(rows, expected.rows[layer], atol=HIDDEN_STATES, rtol=0)


def test_positions_alone_would_not_keep_windows_apart(pair):
    """What the packed attention is there for; were it not so, the test above could not fail."""
    plain, _ = pair
    windows = random_windows(torch.Generator().manual_seed(3), 150)
    assert len(windows) > 1
    inputs = packed(windows, plain.model.first_position, torch.device("cpu")).inputs
    with torch.no_grad():
        states = plain.model.module()(
            input_ids=inputs["input_ids"], position_ids=inputs["position_ids"]
        ).last_hidden_state[0]
    apart = plain.encode_windows(windows).rows[3]
    assert (
        states[torch.cat([w.content for w in windows])] - apart
    ).abs().max() > 100 * HIDDEN_STATES


def test_a_model_that_is_not_told_the_bounds_refuses(pair):
    _, together = pair
    with pytest.raises(ValueError, match="was not told where packed windows end"):
        together.model.module()(input_ids=torch.tensor([[5, 6, 7]]))


def test_only_tested_families_in_16_bits_on_a_gpu_are_packed(pair, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    config = pair[0].model.config
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert can_pack(config, gpu, torch.bfloat16)
    assert not can_pack(config, gpu, torch.float32)
    assert not can_pack(config, cpu, torch.bfloat16)
    config.model_type = "unheard-of"
    assert not can_pack(config, gpu, torch.bfloat16)


@pytest.mark.parametrize(
    ("hidden", "capability", "packs"),
    [(64, (8, 0), True), (64, (7, 5), False), (50, (9, 0), False), (1040, (9, 0), False)],
    ids=["fits", "old GPU", "odd width", "wide head"],
)
def test_windows_are_packed_where_there_is_flash_attention(monkeypatch, hidden, capability, packs):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    config = BertConfig(hidden_size=hidden, num_attention_heads=2)
    assert can_pack(config, torch.device("cuda"), torch.bfloat16) == packs


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_packed_on_a_gpu_is_close_to_exact(folder):
    packing = Encoder(folder, layers="all", device="cuda", precision="fast")
    exact = Encoder(folder, layers="all", device="cpu")
    assert packing._packs
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        windows = random_windows(generator, 150)
        expected, found = exact.encode_windows(windows), packing.encode_windows(windows)
        for layer, rows in found.rows.items():
            error = (rows - expected.rows[layer]).norm() / expected.rows[layer].norm()
            assert error < HIDDEN_STATES_16_BITS[packing.dtype]
