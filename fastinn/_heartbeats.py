"""Signs of life of ranks that work for different lengths of time."""

import time
from contextlib import suppress
from threading import Event, Thread
from types import TracebackType
from typing import Self

import torch.distributed as dist

_A_TIMEOUT = 10
"""Signs of life in the time after which a rank is given up."""

_FAILED = "failed"
"""Under which name a rank that leaves by an error writes its number."""

_LOOK_SECONDS = 0.5
"""Between two looks at the others, at most: the last rank must not be waited for longer."""


class Heartbeats:
    """Tells the others that this rank is alive, for as long as the context lasts.

    Args:
        store: Where all ranks can read and write, with names that nobody else uses.
        rank: This one.
        world_size: How many there are.
        timeout: Seconds without a sign of life after which a rank is given up.
    """

    def __init__(self, store: dist.Store, rank: int, world_size: int, timeout: float) -> None:
        self._store, self._rank, self._world_size = store, rank, world_size
        self._timeout, self._every = timeout, timeout / _A_TIMEOUT
        self._left = Event()
        self._thread = Thread(target=self._beat, name="heartbeats", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        self._left.set()
        self._thread.join()
        if kind is not None:
            with suppress(RuntimeError):  # the store may be what failed
                self._store.set(_FAILED, str(self._rank))

    def wait(self) -> None:
        """Wait until every rank waits.

        Raises:
            RuntimeError: If one failed or shows no sign of life for too long; it is named.
        """
        self._store.add("waiting", 1)
        seen = dict.fromkeys(range(self._world_size), (-1, time.monotonic()))
        while self._store.add("waiting", 0) < self._world_size:
            if self._store.check([_FAILED]):
                raise RuntimeError(f"rank {self._store.get(_FAILED).decode()} failed")
            for rank, (beats, since) in seen.items():
                now = self._store.add(_of(rank), 0)
                if now != beats:
                    seen[rank] = now, time.monotonic()
                elif time.monotonic() - since > self._timeout:
                    raise RuntimeError(f"no sign of life of rank {rank}")
            time.sleep(min(self._every, _LOOK_SECONDS))

    def _beat(self) -> None:
        while not self._left.is_set():
            try:
                self._store.add(_of(self._rank), 1)
            except RuntimeError:
                return  # the store is gone, which the rank itself finds out when it waits
            self._left.wait(self._every)


def _of(rank: int) -> str:
    return f"beats-{rank}"
