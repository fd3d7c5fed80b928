"""Texts to windows of token ids, with the place of every token in its document."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

from fastinn.embed.corpus import Document
from fastinn.embed.model import loading
from fastinn.embed.words import overlaps, words

DOCUMENTS_AT_ONCE = 64
"""As many as keep the Rust threads of a tokenizer busy."""

CHARACTERS_AT_ONCE = 2_000_000
"""What is tokenised at once takes about 126 bytes a character."""


@dataclass(frozen=True)
class Window:
    """A stretch of one document, as long as the model can read at once.

    Attributes:
        ids: Token ids with the model's special tokens, shape ``(length,)``.
        content: Which of them are text and not special tokens, shape ``(length,)``.
        document: Number of the document.
        start: Position in the document of the first content token; 0 in its first window.
        last: Whether no other window of the document follows.
        words: Index in ``ids``, index of the word and hash of the word for each token and word
            that share characters, shape ``(n, 3)``; ``None`` unless words were asked for.
    """

    ids: Tensor
    content: Tensor
    document: int
    start: int
    last: bool = True
    words: Tensor | None = None

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
        words: Whether windows say which words their tokens belong to.

    Raises:
        ValueError: If there is no such tokenizer, it is not a fast one, or its special tokens
            leave no room in a window.
    """

    def __init__(
        self, source: str, *, max_length: int, revision: str | None = None, words: bool = False
    ) -> None:
        with loading(source):
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(
                source, revision=revision, trust_remote_code=False
            )
        # Windows are cut off at their end; a model may say otherwise, and then they would be
        # counted backwards.
        self._tokenizer.truncation_side = "right"
        if not self._tokenizer.is_fast:
            raise ValueError(f"{source} has no fast tokenizer; convert it with save_pretrained")
        special = self._tokenizer.num_special_tokens_to_add()
        if max_length <= special:
            raise ValueError(
                f"max_length is {max_length}, but {source} adds {special} special tokens to every "
                f"window; give at least {special + 1}"
            )
        self.max_length = max_length
        self._words = words

    @property
    def tokenizer(self) -> transformers.PreTrainedTokenizerBase:
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
        for batch in batched(documents):
            for windows in self.by_document(batch):
                yield from windows

    def by_document(self, documents: list[Document]) -> list[list[Window]]:
        """Return the windows of each of ``documents``; none of one without a content token."""
        encoded: Any = self._tokenizer(
            [document.text for document in documents],
            truncation=True,
            max_length=self.max_length,
            return_overflowing_tokens=True,
            return_special_tokens_mask=True,
            return_attention_mask=False,
            return_offsets_mapping=self._words,
            verbose=False,
        )
        parts: list[list[int]] = [[] for _ in documents]
        for part, i in enumerate(encoded["overflow_to_sample_mapping"]):
            if not all(encoded["special_tokens_mask"][part]):
                parts[i].append(part)
        return [self._windows(d, encoded, p) for d, p in zip(documents, parts, strict=True)]

    def _windows(self, document: Document, encoded: Any, parts: list[int]) -> list[Window]:
        """Make the windows of one document from those ``parts`` of the tokenizer's output."""
        found = words(document.text) if self._words else None
        windows = []
        start = 0
        for part in parts:
            content = ~torch.tensor(encoded["special_tokens_mask"][part], dtype=torch.bool)
            window = Window(
                ids=torch.tensor(encoded["input_ids"][part]),
                content=content,
                document=document.number,
                start=start,
                last=part == parts[-1],
                words=None if found is None else _pairs(encoded["offset_mapping"][part], *found),
            )
            start += window.n_tokens
            windows.append(window)
        return windows


def _pairs(offsets: list[tuple[int, int]], bounds: np.ndarray, marks: np.ndarray) -> Tensor:
    """Return the rows of :attr:`Window.words`; special tokens have no characters, so no rows."""
    token, word = overlaps(np.array(offsets, dtype=np.int64).reshape(-1, 2), bounds).T
    return torch.from_numpy(np.stack([token, word, marks[word]], axis=1))


def batched(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Gather ``documents`` into lists to tokenise at once.

    A list ends with ``DOCUMENTS_AT_ONCE`` of them, or as soon as it has ``CHARACTERS_AT_ONCE``.
    """
    batch: list[Document] = []
    held = 0
    for document in documents:
        batch.append(document)
        held += len(document.text)
        if len(batch) == DOCUMENTS_AT_ONCE or held >= CHARACTERS_AT_ONCE:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch
