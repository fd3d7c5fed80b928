"""Every pair of seeds, layer by layer: which maps carry one space into the other."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import combinations, permutations, product
from platform import python_version

from sklearn.base import BaseEstimator

from fastinn import distributed
from fastinn._progress import progress
from fastinn.embed import Corpus, EmbeddingStore, Source, Stream, stream
from fastinn.embed.corpus import SPLITS, Split
from fastinn.embed.stream import Readable
from fastinn.study.accumulation import PAIRS, WITH_NULL, accumulated_size
from fastinn.study.comparison import Comparison
from fastinn.study.held_out import HeldOut
from fastinn.study.hubs import CONSENSUS, hub_results
from fastinn.study.intervals import Errors
from fastinn.study.linear_family import LinearFamily
from fastinn.study.networks import network_results
from fastinn.study.parts import Parts
from fastinn.study.passes import Pair, Pass, View, run_pass
from fastinn.study.records import Record, Results, costs

_LIBRARIES = ("fastinn", "torch", "transformers", "numpy")
_SAVE_EVERY_SECONDS = 10

# Fields of a comparison that decide about its results, besides the networks.
_OWN = ("cells", "network_layers", "hub", "hub_steps", "max_rows", "n_candidates")


def compare(
    sources: Mapping[str, Source] | Mapping[str, EmbeddingStore],
    corpus: Corpus | None,
    how: Comparison,
    *,
    title: str = "fastinn compare",
    command: str = "",
    save: Callable[[Results], object] = lambda results: None,
) -> Results:
    """Compare every pair of seeds on documents that no map has seen.

    Maps are fitted on the training split, regularisation and checkpoints are chosen on the
    validation split, and every figure in the results is of the test split.

    With ``how.checkpoints``, a run that was killed is gone on with: what it had finished is taken
    over, and a network or hub goes on in the middle of its training. On a CPU the results are the
    same bit for bit, but for the times in them. Under several ranks each does its share.

    Args:
        sources: Name of each seed and its encoder, or of each seed and its store; see
            :func:`fastinn.stream`.
        corpus: Text for encoders; it is split by document.
        how: What to compare.
        title: Title of the report.
        command: Command line to record.
        save: Called with the results so far now and then, and at the end, whether that is
            reached or cut short.

    Returns:
        The results, ready for :func:`fastinn.report.write_report` and JSON.

    Raises:
        ValueError: If there are fewer than two seeds, their widths or tokenizers differ, a split
            is empty, or the checkpoints are damaged or of a run with other settings.
    """
    check(sources, how)
    accumulated_size(sources, how.cells).check(how.storage)
    start = saved = time.perf_counter()
    networks = network_pairs(sources, how.network_layers)
    text = stream(sources, corpus, tokens_per_block=how.tokens_per_block)
    parts = _kept_parts(text, how)
    passes = _passes(text, how, networks)
    held_out = HeldOut.of(passes, text.level, how.n_candidates)
    errors = Errors(list(sources), held_out)
    results = _header(text, how, passes, title, command)
    try:
        for part in _parts(sources, how, passes, networks, held_out, parts):
            _add(results, errors.taken(part))
            if "training" in part:
                results["costs"] = costs(results["training"])
            now = time.perf_counter()
            results["seconds"] = now - start
            if now - saved > _SAVE_EVERY_SECONDS:
                save(results)
                saved = now
    finally:
        results.update(errors.summaries(results))
        save(results)
    return results


def check(sources: Mapping[str, Readable], how: Comparison) -> None:
    """Refuse, before anything is read, what cannot be compared.

    Args:
        sources: As in :func:`compare`.
        how: What to compare.

    Raises:
        ValueError: If there are fewer than two seeds, their widths differ, or a network or hub is
            wanted where there is none.
    """
    if len(sources) < 2:
        raise ValueError(f"there are {len(sources)} seeds to compare, expected two or more")
    _check_widths(sources)
    if how.hub not in (None, CONSENSUS, *sources):
        seeds = ", ".join(sources)
        raise ValueError(f"hub is {how.hub!r}, expected {CONSENSUS!r} or one of the seeds {seeds}")
    network_pairs(sources, how.network_layers)
    if how.published is not None and not how.network_layers:
        raise ValueError("BERT-INN is wanted at no layer; name one in network_layers (--networks)")
    if how.hub is not None and not any(isinstance(layer, int) for layer in how.network_layers):
        raise ValueError(
            "a hub is wanted at no layer; name one, not a cell, in network_layers (--networks)"
        )


def _check_widths(sources: Mapping[str, Readable]) -> None:
    """Raise ``ValueError`` unless all seeds are equally wide: they are compared both ways."""
    (first, one), *others = sources.items()
    for name, source in others:
        if source.n_features != one.n_features:
            raise ValueError(
                f"{first} has {one.n_features} features and {name} has {source.n_features}: a "
                "comparison needs equally many; map one into the other by fastinn align --method "
                "linear or mlp"
            )


def _parts(
    encoders: Mapping[str, Readable],
    how: Comparison,
    passes: dict[Split, Pass],
    networks: list[Pair],
    held_out: HeldOut,
    parts: Parts,
) -> Iterator[Results]:
    """Yield the parts of the results, cheap ones first."""
    linear = LinearFamily(passes, held_out)
    cells = list(_cells(encoders, how.cells))
    solved = linear.cells(cells, parts.of("linear"))
    yield from progress(solved, "linear maps", total=len(cells), unit=" cells")
    spectra = [(a, b) for a, b in networks if a[1] == b[1]]
    if spectra:
        yield linear.spectra(spectra, parts.of("spectra"))
    yield from network_results(networks, how, passes, held_out, parts)
    yield from _hubs(encoders, how, passes, held_out, parts.of("hubs"))


def _add(results: Results, part: Results) -> None:
    """Add records to the lists of ``results``, and set whatever is not a list."""
    for name, records in part.items():
        if isinstance(records, list):
            results.setdefault(name, []).extend(records)
        else:
            results[name] = records


def _hubs(
    encoders: Mapping[str, Readable],
    how: Comparison,
    passes: dict[Split, Pass],
    held_out: HeldOut,
    parts: Parts,
) -> Iterator[Results]:
    """Train a hub at every layer at which single pairs are trained."""
    if how.hub is None:
        return
    layers = [layer for layer in how.network_layers if isinstance(layer, int)]
    # A layer may be named twice, from either end.
    places = dict.fromkeys(tuple(_view(encoders, s, layer) for s in encoders) for layer in layers)
    kept = parts.kept(len(places))
    for number, views in enumerate(progress(places, "hubs")):
        found = parts[number].found() if kept[number] else None
        yield found or hub_results(views, passes, how.hub_inn, how.hub, held_out, parts[number])


def _cells(encoders: Mapping[str, Readable], cells: str) -> Iterator[Pair]:
    """Yield the cells of the linear family; each holds both directions."""
    for a, b in combinations(encoders, 2):
        for i, j in product(encoders[a].layers, encoders[b].layers):
            if cells == "all" or i == j:
                yield (a, i), (b, j)


def network_pairs(
    encoders: Mapping[str, Readable], layers: Sequence[int | tuple[int, int]]
) -> list[Pair]:
    """Return the pairs of views that networks are trained on; a cell takes each pair twice."""
    pairs = []
    for cell in layers:
        i, j = (cell, cell) if isinstance(cell, int) else cell
        ordered = combinations(encoders, 2) if i == j else permutations(encoders, 2)
        pairs += [(_view(encoders, a, i), _view(encoders, b, j)) for a, b in ordered]
    return list(dict.fromkeys(pairs))


def _view(encoders: Mapping[str, Readable], seed: str, layer: int) -> View:
    """Return a seed at a layer that may be counted from the end, checked that it is read."""
    n = encoders[seed].n_layers
    index = layer + n + 1 if layer < 0 else layer
    if not 0 <= index <= n:
        raise ValueError(
            f"a network is wanted at layer {layer} of {seed}, whose layers are 0 (embeddings) to "
            f"{n}"
        )
    if index not in encoders[seed].layers:
        raise ValueError(
            f"a network is wanted at layer {index} of {seed}, whose layers "
            f"{encoders[seed].layers} are read; add it to them"
        )
    return seed, index


def _passes(text: Stream, how: Comparison, networks: list[Pair]) -> dict[Split, Pass]:
    """Read each split once; under several ranks, each reads its shard and gets the whole."""
    sampled = dict.fromkeys(view for pair in networks for view in pair)
    shard = distributed.rank(), distributed.world_size()
    return {
        split: run_pass(
            text.split(split).shard(*shard),
            pairs=PAIRS[how.cells],
            sampled=sampled,
            max_rows=how.max_rows,
            mispaired=split in WITH_NULL,
            storage=how.storage,
            label=f"read {split}",
            checkpoint=None if how.checkpoints is None else how.checkpoints / split,
        )
        for split in SPLITS
    }


def _kept_parts(text: Stream, how: Comparison) -> Parts:
    """Return what a killed run has finished, and must have been of the same data and settings."""
    settings = {
        **text.identity(),
        "views": [[*view, width] for view, width in text.n_features.items()],
        **{name: getattr(how, name) for name in _OWN},
        **_parameters("INN", how.inn),
        **_parameters("BERT-INN", how.published),
        **_parameters("MLP", how.mlp),
        "ranks": distributed.world_size(),
        **{f"version of {name}": found for name, found in versions().items()},
    }
    parts = Parts(None if how.checkpoints is None else how.checkpoints / "parts", settings)
    parts.claim()
    return parts


def _parameters(name: str, template: BaseEstimator | None) -> Record:
    if template is None:
        return {name: None}
    decisive = {k: v for k, v in template.get_params().items() if k != "progress"}
    return {name: type(template).__name__} | {f"{name} {k}": v for k, v in decisive.items()}


def _header(
    text: Stream,
    how: Comparison,
    passes: dict[Split, Pass],
    title: str,
    command: str,
) -> Results:
    first = next(iter(text.sources.values()))
    return {
        "title": title,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "models": [_model(name, encoder) for name, encoder in text.sources.items()],
        "corpus": {
            "name": text.name,
            "hash": text.fingerprint(),
            "level": first.level,
            "tokenizer_hash": first.tokens_fingerprint,
            "documents": {split: done.n_documents for split, done in passes.items()},
            "tokens": {split: int(done.moments.count) for split, done in passes.items()},
            "null_same_document": {s: passes[s].same_document for s in WITH_NULL},
        },
        "versions": versions(),
        "settings": {
            "cells": how.cells,
            "network rows": how.max_rows,
            "INN": how.inn.get_params(),
            "MLP": how.mlp.get_params(),
            **({"BERT-INN": how.published.get_params()} if how.published else {}),
            **({"hub": how.hub, "hub steps": how.hub_inn.max_steps} if how.hub else {}),
        },
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and the libraries that results depend on."""
    return {"python": python_version(), **{name: version(name) for name in _LIBRARIES}}


def _model(name: str, encoder: Readable) -> Record:
    return {
        "name": name,
        "source": encoder.source,
        "revision": encoder.revision,
        "weights_hash": encoder.fingerprint(),
        "n_layers": encoder.n_layers,
        "n_features": encoder.n_features,
    }
