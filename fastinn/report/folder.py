"""The folder of a run: claimed before work starts, filled as parts are finished."""

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from fastinn import distributed
from fastinn._saved import write_whole
from fastinn.report.html import write_report
from fastinn.report.tables import Results

# Whichever of them a folder holds, it is of a run that has ended.
_RESULTS = ("results.json", "aligner.json", "moments.json")

# Left where it is: of two that wait for it, one would lock a file that the other has removed.
_LOCK = ".lock"


class RunFolder:
    """Where a command leaves its results. Under several ranks, rank 0 writes them.

    A run that was killed has left checkpoints there; the same command goes on from them. As a
    context manager it keeps other processes out to the end.

    Args:
        path: The folder, made if it is not there.
        overwrite: Whether a run that it holds, finished or not, may be replaced.

    Attributes:
        path: The folder.
        checkpoints: Folder in it for checkpoints, which is gone when the run is finished.

    Raises:
        FileExistsError: If it holds another run.
        ValueError: If another process writes to it.
        OSError: If it cannot be written.
    """

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        self.path, self.checkpoints = path, path / "checkpoints"
        self._dropped = path / "checkpoints.dropped"
        with ExitStack() as held:
            if distributed.is_main():
                make_writable(self.path)
                held.enter_context(_locked(self.path))
                self._claim(overwrite)
            distributed.broadcast("claimed")  # nobody reads checkpoints that are about to go
            self._held = held.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def _claim(self, overwrite: bool) -> None:
        shutil.rmtree(self._dropped, ignore_errors=True)
        if overwrite:
            shutil.rmtree(self.checkpoints, ignore_errors=True)
        elif self._holds_results() and not self.checkpoints.exists():
            raise FileExistsError(
                f"{self.path} holds another run; give another folder with --out, or --overwrite"
            )

    def _holds_results(self) -> bool:
        return any((self.path / name).exists() for name in _RESULTS)

    def save(self, results: Results) -> None:
        """Write ``results.json``, the whole of it or nothing."""
        self.write("results.json", results)

    def report(self, results: Results) -> Path:
        """Write ``report.html`` beside the results."""
        self.save(results)
        page = self.path / "report.html"
        return write_report(results, page) if distributed.is_main() else page

    def write(self, name: str, content: Any) -> None:
        """Write ``content`` as JSON."""
        if distributed.is_main():
            write_whole(self.path / name, json.dumps(content, indent=1).encode())

    def finish(self) -> None:
        """Let go of the checkpoints, on all ranks: there is nothing left to go on with."""
        distributed.gather("done")  # nobody writes the last of them any more
        if distributed.is_main() and self.checkpoints.exists():
            # At once: a run must not go on with what a kill leaves of them.
            self.checkpoints.rename(self._dropped)
            shutil.rmtree(self._dropped, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder; a killed one does so no longer."""
    with (folder / _LOCK).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another process writes to {folder}; wait for it to end, or give another folder "
                "with --out"
            ) from None
        except OSError as error:  # of a file system without locks; the call does not know the name
            error.filename = file.name
            raise
        yield


def make_writable(folder: Path) -> None:
    """Make a folder, and find out before the work whether anything can be written there.

    Raises:
        OSError: If not.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tried = folder / f".writable-{uuid4().hex}"  # several ranks may try at the same time
        write_whole(tried, b"")
        tried.unlink()
    except OSError as error:
        raise OSError(
            f"{folder} cannot be made or written ({error.strerror or error}); give another "
            "folder with --out"
        ) from error
