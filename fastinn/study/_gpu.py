"""Which parts of a study go to the GPU, if there is one."""

import torch
from torch import Tensor


def on_gpu(rows: Tensor) -> Tensor:
    """Return rows on the GPU, if there is one: networks train where their rows are."""
    return rows.cuda() if torch.cuda.is_available() else rows


def roomy_gpu(n_bytes: int) -> torch.device:
    """Return the GPU if there is one and so many bytes take half of what is free there at most."""
    roomy = torch.cuda.is_available() and 2 * n_bytes <= torch.cuda.mem_get_info()[0]
    return torch.device("cuda" if roomy else "cpu")
