"""Windows packed into one row without padding, attending within their own bounds only.

Positions that begin anew do not keep windows apart: a model given nothing else lets every window
see all others. The bounds are handed to the attention function itself, which refuses to run
without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from fastinn.embed.batches import Batch, on_device
from fastinn.embed.tokens import Window

# What flash attention asks for: only scaled_dot_product_attention does without it elsewhere.
_CAPABILITY = (8, 0)
_HEAD_WIDTH, _WIDEST_HEAD = 8, 256

_FAMILIES = {"bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta"}


def can_pack(
    config: transformers.PreTrainedConfig, device: torch.device, dtype: torch.dtype
) -> bool:
    """Tell whether windows may be packed: in 16 bits on a GPU, and in families tested for it."""
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return False
    head = config.hidden_size // config.num_attention_heads
    return (
        config.model_type in _FAMILIES
        and head % _HEAD_WIDTH == 0
        and head <= _WIDEST_HEAD
        and torch.cuda.get_device_capability(device) >= _CAPABILITY
    )


def packed_attention() -> str:
    """Give transformers the attention that keeps to bounds, and return its name there."""
    name = "fastinn_packed"
    transformers.AttentionInterface.register(name, _attention)
    return name


def packed(windows: Sequence[Window], first_position: int, device: torch.device) -> Batch:
    """Put ``windows`` one behind the other in a single row.

    Args:
        windows: Windows in any order.
        first_position: Index that the model's family gives to the first position.
        device: Where the model is.
    """
    lengths = torch.tensor([len(window.ids) for window in windows])
    bounds = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    positions = torch.cat([torch.arange(n) for n in lengths.tolist()]) + first_position
    inputs = {
        "input_ids": torch.cat([window.ids for window in windows])[None],
        "position_ids": positions[None],
        "cu_seq_lens_q": bounds.int(),
    }
    longest = {"max_length_q": int(lengths.max())}
    return Batch({**on_device(device, inputs), **longest}, bounds[:-1].tolist())


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int = 0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend within bounds; ``query``, ``key`` and ``value`` have shape ``(1, heads, n, d)``.

    Scores are divided by the square root of ``d``, as all the families do.
    """
    if cu_seq_lens_q is None:
        raise ValueError(f"{type(module).__name__} was not told where packed windows end")
    if query.is_cuda:
        from torch.nn.attention.varlen import varlen_attn  # torch's compiler comes with it

        q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
        bounds, longest = cu_seq_lens_q, max_length_q
        attended = varlen_attn(q, k, v, bounds, bounds, longest, longest)
        assert isinstance(attended, Tensor)  # a pair only if more was asked for
        return attended[None], None
    places = [slice(*bound) for bound in pairwise(cu_seq_lens_q.tolist())]
    parts = [
        scaled_dot_product_attention(query[:, :, at], key[:, :, at], value[:, :, at])
        for at in places
    ]
    return torch.cat(parts, dim=2).transpose(1, 2), None
