"""Attention of several seeds: every head with every head, and layer with layer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from fastinn.embed import AttentionEncoder, Corpus, Encoded, Source
from fastinn.embed.tokens import Window
from fastinn.study.comparison import Comparison
from fastinn.study.intervals import target_means
from fastinn.study.layers import Record, Results, compare

LENGTH = "window length"
"""What the results call the baseline that knows how long a window is, and nothing else."""


class LayerAttention(Source):
    """Attention of whole layers: the heads of a layer side by side.

    A linear map may then mix heads, so that their order, which means nothing, has no say.

    Args:
        heads: Reads the heads; model and tokenizer are shared with it.
    """

    level = "attention"

    def __init__(self, heads: AttentionEncoder) -> None:
        _share(self, heads)
        self._heads = heads
        self.layers = list(dict.fromkeys(layer for layer, _ in heads.layers))

    @property
    def n_features(self) -> int:
        """Width of a row: number of heads times the longest window."""
        return self._heads.n_heads * self._heads.n_features

    def encode_windows(self, *portions: Sequence[Window]) -> Encoded:
        """Read token windows; one row each, and keys as those of the heads."""
        encoded = self._heads.encode_windows(*portions)
        joined = {
            layer: torch.cat(
                [encoded.rows[layer, head] for head in range(self._heads.n_heads)], dim=1
            )
            for layer in self.layers
        }
        return Encoded(joined, encoded.keys)


class WindowLength(Source):
    """What attention would be if all positions of a window were attended to alike.

    Rows of every head are zero beyond the window, so any two heads share its length. What this
    baseline explains of a head is owed to that.

    Args:
        heads: An encoder whose tokenizer and window length it shares.
        copies: How often a row is repeated side by side; as many as there are heads make it as
            wide as a layer.
    """

    level = "attention"

    def __init__(self, heads: AttentionEncoder, copies: int = 1) -> None:
        _share(self, heads)
        self.layers = [(0, 0)]
        self._copies = copies

    @property
    def n_features(self) -> int:
        """Width of a row."""
        return self._copies * self.tokens.max_length

    def encode_windows(self, *portions: Sequence[Window]) -> Encoded:
        """Return one row a window, in the place of a head 0 of a layer 0."""
        windows = [window for portion in portions for window in portion]
        lengths = torch.tensor([len(window.ids) for window in windows])[:, None]
        inside = torch.arange(self.tokens.max_length) < lengths
        keys = torch.tensor([(w.document, w.start, 0) for w in windows]).view(-1, 3)
        return Encoded({self.layers[0]: (inside / lengths).repeat(1, self._copies)}, keys)


def layers_of(encoders: Mapping[str, AttentionEncoder]) -> dict[str, LayerAttention]:
    """Return what reads each seed's layers, heads side by side."""
    return {name: LayerAttention(encoder) for name, encoder in encoders.items()}


def compare_attention(
    encoders: Mapping[str, AttentionEncoder],
    corpus: Corpus,
    how: Comparison,
    *,
    title: str = "fastinn attention",
    command: str = "",
    save: Callable[[Results], object] = lambda results: None,
) -> Results:
    """Compare the attention of every pair of seeds on documents that no map has seen.

    Args:
        encoders: Name and encoder of each seed; they share a tokenizer.
        corpus: Text; it is split by document.
        how: What to compare of layers; heads are compared by the linear family, each with each.
        title: Title of the report.
        command: Command line to record.
        save: Called with the results so far now and then, and at the end.

    Returns:
        Those of :func:`compare` on layers, heads side by side, and under ``"heads"`` the
        ``"scores"`` and ``"similarities"`` of every two heads; with both, as ``"baseline"``, the
        scores of maps from the length of the window alone into each layer or head, and for
        layers their ``"baseline_means"``.

    Raises:
        ValueError: As :func:`compare`.
    """
    layers = layers_of(encoders)
    found = compare(
        layers,
        corpus,
        _kept_in(how, "layers"),
        title=title,
        command=command,
        save=lambda so_far: save(_described(so_far)),
    )
    heads = compare(
        {**encoders, LENGTH: WindowLength(next(iter(encoders.values())))},
        corpus,
        _closed_forms(how, "heads"),
    )
    results = _described(found) | {"heads": _by_head(heads)}
    results |= _of_length(layers, encoders, corpus, how)
    save(results)
    return results


def _of_length(
    layers: Mapping[str, LayerAttention],
    encoders: Mapping[str, AttentionEncoder],
    corpus: Corpus,
    how: Comparison,
) -> Results:
    """Map the length of a window into the layers of each seed; seeds are read one by one."""
    scores = []
    for number, (name, layer) in enumerate(layers.items()):
        length = WindowLength(encoders[name], encoders[name].n_heads)
        linear = _closed_forms(how, f"length-{number}")
        found = compare({LENGTH: length, name: layer}, corpus, linear)["scores"]
        scores += [_sourceless(record) for record in found if record["source"] == LENGTH]
    return {"baseline": scores, "baseline_means": target_means(scores)}


def _kept_in(how: Comparison, name: str) -> Comparison:
    """Return the same with checkpoints in a folder of its own."""
    return replace(how, checkpoints=how.checkpoints and how.checkpoints / name)


def _closed_forms(how: Comparison, name: str) -> Comparison:
    """Return the same at all cells without networks, likewise."""
    kept = _kept_in(how, name)
    return replace(kept, cells="all", network_layers=(), published=None, hub=None)


def _sourceless(record: Record) -> Record:
    """Leave out which layer the length of a window is: it is none."""
    return {name: value for name, value in record.items() if name != "source_layer"}


def _share(source: Source, heads: AttentionEncoder) -> None:
    """Give ``source`` the model and the tokenizer of ``heads``."""
    source.source, source.device, source.dtype = heads.source, heads.device, heads.dtype
    source.model, source.tokens = heads.model, heads.tokens


def _described(results: Results) -> Results:
    """Say what was compared, and call the rows what they are: windows."""
    counts = {("windows" if k == "tokens" else k): v for k, v in results["corpus"].items()}
    return {**results, "of": "attention", "corpus": counts}


def _by_head(results: Results) -> Results:
    """Keep the records of heads, layer and head apart; those of the baseline by themselves."""
    scores = [_apart(record, ("source", "target")) for record in results["scores"]]
    similarities = [_apart(record, ("a", "b")) for record in results["similarities"]]
    return {
        "scores": [r for r in scores if LENGTH not in (r["source"], r["target"])],
        "similarities": [r for r in similarities if LENGTH not in (r["a"], r["b"])],
        "baseline": [r for r in scores if r["source"] == LENGTH],
    }


def _apart(record: Record, sides: tuple[str, str]) -> Record:
    """Return a record in which each side has a layer and a head in place of a pair of both."""
    found: dict[str, Any] = dict(record)
    for side in sides:
        name = f"{side}_layer" if f"{side}_layer" in record else f"layer_{side}"
        found[name], found[name.replace("layer", "head")] = record[name]
    return found
