"""The first rows of some views: kept while the stream passes by, written bit by bit, joined."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastinn import distributed
from fastinn._saved import load_tensors, save_tensors
from fastinn.embed.stream import Block

_KEYS = "keys"


class Sample:
    """The first rows of some views, up to a number.

    Args:
        views: Views whose rows are kept.
        max_rows: How many rows at most.
    """

    def __init__(self, views: tuple[tuple[str, int], ...], max_rows: int) -> None:
        self.views, self.max_rows = views, max_rows
        self._held: list[dict[str, Tensor]] = []
        self._written = 0
        self._parts: list[int] = []  # rows of each

    def add(self, block: Block) -> None:
        """Take as many rows as there is room for."""
        room = self.max_rows - sum(len(part[_KEYS]) for part in self._held)
        if room <= 0 and self._held:
            return
        # A copy, so that a block of which a few rows are kept does not stay in memory.
        rows = {_name(i): block.rows[view][:room].clone() for i, view in enumerate(self.views)}
        self._held.append({**rows, _KEYS: block.keys[:room].clone()})

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the rows that came since the last time to a file of their own.

        Returns:
            What :meth:`load` needs, as JSON can hold it.
        """
        if self._written < len(self._held):
            new = _concatenated(self._held[self._written :])
            part = len(self._parts)
            save_tensors(_file(folder, part), new, {"part": json.dumps(part)})
            self._written = len(self._held)
            self._parts.append(len(new[_KEYS]))
        return {"rows of parts": list(self._parts)}

    def load(self, folder: Path, record: dict[str, Any]) -> None:
        """Go back to where :meth:`save` returned ``record``.

        Raises:
            ValueError: If a part is damaged or has other rows than ``record`` says.
        """
        self._parts = list(record["rows of parts"])
        self._held = [_part(_file(folder, n), rows) for n, rows in enumerate(self._parts)]
        self._written = len(self._held)

    def joined(self) -> tuple[dict[tuple[str, int], Tensor], Tensor]:
        """Return the first rows of all ranks in the order of the documents, and their keys."""
        own = _concatenated(self._held)
        if distributed.world_size() > 1:
            own = self._of_all_ranks(own)
        return {view: own[_name(i)] for i, view in enumerate(self.views)}, own[_KEYS]

    def _of_all_ranks(self, own: dict[str, Tensor]) -> dict[str, Tensor]:
        """Exchange the rows that are among the first of all; documents ascend on every rank."""
        numbers = distributed.gather_rows(own[_KEYS][:, 0].contiguous())
        owner = torch.arange(len(numbers)).repeat_interleave(torch.tensor([*map(len, numbers)]))
        first = torch.cat(numbers).argsort(stable=True)[: self.max_rows]
        n_own = int((owner[first.cpu()] == distributed.rank()).sum())
        joined = {
            name: torch.cat(distributed.gather_rows(rows[:n_own])) for name, rows in own.items()
        }
        order = joined[_KEYS][:, 0].argsort(stable=True)
        return {name: rows[order] for name, rows in joined.items()}


def _concatenated(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _part(path: Path, n_rows: int) -> dict[str, Tensor]:
    part, _ = load_tensors(path)
    if len(part[_KEYS]) != n_rows:
        raise ValueError(
            f"{path} has {len(part[_KEYS]):,} rows and its checkpoint says {n_rows:,}: it is of "
            "another run; give another folder (commands: or --overwrite)"
        )
    return part


def _name(view: int) -> str:
    return f"rows.{view}"


def _file(folder: Path, part: int) -> Path:
    return folder / f"sample-{part:05}.safetensors"
