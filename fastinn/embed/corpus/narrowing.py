"""What narrows a corpus to some of its documents."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from fastinn.embed.corpus.document import Cursor, Document

Narrowing: TypeAlias = Callable[[Iterator[Document], Cursor], Iterator[Document]]
"""Chooses from the documents behind a cursor."""

_SHARED_OUT = 64
"""Records that go to one shard before the next shard has its turn."""


@dataclass(frozen=True)
class Shard:
    """Narrows a corpus to a shard.

    Attributes:
        index: Which shard, counted from 0.
        count: Number of shards.
        stride: Number of shards that the corpus was divided into before, of which it is one.
    """

    index: int
    count: int
    stride: int = 1

    def __post_init__(self) -> None:
        """Refuse a shard that does not exist."""
        if not 0 <= self.index < self.count:
            raise ValueError(
                f"shard {self.index} of {self.count} does not exist, expected 0 to {self.count - 1}"
            )

    def holds(self, number: Any) -> Any:
        """Tell whether record ``number`` belongs to this shard; of an array, each of them."""
        return group_of(number) // self.stride % self.count == self.index

    def __call__(self, documents: Iterator[Document], _: Cursor) -> Iterator[Document]:
        """Choose the documents of this shard."""
        return (document for document in documents if self.holds(document.number))


def group_of(number: Any) -> Any:
    """Return the group of record ``number``, which no shard divides; of an array, each one's."""
    return number // _SHARED_OUT
