"""Stitching: one model up to a layer, a map, and another model from there on."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from sklearn.base import clone
from torch import Tensor

from fastinn._progress import progress
from fastinn.align import CCA, INN, Aligner, LinearMap, MLPMap, Procrustes
from fastinn.embed import Corpus
from fastinn.embed.classifier import Classifier
from fastinn.embed.corpus import Split
from fastinn.embed.labelled import Labelled
from fastinn.study._gpu import on_gpu
from fastinn.study.layers import versions
from fastinn.study.resamples import interval_record, r2_interval
from fastinn.study.significance import FEWEST_GROUPS, resampled_means

Results: TypeAlias = dict[str, Any]
Record: TypeAlias = dict[str, Any]
PairedRows: TypeAlias = tuple[Tensor, Tensor]

NO_MAP = "no map"


def default_methods(inn: INN | None = None, mlp: MLPMap | None = None) -> dict[str, Aligner | None]:
    """Return every method by the name that results call it, unfitted; ``None`` maps nothing.

    Args:
        inn: The INN.
        mlp: The free network.
    """
    return {
        NO_MAP: None,
        "Procrustes": Procrustes(),
        "CCA map": CCA(),
        "least squares": LinearMap(),
        "ridge": LinearMap(ridge="validation"),
        "INN (two-way)": inn or INN(),
        "MLP (free)": mlp or MLPMap(),
    }


@dataclass
class Stitching:
    """Where to stitch and with what.

    Attributes:
        layers: Layers, negative ones counted from the end; ``None`` for all.
        methods: Unfitted aligners by name; ``None`` hands the states on as they are.
        max_rows: Tokens that the maps are fitted on at most, those of the first texts. The states
            of both models at all layers are held at the same time.
    """

    layers: Sequence[int] | None = None
    methods: Mapping[str, Aligner | None] = field(default_factory=default_methods)
    max_rows: int = 100_000


def stitch(
    source: Classifier,
    target: Classifier,
    data: Labelled,
    corpus: Corpus,
    how: Stitching,
    *,
    title: str = "fastinn stitch",
    command: str = "",
    save: Callable[[Results], object] = lambda results: None,
) -> Results:
    """Run ``source`` up to a layer, map its states, and let ``target`` finish, at every layer.

    The layers above, the pooler and the classifier are the target's own. Maps are fitted on the
    states of all tokens, special ones included (the head reads one of those), of the training
    split of ``corpus``; its validation split picks ridge and checkpoints. Texts that are scored
    are left out of both.

    Args:
        source: Classifier that begins.
        target: Classifier that ends.
        data: Labelled texts to score on.
        corpus: Text to fit the maps on; no labels are used.
        how: Layers and methods.
        title: Title of the report.
        command: Command line to record.
        save: Called with the results so far after every layer.

    Returns:
        ``"stitching"``: ``"own"`` scores of both models, ``"baseline"`` of whoever always names
        the commonest class, and ``"scores"``, one record a layer and method: accuracy, agreement
        with the target's own predictions, accuracy over the target's own (``kept``) and the
        held-out R2 of the mapped states, each with its bootstrap interval over texts; of networks
        also how many steps they made and skipped, and which one was kept.

    Raises:
        ValueError: If tokenizers, classes, layers or widths do not fit, or there is no text to fit
            on.
    """
    start = time.perf_counter()
    _check_fit(source, target)
    _check_widths(source, target, how.methods)
    truth = _numbers(data, target)
    own = _own_predictions(source, target, data)
    _check_right(own["target"], truth, target, data)
    layers = _layers(source, target, how.layers)
    rows = _rows(source, target, data, corpus, layers, how.max_rows)
    n_rows = {split: len(states[layers[0]][0]) for split, states in rows.items()}
    results: Results = {
        "title": title,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "models": [_model(source), _model(target)],
        "versions": versions(),
        "settings": _settings(how),
        "stitching": _header(data, corpus, truth, own, n_rows),
    }
    for layer in progress(layers, "stitch", unit=" layers"):
        maps = _maps(how.methods, rows["train"][layer], rows["validation"][layer])
        predicted, r2 = _continue(source, target, data, layer, maps)
        scored = _intervals(predicted, truth, own["target"])
        results["stitching"]["scores"] += [
            {"method": name, "layer": layer, **scored[name], **r2[name], **_steps(method)}
            for name, method in maps.items()
        ]
        results["seconds"] = time.perf_counter() - start
        save(results)
    return results


def _check_right(own: Tensor, truth: Tensor, target: Classifier, data: Labelled) -> None:
    if not (own == truth).any():
        raise ValueError(
            f"{target.source} is right on none of the {len(data)} texts of {data.name}, so nothing "
            "can be kept; check the labels"
        )


def _rows(
    source: Classifier,
    target: Classifier,
    data: Labelled,
    corpus: Corpus,
    layers: Sequence[int],
    max_rows: int,
) -> dict[Split, dict[int, PairedRows]]:
    """Return the states to fit maps on, by split and layer; texts that are scored are left out."""
    seen = set(data.texts)
    room: dict[Split, int] = {"train": max_rows, "validation": max_rows // 8}
    return {
        split: _paired_states(source, target, _texts(corpus.split(split), seen), layers, most)
        for split, most in room.items()
    }


def _maps(
    methods: Mapping[str, Aligner | None], train: PairedRows, validation: PairedRows
) -> dict[str, Aligner | None]:
    return {name: _fitted(method, train, validation) for name, method in methods.items()}


def _steps(method: Aligner | None) -> Record:
    """Return how long a network was trained, and which of its steps was kept: 0 is its start."""
    if not isinstance(method, INN | MLPMap):
        return {}
    return {
        "steps": method.n_steps_,
        "best_step": method.best_step_,
        "skipped_steps": method.skipped_steps_,
    }


def _model(classifier: Classifier) -> Record:
    return {
        "name": Path(classifier.source).name,
        "source": classifier.source,
        "weights_hash": classifier.fingerprint(),
        "n_layers": classifier.n_layers,
        "n_features": classifier.n_features,
    }


def _settings(how: Stitching) -> Record:
    methods = {name: method.get_params() for name, method in how.methods.items() if method}
    return {"fitted tokens at most": how.max_rows, **methods}


def _check_fit(source: Classifier, target: Classifier) -> None:
    if source.tokens.fingerprint() != target.tokens.fingerprint():
        raise ValueError(
            f"{source.source} and {target.source} have different tokenizers or window lengths, so "
            "one cannot go on where the other stops; give models that share a tokenizer"
        )
    if sorted(source.classes) != sorted(target.classes):
        raise ValueError(
            f"{source.source} has the classes {', '.join(source.classes)} and {target.source} "
            f"{', '.join(target.classes)}; give models that were fine-tuned on the same labels"
        )


def _check_widths(
    source: Classifier, target: Classifier, methods: Mapping[str, Aligner | None]
) -> None:
    square = [n for n, m in methods.items() if m is None or isinstance(m, Procrustes | INN)]
    if square and source.n_features != target.n_features:
        raise ValueError(
            f"{source.source} has {source.n_features} features and {target.source} "
            f"{target.n_features}, and {', '.join(square)} cannot map between different widths; "
            "leave that out of the methods or give models of equal width"
        )


def _layers(source: Classifier, target: Classifier, wanted: Sequence[int] | None) -> list[int]:
    if source.n_layers != target.n_layers:
        raise ValueError(
            f"{source.source} has {source.n_layers} layers and {target.source} "
            f"{target.n_layers}; give models of equal depth"
        )
    return source.layers(range(source.n_layers + 1) if wanted is None else wanted)


def _numbers(data: Labelled, target: Classifier) -> Tensor:
    """Return the target's number of the class of each text, shape ``(n,)``."""
    places = {name: i for i, name in enumerate(target.classes)}
    strange = [label for label in data.classes() if label not in places]
    if strange:
        raise ValueError(
            f"{data.name} has the label {strange[0]!r}, but the classes of {target.source} are "
            f"{', '.join(target.classes)}"
        )
    return torch.tensor([places[label] for label in data.labels])


