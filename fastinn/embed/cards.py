"""What a training records beside the model it makes: its card, and before it is done a mark."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastinn._saved import write_whole

_CARD = "card.json"
_MARK = "card.unfinished"


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


def check_free(folder: Path) -> None:
    """Raise ``ValueError`` if ``folder`` holds a model, unless it is one that a training began."""
    if (folder / "config.json").exists() and not (folder / _MARK).exists():
        raise ValueError(
            f"{folder} holds a model that no training here has made and that would be replaced; "
            "give another folder, or remove it"
        )


def begin(folder: Path) -> None:
    """Mark the model that is to be written into ``folder`` as one that may be replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / _MARK, b"")


def save_card(folder: Path, card: Mapping[str, Any]) -> None:
    """Write the card, last of all: it marks the model as finished."""
    write_whole(folder / _CARD, (json.dumps(card, indent=2) + "\n").encode())
    (folder / _MARK).unlink(missing_ok=True)


def load_card(folder: Path) -> dict[str, Any]:
    """Return what the training of a model recorded.

    Raises:
        FileNotFoundError: If the folder holds no finished model.
    """
    return json.loads((folder / _CARD).read_text())
