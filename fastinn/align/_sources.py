"""Where paired training rows come from: arrays in memory, or blocks that pass by once an epoch."""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from fastinn import _checks, distributed
from fastinn._allocator import reused_buffers
from fastinn._arrays import as_tensor
from fastinn._types import Array
from fastinn.moments import Moments

Block: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""Source rows, target rows and the int64 document number of each row."""

Pair: TypeAlias = tuple[Tensor, Tensor]

# Enough for an R2 to three digits; a checkpoint must not cost more than a few training steps.
VALIDATION_ROWS = 4096

_BLOCK_ROWS = 65_536


class Source(Protocol):
    """Training rows of two spaces, with some documents set aside for validation."""

    moments: Moments
    """Moments of the training rows of all ranks, views ``"x"`` and ``"y"``."""

    validation: Pair
    """At most ``VALIDATION_ROWS`` rows of documents that no training row comes from."""

    def batches(self, size: int, generator: torch.Generator) -> "Batches":
        """Return shuffled training rows, epoch after epoch."""
        ...


@runtime_checkable
class Shuffled(Protocol):
    """Blocks that can be read in any order, such as those of stores."""

    def shuffled(self, generator: torch.Generator) -> Iterator[Block]:
        """Yield all blocks in an order that ``generator`` draws."""
        ...


@runtime_checkable
class Identified(Protocol):
    """Blocks that can tell whether they are the same as others."""

    def identity(self) -> dict[str, Any]:
        """Return what both share if they are, as JSON can hold it."""
        ...


def identity_of(blocks: Iterable[Any]) -> dict[str, Any]:
    """Return what other blocks must share with these to be the same, as far as these can tell."""
    return blocks.identity() if isinstance(blocks, Identified) else {}


def identity_of_rows(*arrays: Tensor) -> dict[str, Any]:
    """Return what tells the values of these arrays from those of others, as JSON can hold it."""
    found = hashlib.sha256()  # which processors have instructions for
    for part in (part for array in arrays for part in array.split(_BLOCK_ROWS)):
        found.update(part.cpu().contiguous().view(torch.uint8).numpy())
    return {"rows": len(arrays[0]), "hash of the rows": found.hexdigest()}


def check_repeatable(blocks: Iterable[Any]) -> None:
    """Raise ``ValueError`` if blocks can be iterated only once."""
    if isinstance(blocks, Iterator):
        raise ValueError(
            "blocks is an iterator, which is used up after one pass, and every epoch takes "
            "another; pass a list, or an object whose __iter__ begins anew"
        )


def first_of(blocks: Iterable[Any]) -> Any:
    """Return the first block, or raise ``ValueError`` if there is none."""
    first = next(iter(blocks), None)
    if first is None:
        raise ValueError("there are no rows to learn from; give blocks with rows in them")
    return first


class Batches:
    """Shuffled batches without end, whose place can be noted and found again.

    Args:
        epoch: Yields the batches of one epoch in the order that the generator draws.
        generator: Decides the order of every epoch.
    """

    def __init__(
        self, epoch: Callable[[torch.Generator], Iterator[Pair]], generator: torch.Generator
    ) -> None:
        self._epoch, self._generator = epoch, generator
        self._begin(0)

    def __iter__(self) -> Iterator[Pair]:
        """Return itself."""
        return self

    def __next__(self) -> Pair:
        """Return the next batch, of the next epoch after the last one of this."""
        batch = next(self._left, None)
        if batch is None:
            self._begin(0)
            batch = next(self._left)
        self._drawn += 1
        return batch

    def place(self) -> dict[str, Tensor]:
        """Return the place behind the last batch."""
        return {"generator": self._first, "drawn": torch.tensor(self._drawn)}

    def go_on(self, place: dict[str, Tensor]) -> None:
        """Go to a :meth:`place`: the batches of its epoch that came before are drawn again."""
        self._generator.set_state(place["generator"])
        self._begin(int(place["drawn"]))

    def _begin(self, n_drawn: int) -> None:
        """Begin the epoch that the generator draws now, behind so many of its batches."""
        self._first, self._drawn = self._generator.get_state(), n_drawn
        self._left = islice(self._epoch(self._generator), n_drawn, None)


class InMemory:
    """Rows that are all in memory.

    Args:
        x: Source rows, shape ``(n, d_x)``.
        y: Target rows, shape ``(n, d_y)``.
        numbers: Document number of each row, shape ``(n,)``, on the CPU.
        held_out: Share of the documents to set aside, or the validation rows themselves.
    """

    def __init__(self, x: Tensor, y: Tensor, numbers: Tensor, held_out: float | Pair) -> None:
        self._x, self._y = x, y
        if isinstance(held_out, tuple):
            aside = torch.zeros(len(x), dtype=torch.bool)
        else:
            aside = held_out_rows(numbers, held_out)
        self._train = (~aside).nonzero().flatten().to(x.device)
        outside = held_out if isinstance(held_out, tuple) else self._rows(aside.nonzero().flatten())
        self.validation = _of_all_ranks(_thinned(outside))
        self.moments = _moments(self._rows(part) for part in self._train.split(_BLOCK_ROWS))

    def batches(self, size: int, generator: torch.Generator) -> Batches:
        """Return shuffled training rows, epoch after epoch."""

        def epoch(generator: torch.Generator) -> Iterator[Pair]:
            order = torch.randperm(len(self._train), generator=generator)
            for part in _batches(order.to(self._train.device), size):
                yield self._rows(self._train[part])

        return Batches(epoch, generator)

    def _rows(self, index: Tensor) -> Pair:
        return _select((self._x, self._y), index)


class Streamed:
    """Rows that are read again for every epoch and never all held.

    A buffer is filled, shuffled and half emptied, over and over, so rows mix beyond their block.

    Args:
        blocks: Can be iterated any number of times; yields blocks.
        held_out: Share of the documents to set aside, picked by a hash of their number.
        buffer_rows: Capacity of the shuffle buffer, in rows.
        validation: The validation rows, if an earlier pass has collected them; there is none now
            then, and no moments.

    Raises:
        ValueError: If no document falls into one of the two shares, or a block is not paired.
    """

    moments: Moments

    def __init__(
        self,
        blocks: Iterable[Block],
        held_out: float,
        *,
        buffer_rows: int,
        validation: Pair | None = None,
    ) -> None:
        self._blocks, self._share, self._capacity = blocks, held_out, buffer_rows
        if validation is not None:
            self.validation = validation
            return
        aside = _EvenSample(VALIDATION_ROWS)
        self.moments = _moments(self._training_rows(blocks, aside))
        self.validation = _of_all_ranks(aside.rows())

    def batches(self, size: int, generator: torch.Generator) -> Batches:
        """Return shuffled training rows, epoch after epoch."""
        capacity = max(self._capacity, 2 * size)

        def epoch(generator: torch.Generator) -> Iterator[Pair]:
            held: list[Pair] = []
            for pair in self._training_rows(_epoch(self._blocks, generator)):
                held.append(pair)
                if sum(len(x) for x, _ in held) >= capacity:
                    shuffled = _shuffled(held, generator)
                    yield from _pieces(shuffled, slice(0, capacity // 2), size)
                    held = [_select(shuffled, slice(capacity // 2, None))]
            yield from _pieces(_shuffled(held, generator), slice(None), size)

        return Batches(epoch, generator)

    def _training_rows(
        self, blocks: Iterable[Block], aside: "_EvenSample | None" = None
    ) -> Iterator[Pair]:
        """Yield the training rows of each block and put the others into ``aside``."""
        for x, y, documents in blocks:
            pair = _checks.paired(x, y)
            validation = _hash(document_numbers(documents, x)) < self._share
            if aside is not None:
                aside.add(_select(pair, validation))
            if not validation.all():
                yield _select(pair, ~validation)


def _epoch(blocks: Iterable[Block], generator: torch.Generator) -> Iterable[Block]:
    """Return the blocks of one epoch, in an order of their own where they can be shuffled."""
    return blocks.shuffled(generator) if isinstance(blocks, Shuffled) else blocks


class _EvenSample:
    """Every k-th of the rows that pass by, with k such that at most ``capacity`` are held."""

    def __init__(self, capacity: int) -> None:
        self._capacity, self._stride, self._seen = capacity, 1, 0
        self._held: list[Pair] = []

    def add(self, pair: Pair) -> None:
        n = len(pair[0])
        self._held.append(_thin(pair, slice(-self._seen % self._stride, None, self._stride)))
        self._seen += n
        while self._seen > self._capacity * self._stride:
            self._stride *= 2
            self._held = [_thin(_joined(self._held), slice(None, None, 2))]

    def rows(self) -> Pair:
        if self._seen == 0:
            raise ValueError(
                "no document fell into the validation share: "
                "stream more documents or raise `validation`"
            )
        return _joined(self._held)


def _moments(pairs: Iterable[Pair]) -> Moments:
    moments = None
    for x, y in pairs:
        if moments is None:
            moments = Moments({"x": x.shape[1], "y": y.shape[1]}, precision="exact")
        moments.update({"x": x, "y": y})
    if moments is None:
        raise ValueError(
            "there are no rows to train on: none were passed, or every document fell into the "
            "validation share; pass more documents or lower `validation`"
        )
    with distributed.meeting("joining the moments of the training rows"):
        return moments.all_reduce()


def _of_all_ranks(pair: Pair) -> Pair:
    """Return the validation rows of all ranks, as many as of one."""
    x, y = (torch.cat(distributed.gather_rows(rows)) for rows in pair)
    return _thinned((x, y))


def _thinned(pair: Pair) -> Pair:
    """Return every k-th row, with k such that at most ``VALIDATION_ROWS`` are left."""
    return _select(pair, slice(None, None, math.ceil(len(pair[0]) / VALIDATION_ROWS)))


def document_numbers(documents: Array | None, x: Tensor) -> Tensor:
    """Return the checked document number of each row; ``None``: each row is its own document."""
    if documents is None:
        return torch.arange(len(x))
    numbers = as_tensor(documents).cpu()
    if numbers.shape != (len(x),) or numbers.is_floating_point():
        raise ValueError(
            f"documents has shape {tuple(numbers.shape)} and dtype {numbers.dtype}, expected one "
            f"integer for each of the {len(x)} rows"
        )
    return numbers.long()


def held_out_rows(numbers: Tensor, share: float) -> Tensor:
    """Mark the rows of a share of the documents, at least one, those of the smallest hashes."""
    unique, document = numbers.unique(return_inverse=True)
    if len(unique) < 2:
        raise ValueError(
            f"all {len(numbers)} rows are of one document, so none can be set aside: pass rows "
            "of several documents, or validation rows to fit"
        )
    n_aside = min(max(1, round(share * len(unique))), len(unique) - 1)
    aside = torch.zeros(len(unique), dtype=torch.bool)
    aside[_hash(unique).argsort()[:n_aside]] = True
    return aside[document]


def _hash(numbers: Tensor) -> Tensor:
    """Map each number to a fixed, evenly spread value in [0, 1).

    After the finalizer of SplitMix64 (Steele, Lea and Flood 2014); int64 products wrap around.
    """
    mixed = (numbers + 1) * _signed(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> 30)) * _signed(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> 27)) * _signed(0x94D049BB133111EB)
    return ((mixed >> 32) & 0xFFFF_FFFF).double() / 2**32


def _signed(constant: int) -> int:
    return constant - 2**64


def _batches(order: Tensor, size: int) -> Iterator[Tensor]:
    """Split into batches of ``size``; a shorter one comes only if there is no other."""
    for part in order.split(size):
        if len(part) == min(size, len(order)):
            yield part


def _pieces(pair: Pair, rows: slice, size: int) -> Iterator[Pair]:
    """Yield batches of rows that are held; nothing is read between the steps that take them."""
    x, y = _select(pair, rows)
    with reused_buffers():
        for part in _batches(torch.arange(len(x)), size):
            yield _select((x, y), slice(int(part[0]), int(part[-1]) + 1))


def _shuffled(pairs: list[Pair], generator: torch.Generator) -> Pair:
    joined = _joined(pairs)
    return _select(joined, torch.randperm(len(joined[0]), generator=generator))


def _joined(pairs: list[Pair]) -> Pair:
    xs, ys = zip(*pairs, strict=True)
    return torch.cat(xs), torch.cat(ys)


def _select(pair: Pair, rows: Tensor | slice) -> Pair:
    return pair[0][rows], pair[1][rows]


def _thin(pair: Pair, rows: slice) -> Pair:
    """Copy a few of the rows: a view of them would keep all the others in memory."""
    x, y = _select(pair, rows)
    return x.clone(), y.clone()
