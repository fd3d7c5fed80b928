"""Rows of several views side by side."""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor


class Joined:
    """Joins rows in memory that is kept for the next block.

    On the CPU the system hands out large memory page by page, which takes longer than the copy.
    """

    def __init__(self) -> None:
        self._memory = torch.empty(0)

    def __call__(self, rows: Sequence[Tensor]) -> Tensor:
        """Return rows, shape ``(n, d)`` each, as one matrix, which the next call overwrites.

        Those of one view are given back as they are.
        """
        if len(rows) == 1:
            return rows[0]
        dtype = reduce(torch.promote_types, (x.dtype for x in rows))
        n, width = len(rows[0]), sum(x.shape[1] for x in rows)
        if self._memory.dtype != dtype or len(self._memory) < n * width:
            self._memory = rows[0].new_empty(n * width, dtype=dtype)
        return torch.cat(list(rows), dim=1, out=self._memory[: n * width].view(n, width))
