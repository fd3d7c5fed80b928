"""Which store an error is about: shards and journals have the same names in all of them."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def naming(where: object) -> Iterator[None]:
    """Put the store's path before the message of a ``ValueError``."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"store {where}: {error}") from error
