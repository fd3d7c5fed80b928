"""Rows of hidden states on disk: written once by any number of processes, verified when read."""

from fastinn.embed.store.header import StoreHeader, is_store
from fastinn.embed.store.reader import EmbeddingStore
from fastinn.embed.store.verify import Verdict, verify
from fastinn.embed.store.writer import StoreWriter

__all__ = ["EmbeddingStore", "StoreHeader", "StoreWriter", "Verdict", "is_store", "verify"]
