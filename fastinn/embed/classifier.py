"""Sequence classifiers whose hidden states can be read, and replaced, at any layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from fastinn import _checks
from fastinn._products import products
from fastinn._types import Precision
from fastinn.embed.batches import by_length, padded
from fastinn.embed.model import Model, blocks_of, loading, weights_hash
from fastinn.embed.tokens import Tokens, Window

_PADDED_TOKENS_PER_BATCH = 4_096


@dataclass(frozen=True)
class TextBatch:
    """Texts of like length, special tokens included, padded to the longest.

    Attributes:
        places: Place of each text among those that were given, shape ``(b,)``.
        inputs: What a model is called with, on its device.
    """

    places: Tensor
    inputs: dict[str, Tensor]

    @property
    def attended(self) -> Tensor:
        """Which positions are tokens and not padding, shape ``(b, length)``."""
        return self.inputs["attention_mask"].bool()


class Classifier:
    """A fine-tuned sequence classifier.

    Layer 0 is the embedding output, layer ``n_layers`` the last one's; states are of all tokens,
    special ones included, since it is one of those that the model's head reads.

    Args:
        model: Hub id or folder of a Hugging Face sequence classifier.
        max_length: Longest text in tokens, special ones included; what is longer is cut. ``None``
            takes the model's.
        device: Where the model runs; ``None`` takes the GPU if there is one.
        precision: ``"fast"`` runs the model with bfloat16 products where they are the faster ones,
            ``"exact"`` and ``"high"`` in float32.

    Raises:
        ValueError: If the model cannot be loaded, or its head was never trained.
    """

    def __init__(
        self,
        model: str,
        *,
        max_length: int | None = None,
        device: str | torch.device | None = None,
        precision: Precision = "exact",
    ) -> None:
        _checks.one_of(precision, get_args(Precision), "precision")
        self.source = str(model)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.precision = precision
        self._outline = Model(self.source, None, self.device, torch.float32)
        self._model = _load(self.source).eval()
        nn.Module.to(self._model, self.device)
        self._blocks = blocks_of(self._model)
        longest = self._outline.longest_window
        self.tokens = Tokens(self.source, max_length=min(max_length or longest, longest))

    @property
    def n_layers(self) -> int:
        """Number of Transformer layers."""
        return len(self._blocks)

    @property
    def n_features(self) -> int:
        """Width of the hidden states."""
        return int(self._model.config.hidden_size)

    @property
    def classes(self) -> list[str]:
        """Name of each class."""
        names = self._model.config.id2label
        return [str(names[i]) for i in range(len(names))]

    def fingerprint(self) -> str:
        """Hash of the weights, 32 hexadecimal digits."""
        return weights_hash(self._model)

    def layers(self, wanted: Sequence[int]) -> list[int]:
        """Return layers, negative ones counted from the end, as numbers from 0.

        Raises:
            ValueError: If there is no such layer.
        """
        return self._outline.resolve(wanted)

    def batches(self, texts: Sequence[str], *, max_tokens: int | None = None) -> list[TextBatch]:
        """Tokenise ``texts`` and gather those of like length.

        Args:
            texts: What is classified, of any length.
            max_tokens: Stop in front of the text that would make it more; the first is kept in
                any case.
        """
        windows = tokenise(self.tokens, texts)
        if max_tokens is not None:
            n_tokens = np.cumsum([len(window.ids) for window in windows])
            windows = windows[: max(1, int((n_tokens <= max_tokens).sum()))]
        return text_batches(windows, self.tokens.pad_id, self.device)

    def states(self, batch: TextBatch, layers: Sequence[int]) -> dict[int, Tensor]:
        """Return the hidden states of the tokens at ``layers``.

        Args:
            batch: Texts.
            layers: Numbers from 0 to ``n_layers``.

        Returns:
            For each layer the states, shape ``(n_tokens, n_features)``, float32, text after text,
            padding dropped.
        """
        found: dict[int, Tensor] = {}

        def keep(layer: int) -> Callable[[Tensor], Tensor]:
            def at(states: Tensor) -> Tensor:
                found[layer] = states[batch.attended].float().cpu()
                return states

            return at

        self._run(batch, {layer: keep(layer) for layer in layers})
        return found

    def logits(self, batch: TextBatch) -> Tensor:
        """Return the logits of each text, shape ``(b, n_classes)``, float32."""
        return self._run(batch, {})

    def resume(self, batch: TextBatch, layer: int, states: Tensor) -> Tensor:
        """Return the logits that this model reaches from given hidden states.

        The layers above ``layer``, the pooler and the classifier are this model's own. The layers
        below are run too, and what comes of them is dropped.

        Args:
            batch: Texts; their padding is what attention leaves out.
            layer: Where the states stand in, from 0 to ``n_layers``.
            states: Shape ``(n_tokens, n_features)``, as :meth:`states` returns them.

        Returns:
            Shape ``(b, n_classes)``, float32.

        Raises:
            ValueError: If there is not one state of this model's width for each token.
        """
        expected = (int(batch.attended.sum()), self.n_features)
        if states.shape != expected:
            raise ValueError(
                f"states has shape {tuple(states.shape)}, but the batch has {expected[0]} tokens "
                f"and {self.source} {expected[1]} features"
            )

        def replace(own: Tensor) -> Tensor:
            given = torch.zeros_like(own)  # padding, which nothing attends to
            given[batch.attended] = states.to(own)
            return given

        return self._run(batch, {layer: replace})

    def predict(self, texts: Sequence[str]) -> Tensor:
        """Return the number of the likeliest class of each text, shape ``(n,)``."""
        predicted = torch.empty(len(texts), dtype=torch.long)
        for batch in self.batches(texts):
            predicted[batch.places] = self.logits(batch).argmax(dim=1)
        return predicted

    @torch.no_grad()
    def _run(self, batch: TextBatch, actions: Mapping[int, Callable[[Tensor], Tensor]]) -> Tensor:
        with ExitStack() as stack:
            stack.enter_context(products(self.precision, self.device))
            for layer, action in actions.items():
                stack.enter_context(_at(self._blocks, layer, action))
            return self._model(**batch.inputs).logits.float().cpu()


def tokenise(tokens: Tokens, texts: Sequence[str]) -> list[Window]:
    """Return one window a text; what is longer is cut, and a text may have no content token."""
    encoded: Any = tokens.tokenizer(
        list(texts), truncation=True, max_length=tokens.max_length, return_special_tokens_mask=True
    )
    return [
        Window(torch.tensor(ids), ~torch.tensor(special, dtype=torch.bool), place, start=0)
        for place, (ids, special) in enumerate(
            zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True)
        )
    ]


def text_batch(windows: Sequence[Window], pad_id: int, device: torch.device) -> TextBatch:
    """Pad the windows of some texts to the longest."""
    places = torch.tensor([window.document for window in windows])
    return TextBatch(places, padded(windows, pad_id, device).inputs)


def text_batches(windows: Sequence[Window], pad_id: int, device: torch.device) -> list[TextBatch]:
    """Gather windows of like length, so that hardly anything is padding."""
    return [
        text_batch([windows[i] for i in batch], pad_id, device)
        for batch in by_length(windows, _PADDED_TOKENS_PER_BATCH)
    ]


@contextmanager
def _at(blocks: nn.ModuleList, layer: int, action: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let ``action`` see, and replace, the hidden states of ``layer`` whenever the model runs."""

    def before(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (action(args[0]), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": action(kwargs["hidden_states"])}

    def after(block: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return action(output[0]), *output[1:]
        return action(output)

    if layer < len(blocks):
        hook: Any = blocks[layer].register_forward_pre_hook(before, with_kwargs=True)
    else:
        hook = blocks[-1].register_forward_hook(after)
    try:
        yield
    finally:
        hook.remove()


def _load(source: str) -> transformers.PreTrainedModel:
    with loading(source):
        model, report = transformers.AutoModelForSequenceClassification.from_pretrained(
            source, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise ValueError(
            f"model {source} has no trained classifier ({missing[0]} is not in it); make one of it "
            "with `fastinn finetune`"
        )
    return model
