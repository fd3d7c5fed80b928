"""Paired rows of several seeds, from live encoders or from stores."""

from collections.abc import Mapping

from fastinn.embed.corpus import Corpus
from fastinn.embed.paired import Block, PairStream, Readable, Stream, views_of
from fastinn.embed.reading import TOKENS_PER_BLOCK
from fastinn.embed.source import Source
from fastinn.embed.store import EmbeddingStore
from fastinn.embed.store_stream import StoreStream
from fastinn.embed.text_stream import TextStream

__all__ = ["Block", "PairStream", "Readable", "Stream", "stream", "views_of"]


def stream(
    sources: Mapping[str, Source] | Mapping[str, EmbeddingStore],
    corpus: Corpus | None = None,
    *,
    tokens_per_block: int = TOKENS_PER_BLOCK,
) -> Stream:
    """Stream the rows of several seeds.

    Encoders whose models fit into half of the free memory are held together. Otherwise they take
    turns: each is loaded, encodes as many blocks as fit into half of the free host memory, and is
    let go. The blocks are the same, bit for bit.

    Args:
        sources: Name of each seed and its encoder, or name of each seed and its store. They share
            a level, and at level ``"token"`` a tokenizer; at the others, rows that a seed lacks
            are left out in all of them.
        corpus: Text, or a split of it, for encoders; stores have read theirs.
        tokens_per_block: Tokens to gather before a block is handed on, rows of stores; memory
            grows with it and with nothing else.

    Returns:
        An iterable of :class:`Block`, the same at every iteration.

    Raises:
        TypeError: If ``sources`` is no mapping, a seed neither an encoder nor a store, or the text
            no corpus.
        ValueError: If levels, tokenizers or the texts of stores differ that must not, encoders
            and stores are mixed, or there is text for stores or none for encoders.
    """
    _check_types(sources, corpus)
    stores = {n: source for n, source in sources.items() if isinstance(source, EmbeddingStore)}
    encoders = {n: source for n, source in sources.items() if isinstance(source, Source)}
    if stores and encoders:
        raise ValueError(
            f"{next(iter(stores))} is a store and {next(iter(encoders))} an encoder; give all "
            "seeds as one or the other: fastinn extract makes stores"
        )
    if stores:
        if corpus is not None:
            raise ValueError("stores have read their corpus; narrow them with split instead")
        return StoreStream(stores, tokens_per_block)
    if corpus is None:
        raise ValueError("encoders need a text to read; give a corpus")
    return TextStream(encoders, corpus, tokens_per_block)


def _check_types(sources: object, corpus: object) -> None:
    if not isinstance(sources, Mapping):
        raise TypeError(
            f"sources is of type {type(sources).__name__}, expected the name of each seed and its "
            "Encoder or EmbeddingStore, such as {'a': Encoder(...)}"
        )
    for name, source in sources.items():
        if not isinstance(source, Source | EmbeddingStore):
            raise TypeError(
                f"seed {name!r} is of type {type(source).__name__}, expected an encoder or a "
                "store; wrap it in Encoder(...) or EmbeddingStore(...)"
            )
    if not isinstance(corpus, Corpus | None):
        raise TypeError(
            f"corpus is of type {type(corpus).__name__}, expected a Corpus; make one with "
            "Corpus.from_files or Corpus.from_texts"
        )
