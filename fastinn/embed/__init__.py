"""Text in, rows of hidden states out."""

from fastinn.embed.corpus import Corpus, Cursor, Document
from fastinn.embed.encoder import Encoded, Encoder
from fastinn.embed.stream import Block, Stream, stream

__all__ = ["Block", "Corpus", "Cursor", "Document", "Encoded", "Encoder", "Stream", "stream"]
