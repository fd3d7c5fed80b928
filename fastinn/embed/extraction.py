"""Hidden states of many seeds into stores, by one process or by many."""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from fastinn import distributed
from fastinn._progress import progress
from fastinn.embed.corpus import Corpus
from fastinn.embed.encoder import Encoder
from fastinn.embed.paired import Block, position_of
from fastinn.embed.reading import TOKENS_PER_BLOCK, Position
from fastinn.embed.source import Encoded
from fastinn.embed.store import StoreHeader, StoreWriter
from fastinn.embed.text_stream import TextStream

_REVISION_LETTERS = 12


@dataclass(frozen=True)
class Share:
    """What one process extracts: some seeds, on one shard of the text.

    Attributes:
        seeds: Names of the seeds.
        writer: Which shard of the text.
        writers: Number of shards.
    """

    seeds: tuple[str, ...]
    writer: int
    writers: int


def share_of(seeds: Sequence[str], rank: int, world_size: int) -> Share:
    """Divide seeds and text among processes, so that each loads as few models as possible.

    Args:
        seeds: Names of all seeds.
        rank: Which process.
        world_size: How many there are.
    """
    groups = math.gcd(len(seeds), world_size)
    return Share(tuple(seeds[rank % groups :: groups]), rank // groups, world_size // groups)


def store_path(folder: Path, name: str, encoder: Encoder) -> Path:
    """Return where the store of a seed lies in ``folder``: its name and revision."""
    return folder / f"{name}@{(encoder.revision or 'local')[:_REVISION_LETTERS]}"


def store_header(encoder: Encoder, corpus: Corpus, dtype: str) -> StoreHeader:
    """Return what a store of these states says of itself."""
    return StoreHeader(
        model=encoder.source,
        revision=encoder.revision,
        weights=encoder.fingerprint(),
        tokenizer=encoder.tokens_fingerprint,
        level=encoder.level,
        max_length=encoder.tokens.max_length,
        precision=encoder.precision,
        dtype=dtype,
        layers=tuple(encoder.layers),
        n_layers=encoder.n_layers,
        n_features=encoder.n_features,
        corpus=corpus.name,
    )


def extract(
    encoders: Mapping[str, Encoder],
    corpus: Corpus,
    folder: Path,
    *,
    dtype: str = "float32",
    tokens_per_block: int = TOKENS_PER_BLOCK,
) -> dict[str, Path]:
    """Write the hidden states of every seed into a store of its own.

    A run that was killed is gone on with by the same call; what is committed is not encoded
    again, and the stores end with the bytes of a run that nothing happened to. Under several ranks
    each writes its share of seeds and text.

    Args:
        encoders: Name and encoder of each seed.
        corpus: Text.
        folder: Where the stores are made, ``<name>@<revision>`` each.
        dtype: What rows are stored in: ``"float32"``, ``"float16"`` or ``"bfloat16"``.
        tokens_per_block: Tokens that are encoded before they are written.

    Returns:
        The store of each seed, those of other ranks too.

    Raises:
        ValueError: If a store there is of other models, settings or text, or damaged.
        OSError: If the disk is full or fails.
    """
    share = share_of(list(encoders), distributed.rank(), distributed.world_size())
    paths = {name: store_path(folder, name, encoder) for name, encoder in encoders.items()}
    with distributed.patient(), ExitStack() as stack:  # nobody reads a store before it is written
        writers = {
            name: stack.enter_context(
                StoreWriter(
                    paths[name],
                    store_header(encoders[name], corpus, dtype),
                    share.writer,
                    share.writers,
                )
            )
            for name in share.seeds
        }
        for name, writer in writers.items():
            _check_text(name, writer, corpus)
        text = corpus.shard(share.writer, share.writers)
        for names in _by_tokenizer(share.seeds, encoders):
            pending = {name: writers[name] for name in names if not writers[name].finished}
            if pending:
                mine = {name: encoders[name] for name in pending}
                _write(TextStream(mine, text, tokens_per_block), pending)
    return paths


def _by_tokenizer(seeds: Sequence[str], encoders: Mapping[str, Encoder]) -> list[list[str]]:
    """Group seeds that share a tokenizer: what a seed's store holds is up to no other seed."""
    groups: dict[str, list[str]] = {}
    for name in seeds:
        groups.setdefault(encoders[name].tokens_fingerprint, []).append(name)
    return list(groups.values())


def _write(stream: TextStream, writers: Mapping[str, StoreWriter]) -> None:
    """Read on behind the writer that is furthest back; the others skip what they have."""
    size = stream.tokens_per_block
    reached = {name: _reached(name, writer, size) for name, writer in writers.items()}
    start = min(reached.values(), key=lambda position: position.row)
    bar = progress(stream.blocks(start), "extract", unit=" blocks")
    for block in bar:
        for name, writer in writers.items():
            if block.position.row > reached[name].row:
                place = {
                    "tokens_per_block": size,
                    "text": stream.corpus.identity(),
                    "block": asdict(block.position),
                }
                writer.append(_states(block, name), block.places, place)
        bar.set_postfix(
            rows=f"{block.position.row:,}", waiting=f"{stream.stall_share:.0%}", refresh=False
        )


def _check_text(seed: str, writer: StoreWriter, corpus: Corpus) -> None:
    """Check that what the writer has written is of this text."""
    here = corpus.identity()
    found = here if writer.position is None else writer.position.get("text")
    if found != here:
        raise ValueError(
            f"the store of {seed} was begun with the text {found} and {corpus.name} is now {here}; "
            "bring the former text back, or give another folder"
        )


def _reached(seed: str, writer: StoreWriter, tokens_per_block: int) -> Position:
    """Return where the writer goes on, which has to be where a block begins."""
    if writer.position is None:
        return Position()
    size = writer.position["tokens_per_block"]
    if size != tokens_per_block:
        raise ValueError(
            f"the store of {seed} was begun with blocks of {size:,} tokens and this run has "
            f"{tokens_per_block:,}; go on with as many, or give another folder"
        )
    return position_of(writer.position["block"])


def _states(block: Block, seed: str) -> Encoded:
    rows = {layer: rows for (name, layer), rows in block.rows.items() if name == seed}
    return Encoded(rows, block.keys)
