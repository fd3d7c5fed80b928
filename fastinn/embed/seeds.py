"""The mini BERT seeds that ship with the package."""

from importlib.resources import files
from pathlib import Path


def shipped_seeds() -> dict[str, Path]:
    """Return the folder of each shipped seed by its name, in order."""
    folder = Path(str(files("fastinn") / "assets" / "seeds"))
    return {path.parent.name: path.parent for path in sorted(folder.glob("*/card.json"))}
