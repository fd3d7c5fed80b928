"""Hidden states of BERT-like encoders, one row a token."""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

from fastinn import _checks
from fastinn._types import Precision
from fastinn.embed._quiet import quiet_transformers
from fastinn.embed.corpus import Corpus, Document
from fastinn.embed.tokens import Tokens, Window

TOKENS_PER_BLOCK = 16_384
_PADDED_TOKENS_PER_BATCH = 4_096


@dataclass(frozen=True)
class Encoded:
    """Hidden states in reading order, special tokens and padding dropped.

    Attributes:
        rows: For each layer the states, shape ``(n, d)``, float32.
        keys: Document, position in it and token id of each row, shape ``(n, 3)``, int64.
    """

    rows: dict[int, Tensor]
    keys: Tensor


class Encoder:
    """A pretrained encoder whose chosen layers are read while it runs.

    Args:
        model: Hub id or local folder of a Hugging Face BERT-like encoder.
        layers: Layers to read: 0 is the embedding output, -1 the last layer; or ``"all"``.
        level: What a row is; ``"token"``.
        max_length: Longest window of tokens, special ones included; ``None`` takes the model's.
        device: Where the model runs; ``None`` takes the GPU if there is one.
        precision: ``"fast"`` runs the model with bfloat16 products, ``"exact"`` and ``"high"`` in
            float32.
        revision: Commit, tag or branch on the hub; give a commit to pin a run.

    Raises:
        ValueError: If the model cannot be loaded, or has no such layer.
    """

    def __init__(
        self,
        model: str,
        *,
        layers: Sequence[int] | Literal["all"],
        level: str = "token",
        max_length: int | None = None,
        device: str | torch.device | None = None,
        precision: Precision = "exact",
        revision: str | None = None,
    ) -> None:
        _checks.one_of(level, ("token",), "level")
        _checks.one_of(precision, ("exact", "high", "fast"), "precision")
        self.source = str(model)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.precision = precision
        self.level = level
        self._model = _load(self.source, revision, self.device)
        self._blocks = _blocks(self._model)
        wanted = range(self.n_layers + 1) if layers == "all" else layers
        self.layers = _resolve(wanted, self.n_layers, self.source)
        longest = _longest_window(self._model)
        self.tokens = Tokens(
            self.source, max_length=min(max_length or longest, longest), revision=revision
        )

    @property
    def n_layers(self) -> int:
        """Number of Transformer layers of the model."""
        return len(self._blocks)

    @property
    def n_features(self) -> int:
        """Width of a row."""
        return int(self._model.config.hidden_size)

    @property
    def revision(self) -> str | None:
        """Commit that was loaded from the hub; ``None`` for a local folder."""
        return getattr(self._model.config, "_commit_hash", None)

    def fingerprint(self) -> str:
        """Hash of the weights, 32 hexadecimal digits."""
        whole = hashlib.blake2b(digest_size=16)
        for name, weight in self._model.state_dict().items():
            whole.update(name.encode())
            whole.update(weight.cpu().contiguous().flatten().view(torch.uint8).numpy())
        return whole.hexdigest()

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Encode ``texts``, a document each.

        Raises:
            ValueError: If there is no token in them.
        """
        if isinstance(texts, str):
            raise TypeError("texts is one string; give a list of texts, a document each")
        documents = [Document(i, text, text) for i, text in enumerate(texts)]
        windows = list(self.tokens.windows(documents))
        if not windows:
            raise ValueError(f"no token in {len(texts)} texts; give texts with words in them")
        return self.encode_windows(windows)

    def stream(self, corpus: Corpus, tokens_per_block: int = TOKENS_PER_BLOCK) -> Iterator[Encoded]:
        """Encode ``corpus`` in blocks of ``tokens_per_block`` tokens or a window more."""
        for windows in blocks_of_windows(self.tokens.windows(corpus), tokens_per_block):
            yield self.encode_windows(windows)

    def encode_windows(self, windows: Sequence[Window]) -> Encoded:
        """Encode token windows made by a tokenizer equal to the model's own."""
        keys = torch.cat([window.keys for window in windows])
        rows = {layer: torch.empty(len(keys), self.n_features) for layer in self.layers}
        starts = _starts(windows)
        for batch in _batches(windows):
            where = torch.cat([starts[i] + torch.arange(windows[i].n_tokens) for i in batch])
            for layer, states in self._run([windows[i] for i in batch]).items():
                rows[layer][where] = states
        return Encoded(rows, keys)

    @torch.no_grad()
    def _run(self, windows: Sequence[Window]) -> dict[int, Tensor]:
        """Run one batch; content rows of each layer, window after window."""
        ids = _pad([w.ids for w in windows], self.tokens.pad_id).to(self.device)
        content = _pad([w.content for w in windows], False).to(self.device)
        attended = _pad([torch.ones_like(w.ids) for w in windows], 0).to(self.device)
        with (
            _Tap(self._blocks, self.layers, content) as tap,
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "fast"),
        ):
            tap.run(lambda: self._model(input_ids=ids, attention_mask=attended))
        return tap.rows


