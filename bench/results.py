"""The results of one machine as a JSON file that grows figure by figure."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"

# What tells two figures of one file apart.
_IDENTITY = ("bench", "case", "precision", "backend")


def location(name: str) -> Path:
    """Return the file of ``--results NAME``: a machine's name, or any path that ends in .json."""
    return Path(name) if name.endswith(".json") else FOLDER / f"{name}.json"


class Results:
    """Writes after every figure, so that a run which is cut short keeps what it measured.

    Figures that the file already holds stay if they are of the same machine, versions and commit,
    so that the suite can be run in parts; otherwise the file starts anew.

    Args:
        path: The file; ``None`` writes nothing.
        machine: What :func:`machine.description` returned.
    """

    def __init__(self, path: Path | None, machine: dict[str, Any]) -> None:
        self.path, self.machine = path, machine
        self.figures = _figures_of(path, machine)

    def add(self, figure: dict[str, Any]) -> None:
        """Take in one figure, in the place of an older one of the same case."""
        self.figures = [old for old in self.figures if identity(old) != identity(figure)]
        self.figures.append(figure)
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            content = {"machine": self.machine, "figures": self.figures}
            self.path.write_text(json.dumps(content, indent=1) + "\n")


def identity(figure: dict[str, Any]) -> tuple[str, ...]:
    """Return what tells a figure from the others of its file."""
    return tuple(figure[key] for key in _IDENTITY)


def read_all(folder: Path = FOLDER) -> dict[str, dict[str, Any]]:
    """Return the content of every file of results in ``folder``, by machine."""
    contents = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    return {name: content for name, content in contents.items() if "figures" in content}


def _figures_of(path: Path | None, machine: dict[str, Any]) -> list[dict[str, Any]]:
    if path is None or not path.exists():
        return []
    content = json.loads(path.read_text())
    return content["figures"] if content["machine"] == machine else []
