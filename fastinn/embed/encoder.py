"""Hidden states of BERT-like encoders, one row a token, word or document."""

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from fastinn import _checks
from fastinn._products import multiplies_bfloat16
from fastinn._types import Precision
from fastinn.embed import batches
from fastinn.embed.apart import are_of_one_length, check_apart
from fastinn.embed.levels import LAYOUTS, Layout, Level
from fastinn.embed.model import chosen_layers
from fastinn.embed.packing import can_pack, packed, packed_attention
from fastinn.embed.rows import Rows
from fastinn.embed.source import Encoded, Source
from fastinn.embed.tap import Tap
from fastinn.embed.tokens import Window

_BYTES_A_FEATURE = {"cpu": 4_096, "cuda": 65_536}
"""Bytes that a feature of a batch takes: on a CPU its states stay in the cache, on a GPU they fill
the machine."""


class Encoder(Source):
    """A pretrained encoder whose chosen layers are read while it runs.

    Its weights are loaded when they are first needed.

    Args:
        model: Hub id or local folder of a Hugging Face BERT-like encoder.
        layers: Layers to read: 0 is the embedding output, -1 the last layer; or ``"all"``,
            at level ``"cls"`` without the embeddings, which are the same for every text.
        level: What a row is: a ``"token"``; a ``"word"``, the mean of the tokens that share
            characters with it, so that models with different tokenizers can be paired; a
            ``"sentence"``, the mean of a document's tokens, special ones excepted; or ``"cls"``,
            the first special token of a document.
        max_length: Longest window of tokens, special ones included; ``None`` takes the model's.
        device: Where the model runs; ``None`` takes the GPU if there is one.
        precision: ``"fast"`` runs the model in ``fast_dtype``, ``"high"`` in float32. So does
            ``"exact"``, which makes batches that no shard of the text and no size of blocks has a
            say in: rows are then the same, bit for bit, for any number of ranks with as many
            threads each. Where documents are short, its batches are smaller and slower.
        fast_dtype: ``torch.bfloat16`` or ``torch.float16``, which has three bits more and
            overflows past 65504.
        revision: Commit, tag or branch on the hub; give a commit to pin a run.

    Warns:
        RuntimeWarning: If ``"fast"`` is the slower one on this CPU, as it is without AVX512_BF16
            and AMX.

    Raises:
        ValueError: If there is no such model, it has no such layer, or ``layers`` is neither
            numbers nor ``"all"``. A model whose weights
            cannot be read, or that reads a text otherwise when a longer one is in the same batch,
            is found out when it first runs.
    """

    def __init__(
        self,
        model: str,
        *,
        layers: Sequence[int] | Literal["all"],
        level: Level = "token",
        max_length: int | None = None,
        device: str | torch.device | None = None,
        precision: Precision = "exact",
        fast_dtype: torch.dtype = torch.bfloat16,
        revision: str | None = None,
    ) -> None:
        _checks.one_of(level, tuple(LAYOUTS), "level")
        _checks.one_of(precision, get_args(Precision), "precision")
        _checks.one_of(fast_dtype, (torch.bfloat16, torch.float16), "fast_dtype")
        self.level, self.precision = level, precision
        super().__init__(
            model,
            max_length=max_length,
            device=device,
            dtype=fast_dtype if precision == "fast" else torch.float32,
            revision=revision,
        )
        first = 1 if level == "cls" else 0
        wanted = chosen_layers(layers, range(first, self.n_layers + 1))
        self.layers = self.model.resolve(wanted, 0)
        if precision == "fast" and not multiplies_bfloat16(self.device):
            warnings.warn(
                "16 bits take longer than 32 on this CPU, which has no AVX512_BF16 or AMX; "
                "leave --fast (precision='fast') out",
                RuntimeWarning,
                stacklevel=2,
            )
        self._is_checked = False
        self._packs = can_pack(self.model.config, self.device, self.dtype)
        if self._packs:
            self.model.attention = packed_attention()
        if level == "cls" and not self.tokens.tokenizer.num_special_tokens_to_add():
            raise ValueError(
                f"the tokenizer of {self.source} adds no special token, so there is no row at "
                "level 'cls'; use level 'sentence'"
            )

    @property
    def n_features(self) -> int:
        """Width of a row."""
        return int(self.model.config.hidden_size)

    def encode_windows(self, *portions: Sequence[Window]) -> Encoded:
        """Encode token windows made by a tokenizer equal to the model's own.

        At levels other than ``"token"`` all windows of a document have to be there.

        Args:
            *portions: Windows in reading order. With ``precision="exact"`` each portion is encoded
                as if it were alone: the shape of a batch has a say in the rounding.
        """
        windows = [window for portion in portions for window in portion]
        apart = portions if self.precision == "exact" else [windows]
        layout = LAYOUTS[self.level](windows)
        rows = Rows(self.layers, self.n_features, layout, self.device)
        budget = _BYTES_A_FEATURE[self.device.type] // self.dtype.itemsize
        by_length = partial(batches.by_length, budget=budget)
        for which in batches.in_portions(apart, by_length):
            self._run(windows, which, layout, rows)
        return Encoded(rows.finish(), layout.keys)

    @torch.no_grad()
    def _run(
        self, windows: Sequence[Window], which: Sequence[int], layout: Layout, rows: Rows
    ) -> None:
        """Run the model on the windows ``which`` and add their states to ``rows``."""
        together = [windows[i] for i in which]
        if not self._is_checked and not are_of_one_length(together):
            check_apart(self.source, together, self._states_of_first, self.dtype)
            self._is_checked = True
        batch = self._batch(together)
        put = torch.cat([layout.put[i] for i in which])
        take = torch.cat(
            [layout.take[i] + start for i, start in zip(which, batch.starts, strict=True)]
        )
        take = batches.on_device(self.device, {"take": take})["take"]

        def keep(layer: int, states: Tensor) -> None:
            rows.add(layer, states, take, put)

        with Tap(self.model.module(), self.layers, keep) as tap:
            tap.run(batch)

    def _states_of_first(self, windows: Sequence[Window]) -> Tensor:
        """Return the states of the last layer that is read, shape ``(length, d)``."""
        found: list[Tensor] = []
        with Tap(
            self.model.module(), self.layers[-1:], lambda _, states: found.append(states)
        ) as tap:
            tap.run(self._batch(windows))
        return found[0][: len(windows[0].ids)]

    def _batch(self, windows: Sequence[Window]) -> batches.Batch:
        if self._packs:
            return packed(windows, self.model.first_position, self.device)
        return batches.padded(windows, self.tokens.pad_id, self.device)
