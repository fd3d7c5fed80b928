"""Reads chosen layers of a model while it runs, and stops it after the last of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import transformers
from torch import Tensor, nn

from fastinn.embed.batches import Batch
from fastinn.embed.model import blocks_of


class Tap:
    """Hooks on the layers of ``model`` for as long as the context lasts.

    Args:
        model: What is run.
        layers: Layers to read; 0 is the embedding output.
        keep: Called with each layer and its states, every position of the batch a row.
    """

    class _Enough(Exception):  # noqa: N818 -- a signal that unwinds the model, not an error
        pass

    def __init__(
        self,
        model: transformers.PreTrainedModel,
        layers: Sequence[int],
        keep: Callable[[int, Tensor], None],
    ) -> None:
        self._model, self._layers, self._keep = model, layers, keep
        self._hooks: list[Any] = []
        self._positions: tuple[int, ...] = ()

    def __enter__(self) -> Tap:
        blocks = blocks_of(self._model)
        for layer in self._layers:
            if layer == 0:  # the first block's input, whatever the embeddings are made of
                hook = blocks[0].register_forward_pre_hook(self._before, with_kwargs=True)
            else:
                hook = blocks[layer - 1].register_forward_hook(self._after(layer))
            self._hooks.append(hook)
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def run(self, batch: Batch) -> None:
        """Run ``batch`` as far as the last layer that is read.

        Raises:
            ValueError: If a layer has other positions than the batch.
        """
        self._positions = tuple(batch.inputs["input_ids"].shape)
        with contextlib.suppress(self._Enough):
            self._model(**batch.inputs)

    def _before(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._read(0, args[0] if args else kwargs["hidden_states"])

    def _after(self, layer: int) -> Any:
        def hook(block: nn.Module, args: Any, output: Any) -> None:
            self._read(layer, output[0] if isinstance(output, tuple) else output)

        return hook

    def _read(self, layer: int, states: Tensor) -> None:
        if states.shape[:-1] != self._positions:
            raise ValueError(
                f"layer {layer} of {type(self._model).__name__} has positions "
                f"{tuple(states.shape[:-1])} and its input has {self._positions}: a model that "
                "pads or shortens within cannot be read token by token; give a BERT-like model"
            )
        self._keep(layer, states.flatten(end_dim=-2))
        if layer == max(self._layers):
            raise self._Enough
