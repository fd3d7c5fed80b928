"""Finished parts of a study: divided among ranks, and kept for a run that goes on after a kill."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fastinn import distributed
from fastinn._checkpoint import check_settings
from fastinn._saved import load_tensors, save_tensors
from fastinn.study.records import Record, Results, restored

_FILE, _WORK = "part.safetensors", "work"
_RECORD = "part"


@dataclass(frozen=True)
class Part:
    """One part of the results, and the folder in which it comes about.

    Attributes:
        folder: Of this part alone; ``None`` keeps nothing.
        settings: What a run must have in common with one that was killed to take over its parts.
    """

    folder: Path | None
    settings: Record

    def found(self) -> Results | None:
        """Return the part if it was kept.

        Raises:
            ValueError: If it is damaged or of a run with other settings.
        """
        if self.folder is None or not self.is_kept():
            return None
        path = self.folder / _FILE
        _, metadata = load_tensors(path)
        if _RECORD not in metadata:
            raise ValueError(f"{path} is no part of results; give another folder")
        record = json.loads(metadata[_RECORD])
        check_settings(path, record["settings"], self.settings)
        return restored(record["results"])

    def is_kept(self) -> bool:
        """Whether there is something to find."""
        return self.folder is not None and (self.folder / _FILE).exists()

    def keep(self, results: Results) -> Results:
        """Write the part, from one rank, whole or not at all, and return it."""
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            record = {"settings": self.settings, "results": results}
            # No tensors: it is the digest that is wanted.
            save_tensors(self.folder / _FILE, {}, {_RECORD: json.dumps(record)})
        return results

    def finish(self, results: Results) -> Results:
        """Keep the part of rank 0 when no rank works at it any more, and let go of its work."""
        distributed.gather("done")
        if distributed.is_main():
            self.keep(results)
            if self.folder is not None:
                shutil.rmtree(self.folder / _WORK, ignore_errors=True)
        return results

    def lasting(self, name: str) -> Path | None:
        """Return a folder for what is needed besides the part when it is finished."""
        return None if self.folder is None else self.folder / name

    def work(self, name: str) -> Path | None:
        """Return a folder for what is gone on with after a kill, and needed no more after that."""
        return None if self.folder is None else self.folder / _WORK / name


@dataclass(frozen=True)
class Parts:
    """Numbered parts of the results of one run, in a folder that all ranks share.

    Attributes:
        folder: Of these parts alone; ``None`` keeps nothing.
        settings: See :class:`Part`.
    """

    folder: Path | None = None
    settings: Record = field(default_factory=dict)

    def claim(self) -> None:
        """Check, before anything is made, that what is kept is of a run with these settings.

        Raises:
            ValueError: If it is not, or ranks have other settings than rank 0.
        """
        distributed.all_equal(self.settings, "what is compared")
        if distributed.is_main():
            claim = Part(None if self.folder is None else self.folder / "run", self.settings)
            if claim.found() is None:
                claim.keep({})
        distributed.broadcast("claimed")

    def of(self, name: str) -> "Parts":
        """Return parts of another kind, in a folder of their own."""
        return Parts(None if self.folder is None else self.folder / name, self.settings)

    def __getitem__(self, number: int) -> Part:
        """Return one of them."""
        return Part(None if self.folder is None else self.folder / f"{number:06}", self.settings)

    def kept(self, n: int) -> list[bool]:
        """Return which of ``n`` parts rank 0 has: those that all ranks need not make together."""
        return distributed.broadcast([self[number].is_kept() for number in range(n)])

    def divided(self, n: int, make: Callable[[int], Results]) -> Iterator[Results]:
        """Yield all of ``n`` parts in order on every rank; each is made by one, unless it is kept.

        Args:
            n: How many.
            make: Makes a part from its number, with no help of other ranks.
        """
        for first in range(0, n, distributed.world_size()):
            number = first + distributed.rank()
            own = self._made(number, make) if number < n else None
            yield from (part for part in _of_all_ranks(own) if part is not None)

    def _made(self, number: int, make: Callable[[int], Results]) -> Results:
        found = self[number].found()
        return self[number].keep(make(number)) if found is None else found


def _of_all_ranks(part: Results | None) -> list[Results | None]:
    if distributed.world_size() == 1:
        return [part]
    return [None if found is None else restored(found) for found in distributed.gather(part)]
