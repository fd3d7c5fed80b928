"""Where products in 16 bits are faster than in 32, and the context that asks for them."""

from contextlib import AbstractContextManager, nullcontext

import torch

from fastinn._types import Precision


def multiplies_bfloat16(device: torch.device) -> bool:
    """Say whether ``device`` is a GPU or a CPU that multiplies bfloat16 (AVX512_BF16, AMX).

    With neither, bfloat16 made encoding take 1.6 and training 2.6 times as long as float32.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return True
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def products(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which the linear layers of torch round as ``precision`` says.

    ``"fast"`` multiplies in bfloat16 and accumulates in float32 where that is faster. ``"exact"``
    and ``"high"`` multiply in the dtype of the rows; float64 rows are never rounded.
    """
    if precision == "fast" and multiplies_bfloat16(device):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()
