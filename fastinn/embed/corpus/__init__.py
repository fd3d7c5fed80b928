"""Corpora: documents in, documents split by hash out, one at a time, from any place on."""

from fastinn.embed.corpus.corpus import Corpus
from fastinn.embed.corpus.document import BEGINNING, SPLITS, Cursor, Document, Split
from fastinn.embed.corpus.reading import LeftOut, Reading

__all__ = ["BEGINNING", "SPLITS", "Corpus", "Cursor", "Document", "LeftOut", "Reading", "Split"]
