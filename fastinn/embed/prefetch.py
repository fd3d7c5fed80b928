"""An iterable read ahead by a thread of its own."""

import time
from collections.abc import Iterable, Iterator
from queue import Full, Queue
from threading import Event, Thread
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

READ_AHEAD = 2
"""Items that wait to be taken, at most."""

_LOOKS_UP_EVERY = 0.1
"""Seconds after which a thread that waits for room checks whether it is still wanted."""


class _End(NamedTuple):
    """Last thing in the queue: nothing more, or what went wrong."""

    error: BaseException | None


class Prefetch(Generic[T]):
    """Reads ``items`` ahead in the background, for one iteration.

    An error among the items is raised where the item would have come. The thread ends when the
    items do, or when the iteration is left.

    Args:
        items: What to read.
        depth: How many items at most wait to be taken.

    Raises:
        RuntimeError: If it is iterated over a second time.
    """

    def __init__(self, items: Iterable[T], depth: int = READ_AHEAD) -> None:
        self._items = items
        self._queue: Queue[T | _End] = Queue(depth)
        self._begun = False
        self._left = Event()
        self._waited = self._lasted = 0.0

    @property
    def stall_share(self) -> float:
        """Share of the time since the iteration began that was spent waiting for an item."""
        return self._waited / self._lasted if self._lasted else 0.0

    def __iter__(self) -> Iterator[T]:
        """Iterate over the items in order."""
        if self._begun:
            raise RuntimeError(
                "what is read ahead can be iterated over once; make a new Prefetch of the items"
            )
        self._begun = True
        thread = Thread(target=self._read, name="prefetch", daemon=True)
        begun = time.perf_counter()
        thread.start()
        try:
            while not isinstance(item := self._take(begun), _End):
                yield item
            if item.error is not None:
                raise item.error
        finally:
            self._left.set()
            thread.join()
            self._let_go()

    def _let_go(self) -> None:
        """Drop what was read ahead, and close the items, which may hold files open."""
        self._queue = Queue()
        close = getattr(self._items, "close", None)
        if close is not None:
            close()

    def _take(self, begun: float) -> T | _End:
        asked = time.perf_counter()
        item = self._queue.get()
        now = time.perf_counter()
        self._waited += now - asked
        self._lasted = now - begun
        return item

    def _read(self) -> None:
        error = None
        try:
            for item in self._items:
                if not self._put(item):
                    return
        except BaseException as raised:  # handed to the one who iterates
            error = raised
        self._put(_End(error))

    def _put(self, item: T | _End) -> bool:
        """Wait for room; ``False`` if nobody takes items any more."""
        while not self._left.is_set():
            try:
                self._queue.put(item, timeout=_LOOKS_UP_EVERY)
            except Full:
                continue
            return True
        return False
