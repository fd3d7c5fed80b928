"""Where the networks of a study train."""

import torch
from torch import Tensor


def on_gpu(rows: Tensor) -> Tensor:
    """Return rows on the GPU, if there is one: networks train where their rows are."""
    return rows.cuda() if torch.cuda.is_available() else rows
