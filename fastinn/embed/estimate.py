"""What reading a corpus takes, told from its beginning before the long run starts."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

import torch

from fastinn.embed import memory
from fastinn.embed.corpus import Corpus, Document
from fastinn.embed.source import Source
from fastinn.embed.store.layout import DTYPES
from fastinn.embed.tokens import Window

_COUNTED_SECONDS = 2.0
"""How long documents are counted; a longer corpus is extrapolated."""

_TRIED_DOCUMENTS = 256
_TRIED_TOKENS = 2_048


@dataclass(frozen=True)
class Workload:
    """What encoding a corpus takes.

    Attributes:
        n_tokens: Tokens of the corpus, about.
        counted: Share of the documents that were counted, the rest is extrapolated; ``None`` if
            how many there are is not known, and ``n_tokens`` is of those that were.
        seconds: Time in which one process encodes them with every seed, about.
        row_bytes: Bytes of one token's float32 states in all views.
        model_bytes: Bytes of all models together.
    """

    n_tokens: int
    counted: float | None
    seconds: float
    row_bytes: int
    model_bytes: int

    def stored_bytes(self, dtype: str) -> int:
        """Return what the states take in stores of a dtype."""
        return self.n_tokens * self.row_bytes * DTYPES[dtype].itemsize // 4

    def __str__(self) -> str:
        about = "at least " if self.counted is None else "" if self.counted == 1 else "about "
        return (
            f"{about}{self.n_tokens:,} tokens, {duration(self.seconds)} of encoding in one "
            f"process, models of {self.model_bytes / 1e9:,.2f} GB"
        )


def workload(encoders: Mapping[str, Source], corpus: Corpus) -> Workload:
    """Count the text for two seconds, and encode its first tokens with every seed.

    Args:
        encoders: Name and encoder of each seed.
        corpus: Text.

    Raises:
        ValueError: If there is no text.
    """
    characters, counted = _count(corpus)
    documents = list(islice(corpus, _TRIED_DOCUMENTS))
    tried = {name: _windows(encoder, documents) for name, encoder in encoders.items()}
    first, n_first = next(iter(tried.values()))
    n_tokens = round(characters * n_first / sum(len(d.text) for d in documents))
    seconds = sum(_seconds(encoder, tried[name][0]) for name, encoder in encoders.items())
    return Workload(
        n_tokens,
        counted,
        seconds * n_tokens / max(1, sum(window.n_tokens for window in first)),
        sum(encoder.bytes_per_row for encoder in encoders.values()),
        sum(encoder.model.nbytes for encoder in encoders.values()),
    )


def check_memory(row_bytes: int, tokens_per_block: int) -> None:
    """Raise ``ValueError`` if one block of rows takes more than the free memory.

    Args:
        row_bytes: Bytes of one token's states in all views.
        tokens_per_block: Tokens of a block.
    """
    free, wanted = memory.available(torch.device("cpu")), row_bytes * tokens_per_block
    if wanted > free:
        fits = max(1, free // (2 * row_bytes))
        raise ValueError(
            f"a block of {tokens_per_block:,} tokens takes {wanted / 1e9:,.1f} GB and "
            f"{free / 1e9:,.1f} GB are free; read fewer layers or models at once, or give "
            f"--tokens-per-block {fits}"
        )


def duration(seconds: float) -> str:
    """Say about how long something takes."""
    for size, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"about {seconds / size:,.0f} {name}"
    return f"about {seconds:,.0f} seconds"


def _count(corpus: Corpus) -> tuple[float, float | None]:
    """Return the characters of the corpus, and the share of it that was read to know."""
    characters, begun = 0, math.inf
    for document in corpus:
        begun = min(begun, time.perf_counter())  # some corpora are made when they are first read
        characters += len(document.text)
        if time.perf_counter() - begun > _COUNTED_SECONDS:
            share = corpus.share_before(document.end)
            return (characters, None) if share is None else (characters / share, share)
    return characters, 1.0


def _windows(encoder: Source, documents: list[Document]) -> tuple[list[Window], int]:
    """Return the windows of the first tokens, and how many tokens there are in all."""
    tried, n_tokens = [], 0
    for window in encoder.tokens.windows(documents):
        if n_tokens < _TRIED_TOKENS:
            tried.append(window)
        n_tokens += window.n_tokens
    return tried, n_tokens


def _seconds(encoder: Source, windows: list[Window]) -> float:
    """Time one run of the model; the run before loads its weights and warms it up."""
    encoder.encode_windows(windows[:1])
    begun = time.perf_counter()
    encoder.encode_windows(windows)
    return time.perf_counter() - begun
