import gc
import threading
import time
import weakref

import pytest

from fastinn.embed import Prefetch


def readers():
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_items_come_in_order():
    assert list(Prefetch(range(100), depth=3)) == list(range(100))
    assert not readers()


def test_items_are_read_ahead_but_not_further_than_depth():
    read = []
    items = iter(Prefetch((read.append(i) or i for i in range(100)), depth=2))
    next(items)
    deadline = time.monotonic() + 30
    while len(read) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    assert len(read) == 4  # one taken, two waiting, one in hand
    items.close()
    assert not readers()


def test_an_error_comes_where_the_item_would_have():
    def failing():
        yield 1
        raise ValueError("bad line 2")

    items = iter(Prefetch(failing()))
    assert next(items) == 1
    with pytest.raises(ValueError, match="bad line 2"):
        next(items)
    assert not readers()


def test_an_iteration_that_is_left_ends_the_thread_and_closes_the_items():
    closed = threading.Event()

    def endless():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    for _ in Prefetch(endless()):
        break
    assert closed.wait(30)
    assert not readers()


@pytest.mark.parametrize("n_taken", [1, 5])
def test_a_second_iteration_is_refused(n_taken):
    """It would wait for ever for items that nobody reads."""
    ahead = Prefetch(range(5))
    taken = iter(ahead)
    assert [next(taken) for _ in range(n_taken)] == list(range(n_taken))
    with pytest.raises(RuntimeError, match="can be iterated over once; make a new Prefetch"):
        next(iter(ahead))
    assert list(taken) == list(range(n_taken, 5))
    with pytest.raises(RuntimeError, match="can be iterated over once; make a new Prefetch"):
        list(ahead)
    assert not readers()


def test_stall_share_tells_a_slow_reader_from_a_slow_consumer():
    def slow():
        for i in range(5):
            time.sleep(0.05)
            yield i

    starved, busy = Prefetch(slow()), Prefetch(range(5))
    list(starved)
    for _ in busy:
        time.sleep(0.05)
    assert starved.stall_share > busy.stall_share
    assert 0 <= busy.stall_share <= starved.stall_share <= 1


def test_an_iteration_that_is_left_lets_go_of_what_was_read_ahead():
    class Item:
        pass

    read = []

    def items():
        for _ in range(9):
            item = Item()
            read.append(weakref.ref(item))
            yield item

    ahead = Prefetch(items())
    for _ in ahead:
        break
    del _
    gc.collect()
    assert not [item for item in read if item() is not None]
