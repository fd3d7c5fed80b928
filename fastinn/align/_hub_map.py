"""Two bijections into one space, and through it from seed to seed."""

from typing import Any, NoReturn

from torch import Tensor

from fastinn.align.base import Bijection


class HubMap(Bijection):
    """Maps rows into the common space of a :class:`Hub`, and from there into another seed.

    Args:
        into: Bijection of the source into the common space; ``None`` if that is its own.
        out_of: Bijection of the target into the common space, likewise.
        n_features: Width of all three spaces.
    """

    def __init__(
        self, into: Bijection | None, out_of: Bijection | None, *, n_features: int
    ) -> None:
        self.into, self.out_of, self.n_features = into, out_of, n_features
        self.n_features_in_ = self.n_features_out_ = n_features

    def fit(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: the maps of a hub are fitted together.

        Raises:
            TypeError: Always.
        """
        raise TypeError("a map of a hub is fitted with it; call fit of the Hub")

    def save(self, *_: Any) -> NoReturn:
        """Refuse: the maps of a hub are saved together.

        Raises:
            TypeError: Always.
        """
        raise TypeError("a map of a hub is saved with it; call save of the Hub")

    def _transform(self, x: Tensor) -> Tensor:
        return _through(x, self.into, self.out_of)

    def _inverse_transform(self, y: Tensor) -> Tensor:
        return _through(y, self.out_of, self.into)


def _through(rows: Tensor, into: Bijection | None, out_of: Bijection | None) -> Tensor:
    # The common rows stay in float64, so that they cost a cycle no digits.
    common = rows if into is None else into._transform(rows)
    return common if out_of is None else out_of._inverse_transform(common)
