"""Every pair of seeds, layer by layer: which maps carry one space into the other."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import combinations, permutations, product
from pathlib import Path
from platform import python_version
from typing import Literal, Self, TypeAlias, TypeVar

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import clone

from fastinn import distributed
from fastinn.align import (
    INN,
    MLPMap,
    PublishedBertINN,
)
from fastinn.distributed import progress
from fastinn.embed import Corpus, EmbeddingStore, Source, Stream, stream
from fastinn.embed.corpus import SPLITS, Split
from fastinn.embed.reading import TOKENS_PER_BLOCK
from fastinn.embed.stream import Readable
from fastinn.study.accumulation import PAIRS, WITH_NULL, accumulated_size
from fastinn.study.held_out import HeldOut
from fastinn.study.hubs import CONSENSUS, hub_results
from fastinn.study.intervals import Errors
from fastinn.study.linear_family import LinearFamily
from fastinn.study.passes import Pair, Pass, View, run_pass
from fastinn.study.records import (
    Record,
    Results,
    costs,
    network_name,
    score_record,
    training_record,
)
from fastinn.study.scores import bijection_records, cycle_scored, map_scores

PairRows: TypeAlias = dict[Split, tuple[np.ndarray, np.ndarray]]
Network = TypeVar("Network", INN, MLPMap)

_LIBRARIES = ("fastinn", "torch", "transformers", "numpy")
_SAVE_EVERY_SECONDS = 10

# Of the protocol of Ren et al. 2023, arXiv 2305.14555.
PAPER_SAMPLES = 1600

# So many that the training split holds about as many of them as the networks may see.
PAPER_DOCUMENTS = round(PAPER_SAMPLES / (SPLITS["train"][1] - SPLITS["train"][0]))


@dataclass
class Comparison:
    """What to compare and how.

    Attributes:
        cells: Layer pairs of the linear family: ``"all"``, or ``"same-layer"`` only.
        network_layers: Layers, negative ones counted from the end, at which an INN and two free
            MLPs are trained for every pair, and cells ``(i, j)``, at which they are trained from
            layer ``i`` of each seed to layer ``j`` of each other.
        inn: The INN, unfitted.
        published: BERT-INN to train beside it, unfitted; ``None``: none.
        hub: Seed whose space one INN a seed is trained into, or ``"consensus"``, at each of the
            ``network_layers`` that is no cell; ``None``: no hub.
        mlp: The free network, unfitted.
        max_rows: Rows the networks are trained on at most, the first of the training split; the
            closed forms use all.
        n_candidates: Held-out rows, the first, that retrieval searches.
        n_jobs: Pairs whose networks are trained at the same time.
        storage: Folder for the moments where memory does not hold them; ``None``: in memory.
        tokens_per_block: Tokens that are read at once.
        checkpoints: Folder in which a killed run finds how far its passes were; ``None``: none.
    """

    cells: Literal["all", "same-layer"] = "all"
    network_layers: Sequence[int | tuple[int, int]] = (-1,)
    inn: INN = field(default_factory=INN)
    published: PublishedBertINN | None = None
    hub: str | None = None
    mlp: MLPMap = field(default_factory=MLPMap)
    max_rows: int = 200_000
    n_candidates: int = 10_000
    n_jobs: int = 1
    storage: Path | None = None
    tokens_per_block: int = TOKENS_PER_BLOCK
    checkpoints: Path | None = None

    def as_published(self) -> Self:
        """Return the same with the protocol of Ren et al.: 1600 samples, forward error, BERT-INN.

        Their samples were sentences, so give it encoders of ``level="sentence"`` and no more
        documents than leave as many to train on, for the closed forms use all.
        """
        forward = {"objective": "forward"}
        return replace(
            self,
            inn=clone(self.inn).set_params(**forward),
            published=clone(self.published or PublishedBertINN()).set_params(**forward),
            max_rows=PAPER_SAMPLES,
        )


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
        ValueError: If there are fewer than two seeds, their tokenizers differ, or a split is empty.
    """
    if len(sources) < 2:
        raise ValueError(f"there are {len(sources)} seeds to compare, expected two or more")
    accumulated_size(sources, how.cells).check(how.storage)
    if how.hub not in (None, CONSENSUS, *sources):
        seeds = ", ".join(sources)
        raise ValueError(f"hub is {how.hub!r}, expected {CONSENSUS!r} or one of the seeds {seeds}")
    start = saved = time.perf_counter()
    networks = _network_pairs(sources, how.network_layers)
    text = stream(sources, corpus, tokens_per_block=how.tokens_per_block)
    passes = _passes(text, how, networks)
    held_out = HeldOut.of(passes, text.level, how.n_candidates)
    errors = Errors(list(sources), held_out)
    results = _header(text, how, passes, title, command)
    try:
        for part in _parts(sources, how, passes, networks, held_out):
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


def _parts(
    encoders: Mapping[str, Readable],
    how: Comparison,
    passes: dict[Split, Pass],
    networks: list[Pair],
    held_out: HeldOut,
) -> Iterator[Results]:
    """Yield the parts of the results, cheap ones first."""
    linear = LinearFamily(passes, held_out)
    cells = list(_cells(encoders, how.cells))
    solved = linear.cells(cells)
    yield from progress(solved, "linear maps", total=len(cells), unit=" cells")
    spectra = [(a, b) for a, b in networks if a[1] == b[1]]
    if spectra:
        yield {
            "spectra": [linear.spectrum(*pair) for pair in spectra],
            "null_band": linear.null_band(spectra),
        }
    yield from _networks(networks, how, passes, held_out)
    yield from _hubs(encoders, how, passes, held_out)


