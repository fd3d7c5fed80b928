"""The folder of a run: claimed before work starts, filled as parts are finished."""

import json
from pathlib import Path
from typing import Any

from fastinn._saved import write_whole
from fastinn.report.html import write_report
from fastinn.report.tables import Results


class RunFolder:
    """Where a command leaves its results.

    Args:
        path: The folder, made if it is not there.
        overwrite: Whether a run that it holds may be replaced.
        mark: File that tells that it holds one.

    Raises:
        FileExistsError: If it holds another run.
        OSError: If it cannot be written.
    """

    def __init__(self, path: Path, *, overwrite: bool, mark: str = "results.json") -> None:
        if (path / mark).exists() and not overwrite:
            raise FileExistsError(
                f"{path} holds another run; give another folder with --out, or --overwrite"
            )
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        write_whole(path / ".writable", b"")  # a full or read-only disk shows before the work
        (path / ".writable").unlink()

    def save(self, results: Results) -> None:
        """Write ``results.json``, the whole of it or nothing."""
        self.write("results.json", results)

    def report(self, results: Results) -> Path:
        """Write ``report.html`` beside the results."""
        self.save(results)
        return write_report(results, self.path / "report.html")

    def write(self, name: str, content: Any) -> None:
        """Write ``content`` as JSON."""
        write_whole(self.path / name, json.dumps(content, indent=1).encode())
