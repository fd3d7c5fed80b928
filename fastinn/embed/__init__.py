"""Text in, rows of hidden states out."""

from fastinn.embed.corpus import Corpus, Document
from fastinn.embed.encoder import Encoded, Encoder
from fastinn.embed.store import EmbeddingStore, StoreHeader, StoreWriter
from fastinn.embed.stream import Block, Stream, stream

__all__ = [
    "Block",
    "Corpus",
    "Document",
    "EmbeddingStore",
    "Encoded",
    "Encoder",
    "StoreHeader",
    "StoreWriter",
    "Stream",
    "stream",
]
