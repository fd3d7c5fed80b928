"""Attention probabilities of BERT-like encoders, one row a window."""

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from fastinn.embed import batches
from fastinn.embed.model import chosen_layers
from fastinn.embed.source import Encoded, Source
from fastinn.embed.tokens import Window

_PROBABILITIES_AT_ONCE = 2**26
"""Probabilities that a batch may hold, over all layers and heads: 256 MiB."""


class AttentionEncoder(Source):
    """A pretrained encoder whose heads are read: whom they attend to, on average.

    A row is the mean, over the real queries of a window (special tokens are real, padding is
    not), of the probabilities that a head gives to each position; it sums to 1. Positions that a
    window does not have are 0. A document longer than ``max_length`` has several rows.

    A stream takes it like an :class:`Encoder`; its attribute ``layers`` lists pairs of layer and
    head.

    Args:
        model: Hub id or local folder of a Hugging Face BERT-like encoder.
        layers: Transformer layers to read, 1 the first and -1 the last; or ``"all"``.
        max_length: Longest window of tokens, special ones included, and width of a row; ``None``
            takes the model's.
        device: Where the model runs; ``None`` takes the GPU if there is one.
        revision: Commit, tag or branch on the hub; give a commit to pin a run.

    Raises:
        ValueError: If there is no such model, or it has no such layer.
    """

    level = "attention"

    def __init__(
        self,
        model: str,
        *,
        layers: Sequence[int] | Literal["all"] = "all",
        max_length: int | None = None,
        device: str | torch.device | None = None,
        revision: str | None = None,
    ) -> None:
        super().__init__(
            model, max_length=max_length, device=device, dtype=torch.float32, revision=revision
        )
        self.model.attention = "eager"  # the only one that has probabilities to show
        wanted = chosen_layers(layers, range(1, self.n_layers + 1))
        self._layers = self.model.resolve(wanted, 1)
        self.n_heads = int(self.model.config.num_attention_heads)
        self.layers = [(layer, head) for layer in self._layers for head in range(self.n_heads)]

    @property
    def n_features(self) -> int:
        """Width of a row."""
        return self.tokens.max_length

    def encode_windows(self, *portions: Sequence[Window]) -> Encoded:
        """Read token windows made by a tokenizer equal to the model's own.

        Args:
            *portions: Windows in reading order; see :meth:`Encoder.encode_windows`.

        Returns:
            Rows by ``(layer, head)``, shape ``(n_windows, max_length)``, and as keys document,
            position in it of the window's first token, and 0.
        """
        windows = [window for portion in portions for window in portion]
        found = torch.zeros(len(self._layers), self.n_heads, len(windows), self.n_features)
        for which in batches.in_portions(portions, self._batches):
            means = self._run([windows[i] for i in which])
            found[:, :, torch.tensor(which), : means.shape[-1]] = means
        keys = torch.tensor([(w.document, w.start, 0) for w in windows]).view(-1, 3)
        rows = dict(zip(self.layers, found.flatten(0, 1), strict=True))
        return Encoded(rows, keys)

    def _batches(self, windows: Sequence[Window]) -> Iterator[list[int]]:
        # As long as all windows are, the probabilities of a position are at their most.
        longest = max((len(window.ids) for window in windows), default=1)
        of_position = self.n_layers * self.n_heads * longest
        return batches.by_length(windows, max(1, _PROBABILITIES_AT_ONCE // of_position))

    @torch.no_grad()
    def _run(self, windows: Sequence[Window]) -> Tensor:
        """Return mean probabilities, shape ``(n_layers, n_heads, n_windows, longest)``."""
        inputs = batches.padded(windows, self.tokens.pad_id, self.device).inputs
        outputs = self.model.module()(**inputs, output_attentions=True)
        probabilities = torch.stack([outputs.attentions[layer - 1] for layer in self._layers])
        real = inputs["attention_mask"]
        weights = real / real.sum(dim=1, keepdim=True)
        return torch.einsum("lbhqk,bq->lhbk", probabilities, weights).cpu()
