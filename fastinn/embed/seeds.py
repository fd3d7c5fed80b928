"""The mini BERT seeds that ship with the package."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any


def shipped_seeds() -> dict[str, Path]:
    """Return the folder of each shipped seed by its name, in order."""
    folder = Path(str(files("fastinn") / "assets" / "seeds"))
    return {path.parent.name: path.parent for path in sorted(folder.glob("*/card.json"))}


def card(folder: Path) -> dict[str, Any]:
    """Return what a seed's training recorded of it; see :func:`fastinn.embed.pretrain.pretrain`.

    Raises:
        FileNotFoundError: If the folder holds no finished seed.
    """
    return json.loads((folder / "card.json").read_text())
