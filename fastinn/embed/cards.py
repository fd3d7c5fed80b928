"""What a training recorded beside the model it made: the card, and the mark of a finished one."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastinn._saved import write_whole

_CARD = "card.json"


def is_made(folder: Path, made_of: Mapping[str, Any]) -> bool:
    """Tell whether ``folder`` holds a finished model made of what is asked for.

    Args:
        folder: Of a model.
        made_of: Model, data and settings, as its card has them.

    Raises:
        ValueError: If it holds a model made of something else; what differs is named.
    """
    if not (folder / _CARD).is_file():
        return False
    held = load_card(folder)
    for name, value in made_of.items():
        if held.get(name) != value:
            raise ValueError(
                f"{folder} holds another model: its {name} is {held.get(name)!r}, asked for is "
                f"{value!r}; give another folder"
            )
    return True


def save_card(folder: Path, card: Mapping[str, Any]) -> None:
    """Write the card, last of all: it marks the model as finished."""
    write_whole(folder / _CARD, (json.dumps(card, indent=2) + "\n").encode())


def load_card(folder: Path) -> dict[str, Any]:
    """Return what the training of a model recorded.

    Raises:
        FileNotFoundError: If the folder holds no finished model.
    """
    return json.loads((folder / _CARD).read_text())
