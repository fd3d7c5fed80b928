"""One pass over one split of a corpus: all that the comparison of many seeds needs of it."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

import fastinn
from fastinn import distributed
from fastinn._checkpoint import Interval, check_settings, rank_folder
from fastinn._progress import progress
from fastinn._types import Precision
from fastinn.embed.corpus import Split
from fastinn.embed.paired import Block, Stream, position_of
from fastinn.moments import Moments, Pairs, load_checkpoint, save_checkpoint
from fastinn.study._gpu import roomy_gpu
from fastinn.study._sample import Sample

View: TypeAlias = tuple[str, int]
Pair: TypeAlias = tuple[View, View]
Record: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Pass:
    """What one split of the corpus left behind, the same on every rank.

    Attributes:
        moments: Of all views, mispaired ones too if they were asked for.
        same_document: Share of the mispaired rows that meet their own document, because it is
            longer than the distance by which they are moved.
        rows: A bounded sample of the rows of some views, shape ``(n, d)`` each.
        keys: Document, position and token id of each sampled row, shape ``(n, 3)``.
        n_documents: Number of documents read.
    """

    moments: Moments
    same_document: float
    rows: dict[View, Tensor]
    keys: Tensor
    n_documents: int

    @property
    def documents(self) -> Tensor:
        """Document number of each sampled row, shape ``(n,)``."""
        return self.keys[:, 0]


def own_rows(split: Split) -> slice:
    """Return which sampled rows of a split this rank works on.

    Several ranks train networks together, each on its part of the rows; test rows are whole.
    """
    if split == "test":
        return slice(None)
    return slice(distributed.rank(), None, distributed.world_size())


def run_pass(
    stream: Stream,
    *,
    pairs: Pairs,
    sampled: Iterable[View] = (),
    max_rows: int = 0,
    precision: Precision = "high",
    mispaired: bool = False,
    storage: Path | None = None,
    label: str = "pass",
    checkpoint: Path | None = None,
    every: float = 60.0,
) -> Pass:
    """Read ``stream`` once.

    Under several ranks each reads its own stream, its shard of the text, and all get the result
    of the whole.

    Args:
        stream: Rows of all seeds over one split.
        pairs: Which views' products to accumulate, see :class:`fastinn.Moments`.
        sampled: Views whose rows are kept.
        max_rows: How many rows of them at most, the first ones.
        precision: Of the products; ``"exact"`` multiplies in float64.
        mispaired: Whether to accumulate mispaired rows for null bands; doubles the products.
        storage: Folder for the totals; ``None`` keeps them in memory.
        label: What the progress bar says.
        checkpoint: Folder of this pass alone, which every rank can reach. What a killed pass left
            there is gone on from; on a CPU the result is the same bit for bit.
        every: Seconds between two checkpoints at least; more where writing one takes long.

    Raises:
        ValueError: If the split holds no text, or the checkpoint is of a pass with other settings
            or damaged.
        ConnectionError: If another rank has ended or does not answer.
    """
    sample = Sample(tuple(sampled), max_rows)
    settings = _settings(stream, pairs, precision, mispaired, sample)
    distributed.all_equal(settings, "what is read")
    moments = Moments(
        stream.n_features, pairs=pairs, precision=precision, mispaired=mispaired, storage=storage
    )
    size = Moments.estimate(stream.n_features, pairs=pairs, mispaired=mispaired)
    reading = _Reading(moments, sample, size.n_bytes if storage is None else None)
    if checkpoint is None:
        reading.read(stream, label)
    else:
        _resumed(reading, stream, label, _Kept(checkpoint, settings, every, storage))
    return _joined(reading)


class _Reading:
    """How far a pass has come on this rank.

    Args:
        moments: See below, as for the next one.
        sample: Likewise.
        n_bytes: Bytes of the totals, which are kept on a GPU that has room for them; ``None``:
            they are in a file.

    Attributes:
        moments: Of the rows read.
        sample: The first of them.
        place: Where the stream goes on; ``None`` is the beginning.
        finished: Whether it has ended.
    """

    def __init__(self, moments: Moments, sample: Sample, n_bytes: int | None) -> None:
        self.moments, self.sample = moments, sample
        self._n_bytes = n_bytes
        self._device: torch.device | None = None
        self.place: Record | None = None
        self.finished = False
        self.n_same = self.n_documents = 0
        self._last = -1

    def read(self, stream: Stream, label: str, kept: "_Kept | None" = None) -> None:
        """Read on to the end."""
        start = None if self.place is None else position_of(self.place)
        bar = progress(stream.blocks(start), label, unit=" blocks")
        for block in bar:
            self._add(block)
            self.place = asdict(block.position)
            bar.set_postfix(waiting=f"{stream.stall_share:.0%}", refresh=False)
            if kept is not None and kept.interval.due():
                kept.save(self)
        if not self.moments.n_rows:
            n = distributed.world_size()
            where = f"rank {distributed.rank()} of {n} has" if n > 1 else f"{label}: there is"
            fewer = "start fewer ranks or " if n > 1 else ""
            raise ValueError(f"{where} no text to read; {fewer}give more documents")
        self.moments.to("cpu")
        self.finished = True

    def counters(self) -> Record:
        """Return what :meth:`go_on` needs besides moments and sample."""
        return {
            "place": self.place,
            "finished": self.finished,
            "n_same": self.n_same,
            "n_documents": self.n_documents,
            "last": self._last,
        }

    def go_on(self, moments: Moments, counters: Record) -> None:
        """Go back to where :meth:`counters` were taken."""
        self.moments = moments
        self.place, self.finished = counters["place"], counters["finished"]
        self.n_same, self.n_documents = counters["n_same"], counters["n_documents"]
        self._last = counters["last"]

    def _multiplied(self, rows: dict[View, Tensor]) -> dict[View, Tensor]:
        """Return rows where they are multiplied, in float64 if products are to be exact."""
        if self._device is None:
            held = sum(x.nbytes for x in rows.values())
            if self._n_bytes is None:
                self._device = torch.device("cpu")
            else:
                self._device = roomy_gpu(self._n_bytes + held)
        dtype = torch.float64 if self.moments.precision == "exact" else None
        return {view: x.to(self._device, dtype) for view, x in rows.items()}

    def _add(self, block: Block) -> None:
        self.moments.update(self._multiplied(block.rows))
        self.n_same += self.moments.n_meeting_themselves(block.documents)
        self.sample.add(block)
        numbers = block.documents.unique()
        self.n_documents += int((numbers > self._last).sum())
        self._last = int(numbers[-1])


class _Kept:
    """The checkpoint of one rank's reading, in a folder that all ranks share."""

    def __init__(self, folder: Path, settings: Record, every: float, storage: Path | None) -> None:
        self._folder = rank_folder(folder, distributed.rank(), distributed.world_size())
        self._file = self._folder / "pass.safetensors"
        self._settings, self._storage = settings, storage
        self.interval = Interval(every)

    def load(self, reading: _Reading) -> None:
        """Go on from the checkpoint, if there is one."""
        found = load_checkpoint(self._file, storage=self._storage)
        if found is None:
            return
        moments, place = found
        check_settings(self._file, place["settings"], self._settings)
        reading.go_on(moments, place["counters"])
        reading.sample.load(self._folder, place["sample"])

    def save(self, reading: _Reading) -> None:
        """Write how far the reading has come; the file of the moments is the last to change."""
        with self.interval.writing():
            place = {
                "settings": self._settings,
                "counters": reading.counters(),
                "sample": reading.sample.save(self._folder),
            }
            save_checkpoint(self._file, reading.moments, place)


def _resumed(reading: _Reading, stream: Stream, label: str, kept: _Kept) -> None:
    kept.load(reading)
    if not reading.finished:
        reading.read(stream, label, kept)
        kept.save(reading)


def _joined(reading: _Reading) -> Pass:
    """Join what all ranks have read; what they keep for a restart is their own part."""
    counts = torch.tensor([reading.n_same, reading.n_documents])
    n_same, n_documents = distributed.total(counts, "counting rows").tolist()
    with distributed.meeting("joining the moments of all ranks"):
        moments = reading.moments.all_reduce()
    rows, keys = reading.sample.joined()
    return Pass(moments, n_same / moments.n_rows, rows, keys, n_documents)


def _settings(
    stream: Stream, pairs: Pairs, precision: Precision, mispaired: bool, sample: Sample
) -> Record:
    """Return what two runs must share for one to go on where the other was killed."""
    return {
        "views": [[*view, width] for view, width in stream.n_features.items()],
        "pairs": pairs,
        "precision": precision,
        "mispaired": mispaired,
        "sampled with keys": [list(view) for view in sample.views],
        "max_rows": sample.max_rows,
        "fastinn": fastinn.__version__,
        **stream.identity(),
    }
