"""What a row is: a token, a word, a document's mean or its first special token."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from fastinn.embed.tokens import Window

Level: TypeAlias = Literal["token", "word", "sentence", "cls"]

BY_DOCUMENT: tuple[Level, ...] = ("word", "sentence", "cls")
"""Levels at which blocks are of whole documents, and seeds may differ in their tokenizers."""


@dataclass(frozen=True)
class Layout:
    """Which states of some windows are read, and the row that each goes to.

    Attributes:
        keys: What each row is, shape ``(n, 3)``, int64.
        take: For each window the indices of the tokens that are read.
        put: For each window the row of each of them; a row is the mean of what it is given.
        averaged: Whether a row may be given several.
    """

    keys: Tensor
    take: list[Tensor]
    put: list[Tensor]
    averaged: bool


def _tokens(windows: Sequence[Window]) -> Layout:
    take = [window.content.nonzero()[:, 0] for window in windows]
    return Layout(_joined([w.keys for w in windows]), take, _consecutive(take), averaged=False)


def _words(windows: Sequence[Window]) -> Layout:
    pairs = [window.words for window in windows if window.words is not None]
    assert len(pairs) == len(windows), "windows were made without words"
    named = [
        torch.cat([torch.full((len(p), 1), w.document), p[:, 1:]], 1)
        for w, p in zip(windows, pairs, strict=True)
    ]
    # A word may begin in one window and end in the next: it is found again by its key.
    keys, put = torch.unique(_joined(named), dim=0, return_inverse=True)
    sizes = [len(pair) for pair in pairs]
    return Layout(keys, [pair[:, 0] for pair in pairs], list(put.split(sizes)), averaged=True)


def _sentences(windows: Sequence[Window]) -> Layout:
    take = [window.content.nonzero()[:, 0] for window in windows]
    numbers = torch.tensor([window.document for window in windows], dtype=torch.int64)
    documents, rows = numbers.unique_consecutive(return_inverse=True)
    put = [row.expand(len(tokens)) for row, tokens in zip(rows, take, strict=True)]
    return Layout(_of_documents(documents), take, put, averaged=True)


def _first_specials(windows: Sequence[Window]) -> Layout:
    take = [_first_special(window) for window in windows]
    numbers = [window.document for window in windows if window.start == 0]
    keys = _of_documents(torch.tensor(numbers, dtype=torch.int64))
    return Layout(keys, take, _consecutive(take), averaged=False)


LAYOUTS: dict[str, Callable[[Sequence[Window]], Layout]] = {
    "token": _tokens,
    "word": _words,
    "sentence": _sentences,
    "cls": _first_specials,
}
"""How the rows of each level lie; levels other than ``"token"`` take whole documents."""


def _first_special(window: Window) -> Tensor:
    """Return the index of the document's first special token; none in later windows."""
    return (~window.content).nonzero()[: 1 if window.start == 0 else 0, 0]


def _of_documents(numbers: Tensor) -> Tensor:
    return torch.stack([numbers, torch.zeros_like(numbers), torch.zeros_like(numbers)], dim=1)


def _consecutive(take: Sequence[Tensor]) -> list[Tensor]:
    sizes = [len(tokens) for tokens in take]
    return list(torch.arange(sum(sizes)).split(sizes)) if sizes else []


def _joined(keys: Sequence[Tensor]) -> Tensor:
    return torch.cat([torch.empty(0, 3, dtype=torch.int64), *keys])