def _own_predictions(source: Classifier, target: Classifier, data: Labelled) -> dict[str, Tensor]:
    """Return what both models predict by themselves, in the target's numbers of the classes."""
    number = torch.tensor([target.classes.index(name) for name in source.classes])
    return {
        "source": number[source.predict(data.texts)],
        "target": target.predict(data.texts),
    }


def _texts(corpus: Corpus, seen: set[str]) -> list[str]:
    return [document.text for document in corpus if document.text not in seen]


def _paired_states(
    source: Classifier,
    target: Classifier,
    texts: Sequence[str],
    layers: Sequence[int],
    max_rows: int,
) -> dict[int, PairedRows]:
    """Return the states of both models at each layer, of as many texts as ``max_rows`` allows."""
    parts: dict[int, list[PairedRows]] = {layer: [] for layer in layers}
    if not texts:
        raise ValueError("no text is left to fit maps on, all of it is scored on; give other text")
    batches = source.batches(texts, max_tokens=max_rows)
    for batch in progress(batches, "read", unit=" batches"):
        x, y = source.states(batch, layers), target.states(batch, layers)
        for layer, held in parts.items():
            held.append((x[layer], y[layer]))
    return {
        layer: (torch.cat([x for x, _ in held]), torch.cat([y for _, y in held]))
        for layer, held in parts.items()
    }


