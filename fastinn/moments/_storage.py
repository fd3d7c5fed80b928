"""Where the totals are kept, how many bytes they take, and whether there is room for them."""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastinn._memory import free_bytes


@dataclass(frozen=True)
class MomentsSize:
    """What moments take, known before there are any rows.

    Attributes:
        n_covariances: Number of covariance matrices, of two views each or of one.
        n_bytes: Bytes of their float64 totals.
    """

    n_covariances: int
    n_bytes: int

    def __add__(self, other: "MomentsSize") -> "MomentsSize":
        return MomentsSize(self.n_covariances + other.n_covariances, self.n_bytes + other.n_bytes)

    def __str__(self) -> str:
        return f"{self.n_covariances:,} covariances, {self.n_bytes / 1e9:,.1f} GB"

    def check(self, storage: str | os.PathLike[str] | None = None) -> None:
        """Raise ``ValueError`` if they fit neither into memory nor, if given, into ``storage``."""
        _check_folder(storage)
        free = free_bytes() if storage is None else shutil.disk_usage(storage).free
        if self.n_bytes <= free:
            return
        where, remedy = ("this machine has", "give a folder for them with storage, or ask for")
        if storage is not None:
            where, remedy = (f"{storage} has", "give another folder, or ask for")
        raise ValueError(
            f"the moments need {self.n_bytes / 1e9:,.1f} GB and {where} {free / 1e9:,.1f} GB free; "
            f"{remedy} fewer views or pairs"
        )


def zeros(n: int, device: torch.device, storage: str | os.PathLike[str] | None) -> Tensor:
    """Return ``n`` float64 zeros on ``device``, or in a file in the folder ``storage``.

    The file has no name: it takes room until nobody refers to the tensor, and none after a crash.

    Raises:
        ValueError: If ``storage`` is no folder.
    """
    _check_folder(storage)
    if storage is None:
        return torch.zeros(n, dtype=torch.float64, device=device)
    with tempfile.TemporaryFile(dir=Path(storage)) as file:
        file.truncate(n * 8)
        return torch.from_numpy(np.memmap(file, dtype=np.float64, mode="r+", shape=(n,)))


def _check_folder(storage: str | os.PathLike[str] | None) -> None:
    if storage is not None and not Path(storage).is_dir():
        raise ValueError(f"storage {storage} is no folder; make it, or give another (--storage)")
