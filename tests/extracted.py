"""Extraction of two tiny seeds as its tests run it: in subprocesses, or as one of several ranks."""

import time
from contextlib import nullcontext
from pathlib import Path

import torch

from fastinn import Corpus, Encoder
from fastinn.embed import StoreHeader, StoreWriter, extraction
from fastinn.embed.extraction import extract

TOKENS_PER_BLOCK = 25


def encoders_of(folders, level="token", layers=(0, 3)):
    """Encoders of model folders, by the name of the folder."""
    return {Path(folder).name: Encoder(folder, layers=layers, level=level) for folder in folders}


def slow_small_parts(folders, texts, out, delay):
    """Extract in one process, on one thread, slowly enough to be killed in between."""
    torch.set_num_threads(1)
    extraction.StoreHeader = small_header
    extraction.StoreWriter = _Slow
    _Slow.delay = delay
    extract(
        encoders_of(folders), Corpus.from_texts(texts), Path(out), tokens_per_block=TOKENS_PER_BLOCK
    )


def small_header(**fields):
    """A header of a store whose shards are closed early."""
    return StoreHeader(**fields, bytes_per_shard=4_000)


class _Slow(StoreWriter):
    delay = 0.0

    def append(self, *block):
        time.sleep(self.delay)
        super().append(*block)


def extract_as(patch, rank, world_size, encoders, corpus, folder):
    """Extract the share of one of several ranks, none of which waits for another."""
    with patch.context() as patched:
        patched.setattr(extraction.distributed, "rank", lambda: rank)
        patched.setattr(extraction.distributed, "world_size", lambda: world_size)
        patched.setattr(extraction.distributed, "patient", nullcontext)
        return extract(encoders, corpus, folder, tokens_per_block=TOKENS_PER_BLOCK)


def extract_by(patch, n_ranks, encoders, corpus, folder):
    """Extract everything, rank after rank, and return the store of each seed."""
    for rank in range(n_ranks):
        paths = extract_as(patch, rank, n_ranks, encoders, corpus, folder)
    return paths
