"""Moments and the place they have reached, in one file, so that a pass can go on after a kill."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastinn.moments._moments import Moments

_PLACE = "place"


def save_checkpoint(path: Path, moments: Moments, place: Mapping[str, Any]) -> None:
    """Write both so that a reader finds both of one moment, or both of an earlier one.

    Args:
        path: The file.
        moments: What was accumulated. More rows make of it, once it is read again, what they
            would have made of it here, bit for bit on a CPU.
        place: Where to go on; anything that JSON can hold.
    """
    moments.save_with(path, {_PLACE: json.dumps(place)})


def load_checkpoint(
    path: Path, *, storage: str | os.PathLike[str] | None = None
) -> tuple[Moments, dict[str, Any]] | None:
    """Read what :func:`save_checkpoint` wrote, or return ``None`` where nothing was.

    Args:
        path: The file.
        storage: Folder for the totals, see :class:`fastinn.Moments`.

    Raises:
        ValueError: If the file is damaged or no checkpoint.
    """
    if not path.exists():
        return None
    moments, metadata = Moments.load_with(path, storage=storage)
    if _PLACE not in metadata:
        raise ValueError(f"{path} is no checkpoint but saved moments; give another folder")
    return moments, json.loads(metadata[_PLACE])
