"""What a command says, and refuses, before it starts."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from fastinn import distributed
from fastinn.cli._options import Sources
from fastinn.cli._terminal import say
from fastinn.embed import Corpus, EmbeddingStore, Encoder
from fastinn.embed.estimate import Workload, check_memory, duration, workload
from fastinn.embed.paired import views_of
from fastinn.embed.store import is_store
from fastinn.embed.store.overview import overview
from fastinn.embed.store_stream import BLOCKS_HELD
from fastinn.moments import MomentsSize
from fastinn.study.comparison import Comparison


def announce(
    sources: Sources, corpus: Corpus | None, tokens_per_block: int, as_json: bool
) -> Workload | None:
    """Say what reading takes, and refuse blocks that memory does not hold.

    Returns:
        The work, measured on a few tokens; ``None`` of stores, and on ranks that only follow.
    """
    stores = {n: s for n, s in sources.items() if isinstance(s, EmbeddingStore)}
    n_blocks = BLOCKS_HELD if stores else 1
    check_memory(4 * sum(views_of(sources).values()), tokens_per_block, n_blocks)
    if not distributed.is_main():
        return None
    if stores:
        say(as_json, f"To read: {len(next(iter(stores.values()))):,} rows of {len(stores)} stores")
        return None
    encoders = {n: s for n, s in sources.items() if isinstance(s, Encoder)}
    assert corpus is not None, "encoders have a corpus"
    work = workload(encoders, corpus)
    n = distributed.world_size()
    share = f", {duration(work.seconds / n)} in {n}" if n > 1 else ""
    say(as_json, f"To read: {work}{share}")
    return work


def announce_moments(size: MomentsSize, storage: Path | None, as_json: bool) -> None:
    """Say what moments take, and refuse them if there is no room."""
    size.check(storage)
    where = "memory" if storage is None else str(storage)
    say(as_json, f"Moments to accumulate in {where}: {size}")


def announce_networks(how: Comparison, n_pairs: int, as_json: bool) -> None:
    """Say how many networks are to be trained, and how long each."""
    if not n_pairs:
        return
    n = n_pairs * (len(how.bijections) + 2)  # and a free network a direction
    seconds = how.inn.max_seconds
    steps = max(network.max_steps or 0 for network in (how.inn, how.mlp))
    long = f"{steps:,} steps" if seconds is None else duration(seconds)
    hubs = "" if how.hub is None else ", and hubs"
    say(as_json, f"To train: {n:,} networks of {n_pairs:,} pairs, up to {long} each{hubs}")


def announce_stores(
    work: Workload | None, dtype: str, stores: Iterable[Path], folder: Path, as_json: bool
) -> None:
    """Say what stores in ``folder`` still take on disk, and refuse them if there is no room."""
    if work is None:
        return
    held = sum(overview(str(path))["bytes"] for path in stores if is_store(str(path)))
    wanted, free = max(0, work.stored_bytes(dtype) - held), shutil.disk_usage(folder).free
    if wanted > free:
        raise ValueError(
            f"the stores take about {wanted / 1e9:,.1f} GB more and {folder} has "
            f"{free / 1e9:,.1f} GB free; give --out on a larger disk, fewer --layers or --dtype "
            "bfloat16, or accumulate moments without stores: fastinn moments"
        )
    say(as_json, f"Stores to write: about {wanted / 1e9:,.2f} GB of {free / 1e9:,.1f} GB free")
