"""What reading a corpus takes, told from its beginning before the long run starts."""

import math
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import islice

import torch

from fastinn.embed import memory
from fastinn.embed.corpus import Corpus, Document
from fastinn.embed.levels import LAYOUTS
from fastinn.embed.source import Source
from fastinn.embed.store.layout import DTYPES
from fastinn.embed.tokens import Window

_COUNTED_SECONDS = 2.0
"""How long documents are counted; a longer corpus is extrapolated."""

_TRIED_DOCUMENTS = 256
_TRIED_CHARACTERS = 1_000_000
_TRIED_TOKENS = 2_048


@dataclass(frozen=True)
class Workload:
    """What encoding a corpus takes.

    Attributes:
        n_tokens: Tokens of the corpus, about.
        n_rows: Rows of the corpus, about: as many, unless a row is a word or a document.
        counted: Share of the documents that were counted, the rest is extrapolated; ``None`` if
            how many there are is not known, and ``n_tokens`` is of those that were.
        seconds: Time in which one process encodes them with every seed, about.
        row_bytes: Bytes of one float32 row of all views.
        model_bytes: Bytes of all models together.
    """

    n_tokens: int
    n_rows: int
    counted: float | None
    seconds: float
    row_bytes: int
    model_bytes: int

    def stored_bytes(self, dtype: str) -> int:
        """Return what the states take in stores of a dtype."""
        return self.n_rows * self.row_bytes * DTYPES[dtype].itemsize // 4

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
    documents = _first_documents(corpus)
    whole = characters / sum(len(document.text) for document in documents)
    first = next(iter(encoders.values()))
    windows = list(first.tokens.windows(documents))
    seconds_a_token = _seconds_a_token_of_all(encoders.values(), documents)
    n_tokens = whole * _n_tokens(windows)
    return Workload(
        round(n_tokens),
        round(whole * len(LAYOUTS[first.level](windows).keys)),
        counted,
        seconds_a_token * n_tokens,
        sum(encoder.bytes_per_row for encoder in encoders.values()),
        sum(encoder.model.nbytes for encoder in encoders.values()),
    )


def check_memory(row_bytes: int, tokens_per_block: int, n_blocks: int = 1) -> None:
    """Raise ``ValueError`` if the blocks that are held at once take more than the free memory.

    Args:
        row_bytes: Bytes of one token's states in all views.
        tokens_per_block: Tokens of a block.
        n_blocks: Blocks that are held at once.
    """
    free, block = memory.available(torch.device("cpu")), row_bytes * tokens_per_block
    if n_blocks * block > free:
        fits = max(1, free // (2 * n_blocks * row_bytes))
        held = f", of which {n_blocks} are held at once," if n_blocks > 1 else ""
        raise ValueError(
            f"a block of {tokens_per_block:,} tokens{held} takes {block / 1e9:,.1f} GB and "
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


def _first_documents(corpus: Corpus) -> list[Document]:
    documents, characters = [], 0
    for document in islice(corpus, _TRIED_DOCUMENTS):
        documents.append(document)
        characters += len(document.text)
        if characters > _TRIED_CHARACTERS:
            break
    return documents


def _seconds_a_token_of_all(encoders: Collection[Source], documents: list[Document]) -> float:
    """Time them one after the other; those that do not fit into memory together let go again."""
    together = memory.fit_together(encoder.model for encoder in encoders)
    seconds = 0.0
    for encoder in encoders:
        seconds += _seconds_a_token(encoder, documents)
        if not together:
            encoder.release()
    return seconds


def _seconds_a_token(encoder: Source, documents: list[Document]) -> float:
    """Time one run of the model; the run before loads its weights and warms it up."""
    tried: list[Window] = []
    for window in encoder.tokens.windows(documents):
        tried.append(window)
        if _n_tokens(tried) >= _TRIED_TOKENS:
            break
    encoder.encode_windows(tried[:1])
    begun = time.perf_counter()
    encoder.encode_windows(tried)
    return (time.perf_counter() - begun) / max(1, _n_tokens(tried))


def _n_tokens(windows: list[Window]) -> int:
    return sum(window.n_tokens for window in windows)
