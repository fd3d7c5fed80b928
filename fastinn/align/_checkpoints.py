"""Checkpoints of a training run: what a run that was killed goes on from."""

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastinn import distributed
from fastinn._checkpoint import Interval, check_settings, rank_folder
from fastinn._saved import load_tensors, save_tensors
from fastinn.align._sources import Pair

_EVERY_SECONDS = 10.0
_RECORD = "training"

# Ranks save at the same steps, but one may be killed before it has: the others need the one before.
_HELD = 2


@dataclass(frozen=True)
class Snapshot:
    """A training run at one step: its tensors by name, and whatever JSON can hold."""

    tensors: dict[str, Tensor]
    record: dict[str, Any]

    def part(self, name: str) -> dict[str, Tensor]:
        """Return the tensors whose names begin with ``name.``, under the rest of their names."""
        start = f"{name}."
        return {k.removeprefix(start): t for k, t in self.tensors.items() if k.startswith(start)}


def named(**parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo :meth:`Snapshot.part` for several parts at once."""
    return {f"{part}.{k}": t for part, tensors in parts.items() for k, t in tensors.items()}


class Checkpoints:
    """The checkpoints of one rank in a folder that all ranks share.

    Args:
        folder: Of this training run alone.
        settings: What a run must have in common with one that was killed to go on from it.

    Attributes:
        found: The last checkpoint that every rank has, or ``None``, as it is once it was taken.
        interval: When the next one is due.

    Raises:
        ValueError: If it is damaged or of a run with other settings.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._folder = rank_folder(folder, distributed.rank(), distributed.world_size())
        self._settings = settings
        self.interval = Interval(_EVERY_SECONDS)
        self.found = self._load()

    def save(self, step: int, snapshot: Snapshot) -> None:
        """Write a checkpoint, then drop the oldest."""
        with self.interval.writing():
            record = {"settings": self._settings, **snapshot.record}
            save_tensors(self._file(step), snapshot.tensors, {_RECORD: json.dumps(record)})
            for old in sorted(self._steps())[:-_HELD]:
                self._file(old).unlink()

    def validation(self, device: torch.device) -> Pair | None:
        """Return the rows that the checkpoint was validated on, if there is one."""
        if self.found is None:
            return None
        held = self.found.part("validation")
        return held["x"].to(device), held["y"].to(device)

    def restore(self, module: nn.Module, validation: Pair) -> None:
        """Give ``module`` the parameters of the checkpoint, if there is one.

        Raises:
            ValueError: If it was validated on other rows.
        """
        held = self.validation(validation[0].device)
        if self.found is None or held is None:
            return
        if not all(map(torch.equal, held, validation)):
            raise ValueError(
                f"the checkpoint in {self._folder} was made with other rows; resume with the same "
                "rows, or give another folder"
            )
        module.load_state_dict(self.found.part("module"))

    def _load(self) -> Snapshot | None:
        steps = [set(steps) for steps in distributed.gather(self._steps())]
        common = set.intersection(*steps)
        found = None
        if common:
            with distributed.together():
                found = self._read(self._file(max(common)))
        elif any(steps) and distributed.is_main():
            warnings.warn(
                f"ranks have no checkpoint in common below {self._folder.parent}; training begins "
                "anew",
                stacklevel=2,
            )
        self._drop_above(max(common, default=-1))
        return found

    def _drop_above(self, last: int) -> None:
        """Drop what another rank lacks: kept, it would push out one that all have."""
        for step in self._steps():
            if step > last:
                self._file(step).unlink()

    def _read(self, path: Path) -> Snapshot:
        tensors, metadata = load_tensors(path)
        if _RECORD not in metadata:
            raise ValueError(f"{path} is no checkpoint of a training run; give another folder")
        record = json.loads(metadata[_RECORD])
        check_settings(path, record.pop("settings"), self._settings)
        return Snapshot(tensors, record)

    def _steps(self) -> list[int]:
        return [
            int(file.stem.removeprefix("step-")) for file in self._folder.glob("step-*.safetensors")
        ]

    def _file(self, step: int) -> Path:
        return self._folder / f"step-{step:09}.safetensors"


def opened(
    folder: str | PathLike[str] | None,
    settings: Mapping[str, Any],
    of_rank: Callable[[], Mapping[str, Any]],
) -> Checkpoints | None:
    """Check that all ranks fit the same, and open the checkpoints if there are to be any.

    Args:
        folder: Where they are, if there are to be any.
        settings: What ranks and runs must have in common.
        of_rank: Returns what runs must have in common and ranks need not.

    Raises:
        ValueError: If ranks differ, or as :class:`Checkpoints`.
    """
    distributed.all_equal(settings, "what is fitted")
    return None if folder is None else Checkpoints(Path(folder), {**settings, **of_rank()})
