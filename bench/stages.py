"""Where the time of extraction goes: text to tokens, the model, copies of the rows."""

import time
from collections.abc import Callable
from typing import Any

from fastinn import Corpus, Encoder
from fastinn.embed.rows import Rows


def shares(encoder: Encoder, corpus: Corpus, every: int) -> str:
    """Measure the stages once and put them into words.

    Args:
        encoder: What reads; on a GPU copies overlap with the model, and only waits show.
        corpus: All of its text is tokenised.
        every: Which of its windows the model reads; the tokenizer's share is scaled to them.
    """
    begun = time.perf_counter()
    windows = list(encoder.tokens.windows(corpus))
    tokenise = (time.perf_counter() - begun) / every
    with Clock(Rows, "add") as adding, Clock(Rows, "finish") as finishing:
        begun = time.perf_counter()
        encoder.encode_windows(windows[::every])
        encode = time.perf_counter() - begun
    copy = adding.seconds + finishing.seconds
    stages = {"tokenise": tokenise, "encode": encode - copy, "copy": copy}
    whole = sum(stages.values())
    return ", ".join(f"{name} {seconds / whole:.1%}" for name, seconds in stages.items())


class Clock:
    """Adds up the time spent in a method while the context lasts.

    Args:
        owner: Class whose method is watched, on all of its objects.
        name: The method.

    Attributes:
        seconds: The time so far.
    """

    def __init__(self, owner: type, name: str) -> None:
        self.seconds = 0.0
        self._owner, self._name = owner, name
        self._method: Callable[..., Any] = getattr(owner, name)

    def __enter__(self) -> "Clock":
        def timed(*args: Any) -> Any:
            begun = time.perf_counter()
            try:
                return self._method(*args)
            finally:
                self.seconds += time.perf_counter() - begun

        setattr(self._owner, self._name, timed)
        return self

    def __exit__(self, *_: object) -> None:
        setattr(self._owner, self._name, self._method)
