"""What checkpoints have in common: when one is due, and whose it is."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastinn._saved import remove_unfinished

# Checkpoints may take this share of the time.
_SHARE = 0.03


class Interval:
    """Says when a checkpoint is due, so that writing them takes at most 3 % of the time.

    Args:
        seconds: Between two checkpoints at least.
        clock: Seconds since some moment.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._wait, self._last = seconds, clock()

    def due(self) -> bool:
        """Whether it is time for another one."""
        return self._clock() - self._last >= self._wait

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Measure what a checkpoint takes; the longer, the later comes the next."""
        start = self._clock()
        yield
        self._last = self._clock()
        self._wait = max(self._seconds, (self._last - start) * (1 - _SHARE) / _SHARE)


def check_settings(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` that names the first setting in which a checkpoint is another run's.

    Args:
        path: The checkpoint.
        found: Its settings, as JSON gave them back.
        wanted: Those of the run that would resume from it.
    """
    here = json.loads(json.dumps(wanted))
    for name in [*here, *(found.keys() - here.keys())]:
        if found.get(name) != here.get(name):
            raise ValueError(
                f"{path} was made with {name}={_short(found.get(name))} and this run has "
                f"{name}={_short(here.get(name))}; resume with the same settings, or give another "
                "folder (commands: or --overwrite)"
            )


def rank_folder(folder: Path, rank: int, world_size: int) -> Path:
    """Return the folder of one rank's checkpoints, made if need be and free of unfinished files.

    Raises:
        ValueError: If ``folder`` holds checkpoints of another number of ranks.
    """
    own = folder / f"rank-{rank}-of-{world_size}"
    others = [f for f in folder.glob("rank-*-of-*") if not f.name.endswith(f"-of-{world_size}")]
    if others:
        n = others[0].name.rpartition("-")[2]
        raise ValueError(
            f"{folder} holds checkpoints of {n} ranks and this run has {world_size}; resume with "
            f"{n} ranks, or give another folder"
        )
    own.mkdir(parents=True, exist_ok=True)
    remove_unfinished(own)
    return own


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