def _add(results: Results, part: Results) -> None:
    """Add records to the lists of ``results``, and set whatever is not a list."""
    for name, records in part.items():
        if isinstance(records, list):
            results.setdefault(name, []).extend(records)
        else:
            results[name] = records


def _networks(
    pairs: Sequence[Pair], how: Comparison, passes: dict[Split, Pass], held_out: HeldOut
) -> Iterator[Results]:
    """Train the networks of each pair; pairs run side by side, a process each."""
    # A second thread speeds up a network less than a second pair beside it.
    parallel = Parallel(n_jobs=how.n_jobs, return_as="generator")
    jobs = (delayed(_network_scores)(pair, how, _rows_of(pair, passes), held_out) for pair in pairs)
    done = progress(parallel(jobs), "networks", total=len(pairs), unit=" pairs")
    bijections: dict[Pair, list[INN]] = {}
    triangles = _triangles(pairs)
    wanted = {side for triangle in triangles for side in combinations(triangle, 2)}
    for pair, (part, trained) in zip(pairs, done, strict=True):
        if pair in wanted:
            bijections[pair] = trained
        yield part
    test = passes["test"].rows
    cycles = (_cycles(t, bijections, test[t[0]].numpy(), held_out) for t in triangles)
    yield {"cycles": [record for records in cycles for record in records]}


def _triangles(pairs: Sequence[Pair]) -> list[tuple[View, View, View]]:
    """Return the first three seeds of each layer at which all their pairs are trained."""
    found: dict[int, tuple[View, View, View]] = {}
    known = set(pairs)
    for a, b in pairs:
        for _, c in (pair for pair in pairs if pair[0] == b):
            if (a, c) in known and a[1] == b[1] == c[1]:
                found.setdefault(a[1], (a, b, c))
    return list(found.values())


def _cycles(
    triangle: tuple[View, View, View],
    bijections: Mapping[Pair, Sequence[INN]],
    x: np.ndarray,
    held_out: HeldOut,
) -> Iterator[Record]:
    """Say how far pairwise maps, which know nothing of each other, lead from where they began."""
    a, b, c = triangle
    for ab, bc, ac in zip(bijections[a, b], bijections[b, c], bijections[a, c], strict=True):
        maps = (ab.transform, bc.transform, ac.inverse_transform)
        yield cycle_scored(network_name(ab), triangle, maps, x, held_out)


def _hubs(
    encoders: Mapping[str, Readable],
    how: Comparison,
    passes: dict[Split, Pass],
    held_out: HeldOut,
) -> Iterator[Results]:
    """Train a hub at every layer at which single pairs are trained."""
    if how.hub is None:
        return
    layers = [layer for layer in how.network_layers if isinstance(layer, int)]
    for layer in progress(layers, "hubs"):
        views = [_view(encoders, seed, layer) for seed in encoders]
        yield hub_results(views, passes, how.inn, how.hub, held_out)


def _rows_of(pair: Pair, passes: dict[Split, Pass]) -> PairRows:
    """Return the rows of both views as arrays, which processes share without a copy.

    Under several ranks all train one network together, each on its part of the rows.
    """
    mine = slice(distributed.rank(), None, distributed.world_size())
    parts = {"train": mine, "validation": mine, "test": slice(None)}
    a, b = pair
    return {
        split: (done.rows[a].numpy()[parts[split]], done.rows[b].numpy()[parts[split]])
        for split, done in passes.items()
    }


def _network_scores(
    pair: Pair, how: Comparison, rows: PairRows, held_out: HeldOut
) -> tuple[Results, list[INN]]:
    """Train bijections and a free network a direction on one pair, and score them held-out."""
    a, b = pair
    x, y = rows["test"]
    scores, training, bijections = [], [], []
    for template in (how.inn, how.published):
        if template is not None:
            fitted = _trained(template, how, rows)
            name = network_name(fitted)
            both = bijection_records(name, fitted, (a, b), (x, y), held_out)
            scores += both
            training.append(training_record(name, a, b, fitted, both[0]["round_trip"]))
            bijections.append(fitted)
    reversed_rows: PairRows = {split: (right, left) for split, (left, right) in rows.items()}
    for source, target, its_rows in ((a, b, rows), (b, a, reversed_rows)):
        free = _trained(how.mlp, how, its_rows)
        found = map_scores(free, *its_rows["test"], held_out)
        scores.append(score_record("MLP (free)", source, target, found))
    return {"scores": scores, "training": training}, bijections


def _trained(template: Network, how: Comparison, rows: PairRows) -> Network:
    """Fit a copy of ``template``, the checkpoint chosen on the validation rows."""
    fitted = clone(template)
    if how.n_jobs > 1:
        fitted.set_params(progress=False)  # bars of several processes would overwrite each other
    fitted.fit(*rows["train"], validation=rows["validation"])
    if fitted.interrupted_:
        raise KeyboardInterrupt  # what is finished is kept; a map cut short is not
    return fitted


def _cells(encoders: Mapping[str, Readable], cells: str) -> Iterator[Pair]:
    """Yield the cells of the linear family; each holds both directions."""
    for a, b in combinations(encoders, 2):
        for i, j in product(encoders[a].layers, encoders[b].layers):
            if cells == "all" or i == j:
                yield (a, i), (b, j)


def _network_pairs(
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
    index = layer % (encoders[seed].n_layers + 1)
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
            **({"hub": how.hub} if how.hub else {}),
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
