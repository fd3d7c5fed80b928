"""Texts to windows of token ids, with the place of every token in its document."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from fastinn.embed.corpus import Document


@dataclass(frozen=True)
class Window:
    """A stretch of one document, as long as the model can read at once.

    Attributes:
        ids: Token ids with the model's special tokens, shape ``(length,)``.
        content: Which of them are text and not special tokens, shape ``(length,)``.
        document: Number of the document.
        start: Position in the document of the first content token.
    """

    ids: Tensor
    content: Tensor
    document: int
    start: int

    @property
    def n_tokens(self) -> int:
        """Number of content tokens."""
        return int(self.content.sum())

    @property
    def keys(self) -> Tensor:
        """Document, position and token id of each content token, shape ``(n_tokens, 3)``."""
        ids = self.ids[self.content]
        positions = torch.arange(self.start, self.start + len(ids))
        return torch.stack([torch.full_like(ids, self.document), positions, ids], dim=1)


class Tokens:
    """A tokenizer and the window length of the models that read its tokens.

    Args:
        source: Hub id or folder of a fast tokenizer.
        max_length: Longest window, special tokens included.
        revision: Commit, tag or branch on the hub.
    """

    def __init__(self, source: str, *, max_length: int, revision: str | None = None) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
        if not self._tokenizer.is_fast:
            raise ValueError(f"{source} has no fast tokenizer; convert it with save_pretrained")
        self.max_length = max_length

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer itself."""
        return self._tokenizer

    @property
    def pad_id(self) -> int:
        """Id that fills the end of shorter windows in a batch."""
        return self._tokenizer.pad_token_id or 0

    def fingerprint(self) -> str:
        """Hash of vocabulary and rules: equal hashes give equal tokens, 32 hexadecimal digits."""
        rules = json.loads(self._tokenizer.backend_tokenizer.to_str())
        for setting in ("truncation", "padding"):  # left behind by the last call, no rule
            rules.pop(setting, None)
        text = f"{self.max_length}\n{json.dumps(rules, sort_keys=True)}"
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def windows(self, documents: Iterable[Document]) -> Iterator[Window]:
        """Yield the windows of ``documents`` in reading order."""
        # A batch of documents keeps the Rust threads of the tokenizer busy.
        for batch in _batched(documents, size=64):
            yield from self._encode(batch)

    def _encode(self, documents: list[Document]) -> Iterator[Window]:
        encoded: Any = self._tokenizer(
            [document.text for document in documents],
            truncation=True,
            max_length=self.max_length,
            return_overflowing_tokens=True,
            return_special_tokens_mask=True,
            return_attention_mask=False,
        )
        start = [0] * len(documents)
        for ids, special, i in zip(
            encoded["input_ids"],
            encoded["special_tokens_mask"],
            encoded["overflow_to_sample_mapping"],
            strict=True,
        ):
            content = ~torch.tensor(special, dtype=torch.bool)
            window = Window(torch.tensor(ids), content, documents[i].number, start[i])
            start[i] += window.n_tokens
            if window.n_tokens:
                yield window


def _batched(documents: Iterable[Document], size: int) -> Iterator[list[Document]]:
    batch: list[Document] = []
    for document in documents:
        batch.append(document)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
