"""Text in, rows of hidden states out."""

from fastinn.embed.attention import AttentionEncoder
from fastinn.embed.classifier import Classifier
from fastinn.embed.corpus import Corpus, Cursor, Document
from fastinn.embed.encoder import Encoder
from fastinn.embed.labelled import Labelled, read_labelled
from fastinn.embed.prefetch import Prefetch
from fastinn.embed.reading import Position
from fastinn.embed.source import Encoded, Source
from fastinn.embed.store import EmbeddingStore, StoreHeader, StoreWriter
from fastinn.embed.stream import Block, Stream, stream

__all__ = [
    "AttentionEncoder",
    "Block",
    "Classifier",
    "Corpus",
    "Cursor",
    "Document",
    "EmbeddingStore",
    "Encoded",
    "Encoder",
    "Labelled",
    "Position",
    "Prefetch",
    "Source",
    "StoreHeader",
    "StoreWriter",
    "Stream",
    "read_labelled",
    "stream",
]