def _fitted(method: Aligner | None, train: PairedRows, validation: PairedRows) -> Aligner | None:
    if method is None:
        return None
    aligner = clone(method)
    if isinstance(aligner, LinearMap):
        return aligner.fit(*train, validation=validation)
    if not isinstance(aligner, INN | MLPMap):
        return aligner.fit(*train)
    x, y = map(on_gpu, train)
    aligner.fit(x, y, validation=(on_gpu(validation[0]), on_gpu(validation[1])))
    if aligner.interrupted_:
        raise KeyboardInterrupt  # layers that are finished are kept; a map cut short is not
    return aligner


def _mapped(aligner: Aligner | None, states: Tensor) -> Tensor:
    """Return states mapped where the map was made, on the CPU."""
    if aligner is None:
        return states
    mapped: Tensor = aligner.transform(
        on_gpu(states) if isinstance(aligner, INN | MLPMap) else states
    )
    return mapped.cpu()


def _continue(
    source: Classifier,
    target: Classifier,
    data: Labelled,
    layer: int,
    maps: Mapping[str, Aligner | None],
) -> tuple[dict[str, Tensor], dict[str, dict[str, float]]]:
    """Return, for each map, what the target predicts from mapped states, and their R2."""
    predicted = {name: torch.empty(len(data), dtype=torch.long) for name in maps}
    true: list[Tensor] = []
    texts: list[Tensor] = []
    mapped: dict[str, list[Tensor]] = {name: [] for name in maps}
    for batch in source.batches(data.texts):
        states = source.states(batch, [layer])[layer]
        true.append(target.states(batch, [layer])[layer])
        texts.append(batch.places.repeat_interleave(batch.attended.sum(dim=1).cpu()))
        for name, aligner in maps.items():
            mapped[name].append(_mapped(aligner, states))
            logits = target.resume(batch, layer, mapped[name][-1])
            predicted[name][batch.places] = logits.argmax(dim=1)
    return predicted, _r2_of_states(true, mapped, torch.cat(texts))


def _r2_of_states(
    true: Sequence[Tensor], mapped: Mapping[str, Sequence[Tensor]], texts: Tensor
) -> dict[str, dict[str, float]]:
    """Return the R2 of mapped states and its interval over texts."""
    rows = torch.cat(list(true))
    found = {}
    for name, parts in mapped.items():
        found[name] = r2_interval(rows, torch.cat(list(parts)), texts.numpy()).named("r2")
    return found


def _intervals(predicted: Mapping[str, Tensor], truth: Tensor, target: Tensor) -> dict[str, Record]:
    """Score predictions against the truth and the target's own; all share their resamples."""
    columns = [target == truth]
    for guess in predicted.values():
        columns += [guess == truth, guess == target]
    values = torch.stack(columns, dim=1).double().numpy()
    means, resampled = values.mean(axis=0), resampled_means(values)
    if len(values) < FEWEST_GROUPS:
        resampled = resampled[:0]
    # A resample may hold no text that the target is right on, if there are few.
    own = np.maximum(resampled[:, 0], 1 / len(values))
    scored = {}
    for place, name in enumerate(predicted):
        correct, agreed = 1 + 2 * place, 2 + 2 * place
        figures = {
            "accuracy": (means[correct], resampled[:, correct]),
            "agreement": (means[agreed], resampled[:, agreed]),
            "kept": (means[correct] / means[0], resampled[:, correct] / own),
        }
        scored[name] = {
            what: interval_record(float(mean), of_resamples, len(values))
            for what, (mean, of_resamples) in figures.items()
        }
    return scored


def _header(
    data: Labelled,
    corpus: Corpus,
    truth: Tensor,
    own: Mapping[str, Tensor],
    n_rows: Mapping[Split, int],
) -> Record:
    """Record what is scored on, both models by themselves, and what needs no model at all."""
    return {
        "data": {"name": data.name, "texts": len(data)},
        "corpus": {"name": corpus.name, "rows": dict(n_rows)},
        "own": _intervals(own, truth, own["target"]),
        "baseline": {
            "accuracy": _share_of_commonest(truth),
            "agreement": _share_of_commonest(own["target"]),
        },
        "scores": [],
    }


def _share_of_commonest(numbers: Tensor) -> float:
    return float(numbers.bincount().max() / len(numbers))
