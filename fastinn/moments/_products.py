"""Which matrix products hold the covariances of the wanted pairs of views."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, NamedTuple, TypeAlias

from fastinn import _checks
from fastinn._types import View

Pairs: TypeAlias = Literal["all", "within-layer", "across-seeds"] | Sequence[tuple[View, View]]

# Products of wider groups of views are computed in pieces, so that what is added to the totals at
# a time stays small beside them; narrower pieces would convert the rows more often.
_WIDTH = 4096


class Place(NamedTuple):
    """Where a covariance is kept: rows of ``a``, columns of ``b``, pairing kept or not."""

    a: View
    b: View
    mispaired: bool


@dataclass(frozen=True)
class Product:
    """Views side by side, multiplied with others, or with themselves if they are the same."""

    left: tuple[View, ...]
    right: tuple[View, ...]
    mispaired: bool = False

    @property
    def is_symmetric(self) -> bool:
        """Whether it is the product of views with themselves."""
        return self.left == self.right

    def places(self) -> Iterator[Place]:
        """Yield the covariances in it: of those that are transposes of others, one each."""
        for i, a in enumerate(self.left):
            for b in self.right[: i + 1] if self.is_symmetric else self.right:
                if a != b or not self.mispaired:  # a view's own covariance knows no pairing
                    yield Place(a, b, self.mispaired)


def products_of(
    n_features: Mapping[View, int], pairs: Pairs, *, mispaired: bool = False
) -> list[Product]:
    """Return products that hold the wanted pairs and each view's own covariance.

    Args:
        n_features: Width of each view.
        pairs: See :class:`fastinn.Moments`.
        mispaired: Whether to add the same products, but for own covariances, of mispaired rows.

    Raises:
        ValueError: If a pair names an unknown view, or views are not ``(seed, layer)`` where
            that is needed.
    """
    paired = list(_paired(n_features, pairs))
    if not mispaired:
        return paired
    again = [Product(product.left, product.right, mispaired=True) for product in paired]
    return paired + [product for product in again if any(product.places())]


def n_entries(n_features: Mapping[View, int], products: Iterable[Product]) -> int:
    """Return how many numbers the covariances hold."""
    return sum(
        n_features[place.a] * n_features[place.b]
        for product in products
        for place in product.places()
    )


def groups_apart(views: Sequence[View], products: Iterable[Product]) -> dict[View, int]:
    """Number the views so that no two of a pair have the same number, with few numbers.

    The least number that no neighbour has yet: for pairs across seeds it numbers the seeds.
    """
    neighbours: dict[View, set[View]] = {view: set() for view in views}
    for product in products:
        for place in product.places():
            neighbours[place.a].add(place.b)
            neighbours[place.b].add(place.a)
    numbers: dict[View, int] = {}
    for view in views:
        taken = {numbers[other] for other in neighbours[view] - {view} if other in numbers}
        numbers[view] = next(n for n in range(len(views)) if n not in taken)
    return numbers


def _paired(n_features: Mapping[View, int], pairs: Pairs) -> Iterator[Product]:
    views = tuple(n_features)
    if not isinstance(pairs, str):
        yield from _listed_pairs(views, pairs)
        return
    _checks.one_of(pairs, ("all", "within-layer", "across-seeds"), "pairs")
    if pairs == "all":
        yield from _triangle(n_features, views)
    elif pairs == "within-layer":
        for layer in _grouped(views, pairs, lambda view: view[1]):
            yield from _triangle(n_features, layer)
    else:
        seeds = _grouped(views, pairs, lambda view: view[0])
        yield from (Product((view,), (view,)) for view in views)
        for a, b in combinations(seeds, 2):
            yield from _rectangle(n_features, a, b)


def _listed_pairs(views: tuple[View, ...], pairs: Sequence[tuple[View, View]]) -> Iterator[Product]:
    unknown = [view for pair in pairs for view in pair if view not in views]
    if unknown:
        listed = ", ".join(map(repr, views))
        raise ValueError(f"pairs names unknown view {unknown[0]!r}, the views are {listed}")
    yield from (Product((view,), (view,)) for view in views)
    wanted = {frozenset(pair): pair for pair in pairs if pair[0] != pair[1]}
    yield from (Product((a,), (b,)) for a, b in wanted.values())


def _grouped(
    views: tuple[View, ...], pairs: Pairs, key: Callable[[tuple[View, View]], View]
) -> list[tuple[View, ...]]:
    """Group ``(seed, layer)`` views by one of the two."""
    groups: dict[View, list[View]] = {}
    for view in views:
        if not (isinstance(view, tuple) and len(view) == 2):
            raise ValueError(f"pairs={pairs!r} needs (seed, layer) views, not {view!r}")
        groups.setdefault(key(view), []).append(view)
    return [tuple(group) for group in groups.values()]


def _triangle(n_features: Mapping[View, int], views: tuple[View, ...]) -> Iterator[Product]:
    pieces = _pieces(n_features, views)
    for i, piece in enumerate(pieces):
        yield from (Product(piece, other) for other in pieces[: i + 1])


def _rectangle(
    n_features: Mapping[View, int], left: tuple[View, ...], right: tuple[View, ...]
) -> Iterator[Product]:
    for piece in _pieces(n_features, left):
        yield from (Product(piece, other) for other in _pieces(n_features, right))


def _pieces(n_features: Mapping[View, int], views: tuple[View, ...]) -> list[tuple[View, ...]]:
    """Cut a row of views into pieces of a bounded width, or of one view."""
    pieces: list[list[View]] = []
    width = 0
    for view in views:
        width += n_features[view]
        if not pieces or width > _WIDTH:
            pieces.append([])
            width = n_features[view]
        pieces[-1].append(view)
    return [tuple(piece) for piece in pieces]
