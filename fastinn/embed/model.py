"""A pretrained encoder whose weights are loaded when they are needed, and let go again."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from fastinn.embed._quiet import quiet_transformers


class Model:
    """A Hugging Face encoder by name; its structure is known before its weights are loaded.

    Args:
        source: Hub id or local folder.
        revision: Commit, tag or branch on the hub.
        device: Where it runs.
        dtype: What it computes in.

    Raises:
        ValueError: If there is no such model.
    """

    def __init__(
        self, source: str, revision: str | None, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.source, self.revision, self.device, self.dtype = source, revision, device, dtype
        self.attention: str | None = None
        with loading(source):
            self.config: transformers.PreTrainedConfig = transformers.AutoConfig.from_pretrained(
                source, revision=revision, trust_remote_code=False
            )
        with torch.device("meta"), quiet_transformers():
            self._outline = _without_pooler(
                transformers.AutoModel.from_config(copy.deepcopy(self.config))
            )
        self.n_layers = len(blocks_of(self._outline))
        self._loaded: transformers.PreTrainedModel | None = None
        self._fingerprint: str | None = None

    @property
    def commit(self) -> str | None:
        """Commit on the hub; ``None`` for a local folder."""
        return getattr(self.config, "_commit_hash", None)

    @property
    def nbytes(self) -> int:
        """Bytes that the weights take when they are loaded."""
        return sum(weight.numel() for weight in self._outline.parameters()) * self.dtype.itemsize

    @property
    def is_loaded(self) -> bool:
        """Whether the weights are held."""
        return self._loaded is not None

    @property
    def first_position(self) -> int:
        """Index of the first position; RoBERTa's positions start behind its padding index."""
        positions = getattr(getattr(self._outline, "embeddings", None), "position_embeddings", None)
        padding = getattr(positions, "padding_idx", None)
        return 0 if padding is None else padding + 1

    @property
    def longest_window(self) -> int:
        """Positions of the longest window that the model can read.

        Raises:
            ValueError: If the model names none, as those with relative positions alone do.
        """
        longest = getattr(self.config, "max_position_embeddings", None)
        if longest is None or longest <= self.first_position:
            raise ValueError(
                f"{self.source} names no longest window (max_position_embeddings is {longest}); "
                "give a BERT-like model, with positions of its own"
            )
        return int(longest) - self.first_position

    def resolve(self, layers: Sequence[int], first: int = 0) -> list[int]:
        """Return ``layers`` in order, counted from the embeddings up, or name what there is.

        Args:
            layers: Layers, negative ones counted from the end.
            first: The first that can be read.

        Raises:
            ValueError: If there is no such layer, or none is asked for.
        """
        n = self.n_layers
        found = sorted({layer + n + 1 if layer < 0 else layer for layer in layers})
        if not found or found[0] < first or found[-1] > n:
            lowest = f"{first}{'' if first else ' (embeddings)'}"
            raise ValueError(
                f"layers is {list(layers)}, but {self.source} has layers {lowest} to {n}"
            )
        return found

    def module(self) -> transformers.PreTrainedModel:
        """Return the model itself, loaded if it is not yet.

        Raises:
            ValueError: If its weights cannot be read.
        """
        if self._loaded is None:
            self._loaded = self._load(self.dtype)
            nn.Module.to(self._loaded, self.device)
        return self._loaded

    def release(self) -> None:
        """Let go of the weights; they are loaded again when they are needed."""
        self._loaded = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def fingerprint(self) -> str:
        """Hash of the float32 weights, 32 hexadecimal digits, whatever the model computes in."""
        if self._fingerprint is None:
            is_whole = self.is_loaded and self.dtype == torch.float32
            self._fingerprint = weights_hash(
                self.module() if is_whole else self._load(torch.float32)
            )
        return self._fingerprint

    def _load(self, dtype: torch.dtype) -> transformers.PreTrainedModel:
        # A config of its own: one model's choice of attention would change that of another.
        options: dict[str, Any] = {
            "config": copy.deepcopy(self.config),
            "dtype": dtype,
            "revision": self.commit or self.revision,
            "trust_remote_code": False,
            "output_loading_info": True,
        }
        if self.attention is not None:
            options["attn_implementation"] = self.attention
        # A checkpoint pretrained as a language model has a head that is not wanted and may lack
        # the pooler, which is never run here; transformers reports both at length.
        with loading(self.source):
            model, report = transformers.AutoModel.from_pretrained(self.source, **options)
        missing = sorted(k for k in report["missing_keys"] if not k.startswith("pooler."))
        if missing:
            raise ValueError(
                f"model {self.source} lacks {len(missing)} of its weights ({missing[0]} is not in "
                "it), which would be random; give a whole checkpoint"
            )
        return _without_pooler(model).eval()


def chosen_layers(layers: object, every: range) -> Sequence[int]:
    """Return the numbers that were asked for, or ``every`` one for ``"all"``.

    Raises:
        ValueError: If ``layers`` is something else.
    """
    if isinstance(layers, str) and layers == "all":
        return every
    # Iterating over a text would take each of its letters for a layer.
    if not isinstance(layers, str) and isinstance(layers, Iterable):
        numbers = list(layers)
        if all(isinstance(layer, Integral) for layer in numbers):
            return numbers
    raise ValueError(f"layers is {layers!r}, expected 'all' or numbers such as [-1]")


def blocks_of(model: transformers.PreTrainedModel) -> nn.ModuleList:
    """Find the Transformer layers of ``model``, which every family names otherwise.

    Raises:
        ValueError: If there is no list of them, or each layer is divided among several lists.
    """
    n_layers = model.config.num_hidden_layers
    for module in model.modules():
        lists = [m for m in module.children() if isinstance(m, nn.ModuleList)]
        fitting = [m for m in lists if len(m) == n_layers]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:  # attentions in one, feed-forward parts in another
            break
    raise ValueError(
        f"{type(model).__name__} has no list of layers to read; give a BERT-like model"
    )


@contextmanager
def loading(source: str) -> Iterator[None]:
    """Turn whatever keeps ``source`` from being loaded into a ``ValueError`` that names it."""
    if source.startswith((".", "/", "~")) and not Path(source).is_dir():
        raise ValueError(f"there is no model folder {source}; give a hub id or a folder")
    try:
        with quiet_transformers():
            yield
    except Exception as error:  # of any of the libraries that read a part of the model
        raise ValueError(
            f"model {source} cannot be loaded ({_reason(error)}); give a hub id or the folder of a "
            "Hugging Face encoder"
        ) from error


def _reason(error: Exception) -> str:
    if type(error).__name__ == "UnpicklingError":  # which says at length how to run it
        return "its weights would run code when they are read; safetensors would not"
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _without_pooler(model: transformers.PreTrainedModel) -> transformers.PreTrainedModel:
    """Drop the pooler: random where the checkpoint lacks one, so no part of the fingerprint."""
    if hasattr(model, "pooler"):
        model.pooler = None  # type: ignore[assignment]
    return model


def weights_hash(model: transformers.PreTrainedModel) -> str:
    """Return a hash of the weights, 32 hexadecimal digits."""
    whole = hashlib.blake2b(digest_size=16)
    for name, weight in model.state_dict().items():
        whole.update(name.encode())
        whole.update(weight.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return whole.hexdigest()