class _Tap:
    """Hooks that copy the content rows of chosen layers and stop the model after the last."""

    class _Enough(Exception):  # noqa: N818 -- a signal that unwinds the model, not an error
        pass

    def __init__(self, blocks: nn.ModuleList, layers: Sequence[int], content: Tensor) -> None:
        self.rows: dict[int, Tensor] = {}
        self._blocks, self._layers, self._content = blocks, layers, content
        self._hooks: list[Any] = []

    def __enter__(self) -> "_Tap":
        for layer in self._layers:
            if layer == 0:  # the first block's input, whatever the embeddings are made of
                hook = self._blocks[0].register_forward_pre_hook(self._before, with_kwargs=True)
            else:
                hook = self._blocks[layer - 1].register_forward_hook(self._after(layer))
            self._hooks.append(hook)
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def run(self, model: Any) -> None:
        with contextlib.suppress(self._Enough):
            model()

    def _before(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._keep(0, args[0] if args else kwargs["hidden_states"])

    def _after(self, layer: int) -> Any:
        def hook(block: nn.Module, args: Any, output: Any) -> None:
            self._keep(layer, output[0] if isinstance(output, tuple) else output)

        return hook

    def _keep(self, layer: int, states: Tensor) -> None:
        self.rows[layer] = states[self._content].float().cpu()
        if layer == max(self._layers):
            raise self._Enough


def blocks_of_windows(windows: Iterable[Window], n_tokens: int) -> Iterator[list[Window]]:
    """Gather ``windows`` into lists that hold at least ``n_tokens`` tokens, the last excepted."""
    block: list[Window] = []
    held = 0
    for window in windows:
        block.append(window)
        held += window.n_tokens
        if held >= n_tokens:
            yield block
            block, held = [], 0
    if block:
        yield block


def _load(source: str, revision: str | None, device: torch.device) -> PreTrainedModel:
    if source.startswith((".", "/", "~")) and not Path(source).is_dir():
        raise ValueError(f"there is no model folder {source}; give a hub id or a folder")
    try:
        # A checkpoint pretrained as a language model has a head that is not wanted and may lack
        # the pooler, which is never run here; transformers reports both at length.
        with quiet_transformers():
            config = AutoConfig.from_pretrained(source, revision=revision)
            model = AutoModel.from_pretrained(
                source, config=config, revision=revision, dtype=torch.float32
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"model {source} cannot be loaded ({reason}); give a hub id or the folder of a "
            "Hugging Face encoder"
        ) from error
    if hasattr(model, "pooler"):
        model.pooler = None  # random where the checkpoint lacks one: no part of the fingerprint
    nn.Module.to(model, device)
    return model.eval()


def _blocks(model: PreTrainedModel) -> nn.ModuleList:
    """Find the Transformer layers of ``model``, which every family names otherwise."""
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == model.config.num_hidden_layers:
            return module
    raise ValueError(
        f"{type(model).__name__} has no list of layers to read; give a BERT-like model"
    )


def _longest_window(model: PreTrainedModel) -> int:
    """Longest window of ``model``; RoBERTa's positions start behind its padding index."""
    length = int(model.config.max_position_embeddings)
    positions = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    padding = getattr(positions, "padding_idx", None)
    return length if padding is None else length - padding - 1


def _resolve(layers: Sequence[int], n_layers: int, source: str) -> list[int]:
    bad = [layer for layer in layers if not -n_layers - 1 <= layer <= n_layers]
    if bad or not layers:
        raise ValueError(
            f"layers is {list(layers)}, but {source} has layers 0 (embeddings) to {n_layers}"
        )
    return sorted({layer % (n_layers + 1) for layer in layers})


def _starts(windows: Sequence[Window]) -> list[int]:
    lengths = torch.tensor([0] + [window.n_tokens for window in windows])
    return lengths.cumsum(0).tolist()


def _batches(windows: Sequence[Window]) -> Iterator[list[int]]:
    """Group windows of like length, so that hardly anything is padding."""
    batch: list[int] = []
    for i in sorted(range(len(windows)), key=lambda i: len(windows[i].ids), reverse=True):
        longest = len(windows[batch[0]].ids) if batch else 0
        if batch and (len(batch) + 1) * longest > _PADDED_TOKENS_PER_BATCH:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _pad(sequences: Sequence[Tensor], value: int | bool) -> Tensor:
    return nn.utils.rnn.pad_sequence(list(sequences), batch_first=True, padding_value=value)
