import warnings

import pytest
import torch

from fastinn import Encoder
from fastinn._products import multiplies_bfloat16, products
from fastinn.embed.seeds import shipped_seeds

CPU = torch.device("cpu")


@pytest.fixture(params=[(True, True), (False, True), (False, False)], ids=["amx", "bf16", "no"])
def multiplies(request, monkeypatch):
    tiles, vectors = request.param
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: vectors)
    return tiles or vectors


def product(precision, dtype=torch.float32):
    rows = torch.linspace(0.1, 0.9, 12, dtype=dtype).view(3, 4)
    with products(precision, CPU):
        return rows @ rows.T, rows.double() @ rows.double().T


def test_fast_rounds_only_where_that_is_faster(multiplies):
    rounded, exact = product("fast")
    assert rounded.dtype == (torch.bfloat16 if multiplies else torch.float32)
    assert ((rounded - exact).abs().max() > 1e-4) == multiplies


@pytest.mark.parametrize("precision", ["exact", "high"])
def test_others_never_round(multiplies, precision):
    assert product(precision)[0].dtype == torch.float32


def test_float64_is_never_rounded(multiplies):
    rounded, exact = product("fast", torch.float64)
    assert torch.equal(rounded, exact)


@pytest.mark.parametrize("supported", [True, False])
def test_a_gpu_multiplies_bfloat16_if_it_need_not_emulate_it(multiplies, monkeypatch, supported):
    def is_supported(including_emulation=True):
        return including_emulation or supported

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    assert multiplies_bfloat16(torch.device("cuda")) == supported


def test_encoding_in_16_bits_warns_where_it_is_slower(multiplies):
    seed = str(next(iter(shipped_seeds().values())))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Encoder(seed, layers=[1], precision="fast", device="cpu")
        Encoder(seed, layers=[1], precision="high", device="cpu")
    assert [str(w.message) for w in caught if "16 bits" in str(w.message)] == (
        []
        if multiplies
        else [
            "16 bits take longer than 32 on this CPU, which has no AVX512_BF16 or AMX; "
            "leave --fast (precision='fast') out"
        ]
    )
